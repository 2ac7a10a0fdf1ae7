"""The update: every setting of the solver against the formula, written out in numpy for a least-squares net."""

import math

import numpy as np
import pytest

import cfgnet
from cfgnet.prepare import prepare

from .rig import run

LINE = """
name: line
data:
  train: {source: synthetic, formula: "2 * x - 1", inputs: [3], count: 14, noise: 0.3, batch_size: 4, shuffle: true}
layers:
  - {type: InnerProduct, name: line, num_output: 3, weight_filler: {type: gaussian, std: 1.0}}
  - {type: EuclideanLoss, name: loss, inputs: [line, target]}
solver: {type: SGD, base_lr: 0.3}
train: {max_iter: 9}
dtype: float64
"""


def by_hand(spec, multipliers):
    """The parameters after the training of LINE, as Caffe's formulas give them."""
    solver, batches = spec.solver, prepare(spec).batches["train"]
    theta = {key.partition(".")[2]: p.value.copy() for key, p in cfgnet.Net(spec).params.items()}
    velocity = {name: np.zeros_like(value) for name, value in theta.items()}
    for iteration in range(spec.train.max_iter):
        gradient = {name: np.zeros_like(value) for name, value in theta.items()}
        for part in range(solver.iter_size):
            batch = batches.at(iteration * solver.iter_size + part)
            x, target = batch["data"].astype(float), batch["target"].astype(float)
            error = (x @ theta["weight"].T + theta["bias"] - target) / len(x)
            gradient["weight"] += error.T @ x
            gradient["bias"] += error.sum(axis=0)
        trained = [name for name in theta if multipliers.get(name, (1, 1))[0]]
        norm = math.sqrt(sum((gradient[name] ** 2).sum() for name in trained))
        shrink = min(1, (solver.clip_gradients or math.inf) / norm)
        most = solver.clip_value or math.inf
        for name in trained:
            rate, decay = multipliers.get(name, (1, 1))
            pull = theta[name] if solver.regularization_type == "L2" else np.sign(theta[name])
            clipped = np.clip(gradient[name] * shrink, -most, most)
            full = clipped / solver.iter_size + solver.weight_decay * decay * pull
            velocity[name] = solver.momentum * velocity[name] + solver.base_lr * rate * full
            theta[name] = theta[name] - velocity[name]
    return theta


@pytest.mark.parametrize(
    ("sets", "multipliers"),
    [
        ([], {}),
        (["solver.momentum=0.9", "solver.base_lr=0.1"], {}),
        (["solver.weight_decay=0.2"], {}),
        (["solver.weight_decay=0.2", "solver.regularization_type=L1"], {}),
        (["solver.clip_gradients=0.5"], {}),
        (["solver.clip_gradients=1e3"], {}),  # larger than every gradient
        (["solver.iter_size=3"], {}),
        (["solver.clip_value=0.1", "solver.iter_size=2", "solver.weight_decay=0.1"], {}),
        (["layers.line.param={weight: {lr_mult: 2, decay_mult: 0.5}, bias: {lr_mult: 0.5, decay_mult: 0}}",
          "solver.weight_decay=0.2"], {"weight": (2, 0.5), "bias": (0.5, 0)}),
        (["layers.line.param={bias: {lr_mult: 0}}", "solver.clip_gradients=0.5"], {"bias": (0, 1)}),
        (["solver.params=[{match: line.weight, lr_mult: 2, decay_mult: 0.5}, {match: '*.bias', decay_mult: 0}]",
          "solver.weight_decay=0.2"], {"weight": (2, 0.5), "bias": (1, 0)}),
        (["solver.params=[{match: ['*'], lr_mult: 2, decay_mult: 3}, {match: '*.b*', lr_mult: 0.5}]",
          "solver.weight_decay=0.1"], {"weight": (2, 3), "bias": (0.5, 3)}),  # of several, the last counts
        (["solver.params=[{match: line, lr_mult: 3, decay_mult: 0}]",
          "layers.line.param={weight: {lr_mult: 1}}", "solver.weight_decay=0.2"],
         {"weight": (1, 0), "bias": (3, 0)}),  # what the layer says counts more, as far as it says something
        (["solver.params=[{match: '*.bias', lr_mult: 0}]"], {"bias": (0, 1)}),
        (["solver.freeze=[line.b?as]"], {"bias": (0, 1)}),
        (["layers.line.param={weight: {lr_mult: 3}}", "solver.momentum=0.8", "solver.base_lr=0.05",
          "solver.weight_decay=0.1", "solver.regularization_type=L1", "solver.iter_size=2",
          "solver.clip_gradients=1.5"], {"weight": (3, 1)}),
    ],
)  # fmt: skip
def test_the_parameters_follow_the_formula(sets, multipliers, tmp_path):
    done = run(tmp_path, *sets, text=LINE)
    expected = by_hand(cfgnet.loads(LINE, sets), multipliers)
    for name, value in expected.items():
        np.testing.assert_allclose(done.params[f"line.{name}"], value, rtol=1e-12, err_msg=name)
    assert done.iteration == 9


@pytest.mark.parametrize(
    ("frozen", "sets"), [(", frozen: true", []), ("", ["solver.freeze=fir*"]), ("", ["solver.freeze=[first]"])]
)
def test_a_frozen_layer_stays_as_it_is(frozen, sets, tmp_path):
    hidden = f"{{type: InnerProduct, name: first, num_output: 3{frozen}}}"
    text = LINE.replace("layers:\n", f"layers:\n  - {hidden}\n")
    plan = cfgnet.Net(cfgnet.loads(text, sets)).plan
    assert [plan.nodes[step.node].name for step in plan.backward] == ["loss", "line"]  # no gradient goes back to it
    done = run(tmp_path, "solver.weight_decay=0.2", "solver.momentum=0.9", *sets, text=text)
    start = cfgnet.Net(cfgnet.loads(text)).params
    moved = {key for key, value in done.params.items() if not np.array_equal(value, start[key].value)}
    assert moved == {"line.weight", "line.bias"}


def test_batches_that_are_summed_up_are_one_large_batch(tmp_path):
    more = ["solver.momentum=0.9", "solver.weight_decay=0.01", "train.max_iter=7", "solver.base_lr=0.1"]
    small = run(tmp_path, "data.train.batch_size=2", "solver.iter_size=5", *more, text=LINE)
    large = run(tmp_path, "data.train.batch_size=10", "solver.iter_size=1", *more, text=LINE)
    assert small.loss == pytest.approx(large.loss, rel=1e-12)
    for key in small.params:
        np.testing.assert_allclose(small.params[key], large.params[key], rtol=1e-12)
