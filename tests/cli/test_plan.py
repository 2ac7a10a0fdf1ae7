"""`cfgnet plan`: what runs, why, and the proof that it computes what a plain step does."""

import dataclasses
import re

import pytest

import cfgnet
from cfgnet.prove import prove

NET = """
name: small
data:
  train: {source: synthetic, classification: 3, inputs: [2, 8, 8], count: 8, batch_size: 4}
layers:
  - {type: Convolution, name: conv, num_output: 4, kernel_size: 3, pad: 1}
  - {type: BatchNorm, name: norm}
  - {type: ReLU, name: relu}
  - {type: Pooling, name: pool, pool: AVE, kernel_size: 2, stride: 2}
  - {type: InnerProduct, name: fc, num_output: 3}
  - {type: SoftmaxWithLoss, name: loss, inputs: [fc, label]}
  - {type: InnerProduct, name: unused, inputs: pool, num_output: 2}
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(NET, encoding="utf-8")
    return path


def test_what_runs_and_where_it_lies(config, shell):
    said = shell("plan", config)
    assert said.code == 0 and "conv and on" in said.out and "memory," in said.out and "why" not in said.out


def test_every_decision_and_every_refusal_has_its_reason(config, shell):
    said = shell("plan", config, "--explain")
    assert said.code == 0
    for line in (
        "gradients  unused",
        "forward, 16 kernels in ",
        "backward, ",
        "update, 2 kernels in 1 pass:",
        "pool_ave does not work element by element",
        "not in place: Convolution never writes over what it reads",
        "it leads to no loss with a gradient",
        "conv is faster so",
        "is not read again",
        "its elements are others",
    ):
        assert line in said.out


def test_the_proof_as_text_and_as_json(config, shell):
    said = shell("plan", config, "--prove")
    assert said.code == 0 and "every array is within its bound" in said.out and "NOT" not in said.out
    assert re.search(r"^gradient +d\(fc\) +\S+ +\S+ +\S+ +it follows from loss.prob$", said.out, re.MULTILINE)
    values = shell("plan", config, "--prove", "--json").json
    assert values["proof"]["holds"] and values["memory"]["apart"] > values["memory"]["tensors"]
    assert {each["about"] for each in values["decisions"]} == {"gradients", "layout", "memory"}
    assert sum(len(each["of"]) for each in values["steps"]) > len(values["steps"])


def test_a_proof_that_fails_is_exit_code_1(config, shell, monkeypatch):
    right = prove(cfgnet.load(config))
    wrong = [dataclasses.replace(each, largest=1e-9, why="") for each in right.differences]
    failed = dataclasses.replace(right, differences=tuple(wrong))
    monkeypatch.setattr("cfgnet.prove.prove", lambda *_, **__: failed)
    said = shell("plan", config, "--prove")
    assert said.code == 1 and "NOT within the bound" in said.out


def test_without_data_there_is_a_plan_and_no_proof(tmp_path, shell):
    path = tmp_path / "fed.yaml"
    path.write_text("inputs: {A: [2]}\nlayers: [{type: TanH, name: D, inputs: A}]\n", encoding="utf-8")
    assert shell("plan", path, "--explain").code == 0
    said = shell("plan", path, "--prove")
    assert said.code == 2 and "there are none" in said.err
