"""Named random streams: every draw is a function of (seed, purpose), so that no draw depends on what ran before it.

`generator` serves what happens once or on the host (fillers, shuffling, synthetic data). `key` serves draws inside a
training step: the backends turn (key, index) into a number by the same integer hash, so that a dropout mask is the
same on every backend, for any number of threads, and after a resume.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def key(seed: int, *purpose: str | int) -> int:
    """A 64-bit number derived from `seed` and `purpose`, such as key(1, "dropout", "drop1", 300)."""
    text = "\x1f".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def generator(seed: int, *purpose: str | int) -> np.random.Generator:
    """A fresh numpy generator for `purpose`, such as generator(1, "shuffle", "train", epoch)."""
    import numpy as np

    return np.random.Generator(np.random.PCG64(key(seed, *purpose)))
