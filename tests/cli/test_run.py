"""`cfgnet run`: what is fed, fetched and differentiated, and what is said where that cannot be."""

import json
from pathlib import Path

import numpy as np
import pytest

from cfgnet.backend import why_not
from cfgnet.cli import main
from cfgnet.net import Net
from cfgnet.prepare import load, prepare

LENET = Path(__file__).parents[2] / "configs" / "lenet_digits.yaml"
GRAPH = """
name: graph
inputs: {A: null, B: null}
layers:
  - {type: Expression, name: D, formula: "B * A + 1"}
  - {type: Expression, name: E, formula: "D * 2", inputs: D}
"""
NET = """
name: small
inputs: {x: {shape: [2, 3]}, k: {shape: [2], kind: int}, free: null}
layers:
  - {type: Expression, name: e, formula: "x * w + 1", params: {w: 2.0}}
  - {type: ArgMax, name: best, inputs: e}
  - {type: Expression, name: steps, formula: "x > 0"}
  - {type: Expression, name: mixed, formula: "x * (free > t)", params: {t: 0.5}}
  - {type: InnerProduct, name: ip, inputs: e, num_output: 2}
  - {type: SoftmaxWithLoss, name: loss, inputs: [ip, k]}
  - {type: Accuracy, name: accuracy, inputs: [ip, k]}
"""
X = "x=[[1, -2, 3], [0.5, 1, 1]]"
VALUES = np.array([[1, -2, 3], [0.5, 1, 1]])


@pytest.fixture(autouse=True)
def _files(shell, tmp_path):
    (tmp_path / "graph.yaml").write_text(GRAPH, encoding="utf-8")
    (tmp_path / "small.yaml").write_text(NET, encoding="utf-8")


def feeds(*texts):
    return [word for text in texts for word in ("--feed", text)]


# Feeding and fetching.


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (["A=2", "B=5"], 11),
        (["A=10", "B=2"], 21),  # the same graph with other numbers
        (["A=[1, 2, 3]", "B=2"], [3, 5, 7]),
        (["A=[[1], [2]]", "B=[10, 20]"], [[11, 21], [21, 41]]),
        (["A=-0.5", "B=1e2"], -49),
    ],
)
def test_numbers_and_lists_are_fed(given, wanted, shell):
    assert shell("run", "graph.yaml", *feeds(*given), "--fetch", "D", "--json").json["values"] == {"D": wanted}


def test_arrays_are_fed_from_files_and_written_to_one(shell, tmp_path):
    np.save(tmp_path / "a.npy", np.arange(6.0).reshape(2, 3))
    said = shell("run", "graph.yaml", *feeds("A=a.npy", "B=[1, 0, 2]"), "--fetch", "D", "--grad", "B", "--out", "d.npz")
    assert (said.code, said.err) == (0, "")
    with np.load(tmp_path / "d.npz") as arrays:
        assert set(arrays) == {"D", "grad B"}
        np.testing.assert_array_equal(arrays["D"], [[1, 1, 5], [4, 1, 11]])
        np.testing.assert_array_equal(arrays["grad B"], [3, 5, 7])


def test_what_is_fetched_is_printed_by_name(shell):
    said = shell("run", "graph.yaml", *feeds("A=2", "B=5"), "--fetch", "D,A", "--fetch", "E")
    assert said.out == "D = 11\nA = 2\nE = 22\n"


def test_the_results_are_fetched_if_nothing_else_is(shell):
    assert shell("run", "graph.yaml", *feeds("A=2", "B=5")).out == "E = 22\n"


def test_parameters_are_fetched_by_layer_and_name(shell):
    assert shell("run", "small.yaml", *feeds(X), "--fetch", "e.w").out == "e.w = 2\n"


def test_only_what_is_needed_runs(shell):
    """k is not fed: neither the loss nor the accuracy is wanted."""
    assert shell("run", "small.yaml", *feeds(X), "--fetch", "best").code == 0


def test_the_first_batch_of_the_data_stands_in_for_what_is_not_fed(shell):
    batch = prepare(load("net.yaml"), phases=["test"]).batches["test"].at(0)
    said = shell("run", "net.yaml", "--fetch", "data,loss", "--json").json["values"]
    np.testing.assert_array_equal(said["data"], batch["data"].astype(np.float32))
    other = shell("run", "net.yaml", "--feed", f"label={[0] * 100}", "--fetch", "loss", "--json").json["values"]
    assert said["loss"] != other["loss"]


# Gradients.


def test_gradients_are_those_of_what_is_fetched(shell):
    said = shell("run", "graph.yaml", *feeds("A=5", "B=3"), "--fetch", "D", "--grad", "A,B")
    assert said.out == "D = 16\ngradient by A = 3\ngradient by B = 5\n"


def test_the_gradients_of_several_results_are_summed(shell):
    said = shell("run", "graph.yaml", *feeds("A=5", "B=3"), "--fetch", "D,E", "--grad", "A", "--json")
    assert said.json["gradients"] == {"A": 3 + 2 * 3}


@pytest.mark.parametrize(
    ("outputs", "wanted"),
    [
        (["D=0.5"], [1.5, 2.5]),
        (["D=0.5", "E=1"], [7.5, 12.5]),
        ([], [9.0, 15.0]),
    ],
)
def test_a_gradient_may_begin_with_other_numbers(outputs, wanted, shell):
    words = [word for text in outputs for word in ("--grad-output", text)]
    fetch = "D" if outputs == ["D=0.5"] else "D,E"
    said = shell("run", "graph.yaml", *feeds("A=5", "B=3"), "--fetch", fetch, "--grad", "A,B", *words, "--json")
    assert list(said.json["gradients"].values()) == wanted


def test_a_gradient_may_begin_with_an_array(shell):
    said = shell(
        "run", "graph.yaml", *feeds("A=[1, 2]", "B=3"), "--fetch", "D", "--grad", "B", "--grad-output", "D=[10, 1]"
    )
    assert said.out.endswith("gradient by B = 12\n")


def test_gradients_by_tensors_and_parameters(shell):
    """Against the chain rule, written out in numpy."""
    said = shell(
        "run", "small.yaml", *feeds(X, "k=[0, 1]"), "--fetch", "loss", "--grad", "x,e,e.w,ip.weight,ip.bias", "--json"
    ).json
    weight = np.array(
        shell("run", "small.yaml", *feeds(X), "--fetch", "ip.weight", "--json").json["values"]["ip.weight"]
    )
    e = 2 * VALUES + 1
    scores = np.exp(e @ weight.T)
    dscores = (scores / scores.sum(axis=1, keepdims=True) - np.eye(2)) / 2
    de = dscores @ weight
    wanted = {
        "x": 2 * de,
        "e": de,
        "e.w": (de * VALUES).sum(),
        "ip.weight": dscores.T @ e,
        "ip.bias": dscores.sum(axis=0),
    }
    assert said["gradients"].keys() == wanted.keys()
    for name, array in wanted.items():
        np.testing.assert_allclose(said["gradients"][name], array, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", ["numpy", *([] if why_not("native") else ["native"])])
def test_the_gradient_of_a_net_is_that_of_its_training(backend, shell):
    """Of a convolution of LeNet, for the batch that the first iteration of a training sees."""
    words = ["--phase", "train", "--fetch", "loss", "--grad", "conv1.weight,ip1.bias", "--backend", backend, "--json"]
    said = shell("run", LENET, *words).json
    spec = load(LENET)
    prepared = prepare(spec, spec.make_backend(backend), ["train"])
    net = Net(prepared.plans["train"], spec.make_backend(backend), seed=spec.seed)
    net.feed(prepared.batches["train"].at(0))
    net.run_forward()
    net.backward()
    assert said["values"]["loss"] == pytest.approx(net.loss, rel=1e-6)
    for name, gradient in said["gradients"].items():
        np.testing.assert_allclose(gradient, net.param(name).grad, rtol=1e-4, atol=1e-6)


# What cannot be.

FED = "--feed A=5 --feed B=1"
WRONG = {
    "graph.yaml --feed A=5": "graph.yaml:5:5  D: there is no tensor 'B'\n  there are: A, E\n  or feed it\n",
    f"graph.yaml {FED} --feed C=2": "--feed C: no layer reads 'C'\n  there are: A, B\n",
    "small.yaml --fetch e --feed fre=2": "--feed fre: no layer reads 'fre'\n  did you mean 'free'?\n",
    f"graph.yaml {FED} --feed D=2": "graph.yaml:5:30  D: the tensor 'D' already comes from the data\n",
    "graph.yaml --feed A": "--feed A: expected NAME=VALUE, as in --feed A=2 or --feed A=array.npy\n",
    "graph.yaml --feed =2": "--feed =2: expected NAME=VALUE, as in --feed A=2 or --feed A=array.npy\n",
    "graph.yaml --feed A=two": "--feed A=two: expected a number, a list of numbers such as [1, 2], or a npy file\n",
    "graph.yaml --feed A=[[1],[1,2]]": "--feed A=[[1],[1,2]]: expected a number, a list of numbers such as",
    "graph.yaml --feed A=[1": "--feed A=[1: expected a number, a list of numbers such as [1, 2], or a npy file\n",
    "graph.yaml --feed A=none.npy": "none.npy: not a npy file that can be read",
    "small.yaml --fetch e --feed x=3": "the input 'x' is scalar, the configuration says 2x3\n",
    "small.yaml --fetch loss --feed k=[0.5,1]": "the input 'k' takes whole numbers, found 0.5\n",
    "small.yaml --fetch loss --feed k=[0,2]": "expected labels from 0 to 1, found 2\n",
    "graph.yaml --feed A=[1,2] --feed B=[1,2,3]": "D: the operands do not meet: 3 and 2, in B * A\n  B 3\n",
    f"graph.yaml {FED} --fetch F": "configuration: there is no tensor 'F'\n  there are: A, B, D, E\n",
    f"graph.yaml {FED} --grad F": "configuration: there is no tensor 'F'\n  there are: A, B, D, E\n",
    "small.yaml --fetch ip.wieght": "configuration: ip has no parameter 'wieght'\n  did you mean 'weight'?\n",
    "small.yaml --fetch e --grad e.v": "configuration: e has no parameter 'v'\n  it has: w\n",
    "small.yaml --fetch best --grad x": "small.yaml:6:5  best: ArgMax has no gradient, and lies between best and what",
    "small.yaml --fetch accuracy --grad x --feed k=[0,1]": "accuracy: Accuracy has no gradient, and lies between",
    "small.yaml --fetch steps --grad x": "no gradient of steps by 'x': steps (Expression) changes in steps only\n",
    "small.yaml --fetch mixed --grad x,free --feed free=1": "no gradient of mixed by 'free': mixed (Expression)",
    "small.yaml --fetch mixed --grad mixed.t --feed free=1": "no gradient of mixed by 'mixed.t': mixed (Expression)",
    "small.yaml --fetch loss --grad k --feed k=[0,1]": "there is no gradient by 'k': it holds whole numbers\n",
    "small.yaml --fetch e --grad ip.weight": "configuration: e does not depend on 'ip.weight'\n",
    "small.yaml --fetch e --grad free --feed free=1": "configuration: e does not depend on 'free'\n",
    "small.yaml --set layers.ip.frozen=true --fetch ip --grad ip.weight": "by 'ip.weight': it is frozen\n",
    f"graph.yaml {FED} --grad-output D=1": "--grad-output says where a gradient begins: --grad says by what it is\n",
    f"graph.yaml {FED} --fetch D --grad A --grad-output E=1": "'E' is not differentiated; D is\n",
    f"graph.yaml {FED} --fetch D --grad A --grad-output D=[1,2]": "the gradient of 'D' is 2, and 'D' is scalar\n",
    f"graph.yaml {FED} --fetch D --grad A --grad-output D=much": "--grad-output D=much: expected a number",
}


@pytest.mark.parametrize(("command", "message"), WRONG.items(), ids=WRONG)
def test_what_is_wrong_is_said(command, message, shell):
    words = command.split()
    x = feeds(X) if words[0] == "small.yaml" and "--feed x=" not in command else []
    said = shell("run", *words, *x)
    assert (said.code, said.out) == (2, "")
    assert message in said.err


def test_a_gradient_through_what_has_steps_and_is_smooth_too(shell):
    said = shell("run", "small.yaml", *feeds(X, "free=1"), "--fetch", "mixed", "--grad", "x", "--json")
    np.testing.assert_array_equal(said.json["gradients"]["x"], np.ones((2, 3)))


def test_a_trace_shows_each_tensor_and_gradient_as_it_is_computed(capsys):
    config = str(LENET.parent / "lecture" / "scalar.yaml")
    with pytest.raises(SystemExit) as code:
        main(["run", config, "--feed", "a=1", "--feed", "b=2", "--grad", "a,b", "--trace"])
    assert code.value.code == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["forward", "c", "c", "scalar", "2", "2", "2"] in lines
    assert ["backward", "c", "d(a)", "scalar", "2", "2", "2"] in lines
    assert lines[-3:] == [["d", "=", "3"], ["gradient", "by", "a", "=", "2"], ["gradient", "by", "b", "=", "1"]]


def test_a_trace_leaves_json_alone(capsys):
    config = str(LENET.parent / "lecture" / "scalar.yaml")
    with pytest.raises(SystemExit):
        main(["run", config, "--feed", "a=1", "--feed", "b=2", "--trace", "--json"])
    printed = capsys.readouterr()
    assert json.loads(printed.out)["values"] == {"d": 3.0} and "forward" in printed.err


@pytest.mark.parametrize("more", [[], ["--trace"]])
def test_what_is_not_finite_is_printed_as_it_is_without_warnings(shell, tmp_path, more):
    text = "inputs: {x: [3]}\nlayers:\n  - {type: Log, name: y, inputs: x}\n"
    (tmp_path / "log.yaml").write_text(text, encoding="utf-8")
    found = shell("run", "log.yaml", "--feed", "x=[-1, 0, 1]", "--backend", "numpy", *more)
    assert "y = [nan, -inf, 0]" in found.out and not found.err
