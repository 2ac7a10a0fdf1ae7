"""lmdb: the databases that Caffe's tools write."""

from __future__ import annotations

import io
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from cfgnet.data.files import user_path
from cfgnet.data.pixels import read_image
from cfgnet.data.protobuf import datum
from cfgnet.data.source import Records, Source
from cfgnet.errors import DataError
from cfgnet.layer import text

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


class Lmdb(Source):
    """The images `data`, channels x height x width, and `label` of a database that Caffe's convert_imageset wrote.

    It stands for Caffe's Data layer, and reads the records in the order of their keys, as that does. Encoded images
    come out as OpenCV decodes them, with the channels in the order blue, green, red. LevelDB is not read.
    """

    path: str
    """The folder of the database."""

    aliases = ("Data", "LMDB")

    def open(self, seed: int) -> Records:
        """Opens the database and reads its first record."""
        return _Database(user_path(self.path), self.classes)


_OPEN: WeakValueDictionary[Path, Any] = WeakValueDictionary()
"""The databases in use; LMDB allows a process to open each once, and both phases may read the same."""


def _environment(path: Path) -> Any:
    """The database at a path, opened for reading only; nothing is locked, because nobody writes."""
    import lmdb

    found = _OPEN.get(path.resolve())
    if found is None:
        found = lmdb.open(str(path), subdir=path.is_dir(), readonly=True, lock=False, readahead=False)
        _OPEN[path.resolve()] = found
    return found


class _Database(Records):
    """Records that are read when they are taken."""

    full_scale = 255.0

    def __init__(self, path: Path, classes: tuple[str, ...] | None):
        self.path, self.classes = path, classes
        try:
            import lmdb
        except ImportError:
            raise DataError("reading LMDB needs lmdb: pip install 'cfgnet[data]'") from None
        try:
            self._database = _environment(path)
            with self._database.begin() as transaction:
                self._keys = [bytes(key) for key in transaction.cursor().iternext(values=False)]
        except lmdb.Error as error:
            raise DataError(f"{path}: not an LMDB database that can be read ({error})") from None
        self.count = len(self._keys)
        self.kinds = {"data": "float", "label": "int"}
        self.shapes = {"data": self._record(0)[0].shape if self.count else (), "label": ()}

    def take(self, rows: Array, names: Collection[str] | None = None) -> dict[str, Array]:
        """Reads the records of the rows."""
        import numpy as np

        wanted = self.shapes["data"]
        records = [self._record(row) for row in rows.tolist()]
        for row, (image, _) in zip(rows.tolist(), records, strict=True):
            if image.shape != wanted:
                raise DataError(
                    f"{self.path}: expected images of {text(wanted)} as the first, found {text(image.shape)} "
                    f"in record {row}; convert them to one size"
                )
        found = {
            "data": np.ascontiguousarray([image for image, _ in records], np.float32),
            "label": np.array([label for _, label in records], np.int32),
        }
        return {name: array for name, array in found.items() if names is None or name in names}

    def _record(self, row: int) -> tuple[Array, int]:
        """The image and the label of a record."""
        where = f"{self.path}: record {row}"
        with self._database.begin() as transaction:
            value = transaction.get(self._keys[row])
        try:
            found = datum(value or b"")
        except DataError as error:
            raise DataError(f"{where}: {error}") from None
        if found.image is not None:
            return found.image, found.label
        return read_image(io.BytesIO(found.encoded or b""), where, 3)[::-1], found.label
