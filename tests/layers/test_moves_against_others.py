"""Layers that move, pick, repeat and reduce, and products of matrices, against numpy, scipy and plain loops."""

import itertools

import numpy as np
import pytest
import scipy.special
from hypothesis import assume, given
from hypothesis import strategies as st

from .test_against_others import net_of, numbers

SEEDS = st.integers(0, 99)


def shapes(least=1, most=4):
    return st.lists(st.integers(1, 4), min_size=least, max_size=most).map(tuple)


def backward(net, dy):
    """The gradient of x, from that of the output."""
    net.run_backward({"layer": dy})
    return net.gradients["x"]


def spread(function, x, dy):
    """The gradient of x where y is made of elements of x by a function of numpy, found by moving their places."""
    places = function(np.arange(x.size).reshape(x.shape))
    dx = np.zeros(x.size)
    np.add.at(dx, places[places >= 0], dy[places >= 0])
    return dx.reshape(x.shape)


def check_moved(fields, function, x, **others):
    """A layer that only moves elements of x does as a function of numpy does, and back."""
    net = net_of({"loss_weight": 1.0, **fields}, x=x, **others)
    np.testing.assert_array_equal(net["layer"], function(x))
    dy = numbers(7, *net["layer"].shape)
    np.testing.assert_allclose(backward(net, dy), spread(function, x, dy), rtol=1e-12, atol=1e-13)


@given(shape=shapes(), data=st.data(), seed=SEEDS)
def test_axes_are_turned_added_and_left_out_as_numpy_does(shape, data, seed):
    x, ndim = numbers(seed, *shape), len(shape)
    axes = data.draw(st.permutations(range(ndim)))
    signed = [axis - ndim * data.draw(st.booleans()) for axis in axes]
    check_moved({"type": "Transpose", "axes": signed}, lambda a: a.transpose(axes), x)
    check_moved({"type": "Transpose"}, np.transpose, x)
    check_moved({"type": "Squeeze"}, np.squeeze, x)
    ones = [axis for axis in signed if x.shape[axis] == 1][:2]
    if ones:
        check_moved({"type": "Squeeze", "axes": ones}, lambda a: np.squeeze(a, tuple(ones)), x)
    new = data.draw(st.lists(st.integers(-ndim - 2, ndim + 1), min_size=2, max_size=2))
    assume(new[0] % (ndim + 2) != new[1] % (ndim + 2))
    check_moved({"type": "Unsqueeze", "axes": new}, lambda a: np.expand_dims(a, tuple(new)), x)


@given(shape=shapes(), count=st.integers(1, 3), data=st.data(), seed=SEEDS)
def test_tile_and_repeat_are_those_of_numpy(shape, count, data, seed):
    x, axis = numbers(seed, *shape), data.draw(st.integers(-len(shape), len(shape) - 1))
    times = [1] * len(shape)
    times[axis] = count
    check_moved({"type": "Tile", "axis": axis, "tiles": count}, lambda a: np.tile(a, times), x)
    check_moved({"type": "Repeat", "axis": axis, "repeats": count}, lambda a: np.repeat(a, count, axis), x)


@given(shape=shapes(), data=st.data(), mode=st.sampled_from(["CONSTANT", "REFLECT", "EDGE"]), seed=SEEDS)
def test_pad_is_that_of_numpy(shape, data, mode, seed):
    axes = data.draw(st.lists(st.integers(0, len(shape) - 1), min_size=1, unique=True))
    amounts = [
        tuple(data.draw(st.integers(0, min(3, shape[axis] - 1) if mode == "REFLECT" else 3)) for _ in range(2))
        for axis in axes
    ]
    before, after = map(list, zip(*amounts, strict=True))
    widths = [amounts[axes.index(axis)] if axis in axes else (0, 0) for axis in range(len(shape))]
    more = {"constant_values": -1} if mode == "CONSTANT" else {}  # an index of -1 is of no element of x
    fields = {"type": "Pad", "axes": axes, "before": before, "after": after, "mode": mode, "value": -1.0}
    check_moved(fields, lambda a: np.pad(a, widths, mode.lower(), **more), numbers(seed, *shape))


@given(shape=shapes(), data=st.data(), seed=SEEDS)
def test_crop_takes_a_box(shape, data, seed):
    axis = data.draw(st.integers(0, len(shape) - 1))
    starts = [data.draw(st.integers(0, n - 1)) for n in shape[axis:]]
    sizes = [data.draw(st.integers(1, n - start)) for n, start in zip(shape[axis:], starts, strict=True)]
    box = (*(slice(None),) * axis, *(slice(s, s + n) for s, n in zip(starts, sizes, strict=True)))
    like = numbers(0, *(7,) * axis, *sizes)
    offset = starts if any(starts) or data.draw(st.booleans()) else []
    check_moved({"type": "Crop", "axis": axis, "offset": offset}, lambda a: a[box], numbers(seed, *shape), like=like)


@given(data=st.data(), axes=st.integers(1, 3), seed=SEEDS)
def test_im2col_copies_what_each_window_sees(data, axes, seed):
    def each(least, most):
        return data.draw(st.lists(st.integers(least, most), min_size=axes, max_size=axes))

    size, kernel, stride, pad, dilation = each(1, 6), each(1, 3), each(1, 3), each(0, 2), each(1, 2)
    extent = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    assume(all(n + 2 * p >= e for n, p, e in zip(size, pad, extent, strict=True)))

    def unfolded(x):
        padded = np.pad(x, [(0, 0), (0, 0), *((p, p) for p in pad)], constant_values=-1 if x.dtype.kind == "i" else 0)
        windows = np.lib.stride_tricks.sliding_window_view(padded, extent, axis=tuple(range(2, 2 + axes)))
        windows = windows[(slice(None), slice(None), *(slice(None, None, s) for s in stride))]
        seen = windows[(..., *(slice(None, None, d) for d in dilation))]  # n, c, out..., kernel...
        seen = np.moveaxis(seen, range(2 + axes, 2 + 2 * axes), range(2, 2 + axes))
        return seen.reshape(x.shape[0], -1, *seen.shape[2 + axes :])

    fields = {"kernel_size": kernel, "stride": stride, "pad": pad, "dilation": dilation}
    check_moved({"type": "Im2col", **fields}, unfolded, numbers(seed, 2, 2, *size))


def test_a_1x1_convolution_of_what_is_unfolded_is_the_convolution():
    x, fields = numbers(0, 2, 3, 6, 5), {"kernel_size": 3, "stride": 2, "pad": 1}
    whole = net_of({"type": "Convolution", "num_output": 4, **fields}, x=x)
    small = net_of(
        {"type": "Convolution", "num_output": 4, "kernel_size": 1}, x=net_of({"type": "Im2col", **fields}, x=x)["layer"]
    )
    small.param("layer.weight").value[...] = whole.param("layer.weight").value.reshape(4, 27, 1, 1)
    small.param("layer.bias").value[...] = whole.param("layer.bias").value
    small.run_forward()
    np.testing.assert_allclose(small["layer"], whole["layer"], rtol=1e-12)


REDUCTIONS = {
    "SUM": np.sum,
    "ASUM": lambda x, axis, keepdims: np.abs(x).sum(axis, keepdims=keepdims),
    "SUMSQ": lambda x, axis, keepdims: np.square(x).sum(axis, keepdims=keepdims),
    "MEAN": np.mean,
    "MAX": np.max,
    "MIN": np.min,
    "LOGSUMEXP": scipy.special.logsumexp,
}


@pytest.mark.parametrize("operation", REDUCTIONS)
@given(shape=shapes(), data=st.data(), keepdims=st.booleans(), seed=SEEDS)
def test_reductions_are_those_of_numpy_and_scipy(operation, shape, data, keepdims, seed):
    x, ndim = 20 * numbers(seed, *shape), len(shape)
    tail = data.draw(st.booleans())
    axis = data.draw(st.integers(-ndim, ndim - 1))
    axes = (
        list(range(axis % ndim, ndim))
        if tail
        else data.draw(st.lists(st.integers(0, ndim - 1), min_size=1, unique=True))
    )
    which = {"axis": axis} if tail else {"axes": axes}
    net = net_of({"type": "Reduction", "operation": operation, "keepdims": keepdims, "coeff": -1.5, **which}, x=x)
    expected = -1.5 * REDUCTIONS[operation](x, axis=tuple(axes), keepdims=keepdims)
    np.testing.assert_allclose(net["layer"], expected, rtol=1e-12, atol=1e-12)
    assert net["layer"].shape == expected.shape


@given(shape=shapes(2), data=st.data(), operation=st.sampled_from(["MAX", "MIN"]), seed=SEEDS)
def test_of_equal_numbers_the_first_gets_the_gradient(shape, data, operation, seed):
    x = np.random.default_rng(seed).integers(0, 3, shape).astype(float)
    axes = sorted(data.draw(st.lists(st.integers(0, len(shape) - 1), min_size=1, unique=True)))
    fields = {"type": "Reduction", "operation": operation, "axes": axes, "keepdims": True, "loss_weight": 1.0}
    net = net_of(fields, x=x)
    dy, expected = numbers(1, *net["layer"].shape), np.zeros(shape)
    for place in np.ndindex(dy.shape):
        seen = itertools.product(*(range(n) if i in axes else [place[i]] for i, n in enumerate(shape)))
        first = min(seen, key=lambda at: -x[at] if operation == "MAX" else x[at])  # the first of equals
        expected[first] += dy[place]
    np.testing.assert_array_equal(backward(net, dy), expected)


@given(shape=shapes(2), data=st.data(), top_k=st.integers(1, 3), seed=SEEDS)
def test_the_largest_are_those_that_sorting_puts_in_front(shape, data, top_k, seed):
    x = np.random.default_rng(seed).integers(0, 4, shape).astype(float)
    axis = data.draw(st.one_of(st.none(), st.integers(-len(shape), len(shape) - 1)))
    lines = x.reshape(shape[0], 1, -1) if axis is None else np.moveaxis(x, axis, -1)
    assume(top_k <= lines.shape[-1])
    fields = {"top_k": top_k, **({} if axis is None else {"axis": axis}), "outputs": ["y", "values"]}
    net = net_of({"type": "ArgMax", **fields}, x=x)
    index, values = np.empty((*lines.shape[:-1], top_k)), np.empty((*lines.shape[:-1], top_k))
    for place in np.ndindex(lines.shape[:-1]):
        best = sorted(zip(lines[place], itertools.count()), reverse=True)[:top_k]  # pairs: the larger index first
        values[place], index[place] = zip(*best, strict=True)
    for name, expected in (("y", index), ("values", values)):
        behind = (
            expected.reshape(*expected.shape, *(1,) * (len(shape) - 3))
            if axis is None
            else np.moveaxis(expected, -1, axis)
        )
        np.testing.assert_array_equal(net[name], behind)


@given(data=st.data(), count=st.integers(1, 6), seed=SEEDS)
def test_a_filter_is_boolean_indexing_with_nothing_behind(data, count, seed):
    selector = np.array(data.draw(st.lists(st.sampled_from([0.0, 1.0, -0.5]), min_size=count, max_size=count)))
    x, label = numbers(seed, count, 2, 3), np.arange(count, dtype=np.int32)
    fields = {"type": "Filter", "outputs": ["y", "kept_label"], "loss_weight": 1.0}
    net = net_of(fields, x=x, label=label, selector=selector)
    kept = selector != 0
    np.testing.assert_array_equal(net["y"], np.concatenate([x[kept], np.zeros_like(x[~kept])]))
    np.testing.assert_array_equal(net["kept_label"], [*label[kept], *[-1] * (count - kept.sum())])
    dy, dx = numbers(seed + 1, *x.shape), np.zeros_like(x)
    net.run_backward({"y": dy})
    dx[kept] = dy[: kept.sum()]
    np.testing.assert_array_equal(net.gradients["x"], dx)


@given(shape=shapes(), data=st.data(), fixed=st.booleans(), seed=SEEDS)
def test_gather_is_take_of_numpy(shape, data, fixed, seed):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    n, form = shape[axis], data.draw(st.lists(st.integers(1, 3), max_size=1 if fixed else 2))
    index = np.random.default_rng(seed).integers(-n if fixed else 0, n, form or [1] if fixed else form).astype(np.int32)
    fields = {"indices": index.tolist()} if fixed else {}
    others = {} if fixed else {"index": index}
    check_moved(
        {"type": "Gather", "axis": axis, **fields}, lambda a: a.take(index, axis), numbers(seed, *shape), **others
    )
    if axis == 0 and not fixed and len(form) == 1:
        check_moved({"type": "BatchReindex"}, lambda a: a[index], numbers(seed, *shape), **others)


@st.composite
def meeting(draw, count):
    """A shape, and as many shapes that numpy broadcasts to it together."""
    whole = draw(shapes(0, 3))
    found = []
    for _ in range(count):
        cut = [1 if draw(st.booleans()) else n for n in whole]
        found.append(tuple(cut[draw(st.integers(0, len(cut))) :]))
    return np.broadcast_shapes(*found), found


def reduced(whole, shape):
    """The sum over the axes along which numpy repeats an array of a shape to fill a larger one."""
    whole = whole.sum(axis=tuple(range(whole.ndim - len(shape))))
    return whole.sum(axis=tuple(i for i, n in enumerate(shape) if n < whole.shape[i]), keepdims=True).reshape(shape)


@given(shape=meeting(3), seed=SEEDS)
def test_where_is_that_of_numpy(shape, seed):
    whole, (condition, a, b) = shape
    condition = np.random.default_rng(seed).integers(0, 2, condition).astype(float)
    a, b = numbers(seed, *a), numbers(seed + 1, *b)
    net = net_of({"type": "Where", "loss_weight": 1.0}, condition=condition, a=a, b=b)
    np.testing.assert_array_equal(net["layer"], np.where(condition, a, b))
    dy = numbers(seed + 2, *whole)
    net.run_backward({"layer": dy})
    np.testing.assert_allclose(net.gradients["a"], reduced(np.where(condition, dy, 0), a.shape), atol=1e-13)
    np.testing.assert_allclose(net.gradients["b"], reduced(np.where(condition, 0, dy), b.shape), atol=1e-13)


@given(
    places=meeting(2),
    sizes=st.tuples(*[st.integers(1, 4)] * 3),
    turned=st.tuples(st.booleans(), st.booleans()),
    seed=SEEDS,
)
def test_matmul_and_its_gradients_are_einsum(places, sizes, turned, seed):
    whole, (a_places, b_places) = places
    (rows, depth, columns), (turn_a, turn_b) = sizes, turned
    a, b = numbers(seed, *a_places, rows, depth), numbers(seed + 1, *b_places, depth, columns)
    given_a, given_b = a.swapaxes(-1, -2) if turn_a else a, b.swapaxes(-1, -2) if turn_b else b
    fields = {"type": "MatMul", "transpose_a": turn_a, "transpose_b": turn_b, "loss_weight": 1.0}
    net = net_of(fields, a=given_a, b=given_b)
    np.testing.assert_allclose(net["layer"], np.einsum("...ij,...jk->...ik", a, b), rtol=1e-11, atol=1e-12)
    dy = numbers(seed + 2, *whole, rows, columns)
    net.run_backward({"layer": dy})
    da = reduced(np.einsum("...ik,...jk->...ij", dy, b), a.shape)
    db = reduced(np.einsum("...ij,...ik->...jk", a, dy), b.shape)
    np.testing.assert_allclose(net.gradients["a"], da.swapaxes(-1, -2) if turn_a else da, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(net.gradients["b"], db.swapaxes(-1, -2) if turn_b else db, rtol=1e-11, atol=1e-12)
