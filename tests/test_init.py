"""Fillers: variances by formula, what the special ones are for, and what they refuse. Caffe's are in tests/oracles."""

import math

import numpy as np
import pytest
from scipy import stats

import cfgnet
from cfgnet.errors import ShapeError, SpecError
from cfgnet.init import Filler
from cfgnet.rng import generator

SHAPES = [(40, 30), (24, 12, 3, 3), (700,), (9, 5, 2, 3, 4)]


def fill(settings, shape, purpose="a"):
    return Filler.model_validate(settings).fill(generator(3, purpose), shape)


def fans(shape):
    """Of a fully connected layer or a convolution, by their own words; an axis that is not there counts as 1."""
    outputs, inputs, *kernel = (*shape, 1) if len(shape) == 1 else shape
    window = math.prod(kernel)
    return (inputs * window, outputs * window)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(
    ("settings", "variance", "law"),
    [
        ({"type": "glorot_uniform"}, lambda i, o: 2 / (i + o), "uniform"),
        ({"type": "glorot_normal"}, lambda i, o: 2 / (i + o), "norm"),
        ({"type": "lecun_uniform"}, lambda i, o: 1 / i, "uniform"),
        ({"type": "lecun_normal"}, lambda i, o: 1 / i, "norm"),
        ({"type": "xavier"}, lambda i, o: 1 / i, "uniform"),
        ({"type": "xavier", "variance_norm": "AVERAGE"}, lambda i, o: 2 / (i + o), "uniform"),
        ({"type": "msra"}, lambda i, o: 2 / i, "norm"),
        ({"type": "msra", "variance_norm": "FAN_OUT"}, lambda i, o: 2 / o, "norm"),
    ],
    ids=str,
)
def test_random_numbers_have_their_law_and_variance(settings, variance, law, shape):
    scale = math.sqrt(variance(*fans(shape)))
    wanted = stats.norm(scale=scale) if law == "norm" else stats.uniform(-math.sqrt(3) * scale, math.sqrt(12) * scale)
    values = fill(settings, shape)
    assert values.shape == shape and values.dtype == np.float64
    assert stats.kstest(values.ravel(), wanted.cdf).pvalue > 1e-4


def test_the_tails_of_a_truncated_normal_are_cut_off():
    values = fill({"type": "truncated_normal", "mean": 5.0, "std": 0.1, "cut": 1.5}, (200, 50))
    wanted = stats.truncnorm(-1.5, 1.5, loc=5.0, scale=0.1)
    assert values.min() >= 4.85 and values.max() <= 5.15
    assert stats.kstest(values.ravel(), wanted.cdf).pvalue > 1e-4
    assert fill({"type": "truncated_normal", "cut": 0.1}, ()).shape == ()


@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (7, 7), (4, 3, 3, 2), (30, 2, 3)], ids=str)
def test_an_orthogonal_matrix_has_orthogonal_rows_or_columns(shape):
    values = fill({"type": "orthogonal", "gain": 1.5}, shape)
    matrix = values.reshape(shape[0], -1)
    small = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    assert values.shape == shape
    np.testing.assert_allclose(small, 2.25 * np.eye(len(small)), atol=1e-12)


def test_orthogonal_matrices_are_drawn_evenly():
    """The first element of a column on a sphere in 3 dimensions is uniform; without the change of signs it is not."""
    firsts = [fill({"type": "orthogonal"}, (3, 3), str(i))[0, 0] for i in range(400)]
    assert stats.kstest(firsts, stats.uniform(-1, 2).cdf).pvalue > 1e-3


@pytest.mark.parametrize(
    ("layer", "gain"),
    [
        ("type: InnerProduct, num_output: 6, axis: -1", 1.0),
        ("type: Convolution, num_output: 4, kernel_size: 3, pad: 1", 2.0),
        ("type: Convolution, num_output: 4, kernel_size: 1, group: 2", 1.0),
        ("type: Convolution, num_output: 4, kernel_size: 5, pad: 2, group: 4", 1.0),
    ],
)
def test_a_layer_that_starts_as_identity_passes_its_input_on(layer, gain):
    text = f"""
    data: {{train: {{source: dummy, tensors: {{data: {{shape: [4, 6, 6]}}}}, batch_size: 8}}}}
    layers: [{{{layer}, weight_filler: {{type: identity, gain: {gain}}}}}]
    dtype: float64
    """
    net = cfgnet.Net(cfgnet.loads(text))
    x = np.random.default_rng(0).normal(size=(8, 4, 6, 6))
    (y,) = net.forward(data=x).values()
    np.testing.assert_allclose(y, gain * x, atol=1e-12)


def test_where_there_are_more_outputs_than_inputs_identity_begins_again():
    np.testing.assert_array_equal(fill({"type": "identity"}, (5, 2)), [[1, 0], [0, 1], [1, 0], [0, 1], [1, 0]])
    np.testing.assert_array_equal(fill({"type": "identity"}, (2, 3)), [[1, 0, 0], [0, 1, 0]])


@pytest.mark.parametrize("s", [1, 2, 3, 4])
def test_bilinear_weights_enlarge_with_interpolation(s):
    """A plane that is linear stays linear, but for its border."""
    kernel = 2 * s - s % 2
    weight = fill({"type": "bilinear"}, (3, 1, kernel, kernel))[2, 0]
    small = np.add.outer(np.arange(6.0), 3 * np.arange(6.0))
    large = np.zeros((5 * s + kernel,) * 2)
    for i, j in np.ndindex(6, 6):
        large[i * s : i * s + kernel, j * s : j * s + kernel] += small[i, j] * weight
    inner = large[kernel:-kernel, kernel:-kernel]
    for axis, slope in ((0, 1 / s), (1, 3 / s)):
        np.testing.assert_allclose(np.diff(inner, axis=axis), slope, atol=1e-12)


def test_positive_unitball_sums_to_one():
    values = fill({"type": "positive_unitball"}, (6, 3, 4))
    np.testing.assert_allclose(values.sum(axis=(1, 2)), 1)
    assert (values >= 0).all()


@pytest.mark.parametrize(
    ("settings", "shape"),
    [("bilinear", (4, 4)), ("bilinear", (1, 1, 3, 4)), ("bilinear", (1, 3, 3)), ("orthogonal", (4,)), ("identity", ())],
)
def test_what_a_filler_cannot_fill_is_refused(settings, shape):
    with pytest.raises(ShapeError, match=f"{settings} is for"):
        Filler.model_validate(settings).check(shape)


def test_what_a_filler_cannot_fill_is_said_with_the_place():
    text = """
    data: {train: {source: digits, batch_size: 8}}
    layers:
      - {type: InnerProduct, name: score, num_output: 10, weight_filler: bilinear}
      - {type: SoftmaxWithLoss, inputs: [score, label]}
    """
    with pytest.raises(SpecError, match=r"<text>:4:9  score: weight is 10x64, and bilinear is for square kernels"):
        cfgnet.Net(cfgnet.loads(text))


@pytest.mark.parametrize("name", sorted(Filler.members()))
def test_a_filler_draws_the_same_from_the_same_generator(name):
    shape = (4, 2, 3, 3)
    settings = {"type": "values", "values": list(range(72))} if name == "values" else name
    one, same, other = (fill(settings, shape, purpose) for purpose in "aab")
    np.testing.assert_array_equal(one, same)
    assert one.shape == shape and np.isfinite(one).all()
    assert np.array_equal(one, other) == (name in ("constant", "identity", "bilinear", "sinusoid", "values"))


def test_values_are_taken_in_row_major_order_and_have_to_be_as_many_as_there_is_room_for():
    filler = Filler.model_validate({"type": "values", "values": [1, 2, 3, 4, 5, 6]})
    np.testing.assert_array_equal(filler.fill(generator(1), (2, 3)), [[1, 2, 3], [4, 5, 6]])
    with pytest.raises(ShapeError, match="the filler has 6 values"):
        filler.check((2, 2))
