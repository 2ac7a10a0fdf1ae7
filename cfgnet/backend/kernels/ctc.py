"""Connectionist temporal classification: the sum over all alignments of sequences with their labels, step by step.

log_prob (T, N, classes) is the logarithm of the softmax of the scores. The states of a sequence with labels a, b, ...
are blank, a, blank, b, ..., blank; (N, S) for all sequences, where S is the number for the longest. From step to step
an alignment stays, goes on by one state, or by two where that leaves out a blank between two different labels.

alpha (T, N, S) is the logarithm of the sum over all ways to a state, less what makes the largest of its step 0: sums
over long sequences stay precise so, and their gradient needs no more than what the states of a step are to one another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cfgnet.backend.kernels.base import Array, Base, Call
from cfgnet.errors import DataError

NEVER = -1e30
"""The logarithm of what cannot be; finite, so that arithmetic needs no exceptions."""


@dataclass(frozen=True)
class Labels:
    """The labels (N, L) of sequences, and what says how many steps and labels each has."""

    label: Array
    lengths: Array | None
    """How many steps each sequence has (N); all there are if None."""
    label_lengths: Array | None
    """How many labels each sequence has (N); those before the first `padding` if None."""
    blank: int
    """The class that stands for no label."""
    padding: int
    """What stands behind the last label of a sequence."""
    zero_infinity: bool
    """Whether a sequence too short for its labels is left out, rather than an error."""

    def counted(self, xp: Any, steps: int, classes: int) -> tuple[Array, Array]:
        """How many steps and labels each sequence has; no steps if it is left out. DataError where something is off."""
        label, longest = self.label, self.label.shape[1]
        lengths = xp.full(len(label), steps, xp.int32) if self.lengths is None else self.lengths.reshape(-1)
        counts = self.label_lengths
        if counts is None:
            counts = xp.cumprod(label != self.padding, axis=1).sum(axis=1)
        counts = counts.reshape(-1)
        _check("steps of a sequence", lengths, 1, steps)
        _check("labels of a sequence", counts, 0, longest)
        used = xp.arange(longest) < counts[:, None]
        _check("labels", xp.where(used, label, 0), 0, classes - 1)
        if (used & (label == self.blank)).any():
            raise DataError(f"label {self.blank} is the blank; say with `blank` which class stands for no label")
        repeats = (used[:, 1:] & (label[:, 1:] == label[:, :-1])).sum(axis=1)
        short = lengths < counts + repeats
        if short.any() and not self.zero_infinity:
            number = int(short.argmax())
            took = f"its {int(counts[number])} labels take {int(counts[number] + repeats[number])}"
            raise DataError(
                f"sequence {number} of the batch has {int(lengths[number])} steps, and {took}: one for each, and one "
                f"between equal ones; make it longer, or leave such sequences out of the loss with zero_infinity: true"
            )
        return xp.where(short, 0, lengths), counts


class CTC(Base):
    """`ctc` and `ctc_dx`; with `per_label`, the cost of a sequence is divided by the number of its labels."""

    def ctc(self, log_prob: Array, labels: Labels, alpha: Array, cost: Array, *, per_label: bool = False) -> Call:
        """cost (N) = -log of the probability of the labels; when it runs, DataError as `Labels` has it."""
        xp = self.xp

        def run() -> None:
            found = _States.of(xp, log_prob, labels)
            shift = xp.zeros_like(cost)
            for t, step in enumerate(log_prob):
                arriving = _arriving(xp, alpha[t - 1], found.skip) if t else found.start
                alpha[t] = xp.where(found.there, arriving + found.emission(step), NEVER)
                most = alpha[t].max(axis=1)
                alpha[t] -= most[:, None]
                shift += xp.where(t < found.lengths, most, 0)
            ends = alpha[found.lengths - 1, found.rows] + found.end
            most = ends.max(axis=1)
            total = shift + most + xp.log(xp.exp(ends - most[:, None]).sum(axis=1))
            cost[...] = xp.where(found.lengths > 0, -total, 0) / found.divisor(per_label)

        return run

    def ctc_dx(
        self, log_prob: Array, alpha: Array, labels: Labels, dcost: Array, dx: Array, *, per_label: bool = False
    ) -> Call:
        """dx = the gradient of dcost * sum(cost) by the scores; `dcost` is one number."""
        xp = self.xp

        def run() -> None:
            found = _States.of(xp, log_prob, labels)
            share = dcost / found.divisor(per_label)
            beta, steps = found.end, len(log_prob)
            for t in range(steps - 1, -1, -1):
                if t + 1 < steps:
                    beta = _leaving(xp, beta + found.emission(log_prob[t + 1]), found.skip)
                beta = xp.where((t + 1 == found.lengths)[:, None], found.end, beta)
                beta = beta - beta.max(axis=1, keepdims=True)
                both = xp.where(found.there, alpha[t] + beta, NEVER)
                both = xp.exp(both - both.max(axis=1, keepdims=True))
                both /= both.sum(axis=1, keepdims=True)
                xp.exp(log_prob[t], dx[t])
                xp.subtract.at(dx[t], (found.rows[:, None], found.classes), both)
                dx[t] *= xp.where(t < found.lengths, share, 0)[:, None]

        return run


@dataclass(frozen=True)
class _States:
    """The states of all sequences."""

    classes: Array
    """The class of each state, (N, S)."""
    there: Array
    """Which states a sequence has, (N, S)."""
    skip: Array
    """Which states can be reached from two states before, (N, S)."""
    start: Array
    """0 for the states in which a sequence can start, NEVER for the others, (N, S)."""
    end: Array
    """0 for the states in which it can end, NEVER for the others, (N, S)."""
    rows: Array
    """The numbers of the sequences, (N)."""
    counts: Array
    """How many labels each has, (N)."""
    lengths: Array
    """How many steps each has, (N)."""

    @classmethod
    def of(cls, xp: Any, log_prob: Array, labels: Labels) -> _States:
        steps, count, classes = log_prob.shape
        lengths, counts = labels.counted(xp, steps, classes)
        at, last = xp.arange(2 * labels.label.shape[1] + 1), 2 * counts[:, None]
        states = xp.full((count, len(at)), labels.blank, labels.label.dtype)
        states[:, 1::2] = xp.where(at[1::2] < last, labels.label, labels.blank)
        skip = xp.zeros(states.shape, bool)
        skip[:, 3::2] = states[:, 3::2] != states[:, 1:-2:2]
        start, end = (
            xp.where(can, 0, NEVER).astype(log_prob.dtype)
            for can in (xp.broadcast_to(at < 2, states.shape), (last - 1 <= at) & (at <= last))
        )
        return cls(states, at <= last, skip, start, end, xp.arange(count), counts, lengths)

    def emission(self, step: Array) -> Array:
        """What being in each state adds at a step (N, classes) of log_prob."""
        return step[self.rows[:, None], self.classes]

    def divisor(self, per_label: bool) -> Any:
        """What the cost of each sequence is divided by."""
        return self.counts.clip(1) if per_label else 1


def _arriving(xp: Any, before: Array, skip: Array) -> Array:
    """The logarithm of the sum over all ways into each state from those of the step before."""
    found = before.copy()
    found[:, 1:] = xp.logaddexp(before[:, 1:], before[:, :-1])
    found[:, 2:] = xp.logaddexp(found[:, 2:], xp.where(skip[:, 2:], before[:, :-2], NEVER))
    return found


def _leaving(xp: Any, after: Array, skip: Array) -> Array:
    """The logarithm of the sum over all ways out of each state into those of the step after."""
    found = after.copy()
    found[:, :-1] = xp.logaddexp(after[:, :-1], after[:, 1:])
    found[:, :-2] = xp.logaddexp(found[:, :-2], xp.where(skip[:, 2:], after[:, 2:], NEVER))
    return found


def _check(what: str, values: Array, least: int, most: int) -> None:
    """DataError unless all values lie between `least` and `most`."""
    if values.size and not least <= int(values.min()) <= int(values.max()) <= most:
        bad = values[(values < least) | (values > most)]
        raise DataError(f"expected {what} from {least} to {most}, found {int(bad[0])}")
