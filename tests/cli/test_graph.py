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
