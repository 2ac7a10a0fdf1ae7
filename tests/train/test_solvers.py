"""Every solver against its algorithm, written out in plain numpy as its paper has it, and what is common to all."""

from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest

from cfgnet.backend import get_backend, why_not
from cfgnet.backend.kernels import Record
from cfgnet.backend.kernels.fold import as_step
from cfgnet.backend.kernels.memory import overlap
from cfgnet.errors import ContractError, SnapshotError
from cfgnet.init import Constant, Gaussian
from cfgnet.params import Parameters
from cfgnet.plan import Slot
from cfgnet.policy import value_of
from cfgnet.solver import Solver
from cfgnet.update import Updater

STEPS = 20
SLOTS = [
    Slot("fc.weight", (7, 5), Gaussian(std=0.5)),
    Slot("fc.bias", (7,), Gaussian(std=0.1), lr_mult=2.0, decay_mult=0.0),
    Slot("conv.weight", (4, 3, 3, 2), Gaussian(std=0.5), turned=True),
    Slot("scale.scale", (3,), Gaussian(std=0.5), decay_mult=0.5),
    Slot("zero.bias", (4,), Constant()),
    Slot("beta", (), Constant(value=1.5)),
    Slot("frozen.weight", (3,), Gaussian(), trainable=False),
]
"""Parameters in three groups; one lies in memory as convolutions have it, one starts at zero, and one is a number."""
TRAINED = [slot for slot in SLOTS if slot.trainable]


# The algorithms: generators that are sent a gradient and the numbers of the iteration, and give the next weights.


def sgd(w):
    h = 0
    while True:
        g, s = yield w
        h = s.momentum * h + s.rate * g
        w = w - h


def nesterov(w):
    h = 0
    while True:
        g, s = yield w
        before, h = h, s.momentum * h + s.rate * g
        w = w - ((1 + s.momentum) * h - s.momentum * before)


def lion(w):
    m = 0
    while True:
        g, s = yield w
        c = s.momentum * m + (1 - s.momentum) * g
        w = w - s.rate * (np.sign(c) + s.decay * w)
        m = s.momentum2 * m + (1 - s.momentum2) * g


def adagrad(w):
    h = 0
    while True:
        g, s = yield w
        h = h + g**2
        w = w - s.rate * g / (np.sqrt(h) + s.delta)


def rmsprop(w):
    h = 0
    while True:
        g, s = yield w
        h = s.rms_decay * h + (1 - s.rms_decay) * g**2
        w = w - s.rate * g / (np.sqrt(h) + s.delta)


def adadelta(w):
    squares, updates = 0, 0
    while True:
        g, s = yield w
        squares = s.momentum * squares + (1 - s.momentum) * g**2
        u = np.sqrt(updates + s.delta) / np.sqrt(squares + s.delta) * g
        updates = s.momentum * updates + (1 - s.momentum) * u**2
        w = w - s.rate * u


def moments(w, step):
    """m and v with what they have kept of their zeros; `step` gives the next weights."""
    m, v, kept1, kept2 = 0, 0, 1, 1
    for t in count(1):
        g, s = yield w
        kept1, kept2 = kept1 * s.momentum, kept2 * s.momentum2
        m, v = s.momentum * m + (1 - s.momentum) * g, s.momentum2 * v + (1 - s.momentum2) * g**2
        w = step(w, g, s, t, m, v, kept1, kept2)


def adam(w):
    def step(w, g, s, t, m, v, kept1, kept2):
        return w - s.rate * np.sqrt(1 - kept2) / (1 - kept1) * m / (np.sqrt(v) + s.delta)

    return moments(w, step)


def adamw(w):
    def step(w, g, s, t, m, v, kept1, kept2):
        m_hat, v_hat = m / (1 - kept1), v / (1 - kept2)
        return w - s.rate * (m_hat / (np.sqrt(v_hat) + s.delta) + s.decay * w)

    return moments(w, step)


def amsgrad(w):
    most = 0

    def step(w, g, s, t, m, v, kept1, kept2):
        nonlocal most
        most = np.maximum(most, v)
        return w - s.rate * m / (1 - kept1) / (np.sqrt(most / (1 - kept2)) + s.delta)

    return moments(w, step)


def nadam(w):
    m, v, product, kept2 = 0, 0, 1, 1
    for t in count(1):
        g, s = yield w
        mu, following = (s.momentum * (1 - 0.5 * 0.96 ** (i * s.momentum_decay)) for i in (t, t + 1))
        product, kept2 = product * mu, kept2 * s.momentum2
        m, v = s.momentum * m + (1 - s.momentum) * g, s.momentum2 * v + (1 - s.momentum2) * g**2
        m_hat = following * m / (1 - product * following) + (1 - mu) * g / (1 - product)
        w = w - s.rate * m_hat / (np.sqrt(v / (1 - kept2)) + s.delta)


def radam(w):
    def step(w, g, s, t, m, v, kept1, kept2):
        m_hat, most = m / (1 - kept1), 2 / (1 - s.momentum2) - 1
        seen = most - 2 * t * kept2 / (1 - kept2)
        if seen <= 5:
            return w - s.rate * m_hat
        r = np.sqrt((seen - 4) * (seen - 2) * most / ((most - 4) * (most - 2) * seen))
        return w - s.rate * r * m_hat * np.sqrt(1 - kept2) / (np.sqrt(v) + s.delta)

    return moments(w, step)


def lamb(w):
    def step(w, g, s, t, m, v, kept1, kept2):
        r = (m / (1 - kept1)) / (np.sqrt(v / (1 - kept2)) + s.delta)
        u = r + s.decay * w
        weights, updates = np.linalg.norm(w), np.linalg.norm(u)
        return w - s.rate * (weights / updates if weights > 0 and updates > 0 else 1) * u

    return moments(w, step)


def rms(x):
    return np.sqrt(np.mean(x**2))


def adafactor(w):
    """Algorithms 4 and 5 of the paper, over the parameter as a matrix, with the decay as PyTorch has it."""
    shape, r, c, v = w.shape, 0, 0, 0
    for t in count(1):
        g, s = yield w
        keep, step = 1 - t**-s.decay_rate, max(s.least_scale, rms(w)) * min(s.rate, 1 / np.sqrt(t))
        if len(shape) > 1:
            g = g.reshape(shape[0], -1)
            ones, n = g**2 + s.delta, g.shape
            r = keep * r + (1 - keep) * ones @ np.ones(n[1])
            c = keep * c + (1 - keep) * np.ones(n[0]) @ ones
            u = (g / np.sqrt(np.outer(r, c) / (np.ones(n[0]) @ r))).reshape(shape)
        else:
            v = keep * v + (1 - keep) * (g**2 + s.delta)
            u = g / np.sqrt(v)
        u = u / max(1, rms(u) / s.clip_threshold)
        w = w - s.rate * s.decay * w - step * u


ALGORITHMS = {
    "SGD": sgd, "Nesterov": nesterov, "Lion": lion, "AdaGrad": adagrad, "RMSProp": rmsprop, "AdaDelta": adadelta,
    "Adam": adam, "AdamW": adamw, "AMSGrad": amsgrad, "NAdam": nadam, "RAdam": radam, "LAMB": lamb,
    "Adafactor": adafactor,
}  # fmt: skip
DECOUPLED = {"Lion", "AdamW", "LAMB", "Adafactor"}
CYCLE = {"type": "cosine", "period": 6}
SCHEDULED = {
    "momentum": {"type": "linear", "start": 0.6, "end": 0.95},
    "momentum2": {**CYCLE, "start": 0.9, "end": 0.99},
    "rms_decay": {**CYCLE, "start": 0.9, "end": 0.99},
    "weight_decay": {"type": "step", "start": 0.3, "gamma": 0.5, "stepsize": 4},
    "delta": {"type": "exp", "start": 1e-3, "end": 1e-8, "gamma": 0.5},
    "momentum_decay": {"type": "linear", "start": 0.01, "end": 0.001},
    "decay_rate": {"type": "linear", "start": 0.5, "end": 0.9},
    "clip_threshold": {"type": "linear", "start": 0.5, "end": 2.0},
    "least_scale": {"type": "linear", "start": 1e-2, "end": 1e-3},
}
"""Another number in each iteration, for every field that may follow a policy."""


def made(name, **settings):
    return Solver.model_validate({"type": name, "base_lr": 0.05, **settings})


def rig(solver, backend="numpy", dtype="float64"):
    """The parameters of SLOTS with a solver for them, of a training of STEPS iterations."""
    params = Parameters(SLOTS, get_backend(backend, 2), dtype, 1)
    return params, Updater(solver, params, STEPS)


def gradients(step):
    """The gradients of an iteration: random, of a size of their own for each parameter, and sometimes zero."""
    random = np.random.default_rng(100 + step)
    return {s.key: random.normal(size=s.shape) * 10.0 ** (2 - i) * (step != 7) for i, s in enumerate(SLOTS)}


def run(params, updater, steps):
    for step in steps:
        for key, gradient in gradients(step).items():
            if params[key].grad is not None:
                params[key].grad[...] = params.backend.xp.asarray(gradient)
        updater.step(step)


def numbers(solver, slot, step):
    """What an algorithm is told of an iteration."""
    fields = {name: getattr(solver, name) for name in type(solver).model_fields}
    found = {name: value_of(v, step, STEPS) for name, v in fields.items() if name != "lr_policy"}
    rate = solver.lr_policy.value(solver.base_lr, step, STEPS) * slot.lr_mult
    return SimpleNamespace(**found, rate=rate, decay=found["weight_decay"] * slot.decay_mult)


def by_the_paper(solver, slot, start):
    """The weights after each iteration, from plain numpy."""
    algorithm = ALGORITHMS[solver.type_name](start)
    w, found = next(algorithm), []
    for step in range(STEPS):
        g, s = gradients(step)[slot.key], numbers(solver, slot, step)
        if solver.type_name not in DECOUPLED:
            g = g + s.decay * (w if solver.regularization_type == "L2" else np.sign(w))
        w = algorithm.send((g, s))
        found.append(w)
    return found


def compare(solver, backend, dtype, bound):
    params, updater = rig(solver, backend, dtype)
    start = params.to_host()
    paths = {s.key: by_the_paper(solver, s, start[s.key].astype(np.float64)) for s in SLOTS if s.trainable}
    for step in range(STEPS):
        run(params, updater, [step])
        now = params.to_host()
        for key, path in paths.items():
            moved, rounding = np.abs(path[step] - start[key]).max(), STEPS * np.finfo(dtype).eps
            room = bound * moved + rounding * np.abs(path[step]).max()
            np.testing.assert_allclose(now[key], path[step], rtol=0, atol=room, err_msg=f"{step} {key}")
    np.testing.assert_array_equal(now["frozen.weight"], start["frozen.weight"])


TIERS = [
    ("numpy", "float64", 1e-11),
    ("numpy", "float32", 2e-4),
    pytest.param("native", "float32", 2e-4, marks=pytest.mark.skipif(bool(why_not("native")), reason="no compiler")),
    pytest.param("cupy", "float64", 1e-9, marks=pytest.mark.gpu),
]


@pytest.mark.parametrize(("backend", "dtype", "bound"), TIERS, ids=["float64", "float32", "native", "gpu"])
@pytest.mark.parametrize("settings", [{}, {"weight_decay": 0.1}], ids=["plain", "decay"])
@pytest.mark.parametrize("name", sorted(Solver.members()))
def test_a_solver_is_its_algorithm(name, settings, backend, dtype, bound):
    compare(made(name, **settings), backend, dtype, bound)


@pytest.mark.parametrize(("backend", "dtype", "bound"), TIERS, ids=["float64", "float32", "native", "gpu"])
@pytest.mark.parametrize("name", sorted(Solver.members()))
def test_every_number_may_follow_a_policy(name, backend, dtype, bound):
    fields = {field: value for field, value in SCHEDULED.items() if field in Solver.find(name).model_fields}
    if name == "AdaDelta":
        fields["delta"] = {"type": "linear", "start": 1e-4, "end": 1e-6}
    solver = made(name, lr_policy={"type": "cosine", "warmup": {"iterations": 3}}, **fields)
    assert solver.scheduled.keys() == fields.keys()
    compare(solver, backend, dtype, bound)


def test_no_number_that_may_follow_a_policy_is_left_out():
    able = {n for c in Solver.members().values() for n, f in c.model_fields.items() if "Policy" in str(f.annotation)}
    assert able - {"lr_policy"} <= SCHEDULED.keys() | {"delta"}


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
def test_a_pull_towards_zero_of_equal_strength(name):
    solver, plain = made(name, regularization_type="L1", weight_decay=0.2), made(name, weight_decay=0.0)
    (params, updater), (others, other) = rig(solver), rig(plain)
    before = params.to_host()
    for p, u in ((params, updater), (others, other)):
        run(p, u, [0])
    moved = others["fc.weight"].value - params["fc.weight"].value
    np.testing.assert_allclose(moved, 0.05 * 0.2 * np.sign(before["fc.weight"]), rtol=1e-9)


# What goes into a snapshot.


def snapshot_of(params, updater):
    average = updater.average.to_host() if updater.average else {}
    return params.to_host(), updater.to_host(), average


@pytest.mark.parametrize("scheduled", [False, True], ids=["fixed", "scheduled"])
@pytest.mark.parametrize("name", sorted(Solver.members()))
def test_a_solver_goes_on_from_a_snapshot_to_the_same_bits(name, scheduled):
    fields = SCHEDULED if scheduled else {"weight_decay": 0.1}
    fields = {field: value for field, value in fields.items() if field in Solver.find(name).model_fields}
    decay = {"type": "linear", "start": 0.5, "end": 0.9} if scheduled else 0.8
    solver = made(name, average={"decay": decay}, clip_gradients=3.0, iter_size=2, **fields)
    whole = rig(solver, dtype="float32")
    run(*whole, range(STEPS))
    first, second = rig(solver, dtype="float32"), rig(solver, dtype="float32")
    run(*first, range(9))
    params, state, average = snapshot_of(*first)
    second[0].load(params)
    second[1].load(state)
    second[1].average.load(average)
    run(*second, range(9, STEPS))
    for one, other in zip(snapshot_of(*whole), snapshot_of(*second), strict=True):
        assert one.keys() == other.keys()
        for key, value in one.items():
            np.testing.assert_array_equal(value, other[key], err_msg=key)


def test_a_snapshot_without_the_state_is_refused():
    _, updater = rig(made("Adam"))
    state = updater.to_host()
    assert {"m/fc.weight", "v/conv.weight", "numbers/kept1", "numbers/kept2"} <= state.keys()
    for left_out, said in (("m/fc.bias", "'m' of fc.bias"), ("numbers/kept2", "numbers kept2 are missing")):
        with pytest.raises(SnapshotError, match=said):
            updater.load({key: value for key, value in state.items() if key != left_out})


@pytest.mark.parametrize("name", ["SGD", "LAMB"])
def test_the_average_is_that_of_all_weights_so_far_by_powers_of_the_decay(name):
    params, updater = rig(made(name, average={"decay": 0.7}))
    seen = []
    for step in range(STEPS):
        run(params, updater, [step])
        seen.append(params.to_host())
        for key, slot in params.slots.items():
            powers = [0.7**age if slot.trainable else age == 0 for age in range(step, -1, -1)]
            mean = sum(p * s[key] for p, s in zip(powers, seen, strict=True)) / sum(powers)
            np.testing.assert_allclose(updater.average[key].value, mean, rtol=1e-12, atol=1e-15)
    assert updater.evaluated is updater.average
    assert rig(made(name))[1].evaluated is not None and rig(made(name))[1].average is None


# Clipping.


@pytest.mark.parametrize("backend", ["numpy", "native"])
def test_a_gradient_is_clipped_by_value_before_it_is_divided(backend):
    if why_not(backend):
        pytest.skip("no compiler")
    params, updater = rig(made("SGD", base_lr=1.0, clip_value=0.5, iter_size=4), backend, "float32")
    start = params.to_host()
    run(params, updater, [0])
    for slot in TRAINED:
        expected = start[slot.key] - slot.lr_mult * np.clip(gradients(0)[slot.key], -0.5, 0.5) / 4
        np.testing.assert_allclose(params[slot.key].value, expected, rtol=1e-6, atol=1e-6)


def test_the_norm_that_is_clipped_is_that_of_all_trained_parameters():
    params, updater = rig(made("SGD", base_lr=1.0, clip_gradients=2.0))
    start = params.to_host()
    run(params, updater, [0])
    trained = {slot.key: gradients(0)[slot.key] for slot in TRAINED}
    norm = np.sqrt(sum((g**2).sum() for g in trained.values()))
    for slot in TRAINED:
        expected = start[slot.key] - slot.lr_mult * trained[slot.key] * 2.0 / norm
        np.testing.assert_allclose(params[slot.key].value, expected, rtol=1e-12)


# Passes.


@pytest.mark.parametrize(
    "settings", [{}, {"weight_decay": 0.1, "average": {"decay": 0.9}, "clip_gradients": 1.0, "iter_size": 2}]
)
@pytest.mark.parametrize("name", sorted(Solver.members().keys() - {"LAMB", "Adafactor"}))
def test_an_update_is_one_pass_over_each_group(name, settings):
    params, updater = rig(made(name, **settings))
    assert [step.kernel in ("map", "chain") for step in updater.steps] == [True] * len(params.groups)
    written = [one.out for step in updater.steps for one in steps_of(step)]
    gradient = [out for out in written if overlap(out, params.grads)]
    assert bool(gradient) is (name == "AdaDelta")  # which keeps its step there


def steps_of(record: Record):
    return record.args[0] if record.kernel == "chain" else [as_step(record)]


class Late(Solver, abstract=True):
    """Reads the gradient when it has changed the weights that the decay is a part of."""

    def update(self, k, w, g, rate, history):
        k.map("w - rate * g", w, w=w, g=g, rate=rate)
        k.map("g", history, g=g)


class Sliced(Solver, abstract=True):
    """Reads a part of the gradient."""

    def update(self, k, w, g, rate):
        k.map("w - rate * g", w[:2], w=w[:2], g=g[:2], rate=rate)


class Other(Solver, abstract=True):
    """Works by a kernel that knows nothing of the gradient's formula."""

    def update(self, k, w, g, rate):
        k.copy(g, w)


@pytest.mark.parametrize("cls", [Late, Sliced, Other])
def test_an_update_that_would_miss_the_decay_is_refused(cls):
    with pytest.raises(ContractError, match="an update"):
        rig(cls.model_construct(weight_decay=0.1))


def test_a_solver_says_its_update():
    with pytest.raises(ContractError, match="define update"):

        class Nothing(Solver):
            """Does nothing."""
