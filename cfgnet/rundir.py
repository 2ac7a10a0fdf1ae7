"""RunDir: the directory of one training, `runs/NAME/`, held by one process at a time.

config.yaml                    the resolved configuration; it reads back unchanged
plan.txt                       what the plan decided
log.jsonl                      one JSON object per progress line and test
environment.json               versions and machine
snapshots/iter_N.safetensors   the newest ones, by iteration
snapshots/best.safetensors     the best by the test metric
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import platform
import re
from pathlib import Path
from typing import IO, Any

from cfgnet import snapshot
from cfgnet._version import __version__
from cfgnet.errors import CfgnetError, DiskError, RunInUseError, SnapshotError
from cfgnet.snapshot import Snapshot, write_atomically

BEST = "best.safetensors"


class RunDir:
    """A run directory that this process holds; use it as a context manager, or call `close`."""

    def __init__(self, path: Path):
        self.path = path
        self._lock = self._hold()
        self._log: IO[str] | None = None

    @classmethod
    def create(cls, root: Path, name: str) -> RunDir:
        """A fresh directory: root/NAME, or root/NAME-2 and so on where that is taken. Raises DiskError."""
        try:
            root.mkdir(parents=True, exist_ok=True)
            for number in itertools.count(1):
                path = root / (name if number == 1 else f"{name}-{number}")
                try:
                    path.mkdir()
                    break
                except FileExistsError:
                    continue
            (path / "snapshots").mkdir()
        except OSError as error:
            raise DiskError(f"cannot create a run directory in {root}: {error.strerror}") from error
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> RunDir:
        """An existing run directory; CfgnetError if it is none, RunInUseError if another process holds it."""
        find(path)
        return cls(path)

    def _hold(self) -> int:
        try:
            handle = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise DiskError(f"cannot write to {self.path}: {error.strerror}") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            owner = os.read(handle, 20).decode(errors="replace").strip()
            os.close(handle)
            raise RunInUseError(f"{self.path} is in use by process {owner or '?'}; wait for it, or stop it") from None
        os.ftruncate(handle, 0)
        os.write(handle, str(os.getpid()).encode())
        return handle

    def close(self) -> None:
        """Lets go of the directory."""
        if self._log:
            with contextlib.suppress(OSError):  # a line that a full disk refuses was complained of when it was logged
                self._log.close()
        os.close(self._lock)

    def __enter__(self) -> RunDir:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write_text(self, name: str, text: str) -> None:
        """Writes a text file of the run, whole or not at all."""
        write_atomically(self.path / name, text.encode())

    def write_environment(self) -> None:
        """Notes what the run ran on."""
        from importlib.metadata import version

        packages = {name: version(name) for name in ("numpy", "pydantic", "pyyaml", "safetensors")}
        facts = {
            "cfgnet": __version__,
            "python": platform.python_version(),
            "platform": platform.platform(),
            **packages,
        }
        self.write_text("environment.json", json.dumps(facts, indent=2) + "\n")

    def log(self, entry: dict[str, Any]) -> None:
        """Appends one object to log.jsonl; DiskError if it cannot."""
        try:
            if not self._log:
                self._log = (self.path / "log.jsonl").open("a", encoding="utf-8")
            self._log.write(json.dumps(finite(entry)) + "\n")
            self._log.flush()
        except OSError as error:
            raise DiskError(f"cannot write {self.path / 'log.jsonl'}: {error.strerror}") from error

    def cut_log(self, iteration: int, tested: bool) -> None:
        """Drops what was logged after `iteration`, because a resumed training will log it again.

        The test of `iteration` itself is done after its snapshot, and stays only if the snapshot knows it (`tested`).
        """
        log = read_log(self.path)
        kept = [
            e
            for e in log
            if e["iteration"] < iteration or (e["iteration"] == iteration and (tested or "test" not in e))
        ]
        self.write_text("log.jsonl", "".join(json.dumps(entry) + "\n" for entry in kept))

    def save(self, saved: Snapshot, keep: int | None, best: bool = False) -> Path:
        """Writes a snapshot under its iteration, or as the best, and deletes old ones but for the `keep` newest."""
        folder = self.path / "snapshots"
        path = folder / (BEST if best else f"iter_{saved.state['iteration']:08d}.safetensors")
        snapshot.write(path, saved)
        for old in numbered(self.path)[:-keep] if keep and not best else []:
            old.unlink(missing_ok=True)
        return path


def find(path: Path) -> Path:
    """`path` if it is a run directory; CfgnetError otherwise."""
    if not (path / "config.yaml").is_file():
        there = sorted(p.parent.name for p in path.parent.glob("*/config.yaml")) if path.parent.is_dir() else []
        hint = f"; in {path.parent} there are: {', '.join(there)}" if there else ""
        raise CfgnetError(f"{path} is no run directory: it has no config.yaml{hint}")
    return path


def numbered(run: Path) -> list[Path]:
    """The snapshots of a run by iteration, oldest first; the file's name decides, because clocks may jump."""
    found = ((re.fullmatch(r"iter_(\d+)\.safetensors", p.name), p) for p in (run / "snapshots").glob("*"))
    return [path for _, path in sorted((int(match[1]), path) for match, path in found if match)]


def newest(run: Path) -> Path:
    """The newest snapshot; SnapshotError if there is none."""
    found = numbered(run)
    if not found:
        raise SnapshotError(f"{run} has no snapshot yet")
    return found[-1]


def best(run: Path) -> Path:
    """The best snapshot, or the newest where no test chose one."""
    path = run / "snapshots" / BEST
    return path if path.exists() else newest(run)


def finite(value: Any) -> Any:
    """`value` as JSON can hold it: nan and infinity become null."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float) and not (-float("inf") < value < float("inf")):
        return None
    return value


def read_log(run: Path) -> list[dict[str, Any]]:
    """The objects of log.jsonl; a last line that a crash cut short is left out."""
    path = run / "log.jsonl"
    entries = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            entries.append(json.loads(line))
        except ValueError:
            break
    return entries
