"""images: image files, by a list or by folders."""

from __future__ import annotations

import os
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import PositiveInt, model_validator

from cfgnet.data.files import opened, user_path
from cfgnet.data.pixels import read_image
from cfgnet.data.source import Records, Source
from cfgnet.errors import DataError
from cfgnet.explain import problem
from cfgnet.layer import text

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")


class Images(Source):
    """Image files as `data`, channels x height x width from 0 to 255, with `label`; read when they are wanted.

    `path` is a folder that has one folder of images for each class, or a text file with lines "path label", where the
    path may hold spaces. It stands for Caffe's ImageData layer; the channels are red, green, blue unless `order` says
    otherwise, and images are made smaller by an average over all that a pixel covers, where OpenCV takes four points.
    """

    path: str
    """A folder with a folder per class, or a list of files with labels."""
    root_folder: str = ""
    """The folder that the paths of a list are relative to."""
    new_height: PositiveInt | None = None
    """Height that all images are resized to, with new_width; without them all have to be of one size."""
    new_width: PositiveInt | None = None
    """Width that all images are resized to."""
    is_color: bool = True
    """Whether an image has three channels, or one of gray."""
    order: Literal["RGB", "BGR"] = "RGB"
    """The order of the channels; models that were trained with Caffe expect BGR."""

    aliases = ("ImageData",)

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        if (self.new_height is None) != (self.new_width is None):
            raise problem("give both new_height and new_width, or none of them")
        return self

    def open(self, seed: int) -> Records:
        """Finds the files, and reads the first of them."""
        path = user_path(self.path)
        if path.is_dir():
            files, labels, names = _in_folders(path)
        else:
            files, labels = _in_list(path, user_path(self.root_folder) if self.root_folder else Path())
            names = None
        return _Files(self, files, labels, self.classes or names)


class _Files(Records):
    """Image files that are decoded by several threads when they are taken."""

    full_scale = 255.0

    def __init__(self, source: Images, files: list[Path], labels: list[int], classes: tuple[str, ...] | None):
        import numpy as np

        self.source, self.files, self.classes, self.count = source, files, classes, len(files)
        self.labels = np.array(labels, np.int32)
        self.size = (source.new_height, source.new_width) if source.new_height and source.new_width else None
        self.shape = self._pixels(0).shape
        self.shapes = {"data": self.shape, "label": ()}
        self.kinds = {"data": "float", "label": "int"}
        self._pool: ThreadPoolExecutor | None = None

    def take(self, rows: Array, names: Collection[str] | None = None) -> dict[str, Array]:
        """Reads the files of the rows."""
        import numpy as np

        found = {"label": self.labels[rows]}
        if names is None or "data" in names:
            self._pool = self._pool or ThreadPoolExecutor(min(8, os.cpu_count() or 1), "cfgnet-images")
            pixels = np.stack(list(self._pool.map(self._pixels, rows.tolist())))
            found["data"] = np.ascontiguousarray(pixels, np.float32)
        return {name: array for name, array in found.items() if names is None or name in names}

    def _pixels(self, row: int) -> Array:
        file = self.files[row]
        if not file.is_file():
            raise DataError(f"{file}: no such file, which {self.source.path} lists")
        pixels = read_image(file, str(file), 3 if self.source.is_color else 1, self.size)
        if row and pixels.shape != self.shape:
            raise DataError(
                f"{file}: expected an image of {text(self.shape)} as the first one, found {text(pixels.shape)}; give "
                f"new_height and new_width"
            )
        return pixels[::-1] if self.source.order == "BGR" else pixels


def _in_folders(path: Path) -> tuple[list[Path], list[int], tuple[str, ...]]:
    """The images in the folders of a folder, their labels, and the names of the classes, in alphabetical order."""
    folders = sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    files: list[Path] = []
    labels: list[int] = []
    for label, folder in enumerate(folders):
        inside = sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES)
        files += inside
        labels += [label] * len(inside)
    if not files:
        raise DataError(f"{path}: expected folders, one for each class, with images ({', '.join(SUFFIXES)}) in them")
    return files, labels, tuple(folder.name for folder in folders)


def _in_list(path: Path, root: Path) -> tuple[list[Path], list[int]]:
    """The files and labels in lines "path label"."""
    with opened(path) as file:
        try:
            lines = file.read().decode("utf-8-sig").splitlines()
        except UnicodeDecodeError:
            raise DataError(f"{path}: expected a folder, or a text file with lines 'path label'") from None
    files, labels = [], []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name, _, label = line.strip().rpartition(" ")
        if not name or not label.isdecimal():
            raise DataError(f"{path}:{number}: expected a path, a space and a label, found {line[:60]!r}")
        files.append(root / name.strip())
        labels.append(int(label))
    if not files:
        raise DataError(f"{path}: expected lines 'path label', found none")
    return files, labels
