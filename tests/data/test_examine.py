"""What `cfgnet check` finds in the samples."""

import importlib

import numpy as np
import pytest

from cfgnet.data import ArrayRecords, Source, class_counts, examine


def findings(classes=None, names=None, **arrays):
    return examine(ArrayRecords({k: np.array(v) for k, v in arrays.items()}, names), classes)


@pytest.mark.parametrize(
    ("arrays", "classes", "severity", "message"),
    [
        ({"data": np.zeros((0, 2))}, None, "error", "there are no samples"),
        ({"data": [[0.0], [np.nan], [1], [np.inf]]}, None, "error", "found nan in sample 1, the first of 2 such"),
        ({"data": [[0.0, 1], [1, 1e300]]}, None, "error", "'data': expected finite numbers, found inf in sample 1"),
        ({"data": [[0.0]] * 3, "label": [0, 1, 2]}, 2, "error", "expected 0 to 1, found 2 in sample 2"),
        ({"data": [[0.0]] * 3, "label": [1, 0, -1]}, 2, "error", "expected 0 to 1, found -1 in sample 2"),
        ({"data": [[0.0]] * 3, "label": [1, -5, -1]}, None, "error", "0 or more, found -5 in sample 1, the first of 2"),
        ({"data": [[0.0]] * 3, "label": [0, 3, 3]}, 5, "warning", "no sample of 3 of 5 classes: 1, 2, 4"),
        ({"data": [[0.0]] * 2, "label": [0, 2**31 - 1]}, None, "warning", "no sample of 2147483646 of 2147483648"),
    ],
)
def test_findings(arrays, classes, severity, message):
    (found,) = findings(classes, **arrays)
    assert found.severity == severity and message in found.message


def test_classes_of_the_source_are_the_default():
    assert findings(None, ("a", "b"), data=[[0.0]], label=[2])[0].severity == "error"
    assert findings(3, ("a", "b"), data=[[0.0]] * 3, label=[2, 1, 0]) == []


def test_sound_data_has_no_findings():
    records = Source.model_validate({"source": "digits", "batch_size": 1, "split": "test"}).open(0)
    assert examine(records, 10) == []
    assert class_counts(records) == dict(enumerate([36, 37, 35, 37, 36, 36, 36, 36, 35, 36]))
    assert class_counts(ArrayRecords({"data": np.zeros((2, 2))})) == {}


def test_blocks_cover_everything(monkeypatch):
    module = importlib.import_module("cfgnet.data.examine")
    data = np.zeros((10, 3), np.float32)
    data[9, 2] = np.nan
    label = [0] * 9 + [7]
    whole = findings(7, data=data, label=label)
    monkeypatch.setattr(module, "BLOCK", 6)
    taken = []
    original = ArrayRecords.take
    monkeypatch.setattr(
        ArrayRecords, "take", lambda self, rows, names=None: taken.append(len(rows)) or original(self, rows, names)
    )
    assert findings(7, data=data, label=label) == whole and len(whole) == 2
    assert max(taken) == 1
