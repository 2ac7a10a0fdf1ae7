"""hdf5: the datasets of HDF5 files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import PositiveInt

from cfgnet.data.files import opened, user_path
from cfgnet.data.source import MAX_BYTES, ArrayRecords, Records, Source
from cfgnet.errors import DataError
from cfgnet.explain import did_you_mean
from cfgnet.layer import text
from cfgnet.part import Names

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

SIGNATURE = b"\x89HDF\r\n\x1a\n"


class Hdf5(Source):
    """The datasets of an HDF5 file, or of all files that a text file lists, one after another; axis 0 is the sample.

    It stands for Caffe's HDF5Data layer, whose files hold labels as real numbers: those of `whole` become whole ones
    where they all are. Unlike there, all files are in memory at once, and `shuffle` mixes the samples of all of them.
    """

    path: str
    """The file, or a text file with the path of one per line, relative to the current directory."""
    tensors: dict[str, str] = {}
    """Which datasets to take, and as what: {data: x_train, label: y_train}; by default all, by their own names."""
    whole: Names = ("label",)
    """Tensors that hold whole numbers, such as labels and indices of words, even if they are written as real ones."""
    max_bytes: PositiveInt = MAX_BYTES
    """The largest size of all datasets together that is accepted."""

    aliases = ("HDF5Data", "HDF5", "h5")

    def open(self, seed: int) -> Records:
        """Reads the wanted datasets of all files."""
        import numpy as np

        parts = [self._read(file) for file in _listed(user_path(self.path))]
        first = parts[0]
        for part in parts[1:]:
            if part.keys() != first.keys():
                raise DataError(f"{self.path}: expected the same datasets in all files; give tensors to choose some")
            for name, array in part.items():
                if array.shape[1:] != first[name].shape[1:]:
                    raise DataError(
                        f"{self.path}: expected samples of one shape in all files, found {name!r} of "
                        f"{text(first[name].shape[1:])} and {text(array.shape[1:])}"
                    )
        arrays = {name: np.concatenate([part[name] for part in parts]) if parts[1:] else first[name] for name in first}
        for name in self.whole:
            if name in arrays:
                arrays[name] = _whole(arrays[name])
        full_scale = 255.0 if "data" in arrays and arrays["data"].dtype == "uint8" else 1.0
        return ArrayRecords(arrays, self.classes, full_scale, self.path, self.whole)

    def _read(self, path: Path) -> dict[str, Array]:
        """The wanted datasets of one file, whose sizes are looked at before anything is read."""
        h5py = _h5py()
        with opened(path) as raw:
            try:
                with h5py.File(raw, "r") as file:
                    found: dict[str, Any] = {}
                    file.visititems(lambda name, item: found.update({name: item} if hasattr(item, "dtype") else {}))
                    wanted = self.tensors or {name: name for name in found}
                    for name in wanted.values():
                        if name not in found:
                            known = f"expected one of {', '.join(map(repr, found))}"
                            raise DataError(f"{path}: no dataset {name!r}; {did_you_mean(name, found, known)}")
                        if found[name].dtype.kind not in "biuf":
                            raise DataError(f"{path}: {name!r}: expected numbers, found {found[name].dtype}")
                    total = sum(found[name].nbytes for name in set(wanted.values()))
                    if total > self.max_bytes:
                        raise DataError(f"{path}: expected at most {self.max_bytes} bytes (max_bytes), found {total}")
                    return {ours: found[theirs][()] for ours, theirs in wanted.items()}
            except (OSError, RuntimeError, KeyError, ValueError) as error:
                raise DataError(f"{path}: not an HDF5 file that can be read ({error})") from None


def _h5py() -> Any:
    try:
        import h5py
    except ImportError:
        raise DataError("reading HDF5 needs h5py: pip install 'cfgnet[data]'") from None
    return h5py


def _listed(path: Path) -> list[Path]:
    """The file itself if it is one of HDF5, else the files that its lines name."""
    with opened(path) as file:
        if file.read(len(SIGNATURE)) == SIGNATURE:
            return [path]
        file.seek(0)
        try:
            lines = file.read(1 << 20).decode("utf-8-sig").splitlines()
        except UnicodeDecodeError:
            raise DataError(f"{path}: expected an HDF5 file, or a text file with paths of some") from None
    files = [user_path(line.strip()) for line in lines if line.strip()]
    if not files:
        raise DataError(f"{path}: expected an HDF5 file, or a text file with paths of some, found an empty file")
    return files


def _whole(array: Array) -> Array:
    """Labels as whole numbers, one per sample without axes of one, if all of them are; the array itself if not."""
    import numpy as np

    if array.dtype.kind != "f":
        return array
    if not np.isfinite(array).all() or (array != np.trunc(array)).any() or (np.abs(array) >= 2**31).any():
        return array
    flat = array.reshape(len(array)) if array.size == len(array) else array
    return flat.astype(np.int32)
