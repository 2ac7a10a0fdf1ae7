"""Layers against other people's definitions: scipy, plain loops and closed forms, over random settings."""

import itertools
import math
from types import SimpleNamespace

import numpy as np
import onnx.helper
import onnx.reference
import pytest
import scipy.signal
import scipy.special
from hypothesis import assume, given
from hypothesis import strategies as st

import cfgnet.layers  # noqa: F401  says where the layer types lie
from cfgnet.backend import get_backend
from cfgnet.graph import TensorType
from cfgnet.layer import Layer
from cfgnet.net import Net
from cfgnet.prepare import plan_layers


def net_of(fields, phase="train", backend=None, dtype="float64", **inputs):
    """A net of one layer over `inputs`, fed and run."""
    backend = backend or get_backend("numpy")
    layer = Layer.model_validate({"name": "layer", "inputs": list(inputs), **fields})
    types = {name: TensorType(a.shape, "int" if a.dtype.kind == "i" else "float") for name, a in inputs.items()}
    wrt = [name for name, kind in types.items() if kind.kind == "float"]
    net = Net(plan_layers([layer], phase, types, backend, dtype, wrt=wrt), backend)
    for key, parameter in net.params.items():
        if net.plan.slots[key].trainable:
            parameter.value[...] = np.random.default_rng(len(key)).normal(size=parameter.value.shape)
    net.feed(inputs)
    net.run_forward()
    return net


def numbers(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


@given(data=st.data(), axes=st.integers(1, 3), group=st.sampled_from([1, 2, 3]), seed=st.integers(0, 99))
def test_convolution_is_the_correlation_of_scipy(data, axes, group, seed):
    def each(least, most):
        return data.draw(st.lists(st.integers(least, most), min_size=axes, max_size=axes))

    size, kernel, stride, pad, dilation = each(1, 6), each(1, 3), each(1, 3), each(0, 2), each(1, 2)
    extent = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    assume(all(n + 2 * p >= e for n, p, e in zip(size, pad, extent, strict=True)))
    fields = {"num_output": 2 * group, "kernel_size": kernel, "stride": stride, "pad": pad, "dilation": dilation}
    x = numbers(seed, 2, 2 * group, *size)
    net = net_of({"type": "Convolution", "group": group, **fields}, x=x)
    weight, bias = net.param("layer.weight").value, net.param("layer.bias").value

    spread = np.zeros((*weight.shape[:2], *extent))
    spread[(..., *(slice(None, None, d) for d in dilation))] = weight
    padded = np.pad(x, [(0, 0), (0, 0), *((p, p) for p in pad)])
    expected = []
    for n, o in itertools.product(range(2), range(2 * group)):
        first = o // 2 * 2
        planes = (scipy.signal.correlate(padded[n, first + c], spread[o, c], "valid", "direct") for c in range(2))
        expected.append(sum(planes)[tuple(slice(None, None, s) for s in stride)] + bias[o])
    np.testing.assert_allclose(net["layer"], np.reshape(expected, net["layer"].shape), rtol=1e-10, atol=1e-12)


@given(
    pool=st.sampled_from(["MAX", "AVE"]),
    mode=st.sampled_from(["CEIL", "FLOOR"]),
    size=st.integers(1, 9),
    kernel=st.integers(1, 4),
    stride=st.integers(1, 4),
    pad=st.integers(0, 3),
)
def test_pooling_follows_the_loops_of_caffe(pool, mode, size, kernel, stride, pad):
    assume(pad < kernel <= size + 2 * pad)
    x = numbers(size, 2, 2, size, size).round(1)  # rounded, so that some are equal
    fields = {"type": "Pooling", "pool": pool, "round_mode": mode, "kernel_size": kernel, "stride": stride, "pad": pad}
    net = net_of({**fields, "loss_weight": 1.0}, x=x)
    rounded = math.ceil if mode == "CEIL" else math.floor
    count = rounded((size + 2 * pad - kernel) / stride) + 1
    if (count - 1) * stride >= size + pad:
        count -= 1
    assert net["layer"].shape == (2, 2, count, count)
    dy = numbers(1, *net["layer"].shape)
    net.run_backward({"layer": dy})
    expected, dx = np.empty_like(dy), np.zeros_like(x)
    for n, c, i, j in np.ndindex(dy.shape):
        top, left = i * stride - pad, j * stride - pad
        bottom, right = min(top + kernel, size + pad), min(left + kernel, size + pad)
        area = (bottom - top) * (right - left)
        rows, columns = range(max(top, 0), min(bottom, size)), range(max(left, 0), min(right, size))
        seen = {(h, w): x[n, c, h, w] for h in rows for w in columns}
        if pool == "AVE":
            expected[n, c, i, j] = sum(seen.values()) / area
            for h, w in seen:
                dx[n, c, h, w] += dy[n, c, i, j] / area
        else:
            h, w = max(seen, key=lambda place: seen[place])  # the first of equals
            expected[n, c, i, j] = seen[h, w]
            dx[n, c, h, w] += dy[n, c, i, j]
    np.testing.assert_allclose(net["layer"], expected, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(net.gradients["x"], dx, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("axis", [1, 2, -1])
def test_inner_product_is_einsum(axis):
    x = numbers(0, 2, 3, 4)
    net = net_of({"type": "InnerProduct", "num_output": 5, "axis": axis}, x=x)
    weight, bias = net.param("layer.weight").value, net.param("layer.bias").value
    rows = x.reshape(2, 12) if axis == 1 else x
    np.testing.assert_allclose(net["layer"], np.einsum("...i,oi->...o", rows, weight) + bias)


def test_embed_is_a_product_with_one_hot_vectors():
    x, dy = np.random.default_rng(0).integers(0, 7, (5, 6)).astype(np.int32), numbers(1, 5, 6, 4)
    net = net_of({"type": "Embed", "num_output": 4, "input_dim": 7, "loss_weight": 1.0}, x=x)
    weight, bias = net.param("layer.weight"), net.param("layer.bias")
    np.testing.assert_allclose(net["layer"], np.eye(7)[x] @ weight.value + bias.value)
    net.run_backward({"layer": dy})
    np.testing.assert_allclose(weight.grad, np.einsum("nti,nto->io", np.eye(7)[x], dy))
    np.testing.assert_allclose(bias.grad, dy.sum((0, 1)))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_softmax_and_its_loss_are_those_of_scipy(axis):
    x = 30 * numbers(1, 3, 3, 3)
    np.testing.assert_allclose(net_of({"type": "Softmax", "axis": axis}, x=x)["layer"], scipy.special.softmax(x, axis))
    label = np.random.default_rng(0).integers(0, 3, (3, 3)).astype(np.int32)
    net = net_of({"type": "SoftmaxWithLoss", "axis": axis}, x=x, label=label)
    logs = scipy.special.log_softmax(x, axis)
    picked = np.take_along_axis(logs, np.expand_dims(label, axis), axis)
    np.testing.assert_allclose(net.loss, -picked.mean())


def test_sigmoid_and_its_loss_are_those_of_scipy():
    x, target = 5 * numbers(2, 4, 6), np.random.default_rng(0).random((4, 6))
    np.testing.assert_allclose(net_of({"type": "Sigmoid"}, x=x)["layer"], scipy.special.expit(x), rtol=1e-12)
    net = net_of({"type": "SigmoidCrossEntropyLoss"}, x=x, target=target)
    likelihood = target * scipy.special.log_expit(x) + (1 - target) * scipy.special.log_expit(-x)
    np.testing.assert_allclose(net.loss, -likelihood.sum() / 4)


@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize("region", ["ACROSS_CHANNELS", "WITHIN_CHANNEL"])
def test_local_response_normalisation_follows_plain_loops(region, size):
    x, half = numbers(3, 2, 6, 5, 4), size // 2
    fields = {"local_size": size, "alpha": 0.7, "beta": 0.6, "k": 1.5, "norm_region": region}
    ours = net_of({"type": "LRN", **fields}, x=x)["layer"]
    expected = np.empty_like(x)
    for n, c, h, w in np.ndindex(x.shape):
        if region == "ACROSS_CHANNELS":
            box, base, area = x[n, max(c - half, 0) : c + half + 1, h, w], 1.5, size
        else:
            box = x[n, c, max(h - half, 0) : h + half + 1, max(w - half, 0) : w + half + 1]
            base, area = 1.0, size * size
        expected[n, c, h, w] = x[n, c, h, w] / (base + 0.7 / area * (box**2).sum()) ** 0.6
    np.testing.assert_allclose(ours, expected, rtol=1e-12)


@given(seed=st.integers(0, 200), top_k=st.integers(1, 3), ignore=st.sampled_from([None, 1]))
def test_accuracy_counts_as_a_person_would(seed, top_k, ignore):
    random = np.random.default_rng(seed)
    x = random.integers(0, 4, (6, 3, 2)).astype(np.float64)
    label = random.integers(0, 3, (6, 2)).astype(np.int32)
    fields = {"type": "Accuracy", "top_k": top_k, "ignore_label": ignore, "outputs": ["accuracy", "per_class"]}
    net = net_of(fields, x=x, label=label)
    hits, counts = np.zeros(3), np.zeros(3)
    for n, i in np.ndindex(label.shape):
        own = label[n, i]
        if own != ignore:
            # Caffe's rule: the label wins if fewer than k other scores are at least as large.
            hits[own] += sum(x[n, c, i] >= x[n, own, i] for c in range(3) if c != own) < top_k
            counts[own] += 1
    assert net["accuracy"] == pytest.approx(hits.sum() / max(1, counts.sum()))
    np.testing.assert_allclose(net["per_class"], hits / np.maximum(1, counts))


@given(seed=st.integers(0, 200), count=st.integers(2, 4))
def test_the_largest_of_several_inputs_is_found_by_the_loops_of_caffe(seed, count):
    xs = {f"x{i}": x.astype(float) for i, x in enumerate(np.random.default_rng(seed).integers(0, 3, (count, 3, 5)))}
    net = net_of({"type": "Eltwise", "operation": "MAX", "outputs": ["y", "mask"], "loss_weight": 1.0}, **xs)
    dy = numbers(seed, 3, 5)
    net.run_backward({"y": dy})
    for place in np.ndindex(3, 5):
        values = [x[place] for x in xs.values()]
        best = 0 if values[0] > values[1] else 1
        for index in range(2, count):
            best = index if values[index] > values[best] else best
        assert net["y"][place] == max(values) and net["mask"][place] == best
        assert [net.gradients[name][place] for name in xs] == [dy[place] if i == best else 0 for i in range(count)]


def test_a_dissimilar_pair_at_one_place_has_no_gradient_however_wide_the_margin():
    x = np.full((2, 3), 0.5, np.float32)
    layer = Layer.model_validate(
        {"type": "ContrastiveLoss", "margin": 1e6, "inputs": ["x", "other", "sim"], "outputs": "loss"}
    )
    types = {"x": TensorType(x.shape), "other": TensorType(x.shape), "sim": TensorType((2,), "int")}
    net = Net(plan_layers([layer], "train", types, get_backend("numpy"), "float32", wrt=["x"]))
    net.forward(x=x, other=x, sim=[0, 0])
    net.run_backward()
    assert (net.gradients["x"] == 0).all()


def test_batch_norm_keeps_a_running_average_and_uses_it_in_the_test_phase():
    fields = {"type": "BatchNorm", "moving_average_fraction": 0.9, "eps": 0.01}
    batches = [numbers(i, 8, 3, 2) * (i + 1) + i for i in range(4)]
    net = net_of(fields, x=batches[0])
    mean = variance = factor = 0.0
    for number, x in enumerate(batches):
        if number:
            net.feed({"x": x})
            net.run_forward()
        mean = 0.9 * mean + x.mean(axis=(0, 2))
        variance = 0.9 * variance + x.var(axis=(0, 2), ddof=1)
        factor = 0.9 * factor + 1
    test = net_of(fields, "test", x=batches[0])
    test.params.load(net.params.to_host())
    ours = test.forward(x=batches[0])["layer"]
    centre, spread = (mean / factor)[:, None], (variance / factor)[:, None]
    np.testing.assert_allclose(ours, (batches[0] - centre) / np.sqrt(spread + 0.01), rtol=1e-12)


def test_dropout_draws_by_seed_layer_and_iteration_and_keeps_the_mean():
    x = np.ones((100, 200))
    net = net_of({"type": "Dropout", "dropout_ratio": 0.3}, x=x)
    first = net["layer"]
    assert set(np.unique(first)) == {0.0, 1 / 0.7}
    assert (first == 0).mean() == pytest.approx(0.3, abs=0.015)
    net.run_forward()
    np.testing.assert_array_equal(net["layer"], first)
    net.iteration = 1
    net.run_forward()
    assert (net["layer"] == first).mean() == pytest.approx(0.3**2 + 0.7**2, abs=0.02)
    other = net_of({"type": "Dropout", "dropout_ratio": 0.3, "name": "other"}, x=x)["other"]
    assert (other == first).mean() == pytest.approx(0.3**2 + 0.7**2, abs=0.02)


def lstm_step(sums, state, weight_h):
    h, c = state
    i, f, o, g = np.split(sums + weight_h @ h, 4)
    c = scipy.special.expit(f) * c + scipy.special.expit(i) * np.tanh(g)
    h = scipy.special.expit(o) * np.tanh(c)
    return h, (h, c)


def gru_step(sums, state, weight_h, bias_h=None):
    (h,) = state
    (r, z, n), (weight_r, weight_z, weight_n) = np.split(sums, 3), np.split(weight_h, 3)
    r, z = scipy.special.expit(r + weight_r @ h), scipy.special.expit(z + weight_z @ h)
    n = np.tanh(n + (weight_n @ (r * h) if bias_h is None else r * (weight_n @ h + bias_h)))
    h = z * h + (1 - z) * n
    return h, (h,)


def rnn_step(sums, state, weight_h, weight_y=None, bias_y=None, taken=np.tanh):
    h = taken(sums + weight_h @ state[0])
    return h if weight_y is None else taken(weight_y @ h + bias_y), (h,)


def rectified_step(*given):
    return rnn_step(*given, taken=lambda z: np.maximum(z, 0))


RECURRENT = {
    "LSTM": ({"type": "LSTM"}, lstm_step, ("h", "c"), ("weight_h",)),
    "GRU": ({"type": "GRU"}, gru_step, ("h",), ("weight_h", "bias_h")),
    "GRU, reset before": ({"type": "GRU", "reset_after": False}, gru_step, ("h",), ("weight_h",)),
    "RNN": ({"type": "RNN"}, rnn_step, ("h",), ("weight_h", "weight_y", "bias_y")),
    "RNN, state": ({"type": "RNN", "output": False}, rnn_step, ("h",), ("weight_h",)),
    "RNN, relu": (
        {"type": "RNN", "nonlinearity": "relu"},
        rectified_step,
        ("h",),
        ("weight_h", "weight_y", "bias_y"),
    ),
}
"""The fields of a layer, what one step of one sequence does, its states, and the parameters that a step needs.

A step is a function of what the inputs contribute, the states and the parameters, and gives y and the new states.
"""


@given(
    kind=st.sampled_from(list(RECURRENT)),
    steps=st.integers(1, 5),
    count=st.integers(1, 5),
    static=st.booleans(),
    exposed=st.booleans(),
    whole=st.booleans(),
    reverse=st.booleans(),
    padded=st.booleans(),
    threads=st.sampled_from([1, 3]),
    seed=st.integers(0, 99),
)
def test_a_recurrent_layer_goes_through_each_sequence_as_if_it_were_alone(
    kind, steps, count, static, exposed, whole, reverse, padded, threads, seed
):
    fields, step, states, own = RECURRENT[kind]
    cont = np.random.default_rng(seed).integers(0, 2, (steps, count)).astype(np.int32)
    inputs = {"x": numbers(seed, steps, count, 2, 2), "cont": cont if whole else cont + numbers(seed, steps, count)}
    if static:
        inputs["x_static"] = numbers(seed + 1, count, 3)
    lengths = np.random.default_rng(seed + 3).integers(0, steps + 1, count).astype(np.int32)
    if padded:
        inputs["lengths"] = lengths
    first = {state: numbers(seed + 2, 1, count, 3) if exposed else np.zeros((1, count, 3)) for state in states}
    if exposed:
        inputs |= {f"{state}0": value for state, value in first.items()}
    backend = get_backend("numpy", threads)
    backend.k.step_elements = 1  # so that the threads share out even this
    outputs = {"expose_hidden": exposed, "outputs": ["y", *states], "reverse": reverse, "padded": padded}
    net = net_of({**fields, "num_output": 3, **outputs}, backend=backend, **inputs)
    weight_x, bias, *given = (net.param(f"layer.{name}").value for name in ("weight_x", "bias", *own))
    for n in range(count):
        fixed = net.param("layer.weight_static").value @ inputs["x_static"][n] if static else 0.0
        state = [first[name][0, n] for name in states]
        last = lengths[n] if padded else steps
        assert not net["y"][last:, n].any()
        for t in range(last)[:: -1 if reverse else 1]:
            kept = [inputs["cont"][t, n] * value for value in state]
            y, state = step(weight_x @ inputs["x"][t, n].reshape(-1) + bias + fixed, kept, *given)
            np.testing.assert_allclose(net["y"][t, n], y, rtol=1e-11, atol=1e-13)
        for name, value in zip(states, state, strict=True):
            np.testing.assert_allclose(net[name][0, n], value, rtol=1e-11, atol=1e-13)


ONNX = {"LSTM": (0, 2, 1, 3), "GRU": (1, 0, 2), "RNN": (0,)}
"""The recurrent layers of ONNX, and where their gates are among ours: i, o, f, g and z, r, n."""


def of_onnx(kind, directions, x, states, **attributes):
    """What ONNX computes: y with the directions one behind the other, and the last states, (direction, ...) each.

    `directions` are the parameters of each by name, and `states` the first ones by name.
    """

    def param(name):
        parts = [np.split(given[name], len(ONNX[kind])) for given in directions]
        return np.stack([np.concatenate([own[gate] for gate in ONNX[kind]]) for own in parts])

    bias = param("bias")
    bias_h = np.zeros_like(bias)
    for to, each in zip(bias_h, directions, strict=True):
        if "bias_h" in each:
            to[-3:] = each["bias_h"]
    feeds = {"x": x, "w": param("weight_x"), "r": param("weight_h"), "b": np.concatenate([bias, bias_h], axis=1)}
    names = [*feeds, "", *(f"{state}0" for state in states)]
    direction = "bidirectional" if len(directions) == 2 else attributes.pop("direction", "forward")
    size = directions[0]["weight_h"].shape[1]
    node = onnx.helper.make_node(kind, names, ["y", *states], hidden_size=size, direction=direction, **attributes)
    feeds |= {f"{state}0": value for state, value in states.items()}
    y, *last = onnx.reference.ReferenceEvaluator(node).run(None, feeds)
    return np.concatenate([*y.swapaxes(0, 1)], axis=-1), last


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("direction", ["forward", "reverse"])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "GRU, reset before", "RNN, state"])
def test_recurrent_layers_are_those_of_onnx(kind, direction, padded):
    fields, _, names, _ = RECURRENT[kind]
    kind, settings = fields["type"], {"reverse": direction == "reverse", "padded": padded, "expose_hidden": True}
    attributes = {"linear_before_reset": int(fields.get("reset_after", True))} if kind == "GRU" else {}
    x, states = numbers(0, 4, 5, 2), {name: numbers(i, 1, 5, 3) for i, name in enumerate(names, 1)}
    lengths = np.array([4, 1, 3, 2, 4] if padded else [4] * 5, np.int32)
    inputs = {"x": x, **({"lengths": lengths} if padded else {}), **{f"{name}0": s for name, s in states.items()}}
    net = net_of({**fields, **settings, "num_output": 3, "outputs": ["y", *names]}, **inputs)
    params = {key.removeprefix("layer."): each.value for key, each in net.params.items()}
    if kind == "GRU":
        params.setdefault("bias_h", np.zeros(3))
    for n, length in enumerate(lengths):
        own = {name: state[:, n : n + 1] for name, state in states.items()}
        y, last = of_onnx(kind, [params], x[:length, n : n + 1], own, direction=direction, **attributes)
        np.testing.assert_allclose(net["y"][:length, n], y[:, 0], rtol=1e-11, atol=1e-13)
        assert not net["y"][length:, n].any()
        for name, value in zip(names, last, strict=True):
            np.testing.assert_allclose(net[name][:, n], value[:, 0], rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("kind", ONNX)
def test_a_stack_is_one_layer_of_onnx_behind_another(kind, bidirectional):
    x, lengths = numbers(0, 4, 3, 2), np.array([4, 1, 3], np.int32)
    fields = {"type": "RecurrentStack", "cell": kind, "num_output": 3, "num_layers": 2, "bidirectional": bidirectional}
    net = net_of({**fields, "dropout_ratio": 0.5}, phase="test", x=x, lengths=lengths)
    parts = [["layer1.forward", "layer1.reverse"], ["layer2.forward", "layer2.reverse"]]
    prefixes = (
        [[f"layer/{part}." for part in both] for both in parts] if bidirectional else [["layer/layer1."], ["layer."]]
    )
    attributes = {"linear_before_reset": 1} if kind == "GRU" else {}
    for n, length in enumerate(lengths):
        y = x[:length, n : n + 1]
        for prefix in prefixes:
            found = [
                {key.removeprefix(p): each.value for key, each in net.params.items() if key.startswith(p)}
                for p in prefix
            ]
            y, _ = of_onnx(kind, found, y, {}, **attributes)
        np.testing.assert_allclose(net["layer"][:length, n], y[:, 0], rtol=1e-11, atol=1e-13)
        assert not net["layer"][length:, n].any()


every_recurrent = pytest.mark.parametrize("kind", RECURRENT)


@every_recurrent
@pytest.mark.parametrize("count", [8, 9, 12])
def test_multiplying_a_few_sequences_at_a_time_gives_the_same_gradients(kind, count):
    fields = {**RECURRENT[kind][0], "num_output": 3, "loss_weight": 1.0}
    found = []
    for most in (4 * 36, 10**6):  # four sequences by the weight, or all of them
        backend = get_backend("numpy", 1)
        backend.k.small_product = most
        net = net_of(fields, backend=backend, x=numbers(0, 5, count, 4))
        net.run_backward({"layer": numbers(1, 5, count, 3)})
        found.append([net["layer"], net.gradients["x"], *(each.grad for each in net.params.values())])
    for few, whole in zip(*found, strict=True):
        np.testing.assert_allclose(few, whole, rtol=1e-11, atol=1e-13)


@every_recurrent
def test_states_handed_on_make_one_of_two_batches(kind):
    fields, _, states, _ = RECURRENT[kind]
    x, cont = numbers(0, 6, 2, 4), np.ones((6, 2))
    cont[4, 1] = 0
    fields = {**fields, "num_output": 3, "expose_hidden": True, "outputs": ["y", *states], "loss_weight": 1.0}
    zeros = {f"{state}0": np.zeros((1, 2, 3)) for state in states}
    whole = net_of(fields, x=x, cont=cont, **zeros)
    first = net_of(fields, x=x[:3], cont=cont[:3], **zeros)
    second = net_of(fields, x=x[3:], cont=cont[3:], **{f"{state}0": first[state] for state in states})
    np.testing.assert_allclose(np.concatenate([first["y"], second["y"]]), whole["y"], rtol=1e-12)
    dy, ends = numbers(1, 6, 2, 3), dict.fromkeys(states, 0.0)
    for net in (whole, first, second):
        net.params.grads.fill(0)
    whole.run_backward({"y": dy} | ends)
    second.run_backward({"y": dy[3:]} | ends)
    first.run_backward({"y": dy[:3]} | {state: second.gradients[f"{state}0"] for state in states})
    for key, parameter in whole.params.items():
        np.testing.assert_allclose(first.params[key].grad + second.params[key].grad, parameter.grad, rtol=1e-11)
    parts = [first.gradients["x"], second.gradients["x"]]
    np.testing.assert_allclose(np.concatenate(parts), whole.gradients["x"], rtol=1e-11)


@every_recurrent
@pytest.mark.parametrize("reverse", [False, True])
def test_steps_that_do_not_count_are_as_if_they_were_not_there(kind, reverse):
    fields, _, states, _ = RECURRENT[kind]
    fields = {**fields, "num_output": 3, "reverse": reverse, "expose_hidden": True, "outputs": ["y", *states]}
    first = {f"{state}0": numbers(9, 1, 1, 3) for state in states}
    ends = {state: numbers(8, 1, 1, 3) for state in states}
    x, dy, nothing = numbers(0, 5, 1, 4), numbers(1, 5, 1, 3), np.zeros((5, 1))
    cont = np.concatenate([np.full((3, 1), 0.5), nothing[:2]])
    lengths = np.array([3], np.int32)
    longer = net_of({**fields, "padded": True, "loss_weight": 1.0}, x=x, cont=cont, lengths=lengths, **first)
    alone = net_of({**fields, "loss_weight": 1.0}, x=x[:3], cont=cont[:3], **first)
    for net, upper in ((longer, dy), (alone, dy[:3])):
        net.params.grads.fill(0)
        net.run_backward({"y": upper, **ends})
    for name in states:
        np.testing.assert_allclose(longer[name], alone[name], rtol=1e-12)
        np.testing.assert_allclose(longer.gradients[f"{name}0"], alone.gradients[f"{name}0"], rtol=1e-12)
    np.testing.assert_allclose(longer["y"], np.concatenate([alone["y"], np.zeros((2, 1, 3))]), rtol=1e-12)
    dx = np.concatenate([alone.gradients["x"], np.zeros((2, 1, 4))])
    np.testing.assert_allclose(longer.gradients["x"], dx, rtol=1e-12)
    for key, parameter in longer.params.items():
        np.testing.assert_allclose(parameter.grad, alone.params[key].grad, rtol=1e-11, atol=1e-14)


def test_uniform_numbers_are_the_published_hash():
    """The first outputs of splitmix64 from seed 1234567, as published with it, cut to 24 bits."""
    y = np.empty(3)
    get_backend("numpy").k.uniform(SimpleNamespace(key=lambda: 1234567), y)()
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    np.testing.assert_array_equal(y, [(z >> 40) / 2**24 for z in published])
