"""Files from outside: IDX, npz and CSV, sound, damaged and hostile."""

import gzip
import io
import os
import pickle
import random
import struct
import zipfile

import numpy as np
import pytest

from cfgnet.data import Source
from cfgnet.errors import DataError

IMAGES = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
LABELS = np.array([2, 0, 1], np.uint8)


def opened(**fields):
    return Source.model_validate({"batch_size": 1, **fields}).open(0)


def everything(records):
    return records.take(np.arange(records.count))


def refused(**fields):
    """The message of the DataError."""
    with pytest.raises(DataError) as caught:
        opened(**fields)
    return str(caught.value)


def idx(array):
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def npz(**arrays):
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def put(folder, **files):
    for name, content in files.items():
        (folder / name).write_bytes(content)


@pytest.fixture
def mnist(tmp_path):
    """A folder with a plain training set and a packed test set."""
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(IMAGES))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(LABELS))
    (tmp_path / "t10k-images.idx3-ubyte.gz").write_bytes(gzip.compress(idx(IMAGES[:2])))
    (tmp_path / "t10k-labels.idx1-ubyte").write_bytes(idx(LABELS[:2]))
    return tmp_path


class TestIdx:
    def test_folder_file_and_gzip(self, mnist):
        for fields in ({"path": str(mnist)}, {"path": str(mnist / "train-images-idx3-ubyte")}):
            records = opened(source="idx", **fields)
            arrays = everything(records)
            np.testing.assert_array_equal(arrays["data"], IMAGES[:, None])
            np.testing.assert_array_equal(arrays["label"], LABELS)
            assert records.full_scale == 255 and records.arrays["data"].dtype == np.uint8
        assert opened(source="idx", path=str(mnist), split="test").count == 2

    def test_home_and_current_directory(self, mnist, monkeypatch):
        monkeypatch.setenv("HOME", str(mnist.parent))
        monkeypatch.chdir(mnist.parent)
        for path in (f"~/{mnist.name}", mnist.name):
            assert opened(source="idx", path=path).count == 3

    def test_what_is_missing_is_named(self, mnist):
        (mnist / "train-labels-idx1-ubyte").unlink()
        assert "train-labels-idx1-ubyte: no such file" in refused(source="idx", path=str(mnist))
        (mnist / "train-images-idx3-ubyte").rename(mnist / "pictures")
        message = refused(source="idx", path=str(mnist))
        assert "expected a file train-images-idx3-ubyte or" in message and "found pictures, t10k" in message
        assert "give it as 'labels:'" in refused(source="idx", path=str(mnist / "pictures"))
        labels = str(mnist / "t10k-labels.idx1-ubyte")
        message = refused(source="idx", path=str(mnist / "pictures"), labels=labels)
        assert f"{labels}: expected 3 labels" in message and message.endswith("found 2")

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "at byte 0: the file ends, expected 4 more bytes"),
            (idx(LABELS), "at byte 0: expected 0x00000803 .*found 0x00000801"),
            (b"PK\3\4" * 9, "found 0x504b0304"),
            (idx(IMAGES)[:-1], "at byte 16: expected 60 bytes for axes of 3x4x5, found 59"),
            (idx(IMAGES) + b"x", "expected 60 bytes .* found 61"),
            (idx(IMAGES[:, :0]), "expected axes of at least 1, found 3x0x5"),
            (bytes((0, 0, 8, 3)) + b"\xff" * 12, "expected at most 8589934592 bytes, found axes of 4294967295x"),
            (gzip.compress(idx(IMAGES))[:-1], "gzip stream is truncated"),
            (gzip.compress(idx(IMAGES) + b"x"), "at byte 76: expected the end of the file"),
            (gzip.compress(idx(IMAGES)[:-7]), "at byte 69: the file ends, expected 7 more bytes"),
            (gzip.compress(idx(IMAGES)[:5]), "at byte 5: the file ends"),
            (gzip.compress(bytes((0, 0, 8, 3)) + b"\0\1\0\0" * 3), "at most 8589934592|found at most"),
            (gzip.compress(bytes((0, 0, 8, 3)) + b"\0\0\4\0" * 3), "expected 1073741824 bytes .* found at most"),
        ],
    )
    def test_damage_names_file_and_offset(self, mnist, content, message):
        path = mnist / "train-images-idx3-ubyte"
        path.write_bytes(content)
        with pytest.raises(DataError, match=message) as caught:
            opened(source="idx", path=str(mnist))
        assert str(caught.value).startswith(str(path))

    def test_max_bytes(self, mnist):
        assert "expected at most 59 bytes" in refused(source="idx", path=str(mnist), max_bytes=59)

    @pytest.mark.parametrize("pack", [bytes, gzip.compress])
    def test_every_truncation_is_an_error(self, mnist, pack):
        content = pack(idx(IMAGES))
        for end in range(len(content)):
            (mnist / "train-images-idx3-ubyte").write_bytes(content[:end])
            refused(source="idx", path=str(mnist))

    @pytest.mark.parametrize("pack", [bytes, gzip.compress])
    def test_every_flipped_bit_is_an_error_or_another_picture(self, mnist, pack):
        content = pack(idx(IMAGES))
        outcomes = flip_all(content, mnist / "train-images-idx3-ubyte", source="idx", path=str(mnist))
        # Only the pixels of a plain file are unchecked, and in a packed one what gzip itself ignores of its 10 bytes.
        assert sum(outcomes) == 60 * 8 if pack is bytes else 0 < sum(outcomes) < 10 * 8


def flip_all(content, file, limit=None, **fields):
    """For each flipped bit whether the file still opens; anything but a DataError escapes."""
    outcomes = []
    places = range(len(content) * 8)
    for place in random.Random(0).sample(places, limit) if limit else places:
        damaged = bytearray(content)
        damaged[place // 8] ^= 1 << place % 8
        file.write_bytes(damaged)
        try:
            everything(opened(**fields))
            outcomes.append(True)
        except DataError:
            outcomes.append(False)
    return outcomes


class TestNpz:
    def test_arrays_by_name_with_the_kinds_that_follow(self, tmp_path):
        path = tmp_path / "ü 数据.npz"
        x, y = np.arange(24, dtype=">f8").reshape(2, 3, 4, order="F"), np.array([1, 0], np.int64)
        path.write_bytes(npz(x_train=x, y_train=y, other=np.ones((5, 5))))
        records = opened(source="npz", path=str(path), tensors={"data": "x_train", "label": "y_train"})
        assert records.kinds == {"data": "float", "label": "int"}
        np.testing.assert_array_equal(everything(records)["data"], x)
        np.testing.assert_array_equal(everything(records)["label"], y)
        assert "'x_train' has 2, 'y_train' has 2, 'other' has 5" in refused(source="npz", path=str(path))
        message = refused(source="npz", path=str(path), tensors={"data": "x_trian"})
        assert "no array 'x_trian'; did you mean 'x_train'?" in message
        assert "expected one of 'x_train', 'y_train'" in refused(source="npz", path=str(path), tensors={"data": "Q"})

    def test_stored_and_uint8(self, tmp_path):
        path = tmp_path / "a.npz"
        np.savez(path, data=IMAGES)
        records = opened(source="npz", path=str(path))
        assert records.arrays["data"].dtype == np.uint8 and records.full_scale == 255
        np.testing.assert_array_equal(everything(records)["data"], IMAGES)

    def test_an_empty_array_opens(self, tmp_path):
        put(tmp_path, a=npz(data=np.zeros((0, 3))))
        assert opened(source="npz", path=str(tmp_path / "a")).count == 0

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "not a zip file"),
            (npz(data=IMAGES)[:-9], "not a zip file"),
            (npz(data=np.float64(1)), "found a single number"),
            (npz(data=np.array(["a"])), "found dtype '<U1'"),
            (npz(data=np.zeros(2, [("a", "f4")])), "found dtype 'record'; objects, text and records are not read"),
        ],
    )
    def test_what_is_no_data_is_refused(self, tmp_path, content, message):
        path = tmp_path / "a.npz"
        path.write_bytes(content)
        with pytest.raises(DataError, match=message) as caught:
            opened(source="npz", path=str(path))
        assert str(path) in str(caught.value)

    def test_nothing_is_unpickled(self, tmp_path):
        class Trap:
            def __reduce__(self):
                return os.mkdir, (str(tmp_path / "trapped"),)

        path = tmp_path / "a.npz"
        np.savez(path, data=np.array([Trap()], dtype=object), allow_pickle=True)
        assert "dtype '|O'" in refused(source="npz", path=str(path))
        path.write_bytes(pickle.dumps(Trap()))
        assert "not a zip file" in refused(source="npz", path=str(path))
        assert not (tmp_path / "trapped").exists()

    @pytest.mark.parametrize(
        ("shape", "extra", "message"),
        [
            ("(70368744177664,)", b"", "expected 281474976710784 bytes|expected 2814749767107"),
            ("(4294967296, 4294967296, 4294967296)", b"", "found 12[0-9]"),
            ("(99999999999999999999,)", b"", "expected descr, fortran_order and shape"),
            ("(2,)", b"\0" * 9, "the file is damaged"),
            ("(-1,)", b"", "expected descr, fortran_order and shape"),
            ("()", b"\0" * 4, "single number"),
            ("(__import__('os'),)", b"", "expected descr"),
            ("(" + "1" * 60000 + ",)", b"", "expected descr"),
            ("(" + "1," * 30000 + ")", b"", "the file is damaged|expected"),
        ],
    )
    def test_headers_that_lie(self, tmp_path, shape, extra, message):
        header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode()
        header += b" " * (-(len(header) + 11) % 64) + b"\n"
        path = tmp_path / "a.npz"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("data.npy", b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + extra)
        with pytest.raises(DataError, match=message):
            opened(source="npz", path=str(path))

    def test_bombs(self, tmp_path):
        path = tmp_path / "a.npz"
        path.write_bytes(npz(data=np.zeros((1000, 100), np.uint8)))
        assert "expected at most 99999 bytes" in refused(source="npz", path=str(path), max_bytes=99999)
        content = bytearray(path.read_bytes())
        at = content.rindex(b"PK\1\2") + 24
        content[at : at + 4] = struct.pack("<I", 2**31)
        path.write_bytes(content)
        assert "claims 2147483648 bytes, more than" in refused(source="npz", path=str(path))

    def test_two_entries_of_one_name(self, tmp_path):
        path = tmp_path / "a.npz"
        content = npz(data=IMAGES, dat2=IMAGES).replace(b"dat2.npy", b"data.npy")
        path.write_bytes(content)
        assert "expected one array 'data', found two" in refused(source="npz", path=str(path))

    def test_every_truncation_is_an_error(self, tmp_path):
        content = npz(data=IMAGES, label=LABELS)
        path = tmp_path / "a.npz"
        for end in range(len(content)):
            path.write_bytes(content[:end])
            refused(source="npz", path=str(path))

    def test_flipped_bits_are_errors_or_harmless(self, tmp_path):
        content = npz(data=IMAGES, label=LABELS)
        outcomes = flip_all(content, tmp_path / "a.npz", 2000, source="npz", path=str(tmp_path / "a.npz"))
        assert True in outcomes and False in outcomes


class TestCsv:
    def table(self, folder, text, **fields):
        (folder / "t.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
        return opened(source="csv", path=str(folder / "t.csv"), **fields)

    @pytest.mark.parametrize(
        ("text", "fields", "data", "name", "target", "classes"),
        [
            ("1,2,0\n3,4,1\n", {}, [[1, 2], [3, 4]], "label", [0, 1], None),
            ("a,b,c\n1,2,0\n\n3,4,1", {}, [[1, 2], [3, 4]], "label", [0, 1], None),
            ("1,2,0.5\r\n3,4,1\r\n", {}, [[1, 2], [3, 4]], "target", [[0.5], [1]], None),
            ("1,2,7\n3,4,8", {"target_kind": "number"}, [[1, 2], [3, 4]], "target", [[7], [8]], None),
            ("1;2;cat\n3;4;ape", {"delimiter": ";"}, [[1, 2], [3, 4]], "label", [1, 0], ("ape", "cat")),
            ("1,d\n2,b\n3,a\n4,c\n5,e", {}, [[1], [2], [3], [4], [5]], "label", [3, 1, 0, 2, 4], tuple("abcde")),
            ("1,2,cat\n", {"classes": ["cat", "ape"]}, [[1, 2]], "label", [0], ("cat", "ape")),
            ("1,2,cat\n3,4,1", {"target_kind": "class"}, [[1, 2], [3, 4]], "label", [1, 0], ("1", "cat")),
            ("y,a\n1,2\n3,4", {"target": "y"}, [[2], [4]], "label", [1, 3], None),
            ("1,2\n3,4", {"target": 0}, [[2], [4]], "label", [1, 3], None),
            ("1,2\n3,4", {"target": None}, [[1, 2], [3, 4]], None, None, None),
            ("1,2\n3,4", {"target": None, "header": True}, [[3, 4]], None, None, None),
            ('\ufeff"1","-2.5e1"\n3," 4 "', {"target": None}, [[1, -25], [3, 4]], None, None, None),
            ("1,2,3,4,0", {"shape": [1, 2, 2]}, [[[[1, 2], [3, 4]]]], "label", [0], None),
        ],
    )
    def test_tables(self, tmp_path, text, fields, data, name, target, classes):
        records = self.table(tmp_path, text, **fields)
        arrays = everything(records)
        assert arrays.pop("data").tolist() == data and records.classes == classes
        assert {n: a.tolist() for n, a in arrays.items()} == ({name: target} if name else {})

    @pytest.mark.parametrize(
        ("text", "fields", "message"),
        [
            ("1,2,0\n3,x4,1\n", {}, r"t.csv:2: column 2: expected a number, found 'x4'"),
            ("1,b,0\n3,4,1\n", {}, r"t.csv:1: column 2: expected a number, found 'b'; .*header: true"),
            ("a,b,c\n1,,0\n", {}, r"t.csv:2: column 2 \('b'\): expected a number, found ''"),
            ("1,1_0,0\n", {}, "expected a number, found '1_0'"),
            ("1,2,0\n\n3,4\n", {}, r"t.csv:3: expected 3 columns, as in line 1, found 2"),
            ("1,2,cat\n3,4,\n", {}, r"t.csv:2: column 3: expected a target, found an empty cell"),
            ("1,2,1\n3,4,l\n", {}, r"t.csv:2: column 3: expected a number as in line 1, found 'l'.*target_kind: class"),
            ("1,2,1\n3,4,l\n", {"target_kind": "number"}, r"t.csv:2: .*expected a number, found 'l'"),
            ("1,2,1.5\n", {"target_kind": "class"}, r"t.csv:1: .*whole number as label, found '1.5'"),
            ("1,2,nan\n", {"target_kind": "class"}, "whole number as label, found 'nan'"),
            ("1,2,2147483648\n", {}, "whole number as label, found '2147483648'"),
            ("1,2,cta\n", {"classes": ["cat", "ape"]}, r"t.csv:1: .*found 'cta'; did you mean 'cat'"),
            ("1,2\n", {"target": 2}, "target expected a column from -2 to 1, found 2"),
            ("a,b\n1,2\n", {"target": "B"}, "no column 'B'; did you mean 'b'"),
            ("a,a\n1,2\n", {"target": "a"}, "2 columns 'a'"),
            ("1,2\n", {"target": "a", "header": False}, "header is false"),
            ("1;2;0\n", {}, "found only 1 column; is the delimiter ','"),
            ("1,2,0\n", {"shape": [3]}, r"shape expected .* 2 columns of data, found \[3\]"),
            (b"1,2,0\n1,\xff,0", {}, "expected UTF-8 text, found byte 0xff"),
            ('1,2,0\n1,"2', {}, "t.csv:2: expected comma-separated values"),
            ("1,2," + "0" * 200000, {}, "field larger than field limit"),
        ],
    )
    def test_errors_name_line_and_column(self, tmp_path, text, fields, message):
        with pytest.raises(DataError, match=message):
            self.table(tmp_path, text, **fields)

    @pytest.mark.parametrize("text", ["", "\n\n", "a,b,c\n"])
    def test_no_lines_are_no_samples(self, tmp_path, text):
        assert self.table(tmp_path, text, header=True).count == 0

    @pytest.mark.parametrize("fields", [{"delimiter": ",,"}, {"delimiter": "\n"}, {"shape": [0]}, {"shape": []}])
    def test_settings_are_checked(self, fields):
        with pytest.raises(ValueError, match="expected"):
            Source.model_validate({"source": "csv", "path": "a", "batch_size": 1, **fields})


@pytest.mark.parametrize("kind", ["idx", "npz", "csv"])
def test_paths_that_are_no_files(kind, tmp_path):
    labels = {"labels": "x"} if kind == "idx" else {}
    os.mkfifo(tmp_path / "fifo")
    for path, message in (
        (tmp_path / "none", "no such file"),
        (tmp_path / "fifo", "expected a regular file"),
        ("none", "no such file; current directory: /"),
        ("a\0b", "expected a path"),
        ("", "expected a path"),
        ("~nobody-of-that-name/x", "home"),
    ):
        assert message in refused(source=kind, path=str(path), **labels)
