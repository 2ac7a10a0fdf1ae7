"""Solvers: ten updates of a small net, step by step, and every learning-rate policy."""

import numpy as np

from cfgnet.update import Updater

from .bench import Rig
from .prototxt import parse
from .translate import solver

BOUND = 2e-4
RATE_BOUNDS = {"exp": 5e-6, "poly": 5e-6, "": 1e-6}
"""Relative, by policy. Caffe's rates are float32 from float32 on: `exp` takes the 199th power of a gamma that is off by
2e-8 of itself, and `poly` subtracts from 1, so that 1e-6 would be a test of that rounding."""
BLOBS = {"w": 0, "b": 1}


def solver_of(text):
    """The solver in a prototxt, its message, and the bound on its learning rates."""
    message = parse(text)
    return solver(message), message, RATE_BOUNDS.get(message["lr_policy"][0], RATE_BOUNDS[""])


def rows(array, batch, size):
    """Batch number `batch` of `size` rows; after the last row follows the first, inside a batch too."""
    return array[np.arange(batch * size, (batch + 1) * size) % len(array)]


def test_solver(solver_case, check):
    case = solver_case
    solver, message, rate_bound = solver_of(case.info["solver"])
    layers = parse(case.info["net"])["layer"]
    source = layers[0]
    size = source["hdf5_data_param"][0]["batch_size"][0]
    data = dict(zip(source["top"], (case["x"], case["y"]), strict=True))
    rig = Rig(layers, {name: rows(array, 0, size) for name, array in data.items()})
    params = {}
    for name, trajectory in case.take("traj_").items():
        layer, _, blob = name.rpartition("_")
        params[name] = rig.params(layer)[BLOBS[blob]].value
        params[name][...] = trajectory[0]

    steps = len(case["lr"])
    updater = Updater(solver, rig.net.params, message.get("max_iter", [steps])[0])
    for step in range(steps):
        before = {name: value.copy() for name, value in params.items()}
        for part in range(solver.iter_size):
            batch = step * solver.iter_size + part
            rig.forward(**{name: rows(array, batch, size) for name, array in data.items()})
            rig.net.run_backward(add=part > 0)
        check(f"loss_last_subbatch[{step}]", rig.net.loss, case["loss_last_subbatch"][step], BOUND)
        check(f"lr[{step}]", updater.step(step) / case["lr"][step], 1, rate_bound)
        for name, value in params.items():
            check(f"traj_{name}[{step + 1}]", value, case[f"traj_{name}"][step + 1], BOUND)
            check(f"update_{name}[{step}]", before[name] - value, case[f"update_{name}"][step], BOUND)
    assert case.unused() == []


def test_lr_policy(policy, check):
    folder, name, text = policy
    solver, message, rate_bound = solver_of(text)
    with np.load(folder / "lr_policies" / "data.npz") as file:
        reference = file[name].astype(np.float64)
    limit = message.get("max_iter", [len(reference)])[0]
    ours = np.array([solver.lr_policy.value(solver.base_lr, i, limit) for i in range(len(reference))])
    check(name, ours / reference, np.ones_like(reference), rate_bound)
