"""Layers beside PyTorch, in outputs and all gradients: the table of `torch_rows.py`.

PyTorch runs `torch_side.py` in a Python that has it, which may be another one.
"""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from cfgnet import rng
from cfgnet.backend import why_not

from .torch_rows import ROWS

pytestmark = pytest.mark.torture

TIERS = {"numpy": ("float64", 1e-10), "native": ("float32", 1e-5)}
"""The dtype in which a tier computes, and how far it may be from PyTorch's float64: |ours - theirs| / |theirs|."""


def short(key):
    """The name of a parameter in its layer or block."""
    return key.removeprefix("layer").lstrip("./")


def written(net):
    """What forward writes, by name: outputs, and parameters that are not trained."""
    found = {name: net.tensors[name] for name in net.plan.nodes[-1].node.writes()}
    return found | {short(key): net.params[key].value for key, slot in net.plan.slots.items() if not slot.trainable}


def gradients(net):
    """The gradients that backward writes, by the names of inputs and parameters."""
    found = {name: net.gradients[name] for name in net.plan.graph.inputs if name in net.gradients}
    return found | {short(key): each.grad for key, each in net.params.items() if each.grad is not None}


def upper(net):
    """Gradients of the outputs, the same for all nets of a row."""
    names = [name for name in net.plan.nodes[-1].node.writes() if name in net.gradients]
    return {name: rng.generator(0, "upper", name).normal(size=net.tensors[name].shape) for name in names}


def ours(net):
    """Outputs and gradients, by name; a gradient is called d: and the name."""
    net.run_forward()
    found = {name: net.backend.to_host(array).copy() for name, array in written(net).items()}
    net.run_backward(upper(net))
    return found | {"d:" + name: net.backend.to_host(array) for name, array in gradients(net).items()}


@pytest.fixture(scope="module")
def theirs(torch_python, tmp_path_factory):
    """What PyTorch computes for each row, by name, or its error; one process does all rows."""
    folder = tmp_path_factory.mktemp("torch")
    given, rows = {}, []
    for number, each in enumerate(ROWS):
        net = each.net("numpy", "float64")
        arrays = {name: net.tensors[name] for name in net.plan.graph.inputs}
        arrays |= {short(key): parameter.value for key, parameter in net.params.items()}
        arrays |= {"d:" + name: array for name, array in upper(net).items()}
        given |= {f"{number}/{name}": array for name, array in arrays.items()}
        names = {"results": list(written(net)), "differentiated": list(gradients(net))}
        rows.append({"call": each.call, "settings": each.settings, **names})
    np.savez(folder / "given.npz", **given)
    (folder / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    subprocess.run([torch_python, str(Path(__file__).with_name("torch_side.py")), str(folder)], check=True)
    found = json.loads((folder / "errors.json").read_text("utf-8"))
    with np.load(folder / "theirs.npz") as file:
        for key in file.files:
            number, _, name = key.partition("/")
            found.setdefault(number, {})[name] = file[key]
    return [found[str(number)] for number in range(len(ROWS))]


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("number", range(len(ROWS)), ids=[f"{each.type} {each.case}" for each in ROWS])
def test_pytorch_computes_the_same(number, tier, theirs):
    if why_not(tier):
        pytest.skip(why_not(tier))
    expected = theirs[number]
    assert not isinstance(expected, str), expected
    dtype, tolerance = TIERS[tier]
    found = ours(ROWS[number].net(tier, dtype))
    assert {name: array.shape for name, array in found.items()} == {name: a.shape for name, a in expected.items()}
    errors = {name: np.linalg.norm(found[name] - expected[name]) for name in found}
    allowed = {name: tolerance * np.linalg.norm(expected[name]) for name in found}
    assert [name for name in found if not errors[name] <= allowed[name]] == [], (errors, allowed)
