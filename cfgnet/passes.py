"""Passes: what a net runs as one, whose kernels that are, and why what comes next is not part of it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from cfgnet.backend.kernels import Call, Record
from cfgnet.backend.kernels.elementwise import Step
from cfgnet.backend.kernels.fold import PRODUCES, as_step
from cfgnet.net import Net
from cfgnet.update import Updater

Half = Literal["forward", "backward", "update"]
GOES_ON = ("followed", "measured")
"""The records that begin with a kernel and go on with its result."""
HALVES: tuple[Half, ...] = ("forward", "backward", "update")


@dataclass(frozen=True, eq=False)
class Pass:
    """One record or call of a net, which goes over memory once."""

    half: Half
    step: Record | Call
    before: Record | Call | None
    """The one that runs before it, if it is of the same half."""

    @property
    def kernel(self) -> str:
        """What it begins with: "conv and on" where a chain goes on with the result of a kernel."""
        if not isinstance(self.step, Record):
            return "python"
        return f"{self._begins} and on" if self.step.kernel in GOES_ON else self._begins

    @property
    def _begins(self) -> str:
        """The kernel of a record, or the first of those that it is made of."""
        assert isinstance(self.step, Record)
        kernel: str = self.step.args[0].kernel if self.step.kernel in (*GOES_ON, "beside") else self.step.kernel
        return kernel

    @property
    def owners(self) -> tuple[str, ...]:
        """Whose kernels they are, one by one: "conv1 forward"."""
        if isinstance(self.step, Record):
            return (self.step.owner, *self.step.folded)
        return (getattr(self.step, "owner", ""),)

    @property
    def steps(self) -> list[Step]:
        """The elementwise kernels among them, which are the last of them."""
        if not isinstance(self.step, Record):
            return []
        if self.step.kernel in ("chain", "followed"):
            return list(self.step.args[-1])
        single = as_step(self.step)
        return [single] if single else []

    @property
    def summed(self) -> Iterator[tuple[str, Any]]:
        """Whose sums are taken while other kernels run, in parts of another size than alone, and where they go."""
        if isinstance(self.step, Record) and self.step.kernel == "measured":
            _, moments = self.step.args
            yield from ((moments.owner, array) for array in moments.args[1:3])
        elif len(self.owners) > 1:
            owners = self.owners[len(self.owners) - len(self.steps) :]
            yield from ((who, step.out) for who, step in zip(owners, self.steps, strict=True) if step.axes is not None)

    @property
    def why(self) -> str:
        """Why it is not part of the pass before it; empty for the first one."""
        if self.before is None:
            return ""
        if not isinstance(self.step, Record):
            return "the layer computes with arrays itself"
        if self.step.apart:
            return self.step.apart
        if self._begins not in ("chain", "map", "sum"):
            return f"{self._begins} does not work element by element"
        if not isinstance(self.before, Record):
            return "before it a layer computes with arrays itself"
        if self.before.kernel in PRODUCES:
            return f"it reads more than a part of what {self.before.kernel} makes"
        return f"{self.before.kernel} gives no part of its result before all of it is there"


def owner_among(owner: str, layers: Collection[str]) -> str:
    """Whose work it is among the layers of a net: of "rnn/u forward" that of rnn, if u is a layer inside it."""
    layer, _, half = owner.rpartition(" ")
    while layer and layer not in layers:
        layer = layer.rpartition("/")[0]
    return f"{layer} {half}" if layer else owner


def passes_of(half: Half, steps: Sequence[Record | Call]) -> list[Pass]:
    """The passes of some steps that run one after another."""
    return [Pass(half, step, before) for before, step in zip((None, *steps), steps, strict=False)]


def passes(net: Net, updater: Updater | None = None) -> list[Pass]:
    """Everything that a step runs, in order; with an `updater` what it does, too."""
    found = [*passes_of("forward", net.forward_steps), *passes_of("backward", net.backward_steps)]
    return [*found, *passes_of("update", updater.steps)] if updater else found
