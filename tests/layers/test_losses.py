"""Losses against plain loops, scipy, onnx.reference and, for alignments, all of them one by one."""

import itertools
import math

import numpy as np
import onnx.helper
import onnx.reference
import pytest
import scipy.spatial.distance
import scipy.special
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from cfgnet.backend import get_backend, why_not
from cfgnet.errors import DataError

from .test_against_others import net_of, numbers
from .test_metrics import measured

steady = settings(max_examples=60)
WITH_OTHERS = ["numpy", pytest.param("native", marks=pytest.mark.skipif(bool(why_not("native")), reason="not built"))]


def loss_of(kind, fields=(), **inputs):
    """The loss of a layer, and its gradients by input."""
    net = net_of({"type": kind, **dict(fields)}, **inputs)
    net.run_backward()
    return net.loss, net.gradients


def whole(seed, most, *shape):
    return np.random.default_rng(seed).integers(0, most, shape).astype(np.int32)


# Classes.


@pytest.mark.parametrize("weights", [(), (0.5, 1.0, 2.0, 0.0)])
@pytest.mark.parametrize("normalization", ["VALID", "NONE"])
@pytest.mark.parametrize("ignore", [None, 1])
@pytest.mark.parametrize("shape", [(7, 4), (3, 4, 5, 2)])
def test_class_weights_are_those_of_onnx(shape, ignore, normalization, weights):
    x, label = 3 * numbers(1, *shape), whole(2, 4, shape[0], *shape[2:])
    names = ["x", "label"] + ["weight"] * bool(weights)
    reduction = {"VALID": "mean", "NONE": "sum"}[normalization]
    given = {"reduction": reduction} | ({} if ignore is None else {"ignore_index": ignore})
    node = onnx.helper.make_node("SoftmaxCrossEntropyLoss", names, ["loss"], **given)
    feeds = {"x": x, "label": label} | ({"weight": np.array(weights)} if weights else {})
    (wanted,) = onnx.reference.ReferenceEvaluator(node).run(None, feeds)
    fields = {"class_weights": weights, "normalization": normalization, "ignore_label": ignore}
    assert loss_of("SoftmaxWithLoss", fields, x=x, label=label)[0] == pytest.approx(float(wanted), rel=1e-12)
    assert loss_of("FocalLoss", {**fields, "gamma": 0.0}, x=x, label=label)[0] == pytest.approx(
        float(wanted), rel=1e-12
    )


def positions(x, label, axis):
    """The scores of each position outside of an axis, and its label, with where it is."""
    moved = np.moveaxis(x, axis, -1)
    return [(moved[at], label.reshape(moved.shape[:-1])[at], at) for at in np.ndindex(moved.shape[:-1])]


@steady
@given(
    st.sampled_from([0, 1, 2, -1]),
    st.sampled_from([0.0, 0.1, 1.0]),
    st.sampled_from([None, 1]),
    st.sampled_from([(), (0.5, 2.0, 1.0)]),
    st.integers(0, 3),
    st.sampled_from(["VALID", "FULL", "BATCH_SIZE", "NONE"]),
)
def test_weights_and_smoothing_follow_plain_loops(axis, smoothing, ignore, weights, axes_of_weight, normalization):
    shape = [2, 2, 2]
    shape[axis] = 3
    x, label = numbers(1, *shape), whole(2, 3, *(n for i, n in enumerate(shape) if i != axis % 3))
    sample = np.random.default_rng(3).random(label.shape[: axes_of_weight - 1]) if axes_of_weight else None
    total = count = 0.0
    slopes = np.zeros_like(np.moveaxis(x, axis, -1))
    for scores, own, at in positions(x, label, axis):
        if own != ignore:
            of_class = np.array(weights or [1.0] * 3)
            of_sample = 1.0 if sample is None else sample[at[: sample.ndim]]
            target = (1 - smoothing) * of_class[own] * (np.arange(3) == own) + smoothing / 3 * of_class
            total -= of_sample * (target * scipy.special.log_softmax(scores)).sum()
            slopes[at] = of_sample * (target.sum() * scipy.special.softmax(scores) - target)
            count += of_sample * of_class[own]
    batch = math.prod(shape[: axis % 3])
    n = {"VALID": count, "FULL": label.size, "BATCH_SIZE": batch, "NONE": 1}[normalization]
    fields = {"axis": axis, "ignore_label": ignore, "normalization": normalization, "class_weights": weights}
    inputs = {"x": x, "label": label} | ({} if sample is None else {"sample_weight": sample})
    found, gradients = loss_of("SoftmaxWithLoss", {**fields, "label_smoothing": smoothing}, **inputs)
    assert found == pytest.approx(total / n, rel=1e-12)
    np.testing.assert_allclose(gradients["x"], np.moveaxis(slopes, -1, axis) / n, rtol=1e-11, atol=1e-14)


@steady
@given(st.integers(0, 50), st.sampled_from(["L1", "L2"]))
def test_hinge_loss_follows_plain_loops(seed, norm):
    x, label = 2 * numbers(seed, 4, 3, 2), whole(seed, 6, 4)
    total, slopes = 0.0, np.zeros((4, 6))
    for n, c in np.ndindex(4, 6):
        sign = 1 if c == label[n] else -1
        margin = max(0.0, 1 - sign * x.reshape(4, 6)[n, c])
        total += margin if norm == "L1" else margin**2
        slopes[n, c] = -sign * ((margin > 0) if norm == "L1" else 2 * margin)
    found, gradients = loss_of("HingeLoss", {"norm": norm}, x=x, label=label)
    assert found == pytest.approx(total / 4, rel=1e-12)
    np.testing.assert_allclose(gradients["x"].reshape(4, 6), slopes / 4, rtol=1e-12)


@steady
@given(st.integers(0, 50), st.sampled_from([1, 2]), st.sampled_from([None, 2]))
def test_infogain_loss_follows_plain_loops(seed, axis, ignore):
    x, h = numbers(seed, 2, 3, 3), np.abs(numbers(seed + 1, 3, 3))
    label = whole(seed, 3, 2, 3)
    label[0, 0] = 0
    total, count, slopes = 0.0, 0, np.zeros((2, 3, 3))
    for scores, own, at in positions(x, label, axis):
        if own != ignore:
            total -= (h[own] * scipy.special.log_softmax(scores)).sum()
            slopes[at] = scipy.special.softmax(scores) * h[own].sum() - h[own]
            count += 1
    found, gradients = loss_of("InfogainLoss", {"axis": axis, "ignore_label": ignore}, x=x, label=label, h=h)
    assert found == pytest.approx(total / count, rel=1e-12)
    np.testing.assert_allclose(gradients["x"], np.moveaxis(slopes, -1, axis) / count, rtol=1e-11, atol=1e-14)


def test_infogain_loss_reads_its_matrix_from_either_kind_of_file(tmp_path):
    x, label, h = numbers(0, 4, 3), whole(1, 3, 4), np.abs(numbers(2, 3, 3)).astype(np.float32)
    np.save(tmp_path / "h.npy", h)
    # A BlobProto of 1 x 1 x 3 x 3: the fields 1 to 4 are its shape, and 5 its numbers, packed.
    (tmp_path / "h.binaryproto").write_bytes(b"\x08\x01\x10\x01\x18\x03\x20\x03\x2a\x24" + h.tobytes())
    wanted = loss_of("InfogainLoss", x=x, label=label, h=h.astype(np.float64))
    for name in ("h.npy", "h.binaryproto"):
        found = loss_of("InfogainLoss", {"source": str(tmp_path / name)}, x=x, label=label)
        assert found[0] == pytest.approx(wanted[0], rel=1e-12)
        np.testing.assert_allclose(found[1]["x"], wanted[1]["x"], rtol=1e-12)


@pytest.mark.parametrize(
    "kind", ["SoftmaxWithLoss", "FocalLoss", "InfogainLoss", "HingeLoss", "MultinomialLogisticLoss"]
)
@pytest.mark.parametrize("wrong", [3, -1])
def test_a_label_that_is_no_class_is_an_error(kind, wrong):
    inputs = {"x": np.full((2, 3), 1 / 3), "label": np.array([0, wrong], np.int32)}
    inputs |= {"h": np.eye(3)} if kind == "InfogainLoss" else {}
    fields = {"label_smoothing": 0.1} if kind == "SoftmaxWithLoss" else {}
    with pytest.raises(DataError, match=f"expected labels from 0 to 2, found {wrong}"):
        loss_of(kind, fields, **inputs)


# Elements.

U = scipy.special.log_expit
FORMULAS = {
    "EuclideanLoss": ({}, lambda x, t: (x - t) ** 2 / 2),
    "MSELoss": ({}, lambda x, t: (x - t) ** 2),
    "L1Loss": ({}, lambda x, t: abs(x - t)),
    "HuberLoss": ({"delta": 0.7}, lambda x, t: scipy.special.huber(0.7, x - t)),
    "SmoothL1Loss": ({"beta": 0.7}, lambda x, t: scipy.special.huber(0.7, x - t) / 0.7),
    "KLDivLoss": ({}, lambda x, t: scipy.special.rel_entr(t, np.exp(x))),
    "PoissonNLLLoss": (
        {},
        lambda x, t: -scipy.stats.poisson.logpmf(np.round(t), np.exp(x)) - scipy.special.gammaln(np.round(t) + 1),
    ),
    "SigmoidCrossEntropyLoss": ({}, lambda x, t: -t * U(x) - (1 - t) * U(-x)),
    "BCEWithLogitsLoss": ({"pos_weight": 3.0}, lambda x, t: -3 * t * U(x) - (1 - t) * U(-x)),
    "SigmoidFocalLoss": (
        {"alpha": 0.3, "gamma": 1.5},
        lambda x, t: (
            -0.3 * t * scipy.special.expit(-x) ** 1.5 * U(x) - 0.7 * (1 - t) * scipy.special.expit(x) ** 1.5 * U(-x)
        ),
    ),
}


@pytest.mark.parametrize("kind", FORMULAS)
@pytest.mark.parametrize("axes", [None, 1, 2, 3])
@pytest.mark.parametrize("normalization", ["VALID", "FULL", "BATCH_SIZE", "NONE"])
def test_losses_of_elements_are_sums_of_formulas_of_scipy(kind, axes, normalization):
    fields, formula = FORMULAS[kind]
    x, target = 2 * numbers(1, 4, 3, 2), np.random.default_rng(2).random((4, 3, 2))
    if kind == "PoissonNLLLoss":
        target = np.round(4 * target)
    weight = None if axes is None else np.random.default_rng(3).random(x.shape[:axes])
    spread = np.ones(x.shape) if axes is None else np.broadcast_to(weight[(...,) + (None,) * (3 - axes)], x.shape)
    n = {"VALID": spread.sum(), "FULL": x.size, "BATCH_SIZE": 4, "NONE": 1}[normalization]
    inputs = {"x": x, "target": target.reshape(4, 6)} | ({} if axes is None else {"sample_weight": weight})
    found, _ = loss_of(kind, {**fields, "normalization": normalization}, **inputs)
    assert found == pytest.approx((spread * formula(x, target)).sum() / n, rel=1e-12)


def test_the_loss_of_a_normal_distribution_is_that_of_scipy_less_a_constant():
    x, target, var = numbers(1, 5, 3), numbers(2, 5, 3), np.random.default_rng(3).random((5, 3)) + 0.1
    wanted = -scipy.stats.norm.logpdf(target, x, np.sqrt(var)).mean() - math.log(2 * math.pi) / 2
    assert loss_of("GaussianNLLLoss", x=x, target=target, var=var)[0] == pytest.approx(wanted, rel=1e-12)


def test_scores_far_from_zero_neither_overflow_nor_vanish():
    x, target = np.array([[-800.0, 800.0, -40.0]]), np.array([[1.0, 0.0, 0.0]])
    found, gradients = loss_of("BCEWithLogitsLoss", {"normalization": "NONE"}, x=x, target=target)
    assert found == 1600
    np.testing.assert_allclose(gradients["x"], [[-1, 1, scipy.special.expit(-40.0)]], atol=1e-16)
    found, _ = loss_of("BCEWithLogitsLoss", {"normalization": "NONE"}, x=x[:, 2:], target=target[:, 2:])
    assert found == pytest.approx(math.exp(-40), rel=1e-12)


def test_focal_loss_may_be_divided_by_the_number_of_what_is_there():
    x, target = numbers(1, 3, 4), whole(2, 2, 3, 4).astype(np.float64)
    sums, means = (
        loss_of("SigmoidFocalLoss", {"normalization": normalization}, x=x, target=target)[0]
        for normalization in ("NONE", "POSITIVE")
    )
    assert means == pytest.approx(sums / target.sum(), rel=1e-12)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("squared", [False, True])
def test_dice_loss_follows_plain_loops(axis, squared):
    x, target = np.random.default_rng(1).random((2, 3, 4)), whole(2, 2, 2, 3, 4).astype(np.float64)
    costs = []
    for row in np.ndindex(x.shape[:axis]):
        p, t, power = x[row].ravel(), target[row].ravel(), 2 if squared else 1
        costs.append(1 - (2 * p @ t + 0.5) / ((p**power).sum() + (t**power).sum() + 0.5))
    found, _ = loss_of("DiceLoss", {"axis": axis, "squared": squared, "smooth": 0.5}, x=x, target=target)
    assert found == pytest.approx(np.mean(costs), rel=1e-12)


# Pairs and triples.


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("norm", ["L1", "L2"])
def test_triplets_follow_plain_loops(norm, swap):
    x, near, far = (numbers(seed, 6, 2, 3) for seed in range(3))
    order, costs = {"L1": 1, "L2": 2}[norm], []
    for a, b, c in zip(x, near, far, strict=True):
        to_near, to_far, apart = (np.linalg.norm((p - q).ravel(), order) for p, q in ((a, b), (a, c), (b, c)))
        costs.append(max(0.0, to_near - (min(to_far, apart) if swap else to_far) + 0.8))
    fields = {"norm": norm, "swap": swap, "margin": 0.8}
    assert loss_of("TripletMarginLoss", fields, x=x, near=near, far=far)[0] == pytest.approx(np.mean(costs), rel=1e-12)


@pytest.mark.parametrize("margin", [-0.2, 0.0, 0.4])
def test_cosines_follow_plain_loops(margin):
    x, other, sim = numbers(1, 8, 3), numbers(2, 8, 3), np.array([1, 0, -1, 1, 0, 0, -1, 1], np.int32)
    costs = []
    for a, b, together in zip(x, other, sim, strict=True):
        cos = 1 - scipy.spatial.distance.cosine(a, b)
        costs.append(1 - cos if together == 1 else max(0.0, cos - margin))
    found, _ = loss_of("CosineEmbeddingLoss", {"margin": margin}, x=x, other=other, sim=sim)
    assert found == pytest.approx(np.mean(costs), rel=1e-12)


# Alignments.


def collapsed(path, blank):
    """The labels that an alignment stands for."""
    return [c for c, _ in itertools.groupby(path) if c != blank]


def by_enumeration(x, labels, blank):
    """The loss of a sequence and its gradient, from all alignments one by one; None where there is none."""
    prob = scipy.special.softmax(x, axis=1)
    total, visits = 0.0, np.zeros_like(x)
    for path in itertools.product(range(x.shape[1]), repeat=len(x)):
        if collapsed(path, blank) == list(labels):
            weight = math.prod(prob[t, c] for t, c in enumerate(path))
            total += weight
            visits[np.arange(len(x)), path] += weight
    return (-math.log(total), prob - visits / total) if total else None


@settings(max_examples=40)
@given(st.data())
def test_ctc_is_the_sum_over_all_alignments(data):
    steps, classes, count = data.draw(st.integers(1, 5)), data.draw(st.integers(2, 3)), data.draw(st.integers(1, 3))
    blank, by_lengths = data.draw(st.integers(0, classes - 1)), data.draw(st.booleans())
    letters = st.sampled_from([c for c in range(classes) if c != blank])
    rows = [data.draw(st.lists(letters, max_size=3)) for _ in range(count)]
    lengths = np.array([data.draw(st.integers(1, steps)) for _ in rows], np.int32)
    x = 2 * numbers(data.draw(st.integers(0, 99)), steps, count, classes)
    first = data.draw(st.booleans())
    behind = blank if by_lengths else -1
    label = np.array([row + [behind] * (3 - len(row)) for row in rows], np.int32)
    inputs = {"x": x.transpose(1, 0, 2).copy() if first else x, "label": label, "lengths": lengths}
    inputs |= {"label_lengths": np.array([len(row) for row in rows], np.int32)} if by_lengths else {}
    fields = {"blank": blank, "batch_first": first, "zero_infinity": True, "normalization": "NONE"}
    found, gradients = loss_of("CTCLoss", fields, **inputs)
    wanted, slopes = 0.0, np.zeros_like(x)
    for n, row in enumerate(rows):
        if alone := by_enumeration(x[: lengths[n], n], row, blank):
            wanted += alone[0]
            slopes[: lengths[n], n] = alone[1]
    assert found == pytest.approx(wanted, rel=1e-11, abs=1e-12)
    ours = gradients["x"].transpose(1, 0, 2) if first else gradients["x"]
    np.testing.assert_allclose(ours, slopes, rtol=1e-9, atol=1e-12)


def test_ctc_is_precise_over_long_sequences():
    """With one label in as many steps as there are, P is known: of n steps, a run of the label stands somewhere."""
    for steps in (100, 3000):
        x = np.zeros((steps, 1, 2))
        found, gradients = loss_of("CTCLoss", x=x, label=np.array([[1]], np.int32))
        runs = steps * (steps + 1) // 2
        assert found == pytest.approx(steps * math.log(2) - math.log(runs), rel=1e-12)
        covering = (np.arange(steps) + 1) * (steps - np.arange(steps))
        np.testing.assert_allclose(gradients["x"][:, 0, 1], 0.5 - covering / runs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("backend", WITH_OTHERS)
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"label": [[1, 1, -1], [1, 2, 2]]}, "sequence 1 of the batch has 3 steps, and its 3 labels take 4: one for"),
        ({"label": [[1, 3, -1], [1, 2, -1]]}, "expected labels from 0 to 2, found 3"),
        ({"label": [[1, 0, -1], [1, 2, -1]]}, "label 0 is the blank; say with `blank` which class"),
        ({"label": [[1, 2, -1]] * 2, "lengths": [3, 4]}, "expected steps of a sequence from 1 to 3, found 4"),
        ({"label": [[1, 2, -1]] * 2, "lengths": [3, 0]}, "expected steps of a sequence from 1 to 3, found 0"),
        (
            {"label": [[1, 2, -1]] * 2, "lengths": [3, 3], "label_lengths": [2, 4]},
            "expected labels of a sequence from 0 to 3, found 4",
        ),
    ],
)
def test_ctc_says_what_is_wrong_with_labels_and_lengths(backend, given, message):
    inputs = {"x": np.zeros((3, 2, 3)), **{name: np.array(value, np.int32) for name, value in given.items()}}
    with pytest.raises(DataError, match=message):
        net_of({"type": "CTCLoss"}, backend=get_backend(backend, 1), dtype="float32", **inputs)


# The mean over a test set.


@pytest.mark.parametrize(
    ("kind", "fields", "names"),
    [
        ("SoftmaxWithLoss", {"ignore_label": 1, "class_weights": (0.5, 2.0, 3.0)}, ["x", "label", "sample_weight"]),
        ("FocalLoss", {"ignore_label": 1}, ["x", "label"]),
        ("InfogainLoss", {"ignore_label": 1}, ["x", "label", "h"]),
        ("HingeLoss", {}, ["x", "label"]),
        ("SigmoidCrossEntropyLoss", {"ignore_label": 1, "normalization": "VALID"}, ["x", "target", "sample_weight"]),
        ("SigmoidFocalLoss", {"normalization": "POSITIVE"}, ["x", "target", "sample_weight"]),
        ("MSELoss", {}, ["x", "target", "sample_weight"]),
        ("EuclideanLoss", {}, ["x", "target"]),
    ],
)
def test_a_test_in_batches_gives_the_loss_of_the_whole(kind, fields, names, tmp_path):
    arrays = {"x": numbers(1, 7, 3), "label": whole(2, 3, 7), "target": whole(3, 2, 7, 3).astype(np.float64)}
    arrays["target"][:, 0] = 1  # in each batch is something to divide by
    arrays["sample_weight"] = np.random.default_rng(4).random(7)
    if "h" in names:
        np.save(tmp_path / "h.npy", np.eye(3) + 0.1)
        fields, names = {**fields, "source": str(tmp_path / "h.npy")}, names[:2]
    given = {name: arrays[name] for name in names}
    layer = {"type": kind, "name": "cost", **fields}
    in_one, in_parts = (measured(layer, batch_size=size, **given).metrics["cost"] for size in (7, 3))
    assert in_parts == pytest.approx(in_one, rel=1e-12)
    assert in_one == pytest.approx(loss_of(kind, fields, **given)[0], rel=1e-12)
