"""Scan: a loop in a layer is the same as the loop written out, whatever is in it."""

import numpy as np
import pytest

import cfgnet
from cfgnet.backend import get_backend, why_not
from cfgnet.errors import SpecError
from cfgnet.graph import TensorType
from cfgnet.layer import Layer
from cfgnet.net import Net
from cfgnet.prepare import plan_layers

BACKENDS = [
    pytest.param("numpy", id="numpy"),
    pytest.param("native", id="native", marks=pytest.mark.skipif(bool(why_not("native")), reason=why_not("native"))),
]
each_tier = pytest.mark.parametrize("backend", BACKENDS)
H = 4
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
