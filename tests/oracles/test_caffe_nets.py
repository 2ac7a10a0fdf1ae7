"""Whole nets: every blob and gradient, the losses on the way, and the parameters after some updates."""

import pytest

from cfgnet.update import Updater

from .bench import Rig, gradient
from .prototxt import parse
from .translate import solver

BOUNDS = {"float64": 2e-5, "float32": 1e-4}


@pytest.mark.parametrize("dtype", BOUNDS)
def test_net(net_case, dtype, check):
    case, steps = net_case, net_case.info["steps"]
    rig = Rig(parse(case.text("net.prototxt"))["layer"], case.take("feed_"), dtype=dtype)
    names = [(shaped.name, i) for shaped in rig.net.plan.nodes for i in range(len(shaped.params))]
    params = {f"{layer}_{i}": rig.params(layer)[i] for layer, i in names}
    for name, parameter in params.items():
        parameter.value[...] = case[f"param_{name}"]

    def compare(what, ours, reference):
        check(what, ours, reference, BOUNDS[dtype])

    updater = Updater(solver(parse(case.info["solver"])), rig.net.params, steps)
    # Caffe ran the net once before the first update; the statistics of BatchNorm, which forward keeps, tell.
    rig.forward()
    rig.net.backward()
    for blob, reference in case.take("blob_").items():
        compare(f"blob_{blob}", rig.blob(blob), reference)
    for name, parameter in params.items():
        compare(f"dparam_{name}", gradient(parameter), case[f"dparam_{name}"])
    for step in range(steps):
        rig.forward()
        for blob, loss in case.info["losses_at_step"][step].items():
            compare(f"{blob} at step {step}", rig.blob(blob), loss)
        rig.net.backward()
        updater.step(step)
    for name, parameter in params.items():
        compare(f"param_after{steps}_{name}", parameter.value, case[f"param_after{steps}_{name}"])
    assert case.unused() == []
