"""Scan: a loop in a layer is the same as the loop written out, whatever is in it."""

from pathlib import Path

import numpy as np
import pytest

import cfgnet
from cfgnet.backend import get_backend, why_not
from cfgnet.compute import Computation, Wanted
from cfgnet.errors import SpecError
from cfgnet.graph import TensorType
from cfgnet.layer import Layer
from cfgnet.net import Net
from cfgnet.prepare import plan_layers, prepare
from cfgnet.rules import State

BACKENDS = [
    pytest.param("numpy", id="numpy"),
    pytest.param("native", id="native", marks=pytest.mark.skipif(bool(why_not("native")), reason=why_not("native"))),
]
each_tier = pytest.mark.parametrize("backend", BACKENDS)
H = 4
LECTURE = Path(__file__).parents[2] / "configs" / "lecture"
LOSS = {"type": "EuclideanLoss", "name": "loss"}
LSTM_BODY = [
    {"type": "InnerProduct", "name": "u", "inputs": "x", "num_output": 4 * H},
    {"type": "InnerProduct", "name": "v", "inputs": "h", "num_output": 4 * H, "bias_term": False},
    {"type": "Eltwise", "name": "z", "inputs": ["u", "v"]},
    {"type": "LSTMUnit", "name": "unit", "inputs": ["c", "z"], "outputs": ["c_next", "h_next"]},
]
LSTM_BY_GATE = [
    layer
    for gate, kind in (("i", "Sigmoid"), ("f", "Sigmoid"), ("o", "Sigmoid"), ("g", "TanH"))
    for layer in (
        {"type": "InnerProduct", "name": f"u{gate}", "inputs": "x", "num_output": H},
        {"type": "InnerProduct", "name": f"v{gate}", "inputs": "h", "num_output": H, "bias_term": False},
        {"type": "Eltwise", "name": f"z{gate}", "inputs": [f"u{gate}", f"v{gate}"]},
        {"type": kind, "name": gate, "inputs": f"z{gate}"},
    )
] + [
    {"type": "Eltwise", "name": "left", "operation": "PROD", "inputs": ["f", "c"]},
    {"type": "Eltwise", "name": "new", "operation": "PROD", "inputs": ["i", "g"]},
    {"type": "Eltwise", "name": "c_next", "inputs": ["left", "new"]},
    {"type": "TanH", "name": "squashed", "inputs": "c_next"},
    {"type": "Eltwise", "name": "h_next", "operation": "PROD", "inputs": ["o", "squashed"]},
]
RNN_BODY = [
    {"type": "InnerProduct", "name": "u", "inputs": "x", "num_output": H},
    {"type": "InnerProduct", "name": "v", "inputs": "h", "num_output": H, "bias_term": False},
    {"type": "Eltwise", "name": "z", "inputs": ["u", "v"]},
    {"type": "TanH", "name": "h_next", "inputs": "z"},
]


def planned(layers, inputs, backend="numpy", dtype="float64", phase="train", **settings):
    """A net of layers given as mappings; inputs by name as shapes, or as shape and kind."""
    types = {name: TensorType(*(what if isinstance(what[0], tuple) else (what,))) for name, what in inputs.items()}
    made = get_backend(backend)
    plan = plan_layers([Layer.model_validate(layer) for layer in layers], phase, types, made, dtype, **settings)
    return Net(plan, made)


def draw(net, seed=0):
    """Random inputs and parameters, by name."""
    random = np.random.default_rng(seed)
    feeds = {
        name: random.integers(0, 3, kind.shape) if kind.kind == "int" else random.normal(size=kind.shape)
        for name, kind in net.plan.graph.inputs.items()
    }
    return feeds, {key: random.normal(size=parameter.value.shape) for key, parameter in net.params.items()}


def run(net, feeds, params):
    """Values and gradients of one step of a net, by name."""
    for key, value in params.items():
        net.params[key].value[...] = value
    net.feed({name: feeds[name] for name in net.plan.graph.inputs})
    net.run_forward()
    net.run_backward()
    values = {name: net.tensors[name].copy() for name in net.plan.graph.results}
    grads = {f"d({name})": net.gradients[name].copy() for name in net.plan.graph.inputs if name in net.gradients}
    return values, grads | {key: p.grad.copy() for key, p in net.params.items() if p.grad is not None}


def close(ours, theirs, tolerance=1e-10):
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        scale = max(1e-3, abs(theirs[name]).max(initial=0))
        np.testing.assert_allclose(value / scale, theirs[name] / scale, rtol=0, atol=tolerance, err_msg=name)


# Against the layers of Caffe's definition.


def scan(body, states, update, **settings):
    return {
        "type": "Scan",
        "name": "rnn",
        "sequences": ["x"],
        "state": states,
        "update": update,
        "body": body,
    } | settings


@each_tier
@pytest.mark.parametrize("reverse", [False, True])
def test_an_rnn_of_the_body_is_the_layer_rnn(backend, reverse):
    inputs = {"x": (5, 3, 2), "h0": (1, 3, H), "target": (5, 3, H)}
    first = {"type": "Reshape", "name": "start", "inputs": "h0", "shape": [3, H]}
    ours = scan(RNN_BODY, {"h": "start"}, {"h": "h_next"}, outputs="y", reverse=reverse)
    theirs = {"type": "RNN", "name": "rnn", "inputs": ["x", "h0"], "outputs": "y", "num_output": H, "output": False}
    theirs |= {"expose_hidden": True, "reverse": reverse}
    dtype = "float64" if backend == "numpy" else "float32"
    loss = LOSS | {"inputs": ["y", "target"]}
    mine = planned([first, ours, loss], inputs, backend, dtype, wrt=["x", "h0"])
    known = planned([theirs, loss], inputs, backend, dtype, wrt=["x", "h0"])
    feeds, params = draw(mine)
    names = {"rnn/u.weight": "rnn.weight_x", "rnn/u.bias": "rnn.bias", "rnn/v.weight": "rnn.weight_h"}
    values, grads = run(mine, feeds, params)
    wanted, gradients = run(known, feeds, {names[key]: value for key, value in params.items()})
    tolerance = 1e-12 if backend == "numpy" else 1e-5
    close(values, wanted, tolerance)
    close({names.get(key, key): value for key, value in grads.items()}, gradients, tolerance)


@each_tier
@pytest.mark.parametrize("body", [LSTM_BODY, LSTM_BY_GATE], ids=["unit", "gates"])
@pytest.mark.parametrize("last", [False, True])
def test_an_lstm_of_the_body_is_the_layer_lstm(backend, body, last):
    inputs = {"x": (6, 3, 2), "h0": (1, 3, H), "c0": (1, 3, H), "target": (1, 3, H) if last else (6, 3, H)}
    starts = [{"type": "Reshape", "name": f"{n}1", "inputs": f"{n}0", "shape": [3, H]} for n in "hc"]
    outputs = {"outputs": ["h", "c"], "keep": "last"} if last else {"outputs": ["y"]}
    ours = scan(body, {"h": "h1", "c": "c1"}, {"h": "h_next", "c": "c_next"}, **outputs)
    theirs = {"type": "LSTM", "name": "rnn", "inputs": ["x", "h0", "c0"], "num_output": H, "expose_hidden": True}
    theirs |= {"outputs": ["y", "h", "c"] if last else ["y"]}
    if last:
        pair = [{"type": "Eltwise", "name": "both", "inputs": ["h", "c"], "coeff": [1, 2]}]
        before = [{"type": "Silence", "inputs": "y"}]
        mine_end = [*pair, {"type": "Reshape", "name": "end", "inputs": "both", "shape": [1, 3, H]}]
        mine_end.append(LOSS | {"inputs": ["end", "target"]})
        known_end = [*before, *pair, LOSS | {"inputs": ["both", "target"]}]
    else:
        mine_end = known_end = [LOSS | {"inputs": ["y", "target"]}]
    dtype = "float64" if backend == "numpy" else "float32"
    wrt = ["x", "h0", "c0"]
    mine = planned([*starts, ours, *mine_end], inputs, backend, dtype, wrt=wrt)
    known = planned([theirs, *known_end], inputs, backend, dtype, wrt=wrt)
    feeds, params = draw(mine)
    joined = {}
    for short, part, kind in (("weight_x", "u", "weight"), ("bias", "u", "bias"), ("weight_h", "v", "weight")):
        pieces = [key for key in params if key.startswith(f"rnn/{part}") and key.endswith(f".{kind}")]
        joined[f"rnn.{short}"] = pieces  # one, or one for each gate in the order i, f, o, g
    values, grads = run(mine, feeds, params)
    wanted, gradients = run(known, feeds, {to: np.concatenate([params[k] for k in of]) for to, of in joined.items()})
    tolerance = 1e-12 if backend == "numpy" else 1e-5
    close({"loss": values["loss"]}, {"loss": wanted["loss"]}, tolerance)
    whole = {to: np.concatenate([grads.pop(k) for k in of]) for to, of in joined.items()}
    close(grads | whole, gradients, tolerance)


# Against the same loop, written out.


def written_out(scan, steps):
    """Layers that do the same as a Scan of `steps` steps over sequences, states that are tensors, and constants."""
    states, layers = dict(scan["state"]), []
    for name, outside in scan["sequences"].items():
        parts = [f"{name}{t}" for t in range(steps)]
        sliced = [f"{name}{t}_" for t in range(steps)]
        layers.append({"type": "Slice", "name": f"{name}_slice", "inputs": outside, "outputs": sliced, "axis": 0})
        layers += [
            {"type": "Squeeze", "name": part, "inputs": piece, "axes": 0}
            for part, piece in zip(parts, sliced, strict=True)
        ]
    made = {name: [None] * steps for name in [*scan["update"].values(), *scan.get("collect", [])]}
    for t in range(steps)[:: -1 if scan.get("reverse") else 1]:
        known = {name: f"{name}{t}" for name in scan["sequences"]} | states | scan.get("non_sequences", {})
        for layer in scan["body"]:
            outputs = layer.get("outputs", [layer["name"]])
            copy = dict(layer, name=f"{layer['name']}_{t}", inputs=[known[name] for name in layer["inputs"]])
            copy["outputs"] = [f"{name}_{t}" for name in outputs]
            params = [n for n in ("weight", "bias") if n in layer.get("has", [])]
            copy["param"] = {name: {"share": f"{layer['name']}.{name}"} for name in params}
            copy.pop("has", None)
            known |= dict(zip(outputs, copy["outputs"], strict=True))
            layers.append(copy)
        states = {state: known[name] for state, name in scan["update"].items()}
        for name in made:
            made[name][t] = known[name]
    for at, names in enumerate([made[name] for name in [*scan["update"].values(), *scan.get("collect", [])]]):
        tops = []
        for t, name in enumerate(names):
            tops.append(f"out{at}_{t}")
            layers.append({"type": "Unsqueeze", "name": tops[-1], "inputs": name, "axes": 0})
        layers.append({"type": "Concat", "name": scan["outputs"][at], "inputs": tops, "axis": 0})
    return layers


def dense(name, inputs, size, bias=True):
    has = ["weight", "bias"] if bias else ["weight"]
    return {"type": "InnerProduct", "name": name, "inputs": [inputs], "num_output": size, "bias_term": bias, "has": has}


BODIES = {
    "gated": {
        "sequences": {"x": "data"},
        "state": {"h": "h0"},
        "update": {"h": "next"},
        "collect": ["gate"],
        "outputs": ["y", "gates"],
        "body": [
            {"type": "Concat", "name": "both", "inputs": ["x", "h"], "axis": 1},
            dense("u", "both", 3),
            {"type": "Sigmoid", "name": "gate", "inputs": ["u"]},
            dense("v", "both", 3),
            {"type": "TanH", "name": "new", "inputs": ["v"]},
            {"type": "Eltwise", "name": "open", "inputs": ["gate", "new"], "operation": "PROD"},
            {"type": "Eltwise", "name": "shut", "inputs": ["gate", "h"], "operation": "PROD"},
            {"type": "Eltwise", "name": "next", "inputs": ["h", "open", "shut"], "coeff": [1, 1, -1]},
        ],
        "inputs": {"data": (4, 2, 3), "h0": (2, 3)},
    },
    "images": {
        "sequences": {"x": "data"},
        "state": {"h": "h0"},
        "update": {"h": "next"},
        "collect": ["pooled"],
        "outputs": ["y", "small"],
        "body": [
            {"type": "Concat", "name": "both", "inputs": ["x", "h"], "axis": 1},
            {"type": "Convolution", "name": "conv", "inputs": ["both"], "num_output": 2, "kernel_size": 3, "pad": 1}
            | {"has": ["weight", "bias"]},
            {"type": "TanH", "name": "next", "inputs": ["conv"]},
            {"type": "Pooling", "name": "pooled", "inputs": ["next"], "kernel_size": 2, "stride": 2},
        ],
        "inputs": {"data": (3, 2, 1, 4, 4), "h0": (2, 2, 4, 4)},
    },
    "two sequences, a constant, and states that change places": {
        "sequences": {"x": "data", "z": "more"},
        "state": {"a": "a0", "b": "b0"},
        "non_sequences": {"w": "matrix"},
        "update": {"a": "b", "b": "next"},
        "collect": ["a", "next"],
        "outputs": ["first", "second", "before", "again"],
        "body": [
            {"type": "MatMul", "name": "turned", "inputs": ["a", "w"]},
            {"type": "Eltwise", "name": "sum", "inputs": ["turned", "x", "z", "b"], "coeff": [1, 0.5, -1, 0.3]},
            {"type": "TanH", "name": "next", "inputs": ["sum"]},
        ],
        "inputs": {"data": (5, 2, 3), "more": (5, 2, 3), "a0": (2, 3), "b0": (2, 3), "matrix": (3, 3)},
    },
}


@each_tier
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", BODIES)
def test_a_loop_is_the_loop_written_out(name, reverse, backend):
    case = BODIES[name] | {"reverse": reverse}
    inputs = case.pop("inputs")
    steps = next(iter(inputs.values()))[0]
    cleaned = [{key: value for key, value in layer.items() if key != "has"} for layer in case["body"]]
    loss = [
        {"type": "EuclideanLoss", "name": f"loss{at}", "inputs": [name, f"target{at}"]}
        for at, name in enumerate(case["outputs"])
    ]
    loop = {"type": "Scan", "name": "rnn", **case, "body": cleaned}
    shape = planned([loop], inputs)
    targets = {f"target{at}": shape.tensors[name].shape for at, name in enumerate(case["outputs"])}
    dtype = "float64" if backend == "numpy" else "float32"
    mine = planned([loop, *loss], inputs | targets, backend, dtype, wrt=list(inputs))
    plain = planned([*written_out(case, steps), *loss], inputs | targets, backend, dtype, wrt=list(inputs))
    feeds, params = draw(mine)
    t = steps - 1 if reverse else 0
    names = {key: key.removeprefix("rnn/").replace(".", f"_{t}.") for key in params}
    values, grads = run(mine, feeds, params)
    wanted, gradients = run(plain, feeds, {names[key]: value for key, value in params.items()})
    tolerance = 1e-12 if backend == "numpy" else 2e-5
    close(values, wanted, tolerance)
    close({names.get(key, key): value for key, value in grads.items()}, gradients, tolerance)


# Truncation, against a plain loop.


def truncated(x, h0, target, w, u, n, last=False):
    """Loss and gradients of h = tanh(x u + h w), with gradients that go back over n steps at most, by hand."""
    states = [h0]
    for each in x:
        states.append(np.tanh(each @ u + states[-1] @ w))
    dx, dw, du, dh = np.zeros_like(x), np.zeros_like(w), np.zeros_like(u), np.zeros_like(h0)
    for t in reversed(range(len(x))):
        if not last or t == len(x) - 1:
            dh = dh + (states[t + 1] - (target if last else target[t])) / len(target)
        dz = dh * (1 - states[t + 1] ** 2)
        dx[t], dw, du, dh = dz @ u.T, dw + states[t].T @ dz, du + x[t].T @ dz, dz @ w.T
        if (len(x) - t) % n == 0 and t:
            dh = np.zeros_like(dh)
    return dx, dh, dw, du


@each_tier
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("n", [1, 2, 3, 6, 7, 100])
def test_gradients_go_back_over_so_many_steps_at_most(n, last, backend):
    body = [{"type": "InnerProduct", "num_output": 4, "bias_term": False, **layer} for layer in (
        {"name": "u", "inputs": "x"},
        {"name": "v", "inputs": "h"},
    )]  # fmt: skip
    body += [{"type": "Eltwise", "inputs": ["u", "v"], "name": "z"}, {"type": "TanH", "name": "next"}]
    loop = {"type": "Scan", "name": "rnn", "sequences": ["x"], "state": {"h": "h0"}, "body": body, "truncate": n}
    inputs = {"x": (7, 2, 3), "h0": (2, 4), "target": (2, 4) if last else (7, 2, 4)}
    layers = [loop | {"keep": "last" if last else "all"}, LOSS | {"inputs": ["rnn", "target"]}]
    dtype = "float64" if backend == "numpy" else "float32"
    feeds, params = draw(planned(layers, inputs))
    params = {key: value / 2 for key, value in params.items()}
    grads = run(planned(layers, inputs, backend, dtype, wrt=["x", "h0"]), feeds, params)[1]
    u, w = params["rnn/u.weight"].T, params["rnn/v.weight"].T
    dx, dh, dw, du = truncated(feeds["x"], feeds["h0"], feeds["target"], w, u, n, last)
    wanted = {"d(x)": dx, "d(h0)": dh, "rnn/u.weight": du.T, "rnn/v.weight": dw.T}
    close(grads, wanted, 1e-12 if backend == "numpy" else 1e-5)
    if n >= 7:
        whole = planned([layers[0] | {"truncate": None}, layers[1]], inputs, backend, dtype, wrt=["x", "h0"])
        same = run(whole, feeds, params)[1]
        assert all((same[key] == value).all() for key, value in grads.items())


# The lecture.


@each_tier
def test_a_power_by_a_loop_as_in_the_lecture(backend):
    for a, wanted in ((2, 1024), (np.arange(10), np.arange(10.0) ** 10)):
        found = computed("scan_power", backend, A=a)
        np.testing.assert_allclose(found["power"], wanted, rtol=1e-6)
    two = computed("scan_power", backend, sets=["vars.k=2"], A=np.arange(10))
    np.testing.assert_array_equal(two["power"], [0, 1, 4, 9, 16, 25, 36, 49, 64, 81])


@each_tier
def test_a_running_sum_by_a_loop_as_in_the_lecture(backend):
    np.testing.assert_array_equal(computed("scan_sum", backend, x=[1, 2, 2, 2])["sum"], [1, 3, 5, 7])


def computed(config, backend, sets=(), **feeds):
    """The results of a configuration of the lecture, for arrays that are fed."""
    spec = cfgnet.load(LECTURE / f"{config}.yaml", sets)
    arrays = {name: np.asarray(value, np.float32) for name, value in feeds.items()}
    types = {name: TensorType(array.shape) for name, array in arrays.items()}
    return Computation(spec, types, Wanted(), backend=get_backend(backend))(arrays)


# Memory.

DOUBLING = {"type": "Scan", "name": "rnn", "state": {"h": "h0"}, "keep": "last"} | {
    "body": [
        {"type": "InnerProduct", "name": "v", "inputs": "h", "num_output": 4},
        {"type": "TanH", "name": "z", "inputs": "v"},
        {"type": "Sigmoid", "name": "next", "inputs": "z"},
    ]
}


def memory(steps, **settings):
    net = planned(
        [DOUBLING | {"steps": steps} | settings], {"h0": (2, 4)}, dtype="float32", wrt=settings.pop("wrt", ())
    )
    return net.plan.memory.tensors, net.plan.memory.scratch


def test_with_the_last_state_memory_does_not_grow_with_the_steps_where_nothing_is_trained():
    assert memory(1000) == memory(3)
    per_step = memory(101, keep="all")[0] - memory(100, keep="all")[0]
    assert per_step == 64  # of one state, as memory is handed out
    assert memory(100, keep="all")[1] == memory(3)[1]


def test_what_backward_asks_for_is_kept_of_each_step_and_nothing_else():
    loss = [LOSS | {"inputs": ["rnn", "target"]}]
    inputs = {"h0": (2, 4), "target": (2, 4)}
    one, two = (planned([DOUBLING | {"steps": n}, *loss], inputs, dtype="float32").plan for n in (10, 11))
    # The outputs of TanH and of Sigmoid; neither that of the InnerProduct, whose input is the state before.
    assert size_of(two, "rnn.kept") - size_of(one, "rnn.kept") == 2 * 2 * 4
    assert size_of(one, "rnn.kept") == (10 + 9) * 2 * 4  # the last state is what comes out
    assert one.memory.scratch == two.memory.scratch
    frozen = planned([DOUBLING | {"steps": 10, "frozen": True}, *loss], inputs).plan
    assert "rnn.kept" not in frozen.tensors
    assert ("gradients", "rnn.kept", "not kept") in [(d.about, d.subject, d.outcome) for d in frozen.decisions]


def test_where_only_the_last_state_comes_out_no_more_steps_are_kept_than_gradients_go_back():
    inputs = {"h0": (2, 4), "target": (2, 4)}
    layers = [DOUBLING | {"truncate": 3}, LOSS | {"inputs": ["rnn", "target"]}]
    plans = [planned([layers[0] | {"steps": n}, layers[1]], inputs).plan for n in (10, 1000)]
    # Three outputs of TanH, and the states before and behind the first two of the last three steps.
    assert [size_of(plan, "rnn.kept") for plan in plans] == [(3 + 3) * 2 * 4] * 2


def size_of(plan, name):
    return int(np.prod(plan.tensors[name].shape))


def test_in_the_native_tier_the_loop_is_one_program(need_native):
    layers = [
        scan(LSTM_BY_GATE, {name: {"like": "x", "shape": [0, H]} for name in "hc"}, {"h": "h_next", "c": "c_next"})
    ]
    layers = [layers[0] | {"outputs": "y"}, LOSS | {"inputs": ["y", "target"]}]
    net = planned(layers, {"x": (20, 3, 2), "target": (20, 3, H)}, "native", "float32")
    assert len(net.plan.nodes) == 2
    assert (len(net._forward), len(net._backward)) == (1, 1)


@pytest.fixture
def need_native():
    if reason := why_not("native"):
        pytest.skip(reason)


# Parameters.

NET = """
data:
  train:
    source: dummy
    count: 12
    batch_size: 6
    tensors: {{data: {{shape: [3, 2], filler: gaussian}}, target: {{shape: [3, 4]}}}}
layers:
  - type: Scan
    name: rnn
    sequences: {{x: data}}
    state: {{h: {{like: x, shape: [0, 4]}}}}
    body:
      - {{type: InnerProduct, name: u, inputs: x, num_output: 4{u}}}
      - {{type: InnerProduct, name: v, inputs: h, num_output: 4{v}}}
      - {{type: Eltwise, name: z, inputs: [u, v]}}
      - {{type: TanH, name: next}}
{scan}  - {{type: InnerProduct, name: score, num_output: 4, axis: 2{score}}}
  - {{type: EuclideanLoss, inputs: [score, target]}}
{rest}"""


def load(**parts):
    return cfgnet.loads(NET.format(**{"u": "", "v": "", "scan": "", "score": "", "rest": ""} | parts))


def slots(spec):
    return prepare(spec).plans["train"].slots


def test_parameters_of_the_body_are_called_by_layer_and_part():
    net = Net(load())
    assert [*net.plan.slots] == [
        "rnn/u.weight", "rnn/u.bias", "rnn/v.weight", "rnn/v.bias", "score.weight", "score.bias",
    ]  # fmt: skip
    assert net.param("rnn/v.weight").value.shape == (4, 4)
    with pytest.raises(KeyError):
        net.param("rnn.v.weight")


def test_settings_of_parameters_stand_at_the_layer_in_the_body_at_the_scan_or_in_the_solver():
    found = slots(load(u=", param: {weight: {lr_mult: 3, decay_mult: 0}}"))["rnn/u.weight"]
    assert (found.lr_mult, found.decay_mult) == (3, 0)
    found = slots(load(scan="    param: {u.weight: {lr_mult: 2}}\n", u=", param: {weight: {lr_mult: 3}}"))
    assert found["rnn/u.weight"].lr_mult == 2
    found = slots(
        load(rest='solver: {type: SGD, base_lr: 0.1, params: [{match: "rnn/u.*", lr_mult: 5}], freeze: rnn/v}')
    )
    assert (found["rnn/u.weight"].lr_mult, found["rnn/v.bias"].trainable) == (5, False)
    with pytest.raises(SpecError, match=r"rnn has no parameter 'u.wait'\n.*did you mean 'u.weight'"):
        slots(load(scan="    param: {u.wait: {lr_mult: 2}}\n"))


@pytest.mark.parametrize(
    ("parts", "frozen"),
    [
        ({"u": ", frozen: true"}, {"u.weight", "u.bias"}),
        ({"v": ", param: {weight: {lr_mult: 0}}"}, {"v.weight"}),
        ({"scan": "    frozen: true\n"}, {"u.weight", "u.bias", "v.weight", "v.bias"}),
        ({"rest": 'solver: {type: SGD, base_lr: 0.1, freeze: "*u.weight"}'}, {"u.weight"}),
    ],
)
def test_frozen_parameters_stay_and_the_gradients_of_the_others_are_as_before(parts, frozen):
    whole, part = Net(load(), get_backend("numpy")), Net(load(**parts), get_backend("numpy"))
    names = {f"rnn/{name}" for name in frozen}
    assert {key for key, slot in part.plan.slots.items() if not slot.trainable} == names
    feeds, params = draw(whole)
    (_, before), (_, after) = run(whole, feeds, params), run(part, feeds, params)
    assert after.keys() == before.keys() - names
    close(after, {key: before[key] for key in after}, 1e-6)


def test_a_parameter_may_be_shared_inside_and_with_the_outside():
    inside = Net(load(u=", param: {bias: {share: b}}", v=", param: {bias: {share: b}}"), get_backend("numpy"))
    assert "rnn/v.bias" not in inside.plan.slots
    assert inside.param("rnn/v.bias") is inside.param("rnn/u.bias")
    apart = Net(load(), get_backend("numpy"))
    feeds, params = draw(inside)
    together = run(inside, feeds, params)[1]
    alone = run(apart, feeds, params | {"rnn/v.bias": params["rnn/u.bias"]})[1]
    np.testing.assert_allclose(together["rnn/u.bias"], alone["rnn/u.bias"] + alone["rnn/v.bias"], rtol=1e-4)

    outside = Net(load(v=", param: {weight: {share: w}}", score=", param: {weight: {share: w}}"), get_backend("numpy"))
    assert outside.param("score.weight") is outside.param("rnn/v.weight")
    together = run(outside, feeds, draw(outside)[1])[1]
    values = draw(outside)[1]
    alone = run(apart, feeds, values | {"score.weight": values["rnn/v.weight"]})[1]
    np.testing.assert_allclose(together["rnn/v.weight"], alone["rnn/v.weight"] + alone["score.weight"], rtol=1e-4)
    with pytest.raises(SpecError, match=r"shared with u.weight, which is 4x2; here it is 4x4"):
        slots(load(u=", param: {weight: {share: w}}", v=", param: {weight: {share: w}}"))


# What the layers of the body may be.


def test_random_numbers_differ_from_step_to_step_and_follow_from_the_seed():
    body = [{"type": "Dropout", "name": "drop", "inputs": "x"}]
    layers = [{"type": "Scan", "name": "rnn", "sequences": ["x"], "collect": "drop", "body": body}]
    net = planned([*layers, LOSS | {"inputs": ["rnn", "x"]}], {"x": (6, 50)}, wrt=["x"])
    net.feed({"x": np.ones((6, 50))})
    masks = []
    for iteration in (0, 1, 0):
        net.iteration = iteration
        net.run_forward()
        masks.append(net.tensors["rnn"].copy())
        net.run_backward({"loss": 1.0})
    first, other, again = masks
    assert len({row.tobytes() for row in first}) == 6
    assert (first == again).all() and (first != other).any()
    assert set(np.unique(first)) == {0, 2}


def test_what_computes_with_arrays_itself_may_stand_in_the_body():
    body = [
        {"type": "InnerProduct", "name": "u", "inputs": "x", "num_output": 3},
        {"type": "HingeLoss", "name": "hinge", "inputs": ["u", "label"], "loss_weight": 0},
        {"type": "ArgMax", "name": "best", "inputs": "u"},
        {"type": "Embed", "name": "word", "inputs": "best", "input_dim": 3, "num_output": 2},
        {"type": "Eltwise", "name": "next", "inputs": ["hinge", "total"]},
    ]
    layers = [{"type": "Scan", "name": "rnn", "sequences": {"x": "x", "label": "label"}, "state": {"total": 0}}]
    layers[0] |= {
        "update": {"total": "next"},
        "keep": "last",
        "collect": "word",
        "body": body,
        "outputs": ["sum", "word"],
    }
    square = {"type": "Power", "name": "square", "inputs": "sum", "power": 2}
    net = planned([*layers, square | {"loss_weight": 1.0}], {"x": (4, 5, 2), "label": ((4, 5), "int")}, wrt=["x"])
    feeds, params = draw(net)
    values, grads = run(net, feeds, params)
    scores = feeds["x"] @ params["rnn/u.weight"].T + params["rnn/u.bias"]
    signs = np.where(np.arange(3) == feeds["label"][..., None], -1, 1)
    margins = np.maximum(0, 1 + signs * scores)
    np.testing.assert_allclose(net.tensors["sum"], margins.sum() / 5)
    best = scores.argmax(-1)
    np.testing.assert_allclose(
        values["word"].reshape(4, 5, 2), params["rnn/word.weight"][best] + params["rnn/word.bias"]
    )
    slope = 2 * net.tensors["sum"] * signs * (margins > 0) / 5
    np.testing.assert_allclose(grads["d(x)"], slope @ params["rnn/u.weight"])
    np.testing.assert_allclose(grads["rnn/u.weight"], np.einsum("tni,tnj->ij", slope, feeds["x"]))


def test_statistics_that_forward_keeps_follow_from_step_to_step():
    body = [{"type": "BatchNorm", "name": "norm", "inputs": "x"}]
    layers = [{"type": "Scan", "name": "rnn", "sequences": ["x"], "collect": "norm", "body": body}]
    net = planned(layers, {"x": (3, 6, 2)})
    alone = planned([{"type": "BatchNorm", "name": "norm"}], {"x": (6, 2)})
    feeds = draw(net)[0]
    net.feed(feeds)
    net.run_forward()
    for step in feeds["x"]:
        alone.feed({"x": step})
        alone.run_forward()
    for key, parameter in alone.params.items():
        assert not net.plan.slots[f"rnn/{key}"].trainable
        np.testing.assert_allclose(net.params[f"rnn/{key}"].value, parameter.value)


def test_a_scan_in_a_scan_is_one_scan_over_all_steps():
    inner = {"type": "Scan", "name": "inner", "sequences": {"x": "row"}, "state": {"h": "g"}, "body": RNN_BODY}
    inner |= {"keep": "last", "outputs": "g_next"}
    outer = {"type": "Scan", "name": "outer", "sequences": {"row": "x"}, "state": {"g": "h0"}, "body": [inner]}
    flat = [{"type": "Reshape", "name": "rows", "inputs": "x", "shape": [6, 2, 2]}]
    flat.append({"type": "Scan", "name": "inner", "sequences": {"x": "rows"}, "state": {"h": "h0"}, "body": RNN_BODY})
    ends = [[LOSS | {"inputs": [name, "target"]}] for name in ("outer", "inner")]
    inputs = {"x": (3, 2, 2, 2), "h0": (2, H), "target": (2, H)}
    nested = planned([outer | {"keep": "last"}, *ends[0]], inputs, wrt=["x", "h0"])
    single = planned([*flat[:1], flat[1] | {"keep": "last"}, *ends[1]], inputs, wrt=["x", "h0"])
    assert [*nested.params] == ["outer/inner/u.weight", "outer/inner/u.bias", "outer/inner/v.weight"]
    assert nested.param("outer/inner/v.weight").value.shape == (H, H)
    feeds, params = draw(nested)
    values, grads = run(nested, feeds, params)
    wanted, gradients = run(single, feeds, {key.removeprefix("outer/"): value for key, value in params.items()})
    close(values, wanted, 1e-14)
    close({key.removeprefix("outer/"): value for key, value in grads.items()}, gradients, 1e-12)


def test_a_block_and_a_formula_may_stand_in_the_body():
    body = [
        {"type": "Expression", "name": "mixed", "formula": "x * a + h", "params": {"a": 0.5}},
        {"type": "RecurrentStack", "name": "stack", "inputs": "mixed", "num_output": 2, "num_layers": 2},
        {"type": "Reshape", "name": "next", "inputs": "stack", "shape": [3, 2, 2]},
    ]
    layers = [{"type": "Scan", "name": "rnn", "sequences": ["x"], "state": {"h": "h0"}, "body": body}]
    net = planned([*layers, LOSS | {"inputs": ["rnn", "x"]}], {"x": (4, 3, 2, 2), "h0": (3, 2, 2)}, wrt=["x", "h0"])
    assert {"rnn/mixed.a", "rnn/stack/layer1.weight_x", "rnn/stack.weight_x"} < {*net.params}
    names = [*net.params]
    feeds, params = draw(net)
    _, grads = run(net, feeds, params)
    for name in ("rnn/mixed.a", "rnn/stack.weight_x", "d(x)"):
        target = feeds["x"] if name == "d(x)" else params[name]
        where, losses = (0,) * target.ndim, []
        start = target[where]
        for step in (1e-6, -1e-6):
            target[where] = start + step
            losses.append(float(run(net, feeds, params)[0]["loss"]))
        target[where] = start
        # The sequence is the target of the loss, too.
        np.testing.assert_allclose(grads[name][where], (losses[0] - losses[1]) / 2e-6, rtol=1e-5, err_msg=name)
    assert names == [*net.params]


def test_layers_of_the_body_may_be_there_in_one_phase_or_stage_only():
    body = [
        {"type": "Dropout", "name": "drop", "inputs": "x", "phase": "train"},
        {"type": "Power", "name": "half", "inputs": "x", "scale": 0.5, "include": [{"stage": "deploy"}]},
        {"type": "Eltwise", "name": "sum", "inputs": ["x", "total"]},
    ]
    layers = [{"type": "Scan", "name": "rnn", "sequences": ["x"], "state": {"total": 0}, "body": body}]
    for phase, state, there in (
        ("train", State(), ["drop", "sum"]),
        ("test", State(), ["sum"]),
        ("test", State(stage="deploy"), ["half", "sum"]),
    ):
        plan = planned(layers, {"x": (3,)}, phase=phase, state=state).plan
        assert [node.name for node in plan.nodes[0].inside.inner.graph.nodes] == there
