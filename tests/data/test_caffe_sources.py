"""The sources that stand for Caffe's data layers: hdf5, images, lmdb, dummy, memory, and the mean file."""

import io
import struct

import h5py
import lmdb
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

import cfgnet
from cfgnet.data import Batches, Source
from cfgnet.data.protobuf import blob, datum
from cfgnet.errors import DataError, SpecError

from .test_files import everything, opened, refused

RNG = np.random.default_rng(0)


# protobuf, written here as its specification says, and read by cfgnet.


def varint(value):
    value &= (1 << 64) - 1
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def field(number, value):
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    return varint(number << 3) + varint(value)


def packed(array):
    return field(5, array.astype("<f4").tobytes()) + field(7, field(1, b"".join(map(varint, array.shape))))


@given(arrays(np.float32, array_shapes(max_dims=5, max_side=4), elements=st.floats(-9, 9, width=32)))
def test_a_blob_is_read_in_every_spelling(array):
    np.testing.assert_array_equal(blob(packed(array)), array)
    by_one = b"".join(b"\x2d" + struct.pack("<f", x) for x in array.ravel())  # unpacked, and the shape one by one
    np.testing.assert_array_equal(blob(by_one + field(7, b"".join(field(1, n) for n in array.shape))), array)
    if array.ndim <= 4:
        legacy = b"".join(field(i, n) for i, n in enumerate((*(1,) * (4 - array.ndim), *array.shape), 1))
        assert blob(legacy + field(5, array.tobytes())).tobytes() == array.tobytes()


@given(st.binary(max_size=60))
def test_damaged_messages_are_errors(content):
    for read in (blob, datum):
        try:
            read(content)
        except DataError as error:
            assert str(error)


def test_a_message_that_is_cut_off_anywhere_is_an_error_or_smaller():
    whole = packed(np.arange(6, dtype=np.float32).reshape(2, 3))
    for end in range(1, len(whole)):
        with pytest.raises(DataError):
            blob(whole[:end])


# lmdb.


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def database(folder, *records):
    with lmdb.open(str(folder), map_size=1 << 20) as env, env.begin(write=True) as transaction:
        for number, record in enumerate(records):
            transaction.put(b"%08d" % number, record)
    return str(folder)


def record(label, *fields_):
    return b"".join(field(*each) for each in ((1, 3), (2, 2), (3, 4), *fields_, (5, label)))


def test_lmdb_reads_bytes_floats_and_image_files(tmp_path):
    raw = RNG.integers(0, 256, (3, 2, 4), dtype=np.uint8)
    floats = b"".join(b"\x35" + struct.pack("<f", x) for x in raw.ravel())
    head = b"".join(field(*each) for each in ((1, 3), (2, 2), (3, 4), (5, 7)))
    file = field(4, png(raw[::-1].transpose(1, 2, 0))) + field(7, 1)  # blue first, as OpenCV decodes it
    path = database(tmp_path / "db", record(9, (4, raw.tobytes())), head + floats, record(-1) + file)
    found = everything(opened(source="lmdb", path=path))
    assert found["label"].tolist() == [9, 7, -1]
    np.testing.assert_array_equal(found["data"], [raw, raw, raw])


def test_lmdb_is_opened_twice_and_refuses_what_it_cannot_read(tmp_path):
    path = database(tmp_path / "db", record(1, (4, bytes(24))), record(1, (4, bytes(23))))
    first, second = (opened(source="lmdb", path=path) for _ in range(2))
    assert first.count == second.count == 2
    with pytest.raises(DataError, match=r"record 1: expected 24 numbers .* found 23"):
        everything(first)
    assert "not an LMDB database" in refused(source="lmdb", path=str(tmp_path / "none"))


# hdf5.


def h5(path, **arrays_):
    with h5py.File(path, "w") as file:
        for name, array in arrays_.items():
            file[name] = array
    return str(path)


def test_hdf5_reads_one_file_or_all_of_a_list(tmp_path):
    data, label = RNG.normal(size=(5, 3, 2)).astype(np.float32), np.array([2.0, 0, 1, 1, 0], np.float32)
    one = h5(tmp_path / "a.h5", data=data[:2], label=label[:2])
    two = h5(tmp_path / "b.h5", data=data[2:], label=label[2:, None])
    (tmp_path / "list.txt").write_text(f"{one}\n\n{two}\n")
    assert refused(source="hdf5", path=str(tmp_path / "list.txt")).endswith("found 'label' of scalar and 1")
    h5(two, data=data[2:], label=label[2:])
    found = everything(opened(source="hdf5", path=str(tmp_path / "list.txt")))
    np.testing.assert_array_equal(found["data"], data)
    assert found["label"].dtype == np.int32 and found["label"].tolist() == [2, 0, 1, 1, 0]
    alone = opened(source="HDF5Data", path=one, tensors={"x": "data"})
    assert list(alone.shapes) == ["x"] and alone.count == 2


def test_hdf5_leaves_real_labels_alone_and_flattens_whole_ones(tmp_path):
    path = h5(tmp_path / "a.h5", label=np.array([0.5, 1.0]), other=np.array([[1.0], [2.0]]))
    found = everything(opened(source="hdf5", path=path, whole=["label", "other"]))
    assert found["label"].dtype == np.float32 and found["label"].tolist() == [0.5, 1.0]
    assert found["other"].dtype == np.int32 and found["other"].tolist() == [1, 2]


def test_hdf5_refuses_what_it_cannot_read(tmp_path):
    path = h5(tmp_path / "a.h5", data=np.ones((4, 2)), text=np.array([b"a", b"b", b"c", b"d"]))
    assert "expected numbers, found |S1" in refused(source="hdf5", path=path)
    assert "did you mean 'data'?" in refused(source="hdf5", path=path, tensors={"x": "dat"})
    assert "expected at most 9 bytes (max_bytes), found 64" in refused(
        source="hdf5", path=path, tensors={"x": "data"}, max_bytes=9
    )
    whole = (tmp_path / "a.h5").read_bytes()
    (tmp_path / "half.h5").write_bytes(whole[: len(whole) // 2])
    assert "not an HDF5 file" in refused(source="hdf5", path=str(tmp_path / "half.h5"))
    (tmp_path / "empty").touch()
    assert "found an empty file" in refused(source="hdf5", path=str(tmp_path / "empty"))


# images.


@pytest.fixture
def pictures(tmp_path):
    """Two images of 3 x 2 x 4 in folders by class, with their pixels."""
    pixels = RNG.integers(0, 256, (2, 2, 4, 3), dtype=np.uint8)
    for name, image in zip(("cat/a b.png", "dog/c.png"), pixels, strict=True):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(png(image))
    return tmp_path, pixels.transpose(0, 3, 1, 2)


def test_images_by_folders(pictures):
    folder, pixels = pictures
    records = opened(source="images", path=str(folder))
    found = everything(records)
    np.testing.assert_array_equal(found["data"], pixels)
    assert found["label"].tolist() == [0, 1] and records.classes == ("cat", "dog") and records.full_scale == 255


def test_images_by_a_list_where_paths_hold_spaces(pictures):
    folder, pixels = pictures
    (folder / "list.txt").write_text("dog/c.png 4\n\ncat/a b.png 2\n")
    given = {"source": "ImageData", "path": str(folder / "list.txt"), "root_folder": str(folder)}
    found = everything(opened(**given, order="BGR"))
    np.testing.assert_array_equal(found["data"], pixels[::-1, ::-1])
    assert found["label"].tolist() == [4, 2]
    gray = everything(opened(**given, is_color=False))["data"]
    np.testing.assert_allclose(gray[:, 0], np.einsum("nchw,c->nhw", pixels[::-1], [0.299, 0.587, 0.114]), atol=1)
    small = everything(opened(**given, new_height=1, new_width=3))["data"]
    assert small.shape == (2, 3, 1, 3) and pixels.min() <= small.min() < small.max() <= pixels.max()


def test_images_refuse_what_they_cannot_read(pictures):
    folder, _ = pictures
    listed = folder / "list.txt"
    listed.write_text("dog/c.png\n")
    assert refused(source="images", path=str(listed)).endswith(
        "list.txt:1: expected a path, a space and a label, found 'dog/c.png'"
    )
    listed.write_text("dog/d.png 1\n")
    assert "d.png: no such file" in refused(source="images", path=str(listed), root_folder=str(folder))
    (folder / "cat" / "z.png").write_bytes(png(np.zeros((3, 3, 3), np.uint8)))
    with pytest.raises(DataError, match=r"z.png: expected an image of 3x2x4 .* found 3x3x3; give new_height"):
        everything(opened(source="images", path=str(folder)))
    (folder / "cat" / "z.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"z.png: not an image"):
        everything(opened(source="images", path=str(folder)))
    (folder / "empty").mkdir()
    assert "expected folders, one for each class" in refused(source="images", path=str(folder / "empty"))


# dummy and memory.


def test_dummy_fills_by_fillers_and_follows_the_seed():
    tensors = {
        "data": {"shape": [2, 3], "filler": {"type": "gaussian", "std": 2.0}},
        "label": {"classes": 5},
        "one": {},
    }
    made = Source.model_validate({"source": "dummy", "batch_size": 1, "count": 2000, "tensors": tensors})
    first, again, other = (everything(made.open(seed)) for seed in (1, 1, 2))
    assert all(np.array_equal(first[name], again[name]) for name in tensors)
    assert (first["data"] != other["data"]).all()
    assert first["data"].shape == (2000, 2, 3) and abs(first["data"].std() - 2) < 0.1
    assert np.bincount(first["label"]).min() > 300 and not first["one"].any()


MEMORY = """
data:
  train: {source: memory, batch_size: 8, shuffle: true}
  test: {source: memory, batch_size: 8}
layers:
  - {type: InnerProduct, name: score, num_output: 2}
  - {type: SoftmaxWithLoss, inputs: [score, label]}
  - {type: Accuracy, name: accuracy, inputs: [score, label], phase: test}
solver: {type: SGD, base_lr: 0.5}
train: {max_iter: 60}
"""


def test_a_program_trains_on_its_own_arrays(tmp_path):
    x = RNG.normal(size=(64, 2))
    label = (x[:, 0] > x[:, 1]).astype(np.int64)
    spec = cfgnet.loads(MEMORY)
    both = {"data": x, "label": label}
    run = cfgnet.train(spec.given(train=both, test=both), runs=tmp_path)
    assert run.metrics["accuracy"] > 0.9
    with pytest.raises(SpecError, match="there are no arrays"):
        cfgnet.train(spec, runs=tmp_path)
    with pytest.raises(SpecError, match="its source is not memory"):
        cfgnet.loads(MEMORY.replace("memory, batch_size: 8}", "digits, batch_size: 8}")).given(test=both)


# The mean file.


def batches(mean_file, **transform):
    x = np.arange(2 * 2 * 4 * 4, dtype=np.float32).reshape(2, 2, 4, 4)
    given_ = {"source": "memory", "batch_size": 2, "transform": {"mean_file": str(mean_file), **transform}}
    source = Source.model_validate(given_).given({"data": x})
    return x, Batches(source, source.open(0), "test", 0)


def test_a_mean_file_is_subtracted_where_it_stands_in_the_whole_image(tmp_path):
    mean = RNG.normal(size=(2, 4, 4)).astype(np.float32)
    np.save(tmp_path / "mean.npy", mean)
    (tmp_path / "mean.binaryproto").write_bytes(packed(mean[None]))
    for file in ("mean.npy", "mean.binaryproto"):
        x, made = batches(tmp_path / file, crop_size=2, scale=0.5)
        np.testing.assert_array_equal(made.at(0)["data"], ((x - mean) * np.float32(0.5))[:, :, 1:3, 1:3])


def test_a_mean_file_that_does_not_fit_is_an_error(tmp_path):
    np.save(tmp_path / "mean.npy", np.zeros((2, 3, 4)))
    with pytest.raises(DataError, match="of the shape of a sample, 2x4x4, found 2x3x4"):
        batches(tmp_path / "mean.npy")
    (tmp_path / "mean.binaryproto").write_bytes(b"nonsense")
    with pytest.raises(DataError, match=r"mean.binaryproto: not an array that can be read"):
        batches(tmp_path / "mean.binaryproto")
    with pytest.raises(DataError, match="no such file"):
        batches(tmp_path / "none.npy")


# windows.


@pytest.fixture
def detector(tmp_path):
    """An image of 6 x 8 with two windows of class 3, one in between, and three that show nothing."""
    pixels = RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    (tmp_path / "a.png").write_bytes(png(pixels))
    rows = ["3 1.0 0 0 3 3", "3 0.6 4 2 7 5", "2 0.45 0 0 1 1", "2 0.2 0 0 3 3", "1 0 2 2 5 5", "1 0 -2 -2 1 1"]
    (tmp_path / "windows.txt").write_text("\n".join(["# 0", "a.png", "3", "6", "8", str(len(rows)), *rows]))
    given_ = {"source": "windows", "path": str(tmp_path / "windows.txt"), "root_folder": str(tmp_path)}
    return given_ | {"crop_size": 4, "bg_threshold": 0.3, "batch_size": 4}, pixels.transpose(2, 0, 1)


def test_windows_have_their_share_of_every_batch(detector):
    settings, pixels = detector
    records = opened(**settings)
    found = everything(records)
    assert records.count == 8 and found["label"].tolist() == [0, 0, 0, 3] * 2
    half = everything(opened(**settings, fg_fraction=0.5))
    assert half["label"].reshape(-1, 4).tolist() == [[0, 0, 3, 3]] * 2
    assert (
        len({image.tobytes() for image in half["data"]}) == 4
    )  # all places that five windows have; the sixth shows too little
    for image in (pixels[:, :4, :4], pixels[:, 2:6, 4:8], pixels[:, 2:6, 2:6]):
        assert any(np.array_equal(image, one) for one in half["data"])


def test_windows_reach_beyond_the_image_and_take_their_surroundings_along(detector):
    settings, pixels = detector
    shifted = everything(opened(**settings, fg_fraction=0, transform={"mean_value": [1, 2, 3]}))["data"]
    outside = next(one for one in shifted if np.array_equal(one[:, 2:, 2:], pixels[:, :2, :2]))
    assert (outside[:, :2] == np.array([1, 2, 3]).reshape(3, 1, 1)).all()
    wide = opened(**settings | {"crop_size": 8}, context_pad=2, fg_fraction=0)
    assert wide.shapes["data"] == (3, 8, 8) and np.isfinite(everything(wide)["data"]).all()


@pytest.mark.parametrize(
    ("settings", "white"),
    [
        ({}, 1),  # rows 2 and 3 of the image, which are white
        ({"crop_mode": "square"}, 2 / 5),  # rows 1 to 5
        ({"context_pad": 1}, 2 / 5),  # rows 1 to 5, and columns 0 to 8, the last of which is too little for a pixel
    ],
)
def test_a_window_is_taken_with_as_much_around_it_as_caffe_takes(tmp_path, settings, white):
    pixels = np.zeros((7, 8, 3), np.uint8)
    pixels[2:4] = 255
    (tmp_path / "a.png").write_bytes(png(pixels))
    (tmp_path / "w.txt").write_text("# 0\na.png\n3\n7\n8\n1\n0 0 2 2 5 3\n")
    path = {"path": str(tmp_path / "w.txt"), "root_folder": str(tmp_path), "crop_size": 4, "fg_fraction": 0}
    (found,) = everything(opened(source="windows", **path, **settings))["data"]
    assert abs(found.mean() / 255 - white) < 0.05


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("3 1.0 0 0 3 3", "3 1.0 0 0 3"), "windows.txt:7: expected 'class overlap x1 y1 x2 y2', found '3 1.0 0 0 3'"),
        (("# 0", "0"), "windows.txt:1: expected '# number', a path"),
        (("\n6\n8\n6\n", "\n6\n8\n7\n"), "windows.txt:1: expected 7 windows, found 6"),
        (("a.png", "b.png"), "b.png: no such file"),
        (("1.0 0 0", "0.1 0 0"), ""),
    ],
)
def test_windows_refuse_what_they_cannot_read(detector, tmp_path, change, message):
    settings, _ = detector
    file = tmp_path / "windows.txt"
    file.write_text(file.read_text().replace(*change))
    if not message:
        file.write_text(file.read_text().replace("0.6 4", "0.1 4"))
        message = "expected windows that show a class (fg_threshold), found none"
    with pytest.raises(DataError) as caught:
        everything(opened(**settings))
    assert message in str(caught.value)
