"""The bench that all cases run on: where they lie, how a translated net is run, and what counts as equal."""

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from cfgnet.backend import get_backend
from cfgnet.graph import TensorType
from cfgnet.net import Net
from cfgnet.prepare import plan_layers

from .translate import translate


@dataclass
class Case:
    """A folder with what Caffe computed. It notices which arrays were asked for."""

    path: Path
    used: set[str] = field(default_factory=set)

    @property
    def name(self):
        return self.path.name

    def text(self, file):
        return (self.path / file).read_text(encoding="utf-8")

    @cached_property
    def info(self):
        return json.loads(self.text("case.json"))

    @cached_property
    def _arrays(self):
        with np.load(self.path / "data.npz") as file:
            return {key: file[key] for key in file}

    def __getitem__(self, key):
        self.used.add(key)
        return self._arrays[key]

    def __contains__(self, key):
        return key in self._arrays

    def take(self, prefix):
        """The arrays whose names begin with `prefix`, by the rest of their names."""
        return {key.removeprefix(prefix): self[key] for key in self._arrays if key.startswith(prefix)}

    def unused(self):
        """The arrays that no test looked at, so that a new kind of array cannot pass unseen."""
        return sorted(self._arrays.keys() - self.used)


def find(folder):
    """The cases in a folder, by name; none if it does not exist."""
    return [Case(path.parent) for path in sorted(folder.glob("*/case.json"))]


class Rig:
    """A net of Caffe, in cfgnet's layers, with the arrays that are fed into it."""

    def __init__(self, messages, feeds, phase="train", dtype="float64", wrt=(), backend=None):
        translation = translate(messages, phase)
        self.feeds, self.tensors = feeds, translation.tensors
        inputs = {name: TensorType(feeds[name].shape, kind) for name, kind in translation.inputs.items()}
        backend = backend or get_backend("numpy")
        plan = plan_layers(translation.layers, phase, inputs, backend, dtype, wrt=wrt)
        self.net = Net(plan, backend)

    def forward(self, **feeds):
        """Runs the net on what was given at the start, or on `feeds`; labels, fractions in the files, are truncated."""
        self.net.feed(feeds or self.feeds)
        self.net.run_forward()

    def blob(self, name):
        """The last value of one of Caffe's blobs."""
        return self.net[self.tensors[name]]

    def params(self, layer):
        """The parameters of a layer in Caffe's order, which is the order in which our layers declare them."""
        shaped = next(shaped for shaped in self.net.plan.nodes if shaped.name == layer)
        return [self.net.params[key] for key in shaped.params.values()]


def gradient(parameter):
    """The gradient of a parameter; that of a statistic is zero, which is what Caffe writes for it."""
    return np.zeros_like(parameter.value) if parameter.grad is None else parameter.grad


def error(ours, reference):
    """The largest |ours - reference| / max(1, |reference|); nan if one is not finite and the other not the same."""
    return worst(ours, reference, np.maximum(1, np.abs(np.asarray(reference, np.float64))))


def share(ours, reference):
    """The largest |ours - reference| as a share of the largest |reference|, or of FLOOR where that is less."""
    return worst(ours, reference, np.maximum(FLOOR, np.abs(np.asarray(reference, np.float64)).max(initial=0)))


def worst(ours, reference, scale):
    ours, reference = np.asarray(ours, np.float64), np.asarray(reference, np.float64)
    with np.errstate(invalid="ignore"):
        return float(np.where(ours == reference, 0, np.abs(ours - reference) / scale).max(initial=0))


SHARE, FLOOR = 1e-3, 1e-3
"""A second bound: the gradients of a first layer may be so small that anything is within 1e-5 of them. Below FLOOR
Caffe's own float32 is noise."""


@dataclass
class Tally:
    """All comparisons of a test run, for the summary."""

    rows: list[tuple[str, str, str, float]] = field(default_factory=list)
    """Kind, case, array, error."""

    def lines(self):
        """One line per kind, with its worst error."""
        for kind in sorted({row[0] for row in self.rows}):
            rows = [row for row in self.rows if row[0] == kind]
            _, case, what, most = max(rows, key=lambda row: (row[3] != row[3], row[3]))
            cases = len({row[1] for row in rows})
            yield f"oracles: {kind}: {len(rows)} comparisons in {cases} cases, worst error {most:.1e} ({case}, {what})"


@dataclass
class Check:
    """Compares arrays of one case, and writes the errors down."""

    tally: Tally
    kind: str
    case: str

    def __call__(self, what, ours, reference, bound):
        assert np.shape(ours) == np.shape(reference), f"{what}: {np.shape(ours)}, Caffe has {np.shape(reference)}"
        distance = error(ours, reference)
        self.tally.rows.append((self.kind, self.case, what, distance))
        assert distance <= bound, f"{what}: error {distance:.2e}, allowed {bound:.0e}"
        part = share(ours, reference)
        assert part <= SHARE, f"{what}: error {part:.2e} of the largest element, allowed {SHARE:.0e}"
