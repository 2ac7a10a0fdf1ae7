"""windows: parts of images, with what is in them and in what share, for detectors in the way of R-CNN."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from cfgnet.data.files import opened, user_path
from cfgnet.data.pixels import read_image
from cfgnet.data.source import Records, Source
from cfgnet.errors import DataError
from cfgnet.explain import problem
from cfgnet.rng import generator

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


class Windows(Source):
    """Windows of images as `data`, 3 x crop_size x crop_size, with the class in them as `label`, or 0 for none.

    `path` is a file of Caffe's WindowData layer, which this stands for: for each image `# number`, its path, channels,
    height, width, the number of windows, and for each of these `class overlap x1 y1 x2 y2`. Windows with an overlap of
    at least fg_threshold show their class; those with less than bg_threshold show nothing. In each batch, fg_fraction
    show a class; an epoch holds every window at least once. What lies outside of the image becomes 0 behind the
    transform. Girshick et al. 2014.
    """

    path: str
    """The file of windows."""
    crop_size: PositiveInt
    """Side of the square that a window is brought to."""
    fg_threshold: float = 0.5
    """The least overlap with an object at which a window shows it."""
    bg_threshold: float = 0.5
    """The overlap below which a window shows nothing."""
    fg_fraction: float = Field(default=0.25, ge=0, le=1)
    """Share of a batch that shows a class."""
    context_pad: NonNegativeInt = 0
    """How many pixels on each side of the square are the surroundings of the window."""
    crop_mode: Literal["warp", "square"] = "warp"
    """Whether the window itself is brought to the square, or the smallest square around it."""
    cache_images: bool = False
    """Whether the files of images stay in memory once they are read."""
    root_folder: str = ""
    """The folder that the paths of images are relative to."""
    order: Literal["RGB", "BGR"] = "RGB"
    """The order of the channels; models that were trained with Caffe expect BGR."""

    aliases = ("WindowData",)

    @model_validator(mode="after")
    def _room_for_the_window(self) -> Self:
        if 2 * self.context_pad >= self.crop_size:
            raise problem(f"context_pad {self.context_pad} on both sides leaves nothing of crop_size {self.crop_size}")
        return self

    def open(self, seed: int) -> Records:
        """Reads the file of windows."""
        path = user_path(self.path)
        with opened(path) as file:
            try:
                lines = file.read().decode("utf-8-sig").splitlines()
            except UnicodeDecodeError:
                raise DataError(f"{path}: expected a text file of windows") from None
        windows = list(_parsed(path, user_path(self.root_folder) if self.root_folder else Path(), lines))
        shown = [window for window in windows if window.overlap >= self.fg_threshold]
        rest = [window for window in windows if window.overlap < min(self.fg_threshold, self.bg_threshold)]
        return _Windows(self, shown, rest, seed)


@dataclass(frozen=True)
class _Window:
    """A part of an image, its corners included."""

    file: Path
    label: int
    overlap: float
    x1: int
    y1: int
    x2: int
    y2: int


def _parsed(path: Path, root: Path, lines: list[str]) -> Iterator[_Window]:
    """The windows of all images."""
    rows = [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    at = 0
    while at < len(rows):
        head = rows[at : at + 6]
        number = head[0][0]
        if not head[0][1].startswith("#") or len(head) < 6 or not all(line.isdecimal() for _, line in head[2:]):
            raise DataError(
                f"{path}:{number}: expected '# number', a path, and channels, height, width and the number of windows, "
                f"each in a line of its own, found {head[0][1][:60]!r}"
            )
        count = int(head[5][1])
        if at + 6 + count > len(rows):
            raise DataError(f"{path}:{number}: expected {count} windows, found {len(rows) - at - 6}")
        for number, line in rows[at + 6 : at + 6 + count]:
            try:
                label, overlap, *corners = line.split()
                x1, y1, x2, y2 = map(int, corners)
                yield _Window(root / head[1][1], int(label), float(overlap), x1, y1, x2, y2)
            except ValueError:
                raise DataError(f"{path}:{number}: expected 'class overlap x1 y1 x2 y2', found {line[:60]!r}") from None
        at += 6 + count


class _Windows(Records):
    """Batches of windows in which those that show a class have their share."""

    full_scale = 255.0
    kinds = {"data": "float", "label": "int"}

    def __init__(self, source: Windows, shown: list[_Window], rest: list[_Window], seed: int):
        self.source, self.classes = source, source.classes
        few = round(source.batch_size * source.fg_fraction)
        parts = [(rest, source.batch_size - few), (shown, few)]
        for windows, wanted in parts:
            if wanted and not windows:
                what = "show a class (fg_threshold)" if windows is shown else "show none (bg_threshold)"
                raise DataError(f"{source.path}: expected windows that {what}, found none")
        batches = max(-(-len(windows) // wanted) for windows, wanted in parts if wanted)
        drawn = [self._drawn(windows, batches * wanted, seed) for windows, wanted in parts]
        self.windows = [
            window
            for _ in range(batches)
            for (_, n), row in zip(parts, drawn, strict=True)
            for window in (next(row) for _ in range(n))
        ]
        self.count = len(self.windows)
        self.shapes = {"data": (3, source.crop_size, source.crop_size), "label": ()}
        self._images: dict[Path, Array] = {}

    @staticmethod
    def _drawn(windows: list[_Window], count: int, seed: int) -> Iterator[_Window]:
        """`count` of the windows in random order, all of them before any comes again."""
        for turn in range(-(-count // max(1, len(windows)))):
            order = generator(seed, "windows", turn).permutation(len(windows))
            yield from (windows[place] for place in order)

    def take(self, rows: Array, names: Collection[str] | None = None) -> dict[str, Array]:
        """Cuts the windows of the rows out of their images."""
        import numpy as np

        chosen = [self.windows[row] for row in rows.tolist()]
        found: dict[str, Array] = {}
        if names is None or "data" in names:
            found["data"] = np.stack([self._pixels(window) for window in chosen])
        if names is None or "label" in names:
            labels = [one.label if one.overlap >= self.source.fg_threshold else 0 for one in chosen]
            found["label"] = np.array(labels, np.int32)
        return found

    def _pixels(self, window: _Window) -> Array:
        """The square of a window; what is outside of the image is what the transform makes 0 of."""
        import numpy as np

        side, transform = self.source.crop_size, self.source.transform
        square = np.zeros((3, side, side), np.float32)
        if transform.mean is not None:
            square[...] = transform.mean.reshape(square.shape)
        elif transform.mean_value:
            square[...] = np.asarray(transform.mean_value, np.float32).reshape(-1, 1, 1)
        image = self._image(window.file)
        spans = [
            self._span(low, high, size, other)
            for low, high, size, other in (
                (window.y1, window.y2, image.shape[1], window.x2 - window.x1),
                (window.x1, window.x2, image.shape[2], window.y2 - window.y1),
            )
        ]
        (top, bottom, y, height), (left, right, x, width) = spans
        if height and width:
            part = image[:, top : bottom + 1, left : right + 1]
            square[:, y : y + height, x : x + width] = _resized(part, height, width)
        return square[::-1].copy() if self.source.order == "BGR" else square

    def _span(self, low: int, high: int, size: int, other: int) -> tuple[int, int, int, int]:
        """Along one axis: the first and last pixel of the image that are seen, where they go, and to how many."""
        side, pad = self.source.crop_size, self.source.context_pad
        half = (high - low + 1) / 2
        centre = low + half
        if self.source.crop_mode == "square":
            half = max(half, (other + 1) / 2)
        if pad or self.source.crop_mode == "square":
            half *= side / (side - 2 * pad)
            low, high = round(centre - half), round(centre + half)
        scale = side / (high - low + 1)
        first, last = max(low, 0), min(high, size - 1)
        if last < first:
            return 0, 0, 0, 0
        start = min(round((first - low) * scale), side - 1)
        return first, last, start, max(1, min(round((last - first + 1) * scale), side - start))

    def _image(self, file: Path) -> Array:
        image = self._images.get(file)
        if image is None:
            if not file.is_file():
                raise DataError(f"{file}: no such file, which {self.source.path} lists")
            image = read_image(file, str(file), 3)
            if self.source.cache_images:
                self._images[file] = image
        return image


def _resized(part: Array, height: int, width: int) -> Array:
    """A part of an image, (3, h, w), in another size."""
    import numpy as np
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(part.transpose(1, 2, 0)))
    return np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR), np.float32).transpose(2, 0, 1)
