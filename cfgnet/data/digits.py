"""digits: 1797 handwritten digits that come with cfgnet."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from cfgnet.data.source import ArrayRecords, Records, Source


class Digits(Source):
    """Handwritten digits: 1797 images `data` of 1x8x8 with pixels 0 to 16, and `label` 0 to 9.

    The division into 1437 training and 360 test images is stored with the images: each class gave its share of the 360
    (rounded by largest remainder), the first of its images in the permutation by rng.generator(0, "digits", class).
    Both parts hold digits by the same writers; the origin and licence of the images are in digits.LICENSE.
    """

    split: Literal["train", "test", "all"] = "train"
    """Which part of the images."""

    def open(self, seed: int) -> Records:
        """Reads the images that lie beside this module."""
        import numpy as np

        with Path(__file__).with_name("digits.npz").open("rb") as file, np.load(file, allow_pickle=False) as stored:
            images, labels, test = stored["images"], stored["labels"], stored["test"]
        if self.split != "all":
            chosen = test if self.split == "test" else ~test
            images, labels = images[chosen], labels[chosen]
        classes = self.classes or tuple("0123456789")
        return ArrayRecords({"data": images, "label": labels}, classes, full_scale=16.0, where="digits")
