"""Digits, synthetic data, and what all sources share."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cfgnet.data import Batches, Source
from cfgnet.data.synthetic import apply
from cfgnet.errors import DataError

FUNCTIONS = {name: getattr(np, name) for name in ("sin", "cos", "exp", "log", "sqrt", "tanh", "abs")}


def source(**fields):
    return Source.model_validate({"batch_size": 1, **fields})


def everything(records):
    return records.take(np.arange(records.count))


def test_sources_are_found_by_themselves_and_read_back():
    assert {"csv", "digits", "idx", "npz", "synthetic"} <= Source.members().keys()
    for fields in (
        {"source": "digits", "transform": {"mean_value": 3}},
        {"source": "csv", "path": "a", "target": None},
    ):
        made = source(**fields)
        assert Source.model_validate(made.settings()) == made


def test_importing_the_sources_does_not_import_numpy():
    code = "import sys, cfgnet.data; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_digits_split_is_fixed():
    parts = {split: source(source="digits", split=split).open(0) for split in ("train", "test", "all")}
    arrays = {split: everything(records) for split, records in parts.items()}
    assert [len(a["label"]) for a in arrays.values()] == [1437, 360, 1797]
    assert np.bincount(arrays["test"]["label"]).tolist() == [36, 37, 35, 37, 36, 36, 36, 36, 35, 36]
    assert np.bincount(arrays["all"]["label"]).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    digest = {
        split: hashlib.sha256(a["data"].astype(np.uint8).tobytes() + a["label"].astype(np.uint8).tobytes()).hexdigest()
        for split, a in arrays.items()
    }
    assert digest == {
        "train": "36c3dfbf514c6de722bba2ec7a9342c745b4b459be6b85f0f247641ef187e99d",
        "test": "b72c72c452f16b42639b65f2ef9111efa844b915f851b6e22d89de62b9769d67",
        "all": "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826",
    }
    records = parts["test"]
    assert (
        records.shapes == {"data": (1, 8, 8), "label": ()} and records.full_scale == arrays["all"]["data"].max() == 16
    )
    assert records.classes == tuple("0123456789")
    rows = {a.tobytes() for a in arrays["train"]["data"]} & {a.tobytes() for a in arrays["test"]["data"]}
    assert not rows


def line(**fields):
    ten = {"count": 10, "formula": "10 + 5 * x", "distribution": "linspace", "low": 0, "high": 9, "noise": 3}
    return source(source="synthetic", **ten | fields)


def test_the_line_of_the_lecture():
    arrays = everything(line().open(1))
    assert arrays["data"].tolist() == [[float(x)] for x in range(10)]
    noise = arrays["target"] - (10 + 5 * arrays["data"])
    assert arrays["target"].shape == (10, 1) and 1 < noise.std() < 6
    np.testing.assert_array_equal(everything(line(noise=0).open(1))["target"], 10 + 5 * arrays["data"])


def test_synthetic_data_follows_its_own_seed_only():
    first = everything(line().open(1))
    np.testing.assert_array_equal(everything(line().open(2))["target"], first["target"])
    drawn = everything(line(distribution="uniform").open(1))["data"]
    for other in ({"seed": 1}, {"split": "test"}):
        assert (everything(line(**other).open(1))["target"] != first["target"]).all()
        assert (everything(line(**other, distribution="uniform").open(1))["data"] != drawn).all()


def test_synthetic_distributions_fill_the_range():
    for kind, spread in (("uniform", 2 / 12**0.5), ("normal", 1.0), ("linspace", 2 / 12**0.5)):
        x = everything(line(count=4000, distribution=kind, low=4, high=6, inputs=[2, 3]).open(0))["data"]
        assert x.shape == (4000, 2, 3) and abs(x.mean() - 5) < 0.05 and abs(x.std() - spread) < 0.05


def test_clouds_share_their_centres_between_the_splits():
    fields = {
        "source": "synthetic",
        "count": 300,
        "inputs": [2],
        "classification": 3,
        "noise": 0.01,
        "low": -5,
        "high": 5,
    }
    train, test = (everything(source(split=split, **fields).open(0)) for split in ("train", "test"))
    assert np.bincount(train["label"]).tolist() == [100, 100, 100]
    for label in range(3):
        ours, theirs = (part["data"][part["label"] == label] for part in (train, test))
        assert 0.005 < ours.std(axis=0).max() < 0.02
        np.testing.assert_allclose(ours.mean(axis=0), theirs.mean(axis=0), atol=0.01)
    assert (train["data"] != test["data"]).any()


formulas = st.recursive(
    st.sampled_from(["x", "2", "0.5", "3.0", "1e-1"]),
    lambda inner: st.one_of(
        st.builds("({} {} {})".format, inner, st.sampled_from(["+", "-", "*", "/"]), inner),
        st.builds("{} {} {}".format, inner, st.sampled_from(["+", "-", "*"]), inner),
        st.builds("-{}".format, inner),
        st.builds("({})**2".format, inner),
        st.builds("{}({})".format, st.sampled_from(["sin", "cos", "tanh", "abs", "exp", "sqrt", "log"]), inner),
    ),
    max_leaves=8,
)


@given(formulas)
def test_formulas_are_what_numpy_says(formula):
    x = np.linspace(-2, 2, 5)
    names = {"x": x} | FUNCTIONS
    with np.errstate(all="ignore"):
        try:
            wanted = np.broadcast_to(eval(formula, {"__builtins__": {}}, names), x.shape)
        except ZeroDivisionError:
            with pytest.raises(DataError, match=r"divi(sion|des) by zero"):
                apply(formula, x)
            return
    np.testing.assert_array_equal(apply(formula, x), wanted)


@pytest.mark.parametrize(
    ("formula", "column", "message"),
    [
        ("10 + 5 * y", 10, "unknown name 'y'"),
        ("1 + cosh(x)", 5, "unknown function 'cosh'"),
        ("x.real", 1, "'x.real' is not allowed"),
        ("2 * (x + ", None, "not an expression"),
        ("", None, "not an expression"),
        ("__import__('os').system('true')", 1, "not allowed"),
        ("(lambda: x)()", 1, "not allowed"),
        ("9**9**9**9 * x", 4, "bits"),
        ("(" * 900 + "x" + ")" * 90, None, "nested too deep"),
    ],
)
def test_a_formula_that_cannot_be_read_says_where(formula, column, message):
    with pytest.raises(ValidationError, match=message) as caught:
        line(formula=formula)
    assert column is None or f"column {column}:" in str(caught.value)


def test_a_formula_without_a_value_says_for_which_x():
    with pytest.raises(DataError, match=r"'log\(x - 1\)' gives nan for x = 0"):
        line(formula="log(x - 1)").open(0)
    with pytest.raises(DataError, match="for each x"):
        line(formula="'a'").open(0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"classification": 2}, "either 'formula' or 'classification'"),
        ({"formula": None}, "either 'formula' or 'classification'"),
        ({"low": 10}, "low <= high"),
        ({"inputs": [3, 0]}, "sizes of at least 1"),
        ({"noise": -1}, "noise"),
    ],
)
def test_synthetic_settings_are_checked(fields, message):
    with pytest.raises(ValidationError, match=message):
        line(**fields)


def test_too_much_synthetic_data_is_refused_before_it_is_made():
    for fields in ({"count": 2**40, "inputs": [2**40]}, {"formula": None, "classification": 2**40}):
        with pytest.raises(DataError, match="at most 8589934592"):
            line(**fields).open(0)
    with pytest.raises(DataError, match=r"range from -1e.308 to 1e.308 is too wide"):
        line(distribution="uniform", low=-1e308, high=1e308).open(0)


def test_a_source_feeds_batches():
    made = source(source="digits", batch_size=64, split="train", classes=list("abcdefghij"))
    batches = Batches(made, made.open(0), "train", 1)
    assert batches.tensors == {"data": ((64, 1, 8, 8), "float"), "label": ((64,), "int")}
    assert batches.batches_per_epoch == 23 and batches.records.classes == tuple("abcdefghij")
