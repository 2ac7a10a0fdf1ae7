"""The Data layer and its transforms: images out of an LMDB database, as Caffe fed them to a net."""

import numpy as np
import pytest

from cfgnet.data import Batches, Source

from .prototxt import parse
from .translate import fields


def test_the_database_holds_the_images(data_folder, check):
    arrays = np.load(data_folder / "data.npz")
    records = Source.model_validate({"source": "lmdb", "path": str(data_folder / "lmdb"), "batch_size": 4}).open(1)
    found = records.take(np.arange(records.count))
    check("images", found["data"], arrays["images"], 0)
    check("labels", found["label"], arrays["labels"], 0)


def test_data(data_case, data_folder, check):
    name, info = data_case
    arrays, phase = np.load(data_folder / "data.npz"), info["phase"].lower()
    transform = fields({"transform_param": [parse(info["transform_param"])]})
    if "mean_file" in transform:
        transform["mean_file"] = str(data_folder.parent / transform["mean_file"])
    settings = {"source": "lmdb", "path": str(data_folder / "lmdb"), "batch_size": 4, "transform": transform}
    source = Source.model_validate(settings)
    batches = Batches(source, source.open(1), phase, 1)
    images, expected = arrays["images"], arrays[f"data_{name}"]
    for number, wanted in enumerate(expected):
        batch = batches.at(number)
        check(f"label[{number}]", batch["label"], arrays[f"label_{name}"][number], 0)
        random = transform.get("mirror") or (transform.get("crop_size") and phase == "train")
        if not random:
            check(f"data[{number}]", batch["data"], wanted, 2e-5)
            continue
        # The draw cannot be Caffe's: what Caffe drew must be among what can be drawn here, and so must what was.
        for place, (ours, theirs) in enumerate(zip(batch["data"], wanted, strict=True)):
            image = images[(number * 4 + place) % len(images)]
            possible = list(windows(image - np.float32(transform.get("mean_value", 0)), transform, phase))
            assert any(np.array_equal(ours, one) for one in possible)
            if phase == "train":  # Caffe mirrors in a test, too; cfgnet does not, on purpose
                assert any(np.array_equal(theirs, one) for one in possible)


def windows(image, transform, phase):
    """All results of crop and mirror."""
    side = transform.get("crop_size")
    height, width = (side, side) if side else image.shape[1:]
    for top in range(image.shape[1] - height + 1):
        for left in range(image.shape[2] - width + 1):
            cut = image[:, top : top + height, left : left + width]
            yield cut
            if transform.get("mirror") and phase == "train":
                yield cut[..., ::-1]


@pytest.fixture
def data_folder(pytestconfig):
    return pytestconfig.getoption("oracle_dir") / "data"
