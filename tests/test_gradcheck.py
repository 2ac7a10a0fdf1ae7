"""grad-check finds every kind of mistake, says what it probably is, and calls nothing a mistake that is none."""

import json

import numpy as np
import pytest

import cfgnet
from cfgnet.cli import main
from cfgnet.errors import CfgnetError
from cfgnet.gradcheck import check_types, grad_check
from cfgnet.init import Constant
from cfgnet.layer import Case, Layer, Param
from cfgnet.layers.activation import ReLU, TanH
from cfgnet.layers.dense import InnerProduct

NET = """
data: {train: {source: digits, batch_size: 4, transform: {scale: 0.0625}}}
layers:
  - {type: Flatten, name: flat}
  - {type: InnerProduct, name: hidden, num_output: 6}
  - {type: %s, name: suspect}
  - {type: InnerProduct, name: score, num_output: 10}
  - {type: SoftmaxWithLoss, name: loss, inputs: [score, label]}
"""


@pytest.fixture(autouse=True)
def own_registry(monkeypatch):
    """Layers that a test defines are gone after it."""
    monkeypatch.setattr(Layer, "registry", dict(Layer.members()))


def define(base, **body):
    """Defines the layer type Broken: `base` with other cases and methods."""
    return type("Broken", (base,), {"__module__": __name__, "cases": [Case(x=(3, 4))], **body})


def tanh(gradient):
    """Defines a TanH whose backward writes what `gradient` returns."""

    def backward(self, y, dy, dx):
        dx[...] = gradient(y, dy)

    return lambda: define(TanH, backward=backward)


def dense(**mistakes):
    """Defines an InnerProduct with gradients that are functions, by name, of the right ones."""

    def backward(self, xp, k, x, weight, dy, dx, dweight, dbias):
        InnerProduct.backward(self, k, x, weight, dy, dx, dweight, dbias)
        for name, mistake in mistakes.items():
            target, right = {"weight": (dweight, dy.T @ x), "bias": (dbias, dy.sum(axis=0))}[name]
            target += mistake(right) - right

    cases = [Case(num_output=3, x=(5, 3)), Case(num_output=4, x=(5, 2))]
    return lambda: define(InnerProduct, backward=backward, cases=cases)


def right(y, dy):
    return dy * (1 - y * y)


def partly(y, dy):
    return right(y, dy) * (np.arange(dy.shape[-1]) != 1)


BROKEN = {
    "factor": (tanh(lambda y, dy: 2 * right(y, dy)), {"x"}, "factor: 2 times the right gradient"),
    "batch size": (dense(weight=lambda g: g / 5), {"weight"}, "factor: 1/5 times the right gradient"),
    "sign": (tanh(lambda y, dy: -right(y, dy)), {"x"}, "sign: the gradient points the other way"),
    "transposed": (dense(weight=lambda g: g.T if g.shape == (3, 3) else g), {"weight"}, "transposed: axes 0 and 1"),
    "reversed": (dense(bias=lambda g: g[::-1]), {"bias"}, "reversed along axes 0"),
    "part missing": (tanh(partly), {"x"}, "a branch is missing: 3 of 12 elements have no gradient"),
    "all missing": (tanh(lambda y, dy: 0 * dy), {"x"}, "missing: the gradient is zero everywhere"),
    "chain rule": (tanh(lambda y, dy: dy * (1 - y)), {"x"}, "a branch of the chain rule is missing or wrong"),
    "imprecise": (tanh(lambda y, dy: right(y, dy) * 1.00001), {"x"}, "imprecise: right but for a small difference"),
    "nan": (tanh(lambda y, dy: dy * np.nan), {"x"}, "not finite"),
}


@pytest.mark.parametrize(("make", "params", "cause"), BROKEN.values(), ids=BROKEN)
def test_each_kind_of_mistake_is_found_and_named(make, params, cause):
    make()
    results = check_types("Broken")
    wrong = [r for r in results if r.verdict == "wrong"]
    assert {r.param for r in wrong} == params
    assert any(cause in r.cause for r in wrong)
    assert all(r.error > 1e-6 or r.error != r.error for r in wrong)


def adds(self, y, dy, dx):
    dx += right(y, dy)


def skips(self, y, dy, dx):
    dx[:, 1:] = right(y, dy)[:, 1:]


def overwrites(self, xp, k, x, weight, dy, dx=None, dweight=None, dbias=None):
    for gradient in (dweight, dbias):
        gradient.fill(0)
    InnerProduct.backward(self, k, x, weight, dy, dx, dweight, dbias)


def keeps(self, xp, x, y, work):
    xp.tanh(x, out=y)
    work[...] = 1 - y * y


def remembers(self, dy, dx, work):
    dx[...] = dy * work


STALE = {"scratch": lambda self, x: {"work": x}, "forward": keeps, "backward": remembers}
UNRULY = {
    "adds": (TanH, {"backward": adds}, {"x"}, "an input is added to, or not written whole"),
    "skips": (TanH, {"backward": skips}, {"x"}, "an input is added to, or not written whole"),
    "overwrites": (
        InnerProduct,
        {"backward": overwrites, "cases": [Case(num_output=2, x=(3, 4))]},
        {"weight", "bias"},
        "a parameter is overwritten, not added to",
    ),
    "remembers": (TanH, STALE, {"x"}, "not finite"),
}


@pytest.mark.parametrize(("base", "body", "params", "cause"), UNRULY.values(), ids=UNRULY)
def test_each_broken_rule_of_the_contract_is_found(base, body, params, cause):
    define(base, **body)
    wrong = [r for r in check_types("Broken") if r.verdict == "wrong"]
    assert {r.param for r in wrong} == params
    assert all(cause in r.cause for r in wrong)


def test_a_kink_is_no_mistake_but_a_wrong_slope_beside_it_is():
    def halved(self, y, dy, dx):
        dx[...] = dy * (y > 0) * 0.5

    (fine,) = (r for r in check_types("ReLU") if r.case.startswith("0"))
    assert (fine.verdict, fine.cause) == ("kink", "1 of 3 elements, where forward bends")
    assert fine.error < 1e-6
    define(ReLU, backward=halved, cases=[Case(x=[[0.0, 2.0, -1.0]])])
    (found,) = check_types("Broken")
    assert found.verdict == "wrong"


@pytest.mark.parametrize(
    ("name", "message"), [("Accuracy", "nothing was checked"), ("Convolutoin", "did you mean 'Convolution'")]
)
def test_checking_nothing_is_an_error(name, message):
    with pytest.raises(CfgnetError, match=message):
        check_types(name)


# A user's own net.


def test_a_net_is_checked_layer_by_layer_and_as_a_whole():
    results = grad_check(cfgnet.loads(NET % "TanH"))
    assert {(r.layer, r.param) for r in results if r.type != "whole net"} == {
        ("hidden", "flat"),
        ("hidden", "weight"),
        ("hidden", "bias"),
        ("suspect", "hidden"),
        ("score", "suspect"),
        ("score", "weight"),
        ("score", "bias"),
        ("loss", "score"),
    }
    whole = {r.param for r in results if r.type == "whole net"}
    assert whole == {f"{layer}.{name}" for layer in ("hidden", "score") for name in ("weight", "bias")}
    assert {r.verdict for r in results} == {"ok"} and all(r.error < 1e-6 for r in results)


def test_a_broken_layer_in_a_net_is_blamed_and_what_follows_from_it_is_not():
    BROKEN["sign"][0]()
    results = grad_check(cfgnet.loads(NET % "Broken"))
    wrong = {(r.layer, r.type): r.cause for r in results if r.verdict == "wrong"}
    assert wrong == {
        ("suspect", "Broken"): "sign: the gradient points the other way",
        ("hidden", "whole net"): "follows from a wrong layer",
    }


def test_a_mistake_between_right_layers_is_found(monkeypatch):
    joined = "{type: Eltwise, name: sum, inputs: [hidden, suspect]}\n  - {type: InnerProduct, name: score"
    split = (NET % "TanH").replace("{type: InnerProduct, name: score", joined)
    assert all(r.verdict == "ok" for r in grad_check(cfgnet.loads(split)))
    monkeypatch.setattr("cfgnet.recording._destination", lambda flow, arrays, _: flow and arrays.gradients[flow.tensor])
    wrong = [r for r in grad_check(cfgnet.loads(split)) if r.verdict == "wrong"]
    assert {r.layer for r in wrong} == {"hidden"}
    assert {r.cause for r in wrong} == {"a branch is missing: the layers are right, their sum is not"}


def test_an_objective_that_is_no_number_is_called_so():
    log = "  - {type: Log, name: log, inputs: data}\n  - {type: Reduction, inputs: log, loss_weight: 1}\n"
    results = grad_check(cfgnet.loads(NET % "TanH" + log))
    causes = {r.cause for r in results if r.verdict == "wrong"}
    assert causes == {"not finite: the objective or its gradient is nan or infinity"}
    assert {r.type for r in results if r.verdict == "wrong"} == {"whole net"}


def test_a_net_without_anything_trained_is_an_error():
    text = (NET % "TanH").replace("num_output: 6", "num_output: 6, frozen: true").replace("10}", "10, frozen: true}")
    with pytest.raises(CfgnetError, match="nothing was checked"):
        grad_check(cfgnet.loads(text))


def test_a_layer_that_fixes_the_batch_size_is_checked_at_the_configured_one():
    text = (NET % "TanH").replace("{type: Flatten, name: flat}", "{type: Reshape, name: flat, shape: [4, 64]}")
    assert all(r.verdict == "ok" for r in grad_check(cfgnet.loads(text), batch=2))


# The command.


def run(capsys, *args):
    with pytest.raises(SystemExit) as stopped:
        main(["grad-check", *args])
    return stopped.value.code, capsys.readouterr().out


def test_the_command_checks_every_type(capsys):
    code, out = run(capsys, "--json", "--samples", "20")
    found = json.loads(out)
    differentiable = {name for name, cls in Layer.members().items() if cls.differentiable()}
    assert code == 0
    assert {r["layer"] for r in found["results"]} == differentiable
    assert found["checked"] == len(found["results"]) and found["worst"] < 1e-6
    assert found["results"][0].keys() >= {"layer", "type", "case", "param", "error", "verdict"}


def test_the_command_fails_where_something_is_wrong(capsys, tmp_path):
    file = tmp_path / "broken.py"
    file.write_text(
        "from cfgnet import Case\nfrom cfgnet.layers.activation import TanH\n\n"
        "class Slanted(TanH):\n    cases = [Case(x=(2, 3))]\n\n"
        "    def backward(self, xp, y, dy, dx):\n        dx[...] = 3 * dy * (1 - y * y)\n"
    )
    code, out = run(capsys, "--layer", "Slanted", "--layers", str(tmp_path))
    assert code == 1
    assert "wrong  factor: 3 times the right gradient" in out and "1 wrong" in out
    config = tmp_path / "net.yaml"
    config.write_text(NET % "Slanted")
    code, out = run(capsys, str(config), "--layers", str(tmp_path), "--json")
    verdicts = {(r["layer"], r["verdict"]) for r in json.loads(out)["results"] if r["type"] == "Slanted"}
    assert (code, verdicts) == (1, {("suspect", "wrong")})


def test_parameters_are_checked_at_random_values_and_not_at_their_start():
    def params(self, x):
        yield Param("weight", (x[1],), Constant())  # at 0 the mistake would not show

    def forward(self, x, weight, y):
        y[...] = x * weight**2

    def backward(self, x, weight, dy, dx, dweight):
        dweight += (dy * x * weight).sum(axis=0)
        dx[...] = dy * weight**2

    define(TanH, inplace={}, params=params, forward=forward, backward=backward)
    wrong = {r.param: r.cause for r in check_types("Broken") if r.verdict == "wrong"}
    assert wrong == {"weight": "factor: 1/2 times the right gradient"}


FED = """
inputs: {x: {shape: [3, 4]}, k: {shape: [3], kind: int}, s: null}
layers:
  - {type: Expression, name: e, formula: "log(x) * s + w", params: {w: 2.0}}
  - {type: %s, name: suspect, inputs: x}
  - {type: ArgMax, name: best, inputs: suspect}
"""
LOSS = """
  - {type: InnerProduct, name: score, inputs: e, num_output: 2}
  - {type: SoftmaxWithLoss, name: loss, inputs: [score, k]}
"""


def test_a_net_without_data_is_checked_at_random_numbers_that_have_values():
    results = grad_check(cfgnet.loads(FED % "TanH"))
    assert {(r.layer, r.param): r.checked for r in results} == {
        ("e", "x"): 12,
        ("e", "s"): 1,
        ("e", "w"): 1,
        ("suspect", "x"): 12,
    }
    assert all(r.verdict == "ok" and r.error < 1e-6 for r in results)
    assert grad_check(cfgnet.loads(FED % "TanH")) == results


def test_a_mistake_shows_without_data():
    tanh(lambda y, dy: 2 * right(y, dy))()
    wrong = [r for r in grad_check(cfgnet.loads(FED % "Broken")) if r.verdict == "wrong"]
    assert [(r.layer, r.param, r.cause) for r in wrong] == [("suspect", "x", "factor: 2 times the right gradient")]


def test_a_net_without_data_is_checked_as_a_whole_where_it_has_a_loss():
    results = grad_check(cfgnet.loads(FED % "TanH" + LOSS))
    whole = {r.param for r in results if r.type == "whole net"}
    assert whole == {"e.w", "score.weight", "score.bias"}
    assert all(r.verdict == "ok" for r in results)


def test_a_net_without_data_and_without_a_gradient():
    with pytest.raises(CfgnetError, match="nothing was checked: no layer has a gradient"):
        grad_check(cfgnet.loads("inputs: {x: {shape: [3]}}\nlayers: [{type: ArgMax, inputs: x}]"))
