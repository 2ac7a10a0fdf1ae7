"""Single layers: outputs, gradients and statistics as Caffe computed them."""

import dataclasses

import numpy as np
import pytest

from cfgnet.backend import get_backend
from cfgnet.backend.kernels import Kernels

from .bench import Rig, gradient
from .prototxt import parse

BOUNDS = {
    ("float64", "BatchNorm", "din"): 2e-4,
    ("float64", "BatchNorm", ""): 1e-4,
    ("float64", "", ""): 2e-5,
    ("float32", "BatchNorm", "din"): 5e-4,
    ("float32", "BatchNorm", ""): 5e-4,
    ("float32", "", ""): 1e-4,
}
"""By dtype, layer type and what is compared; "" is every other.

Caffe itself computed in float32. Measured on the cases that come with cfgnet: at most 2e-6 in float64, where the error
is Caffe's own, and 3e-6 in float32, where it is that of both; of BatchNorm not more.
"""
RANDOM = {"Dropout"}


class Dropped(Kernels):
    """Kernels whose random numbers let through exactly the elements that Caffe's own let through."""

    def __init__(self, xp, kept):
        super().__init__(xp)
        self.kept = kept

    def uniform(self, rng, y):
        return lambda: np.copyto(y, np.where(self.kept, 1 - 2.0**-24, 0.0))


def backend_for(case):
    """The numpy backend. Caffe's random mask cannot be drawn again, so it is read off the zeros of the output.

    What is tested of such a layer is therefore its formula, the scale of what is kept included, and not the draw.
    """
    backend = get_backend("numpy")
    if case.info["type"] not in RANDOM or case.info["phase"] != "TRAIN":
        return backend
    assert case["in_0"].all(), "a zero of the input would hide the mask"
    return dataclasses.replace(backend, k=Dropped(backend.xp, case["out_0"] != 0))


def rig_for(case, dtype):
    """The layer of a case, with the gradients that Caffe gives."""
    (message,) = parse(case.info["layer_prototxt"])["layer"]
    bottoms = message.get("bottom", [])
    wrt = {bottoms[int(i)] for i in case.take("din_")}
    if case.info["backward"] and not case.info["loss_layer"]:
        message["loss_weight"] = [1.0]  # any weight but 0: run_backward is handed the gradient
    feeds = {name: case[f"in_{i}"] for i, name in enumerate(bottoms)}
    rig = Rig([message], feeds, case.info["phase"].lower(), dtype, wrt, backend_for(case))
    return rig, message


def bound(case, dtype, what):
    kind = case.info["type"]
    keys = [(dtype, kind, what.partition("_")[0]), (dtype, kind, ""), (dtype, "", "")]
    return next(BOUNDS[key] for key in keys if key in BOUNDS)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_layer(layer_case, dtype, check):
    case = layer_case
    rig, message = rig_for(case, dtype)
    tops, name = message.get("top", []), rig.net.plan.nodes[0].name
    params = rig.params(name)

    def compare(what, ours):
        check(what, ours, case[what], bound(case, dtype, what))

    start = case.take("param_initial_") or {i: case[f"param_{i}"] for i in map(str, range(len(params)))}
    assert len(start) == len(params), f"Caffe has {len(start)} parameters, cfgnet {len(params)}"
    for i, parameter in enumerate(params):
        parameter.value[...] = start[str(i)]
    for earlier in range(case.info["n_pre_forward"]):
        rig.forward(**{blob: case[f"pre{earlier}_in_{i}"] for i, blob in enumerate(message["bottom"])})
        for i, top in enumerate(tops):
            compare(f"pre{earlier}_out_{i}", rig.blob(top))
    if case.info["n_pre_forward"]:
        for i, parameter in enumerate(params):
            compare(f"param_{i}", parameter.value)

    rig.forward()
    for i, top in enumerate(tops):
        kept = case.info["type"] == "Filter"
        compare(f"out_{i}", in_front(rig.blob(top), len(case[f"out_{i}"])) if kept else rig.blob(top))
    for i, parameter in enumerate(params):
        after = "param_after_" if f"param_after_{i}" in case else "param_"
        compare(f"{after}{i}", parameter.value)
    if case.info["backward"]:
        backward(case, rig, message)
        for i, bottom in enumerate(message.get("bottom", [])):
            if f"din_{i}" in case:
                compare(f"din_{i}", rig.net.gradients[bottom])
        for i, parameter in enumerate(params):
            compare(f"dparam_{i}", gradient(parameter))
    assert case.unused() == []


def in_front(blob, kept):
    """The samples that a Filter keeps. The batch of Caffe's is as small as that; in cfgnet's, zeros stand behind."""
    assert not blob[kept:].any()
    return blob[:kept]


def with_more(dout, like):
    """The gradient of an output of a Filter: what stands behind Caffe's is not a number, and so must not count."""
    whole = np.full_like(like, np.nan)
    whole[: len(dout)] = dout
    return whole


def backward(case, rig, message):
    """Runs backward from Caffe's gradients of the outputs; a loss has its own weight there, and finds it itself."""
    tops = {rig.tensors[top]: case[f"dout_{i}"] for i, top in enumerate(message["top"]) if f"dout_{i}" in case}
    if case.info["type"] == "Filter":
        tops = {name: with_more(dout, rig.net.gradients[name]) for name, dout in tops.items()}
    if case.info["loss_layer"]:
        assert {top: float(dout) for top, dout in tops.items() if dout.any()} == pytest.approx(rig.net.plan.seeds)
        rig.net.backward()
    else:
        rig.net.params.grads.fill(0)
        rig.net.run_backward({top: dout for top, dout in tops.items() if top in rig.net.gradients})
