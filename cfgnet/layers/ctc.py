"""Connectionist temporal classification, for sequences whose labels are not aligned with their steps."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import NonNegativeInt

from cfgnet.backend.kernels.ctc import Labels
from cfgnet.errors import ShapeError
from cfgnet.layer import Case, text
from cfgnet.layers.loss import Loss


class CTCLoss(Loss):
    """Minus the log-probability of the labels of each sequence, whatever step they belong to: loss = -sum(log P) / n.

    x holds scores, steps x sequences x classes, before the softmax. One class, `blank`, stands for no label: an
    alignment names a class at each step, and its labels are what remains when equal neighbours become one and blanks
    are left out. P is the sum of the probabilities of all alignments with the wanted labels. Graves et al. 2006.

    label (sequences x L) holds the labels of each sequence, and behind them `padding`; or label_lengths says how many
    there are. lengths is the number of steps of each sequence, by default all. Where a sequence has fewer steps than
    its labels take, one for each and one between equal ones, that is an error.
    """

    blank: NonNegativeInt = 0
    """The class that stands for no label."""
    padding: int = -1
    """What stands behind the last label of a sequence."""
    batch_first: bool = False
    """Whether x is sequences x steps x classes."""
    zero_infinity: bool = False
    """Whether a sequence too short for its labels has the loss 0, and no gradient, instead of being an error."""
    normalization: Literal["BATCH_SIZE", "LABEL_LENGTH", "NONE"] = "BATCH_SIZE"
    """What n is: BATCH_SIZE the number of sequences, NONE 1, LABEL_LENGTH the number of sequences, and for each also
    that of its labels, as PyTorch's mean has it."""

    ports = "x, label:int, lengths:int?, label_lengths:int? -> loss, log_prob?, alpha?"
    cases = [
        # Probabilities 1/2 at each of two steps: three of four alignments have the label 1 alone.
        Case(x=[[[0.0, 0.0]], [[0.0, 0.0]]], label=[[1]], expect={"loss": math.log(4 / 3)}),
        # Of two labels that are equal, a blank has to stand between: one of 27.
        Case(x=[[[0.0] * 3]] * 3, label=[[1, 1]], expect={"loss": math.log(27)}),
        Case(
            x=[[[0.0] * 3] * 4] * 3,
            label=[[0, 1], [0, -1], [-1, -1], [1, 1]],
            lengths=[2, 3, 1, 2],
            blank=2,
            zero_infinity=True,
            normalization="NONE",
            expect={"loss": math.log(9) + math.log(27 / 6) + math.log(3)},
        ),
        Case(
            x=(3, 2, 3),
            batch_first=True,
            label=[[1, 0], [0, 7], [7, 7]],
            blank=2,
            normalization="LABEL_LENGTH",
            padding=7,
        ),
        Case(x=(2, 8, 4), batch_first=True, blank=3, label=[[0, 2, 2], [1, 0, 1]]),
        Case(x=(5, 3, 4), label=[[1, 2, 2], [3, -1, -1], [1, 1, -1]]),
        Case(
            x=(5, 3, 4),
            label=[[1, 2, 2], [3, 9, 9], [1, 3, 2]],
            lengths=[5, 3, 4],
            label_lengths=[2, 0, 3],
            normalization="LABEL_LENGTH",
        ),
        Case(x=(2, 2, 3), label=[[1, 1], [1, 2]], zero_infinity=True, normalization="NONE"),
    ]

    def shapes(self, x, label, lengths=None, label_lengths=None):
        if len(x) != 3:
            order = "sequences x steps x classes" if self.batch_first else "steps x sequences x classes"
            raise ShapeError(f"expected scores of {order}, got {text(x)}")
        sequences, steps = (x[0], x[1]) if self.batch_first else (x[1], x[0])
        if self.blank >= x[2]:
            raise ShapeError(f"blank {self.blank} is none of the {x[2]} classes of x {text(x)}")
        if len(label) != 2 or label[0] != sequences:
            wanted = f"expected label of {sequences} sequences x labels for x of {text(x)}, got {text(label)}"
            turned = not self.batch_first and label[:1] == x[:1]
            raise ShapeError(wanted, "batch_first: true takes x as sequences x steps x classes" if turned else "")
        for name, shape in (("lengths", lengths), ("label_lengths", label_lengths)):
            if shape not in (None, (sequences,)):
                raise ShapeError(f"expected {name} of {sequences} sequences, got {text(shape)}")
        return {"loss": (), "log_prob": x, "alpha": (steps, sequences, 2 * label[1] + 1)}

    def scratch(self, alpha):
        return {"cost": alpha[1:2], "share": ()}

    def flops(self, x, alpha):
        return 5 * math.prod(x) + 10 * math.prod(alpha)

    def forward(self, k, x, label, loss, log_prob, alpha, cost, lengths=None, label_lengths=None):
        k.log_softmax(x, log_prob, 2)
        labels = self._labels(label, lengths, label_lengths)
        k.ctc(self._by_step(log_prob), labels, alpha, cost, per_label=self.normalization == "LABEL_LENGTH")
        k.sum("cost", loss, (0,), cost=cost)
        k.map("loss / n", loss, loss=loss, n=self._divisor(cost))

    def backward(self, k, log_prob, alpha, label, dloss, dx, cost, share, lengths=None, label_lengths=None):
        labels = self._labels(label, lengths, label_lengths)
        k.map("dloss / n", share, dloss=dloss, n=self._divisor(cost))
        arrays = (self._by_step(log_prob), alpha, labels, share, self._by_step(dx))
        k.ctc_dx(*arrays, per_label=self.normalization == "LABEL_LENGTH")

    def _labels(self, label, lengths, label_lengths):
        return Labels(label, lengths, label_lengths, self.blank, self.padding, self.zero_infinity)

    def _by_step(self, x):
        """x as steps x sequences x classes."""
        return x.transpose(1, 0, 2) if self.batch_first else x

    def _divisor(self, cost):
        return 1 if self.normalization == "NONE" else cost.size
