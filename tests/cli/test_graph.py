"""`cfgnet graph`: a picture of a net on the screen, or in a file of the format that its name says."""

import re
from pathlib import Path

from cfgnet.cli.graph import SUFFIXES


def test_the_command_draws_to_the_screen_and_to_files(shell):
    said = shell("graph", "net.yaml")
    assert said.code == 0 and re.search(r"layer, forward +hidden +InnerProduct, 32x24 +data", said.out)
    assert "backward" not in said.out.splitlines()[0] and "d(loss)" not in said.out
    for suffix, kind in SUFFIXES.items():
        said = shell("graph", "net.yaml", "--backward", "--out", f"net{suffix}")
        assert (said.code, said.out) == (0, f"picture net{suffix}\n")
        printed = shell("graph", "net.yaml", "--backward", "--format", kind).out
        written = Path(f"net{suffix}").read_text(encoding="utf-8")
        assert printed == written
    values = shell("graph", "net.yaml", "--backward", "--format", "json").json
    assert {node["kind"] for node in values["nodes"]} >= {"layer", "backward", "seed", "gradient", "parameter"}


def test_a_file_that_cannot_be_written_is_exit_code_4(shell):
    said = shell("graph", "net.yaml", "--out", "nowhere/net.svg")
    assert said.code == 4 and "cannot write nowhere/net.svg" in said.err


EXPRESSION = """
name: meeting
inputs: {A: null, B: [2, 3]}
layers:
  - {type: Expression, name: C, formula: "A * B"}
  - {type: Expression, name: D, formula: "C + A"}
"""


def test_a_net_that_is_fed_by_hand_is_drawn_with_the_gradients_that_are_asked_for(shell):
    Path("fed.yaml").write_text(EXPRESSION, encoding="utf-8")
    values = shell("graph", "fed.yaml", "--format", "json").json
    assert {node["kind"] for node in values["nodes"]} == {"input", "layer"}
    values = shell("graph", "fed.yaml", "--wrt", "A", "--format", "json").json
    gradients = {(edge["source"], edge["target"]) for edge in values["edges"] if edge["kind"] == "gradient"}
    assert {("b:D", "s:A"), ("b:C", "s:A"), ("b:D", "b:C")} <= gradients
    values = shell("graph", "fed.yaml", "--wrt", "B", "--of", "C", "--format", "json").json
    assert {node["key"] for node in values["nodes"] if node["kind"] == "backward"} == {"b:C"}


def test_options_that_do_not_go_together(shell):
    for words, message in ((["--of", "loss"], "--of goes with --wrt"), (["--wrt", "data", "--optimised"], "give one")):
        said = shell("graph", "net.yaml", *words)
        assert said.code == 2 and message in said.err


def test_what_runs_is_drawn_without_what_was_left_out(shell):
    text = Path("net.yaml").read_text(encoding="utf-8").replace("type: ReLU", "type: Dropout, name: drop")
    Path("dropped.yaml").write_text(text, encoding="utf-8")
    for words, there in (([], True), (["--optimised"], False)):
        said = shell("graph", "dropped.yaml", "--phase", "test", *words)
        assert said.code == 0 and ("Dropout" in said.out) == there
