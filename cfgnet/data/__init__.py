"""Data: sources of samples (one module each), their transform, and the order in which a training sees them.

    Source --open(seed)--> Records --Batches(source, records, phase, seed)--> {tensor name: array} for an iteration

Defining a `Source` in a module of this folder is all that it takes to add one.
"""

from __future__ import annotations

import importlib
import pkgutil

from cfgnet.data.batches import Batches, Prefetch
from cfgnet.data.examine import Finding, class_counts, examine
from cfgnet.data.memory import Memory
from cfgnet.data.source import ArrayRecords, Records, Source
from cfgnet.data.transform import Transform

__all__ = [
    "ArrayRecords",
    "Batches",
    "Finding",
    "Memory",
    "Prefetch",
    "Records",
    "Source",
    "Transform",
    "class_counts",
    "examine",
]


def load_members() -> None:
    """Imports every module of this folder, so that all sources are registered."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")


load_members()
