"""examine: what is wrong with samples, before a training finds out."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from cfgnet.data.source import Records
from cfgnet.layer import size

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

BLOCK = 1 << 22
"""Numbers that are looked at together: 16 MiB of float32."""


@dataclass(frozen=True)
class Finding:
    """Something about the samples that is wrong, or probably not meant."""

    severity: Literal["error", "warning"]
    message: str
    hint: str = ""


def examine(records: Records, classes: int | None = None) -> list[Finding]:
    """What is wrong with the samples: none at all, nan or infinity, labels outside of 0..classes-1, unused classes.

    `classes` is the number of classes of the net; without it, the names that the source knows are counted. Where a
    sample has several labels, they are looked at only if it is given, and each class need not be there.
    """
    if not records.count:
        return [Finding("error", "there are no samples")]
    labelled = records.kinds.get("label") == "int" if classes is not None else _has_labels(records)
    if classes is None and records.classes is not None:
        classes = len(records.classes)
    findings = []
    for name, kind in records.kinds.items():
        if kind == "float":
            findings += _not_finite(records, name)
    if labelled:
        findings += _labels(records, classes)
    return findings


def class_counts(records: Records) -> dict[int, int]:
    """How many samples each label has, by ascending label; empty if the samples have no label."""
    return _counts(records) if _has_labels(records) else {}


def _counts(records: Records) -> dict[int, int]:
    """How often each label occurs, by ascending label."""
    counts: Counter[int] = Counter()
    for _, block in _blocks(records, "label"):
        counts.update(block.ravel().tolist())
    return dict(sorted(counts.items()))


def _has_labels(records: Records) -> bool:
    return records.kinds.get("label") == "int" and records.shapes["label"] == ()


def _blocks(records: Records, name: str) -> Iterator[tuple[int, Array]]:
    import numpy as np

    step = max(1, BLOCK // max(1, sum(map(size, records.shapes.values()))))
    for first in range(0, records.count, step):
        yield first, records.take(np.arange(first, min(first + step, records.count)), {name})[name]


def _not_finite(records: Records, name: str) -> list[Finding]:
    import numpy as np

    bad, example = 0, ""
    for first, block in _blocks(records, name):
        flat = block.reshape(len(block), -1)
        rows = np.flatnonzero(~np.isfinite(flat).all(axis=1))
        if len(rows) and not bad:
            values = flat[rows[0]]
            example = f"{values[~np.isfinite(values)][0]} in sample {first + rows[0]}"
        bad += len(rows)
    if not bad:
        return []
    more = f", the first of {bad} such samples" if bad > 1 else ""
    return [
        Finding("error", f"{name!r}: expected finite numbers, found {example}{more}", "correct or remove the samples")
    ]


def _labels(records: Records, classes: int | None) -> list[Finding]:
    per_sample = size(records.shapes["label"])
    counts = _counts(records)
    bad = {label for label in counts if label < 0 or (classes is not None and label >= classes)}
    if bad:
        row, label = next(
            (first + i // per_sample, label)
            for first, block in _blocks(records, "label")
            for i, label in enumerate(block.ravel().tolist())
            if label in bad
        )
        number = sum(counts[label] for label in bad)
        more = f", the first of {number} such {'samples' if per_sample == 1 else 'labels'}" if number > 1 else ""
        wanted = "0 or more" if classes is None else f"0 to {classes - 1}"
        hint = (
            "labels count from 0"
            if label == classes and 0 not in counts
            else "correct the label, or the number of classes of the net"
        )
        return [Finding("error", f"'label': expected {wanted}, found {label} in sample {row}{more}", hint)]
    number = classes or max(counts) + 1
    if len(counts) == number or per_sample > 1:
        return []
    missing = itertools.islice((label for label in range(number) if label not in counts), 10)
    shown = ", ".join(map(str, missing)) + (", ..." if number - len(counts) > 10 else "")
    return [
        Finding(
            "warning",
            f"'label': no sample of {number - len(counts)} of {number} classes: {shown}",
            "the net cannot learn a class that it never sees",
        )
    ]
