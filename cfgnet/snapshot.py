"""Snapshots: everything that a training needs to go on exactly, in one safetensors file with a hash per array.

A file is written beside its place, read back and compared, and only then renamed, so that a crash or a full disk
leaves the older one whole. The metadata has one key, `cfgnet`: a hash, a space, and the JSON that it is of, with
`version`, `sha256` (by array) and `state`. It is one key because safetensors writes several in a random order, and
equal trainings are to give equal files.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cfgnet._version import __version__
from cfgnet.errors import DiskError, SnapshotError


@dataclass(frozen=True)
class Snapshot:
    """Arrays by name, such as "params/conv1.weight" and "solver/history/conv1.weight", and a small state."""

    arrays: Mapping[str, Any]
    state: Mapping[str, Any]

    def section(self, name: str) -> dict[str, Any]:
        """The arrays under `name/`, without it."""
        return {key.removeprefix(name + "/"): a for key, a in self.arrays.items() if key.startswith(name + "/")}

    def params(self, averaged: bool) -> dict[str, Any]:
        """The parameters by key: those that were trained, or their averages, if it has any."""
        return self.section("params") | (self.section("average") if averaged else {})


def write(path: Path, snapshot: Snapshot) -> None:
    """Writes a snapshot so that `path` holds either the old file or the whole new one; DiskError if it cannot."""
    import numpy as np
    from safetensors.numpy import save

    # safetensors stores the memory of an array as it lies, and not its values, unless it is C-contiguous.
    arrays = {name: np.asarray(array, order="C") for name, array in snapshot.arrays.items()}
    hashes = {name: _sha256(array) for name, array in arrays.items()}
    facts = json.dumps({"version": __version__, "sha256": hashes, "state": snapshot.state})
    data = save(arrays, {"cfgnet": f"{_hash(facts)} {facts}"})
    write_atomically(path, data, check=lambda: _decode(data, path))


def write_atomically(path: Path, data: bytes, check: Any = None) -> None:
    """Writes a file through a temporary one, with fsync, read-back and rename; DiskError if any of it fails."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        if temporary.read_bytes() != data:
            raise OSError("what was read back is not what was written")
        if check:
            check()
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise DiskError(f"cannot write {path}: {error.strerror or error}; what was there before is unharmed") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Makes the rename itself durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read(path: Path) -> Snapshot:
    """The snapshot in a file; SnapshotError if it is missing, damaged, or not one of ours."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SnapshotError(f"cannot read the snapshot {path}: {error.strerror}") from None
    return _decode(data, path)


def _decode(data: bytes, path: Path) -> Snapshot:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = load(data)
        seal, _, text = _metadata(data)["cfgnet"].partition(" ")
        if seal != _hash(text):
            raise ValueError("its metadata is not what was saved")
        facts = json.loads(text)
        hashes, state = facts["sha256"], facts["state"]
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise SnapshotError(f"{path} is damaged, or no snapshot of cfgnet ({error})") from None
    wrong = [
        name
        for name in arrays.keys() | hashes.keys()
        if name not in arrays or _sha256(arrays[name]) != hashes.get(name)
    ]
    if wrong:
        raise SnapshotError(f"{path} is damaged: {', '.join(sorted(wrong))} is not what was saved")
    return Snapshot(arrays, state)


def _metadata(data: bytes) -> dict[str, str]:
    """The free part of a safetensors header: its length in 8 bytes, then JSON."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    found: dict[str, str] = header["__metadata__"]
    return found


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _sha256(array: Any) -> str:
    """Of the type, the shape and the bytes."""
    digest = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    digest.update(array.tobytes())
    return digest.hexdigest()
