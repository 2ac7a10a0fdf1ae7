"""Data: sources of samples (one module each), their transform, and the order in which a training sees them.

    Source --open(seed)--> Records --Batches(source, records, phase, seed)--> {tensor name: array} for an iteration

Defining a `Source` in a module of this folder is all that it takes to add one; it is imported when it is named.
"""

from __future__ import annotations

from cfgnet.data.batches import Batches, Prefetch
from cfgnet.data.examine import Finding, class_counts, examine
from cfgnet.data.memory import Memory
from cfgnet.data.source import ArrayRecords, Records, Source
from cfgnet.data.transform import Transform
from cfgnet.part import Home

Source.home = Home(__name__, __path__, Source.spell)

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
