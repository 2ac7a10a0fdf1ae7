"""Metrics of a whole test set are those of scikit-learn, however the set is cut into batches."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cfgnet.layers  # noqa: F401  says where the layer types lie
from cfgnet.backend import get_backend
from cfgnet.errors import ContractError, Locate
from cfgnet.evaluate import Evaluator
from cfgnet.graph import TensorType
from cfgnet.layer import Layer
from cfgnet.params import Parameters
from cfgnet.prepare import Prepared, plan_layers
from cfgnet.rules import State

steady = settings(max_examples=40)
AVERAGES = ["binary", "macro", "weighted", "micro"]


class Cut:
    """Arrays as test data, of which the net sees `batch_size` samples at a time."""

    def __init__(self, arrays, batch_size):
        self.arrays, self.count = arrays, len(next(iter(arrays.values())))
        self.batch_size = min(batch_size, self.count)
        self.tensors = self.types(self.batch_size)

    def types(self, count):
        kinds = {name: "int" if array.dtype.kind == "i" else "float" for name, array in self.arrays.items()}
        return {name: ((count, *array.shape[1:]), kinds[name]) for name, array in self.arrays.items()}

    def sample_axis(self, tensor):
        return 0

    def samples_in(self, batch):
        return len(next(iter(batch.values())))

    def once(self):
        for first in range(0, self.count, self.batch_size):
            yield {name: array[first : first + self.batch_size] for name, array in self.arrays.items()}


def measured(*layers, batch_size=10**6, dtype="float64", backend="numpy", confusion=False, **arrays):
    """What a test of a net of layers without parameters says of arrays."""
    made = [Layer.model_validate({"inputs": list(arrays), **layer}) for layer in layers]
    backend, cut = get_backend(backend), Cut(arrays, batch_size)
    types = {name: TensorType(*what) for name, what in cut.tensors.items()}
    prepared = Prepared(batches={"test": cut}, plans={"test": plan_layers(made, "test", types, backend, dtype)})
    spec = SimpleNamespace(layers=made, dtype=dtype, place=Locate(), state=State(), solver=None, seed=1)
    return Evaluator(spec, prepared, backend, Parameters([], backend, dtype, 1)).run(confusion)


def result(kind, batch_size, arrays, dtype="float64", backend="numpy", **fields):
    """The value of one metric, and its figures by class where it has them."""
    by_class = any(port.name == "per_class" for port in Layer.find(kind).wiring.outputs)
    outputs = ["value", "by_class"] if by_class else ["value"]
    layer = {"type": kind, "name": "value", "outputs": outputs, **fields}
    found = measured(layer, batch_size=batch_size, dtype=dtype, backend=backend, **arrays)
    return found.metrics["value"], found.arrays.get("by_class")


@st.composite
def classified(draw, least=2, ties=True):
    """Scores and labels: several sizes, some classes missing, some labels ignored; scores often equal."""
    random = np.random.default_rng(draw(st.integers(0, 10**6)))
    classes, count = draw(st.integers(least, 5)), draw(st.integers(1, 30))
    place = draw(st.sampled_from([(), (2,), (2, 3)]))
    x = random.integers(0, 5, (count, classes, *place)) / 4 if ties else random.normal(size=(count, classes, *place))
    label = random.integers(0, draw(st.integers(1, classes)), (count, *place)).astype(np.int32)
    ignore = draw(st.sampled_from([None, -1, classes - 1]))
    if ignore == -1:
        label[random.random(label.shape) < 0.3] = -1
    return {"x": x, "label": label}, ignore, draw(st.sampled_from([1, 2, 3, 7, 100]))


def flat(arrays, ignore):
    """Scores (n, classes) and labels (n,) of what counts."""
    x, label = np.moveaxis(arrays["x"], 1, -1), arrays["label"]
    counts = np.ones(label.shape, bool) if ignore is None else label != ignore
    return x[counts], label[counts]


@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize(
    ("kind", "theirs"),
    [
        ("Precision", "precision_score"),
        ("Recall", "recall_score"),
        ("F1", "f1_score"),
        ("MeanIoU", "jaccard_score"),
    ],
)
@steady
@given(case=classified())
def test_figures_of_predictions(kind, theirs, average, case):
    import sklearn.metrics

    arrays, ignore, batch_size = case
    classes = arrays["x"].shape[1]
    value, by_class = result(kind, batch_size, arrays, average=average, ignore_label=ignore)
    x, label = flat(arrays, ignore)
    if not label.size:
        assert value == 0 and not by_class.any()
        return
    judge = getattr(sklearn.metrics, theirs)
    said = x.argmax(axis=1)
    each = judge(label, said, labels=range(classes), average=None, zero_division=0)
    np.testing.assert_allclose(by_class, each, rtol=1e-12)
    expected = each[1] if average == "binary" else judge(label, said, average=average, zero_division=0)
    assert value == pytest.approx(expected, rel=1e-12, abs=1e-12)


@steady
@given(case=classified())
def test_the_confusion_matrix(case):
    from sklearn.metrics import confusion_matrix

    arrays, ignore, batch_size = case
    matrix = {"type": "ConfusionMatrix", "name": "matrix", "ignore_label": ignore}
    found = measured(matrix, batch_size=batch_size, confusion=True, **arrays)
    x, label = flat(arrays, ignore)
    expected = np.zeros((x.shape[1],) * 2)
    if label.size:
        expected = confusion_matrix(label, x.argmax(axis=1), labels=range(x.shape[1]))
    np.testing.assert_array_equal(found.arrays["matrix"], expected)
    np.testing.assert_array_equal(found.confusion, expected)
    assert not found.metrics


@pytest.mark.parametrize("top_k", [1, 2])
@steady
@given(case=classified(least=3, ties=False))
def test_accuracy(top_k, case):
    from sklearn.metrics import top_k_accuracy_score

    arrays, ignore, batch_size = case
    value, by_class = result("Accuracy", batch_size, arrays, top_k=top_k, ignore_label=ignore)
    x, label = flat(arrays, ignore)
    classes = range(x.shape[1])

    def share(of):
        return top_k_accuracy_score(label[of], x[of], k=top_k, labels=classes) if of.any() else 0

    assert value == pytest.approx(share(label >= 0), rel=1e-12)
    np.testing.assert_allclose(by_class, [share(label == index) for index in classes], rtol=1e-12)


@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize(
    ("kind", "theirs"), [("AUC", "roc_auc_score"), ("AveragePrecision", "average_precision_score")]
)
@steady
@given(case=classified())
def test_figures_of_an_order(kind, theirs, average, case):
    import sklearn.metrics

    arrays, ignore, batch_size = case
    value, by_class = result(kind, batch_size, arrays, average=average, ignore_label=ignore)
    x, label = flat(arrays, ignore)
    judge = getattr(sklearn.metrics, theirs)
    own = label[:, None] == np.arange(x.shape[1])
    known = own.any(axis=0) & ((~own).any(axis=0) | (kind == "AveragePrecision"))
    each = np.zeros(x.shape[1])
    each[known] = [judge(own[:, i], x[:, i]) for i in np.flatnonzero(known)]
    np.testing.assert_allclose(by_class, each, rtol=1e-12)
    if not known.any():
        expected = 0.0 if average != "micro" or not label.size else judge(own.ravel(), x.ravel())
    elif average == "binary":
        expected = each[1]
    else:
        several = known.sum() > 1 or average == "micro"
        columns = slice(None) if average == "micro" else known
        expected = judge(own[:, columns], x[:, columns], average=average) if several else each[known][0]
    assert value == pytest.approx(expected, rel=1e-12, abs=1e-12)


@steady
@given(seed=st.integers(0, 10**6), batch_size=st.sampled_from([1, 3, 100]), threshold=st.sampled_from([0.25, 0.5]))
def test_one_score_for_two_classes(seed, batch_size, threshold):
    import sklearn.metrics as theirs

    random = np.random.default_rng(seed)
    label = random.permutation(np.arange(12) % 2).astype(np.int32)
    x = random.integers(0, 5, 12) / 4
    arrays = {"x": x[:, None], "label": label}
    said = x > threshold

    def value(kind, **fields):
        return result(kind, batch_size, arrays, **fields)[0]

    assert value("F1", threshold=threshold) == pytest.approx(theirs.f1_score(label, said), rel=1e-12)
    recall = theirs.recall_score(label, said, pos_label=0)
    assert value("Recall", threshold=threshold, pos_label=0) == pytest.approx(recall, rel=1e-12)
    assert value("AUC") == pytest.approx(theirs.roc_auc_score(label, x), rel=1e-12)
    assert value("AveragePrecision") == pytest.approx(theirs.average_precision_score(label, x), rel=1e-12)
    clear = x != threshold  # Accuracy counts a tie against the label, whichever that is
    if clear.any():
        some = {name: array[clear] for name, array in arrays.items()}
        accuracy = result("Accuracy", batch_size, some, threshold=threshold)[0]
        assert accuracy == pytest.approx(theirs.accuracy_score(label[clear], said[clear]), rel=1e-12)
    found = measured(
        {"type": "F1", "threshold": threshold, "name": "f1"}, batch_size=batch_size, confusion=True, **arrays
    )
    np.testing.assert_array_equal(found.confusion, theirs.confusion_matrix(label, said, labels=[0, 1]))


@pytest.mark.parametrize("probabilities", [False, True])
@steady
@given(case=classified(ties=False))
def test_perplexity(probabilities, case):
    from scipy.special import softmax
    from sklearn.metrics import log_loss

    arrays, ignore, batch_size = case
    p = softmax(arrays["x"], axis=1)
    given = arrays | ({"x": p} if probabilities else {})
    value, _ = result("Perplexity", batch_size, given, probabilities=probabilities, ignore_label=ignore)
    x, label = flat(arrays | {"x": p}, ignore)
    expected = math.exp(log_loss(label, x, labels=range(x.shape[1]))) if label.size else 1.0
    assert value == pytest.approx(expected, rel=1e-12)


@steady
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(2, 30),
    width=st.sampled_from([(), (1,), (3,), (2, 3)]),
    batch_size=st.sampled_from([1, 2, 7, 100]),
    off=st.sampled_from([0.0, 1e3]),
    same=st.booleans(),
)
def test_figures_of_errors(seed, count, width, batch_size, off, same):
    import sklearn.metrics as theirs

    random = np.random.default_rng(seed)
    x, target = off + random.normal(size=(2, count, *width))
    if same and width:
        target[:, 0] = 2.5  # which has no spread
    arrays = {"x": x, "target": target}
    flat_x, flat_target = x.reshape(-1), target.reshape(-1)
    expected = {
        "MAE": theirs.mean_absolute_error(flat_target, flat_x),
        "MSE": theirs.mean_squared_error(flat_target, flat_x),
        "RMSE": theirs.root_mean_squared_error(flat_target, flat_x),
        "R2": theirs.r2_score(target.reshape(count, -1), x.reshape(count, -1)),
    }
    for kind, value in expected.items():
        assert result(kind, batch_size, arrays)[0] == pytest.approx(value, rel=1e-12 if off == 0 else 1e-9)


def test_r2_of_targets_far_from_zero():
    from sklearn.metrics import r2_score

    random = np.random.default_rng(0)
    target = 1e9 + random.integers(0, 100, 40).astype(float)
    x = target + random.integers(-5, 6, 40)
    for batch_size in (1, 7, 40):
        value = result("R2", batch_size, {"x": x, "target": target})[0]
        assert value == pytest.approx(r2_score(target, x), rel=1e-9)  # sums of squares would leave nothing of it


@pytest.mark.parametrize(("x", "expected"), [(0.1, 1.0), (0.2, 0.0)])
@pytest.mark.parametrize("batch_size", [1, 2, 7])
def test_r2_of_targets_that_are_all_the_same(x, expected, batch_size):
    arrays = {"x": np.full(7, x), "target": np.full(7, 0.1)}
    assert result("R2", batch_size, arrays)[0] == expected


LABELLED = [
    ("Accuracy", {}),
    ("Accuracy", {"top_k": 2}),
    ("Precision", {}),
    ("Recall", {"average": "weighted"}),
    ("F1", {"average": "micro"}),
    ("MeanIoU", {}),
    ("Perplexity", {}),
    ("AUC", {}),
    ("AveragePrecision", {}),
    ("SoftmaxWithLoss", {}),
    ("SoftmaxWithLoss", {"normalization": "FULL"}),
    ("SoftmaxWithLoss", {"normalization": "BATCH_SIZE"}),
]


@pytest.mark.parametrize(("kind", "fields"), LABELLED, ids=[f"{kind} {fields}" for kind, fields in LABELLED])
@steady
@given(case=classified())
def test_the_batch_size_makes_no_difference(kind, fields, case):
    arrays, ignore, batch_size = case
    cut, whole = (result(kind, size, arrays, ignore_label=ignore, **fields) for size in (batch_size, 1000))
    assert cut[0] == pytest.approx(whole[0], rel=1e-12, abs=1e-12)
    if whole[1] is not None:
        np.testing.assert_allclose(cut[1], whole[1], rtol=1e-12)


@pytest.mark.parametrize("normalization", ["VALID", "FULL", "BATCH_SIZE"])
@steady
@given(seed=st.integers(0, 10**6), count=st.integers(1, 20), batch_size=st.sampled_from([1, 3, 8]))
def test_nor_does_it_for_the_loss_of_targets_some_of_which_are_ignored(normalization, seed, count, batch_size):
    random = np.random.default_rng(seed)
    arrays = {"x": random.normal(size=(count, 3)), "target": random.integers(0, 3, (count, 3)).astype(float)}
    fields = {"ignore_label": 2, "normalization": normalization}
    cut, whole = (result("SigmoidCrossEntropyLoss", size, arrays, **fields)[0] for size in (batch_size, 1000))
    assert cut == pytest.approx(whole, rel=1e-12)


def test_a_loss_that_is_a_sum_is_the_mean_of_the_sums():
    arrays = {"x": np.zeros((5, 2)), "label": np.zeros(5, np.int32)}
    value = result("SoftmaxWithLoss", 3, arrays, normalization="NONE")[0]
    assert value == pytest.approx((3 + 2) * math.log(2) / 2)


def test_the_objective_is_that_of_the_set():
    random = np.random.default_rng(3)
    x, label = random.normal(size=(11, 4)), random.integers(0, 4, 11).astype(np.int32)
    layers = [
        {"type": "SoftmaxWithLoss", "name": "one", "ignore_label": 1, "loss_weight": 0.5},
        {"type": "SoftmaxWithLoss", "name": "two", "ignore_label": 2, "loss_weight": 3.0},
    ]
    found = [measured(*layers, batch_size=size, x=x, label=label).metrics for size in (2, 11)]
    assert found[0] == pytest.approx(found[1], rel=1e-12)
    assert found[0]["loss"] == pytest.approx(0.5 * found[0]["one"] + 3 * found[0]["two"], rel=1e-12)


@pytest.mark.parametrize("backend", ["numpy", "native"])
@steady
@given(case=classified(ties=False), seed=st.integers(0, 99))
def test_in_32_bits(backend, case, seed):
    arrays, ignore, batch_size = case
    single = {"x": arrays["x"].astype(np.float32), "label": arrays["label"]}
    double = single | {"x": single["x"].astype(np.float64)}
    for kind in ("Accuracy", "F1", "AUC", "AveragePrecision", "Perplexity"):
        narrow, _ = result(kind, batch_size, single, "float32", backend, ignore_label=ignore)
        assert narrow == pytest.approx(result(kind, 1000, double, ignore_label=ignore)[0], rel=1e-6)
    target = np.random.default_rng(seed).normal(size=single["x"].shape).astype(np.float32)
    for kind in ("MAE", "MSE", "RMSE", "R2"):
        narrow, _ = result(kind, batch_size, {"x": single["x"], "target": target}, "float32", backend)
        wide, _ = result(kind, 1000, {"x": double["x"], "target": target.astype(np.float64)})
        assert narrow == pytest.approx(wide, rel=1e-6)


def test_a_score_that_is_not_a_number_is_never_right():
    x = np.array([[np.nan, np.nan], [1.0, np.nan], [np.nan, 1.0], [1.0, 0.0]])
    assert result("Accuracy", 4, {"x": x, "label": np.zeros(4, np.int32)})[0] == 0.5


def test_an_output_that_nobody_names_is_nobodys_result():
    arrays = {"x": np.array([[1.0, 0.0], [1.0, 0.0]]), "label": np.array([0, 1], np.int32)}
    layers = [{"type": "Recall", "outputs": ["recall", "per_class"]}, {"type": "Precision", "name": "precision"}]
    found = measured(*layers, **arrays)
    assert found.metrics == {"recall": 0.0, "precision": 0.0}
    assert {name: array.tolist() for name, array in found.arrays.items()} == {"per_class": [1.0, 0.0]}


def test_a_metric_of_ones_own_that_tallies_has_a_score():
    body = {
        "__module__": __name__,
        "tally": lambda self, x: x,
        "shapes": lambda self, x: x,
        "forward": lambda self, x: x,
    }
    with pytest.raises(ContractError, match="define score"):
        type("Half", (Layer,), body)


def test_a_layer_behind_metrics_reads_past_them():
    layers = [{"type": "ConfusionMatrix", "name": "matrix"}, {"type": "F1", "name": "f1"}]
    made = [Layer.model_validate({"inputs": ["x", "label"], **layer}) for layer in layers]
    made.append(Layer.model_validate({"type": "ReLU", "name": "relu"}))
    types = {"x": TensorType((4, 3)), "label": TensorType((4,), "int")}
    plan = plan_layers(made, "train", types, get_backend("numpy"))
    assert plan.graph.producer["relu"].reads() == ["x"]
