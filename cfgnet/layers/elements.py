"""Losses of each element of x beside that of a target."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from pydantic import NonNegativeFloat, PositiveFloat

from cfgnet.backend.kernels.losses import FLT_MIN
from cfgnet.errors import ShapeError
from cfgnet.layer import Case, same, size
from cfgnet.layers.loss import Loss, Normalization, check_weight, divisor, spread, sum_of_weights, total


class PerElement(Loss, abstract=True):
    """loss = sum(w f(x, target)) / n over all elements; w is 1, or the `sample_weight` of the element.

    A subclass says with `each` what f is, and with `slopes` its gradients by the inputs.
    """

    normalization: Literal["VALID", "FULL", "BATCH_SIZE", "NONE", "POSITIVE"]
    """What n is."""

    mean: ClassVar[str] = "summed / n"
    """What the loss is of the sum: what is done here is not done to each element."""

    ports = "x, target, sample_weight? -> loss"

    def each(self):
        """f as a formula."""
        raise NotImplementedError  # every type overrides it

    def slopes(self):
        """The gradient of f by each input, as formulas."""
        raise NotImplementedError  # every type that has a gradient by its target overrides it

    def numbers(self):
        """The numbers that the formulas use."""
        return {}

    def shapes(self, x, target, sample_weight=None):
        if not x:
            raise ShapeError("expected samples along the first axis, got a scalar")
        if x[:1] != target[:1] or size(x) != size(target):
            same("x and target", (x, target))
        check_weight(sample_weight, x)
        return ()

    def scratch(self):
        return {"n": (), "summed": ()}

    def flops(self, x):
        return 4 * size(x)

    def weigh(self, xp, target, sample_weight=None):
        if self.normalization == "VALID":
            return total(xp.ones(target.shape), sample_weight)
        return divisor(self.normalization, target.size, target.size, None)

    def _given(self, sample_weight, **arrays):
        """What formulas over the elements are given: arrays of as many elements, in the shape of the first one."""
        shape = next(iter(arrays.values())).shape
        given = {name: array.reshape(shape) for name, array in arrays.items()} | self.numbers()
        return given if sample_weight is None else {**given, "weight": spread(sample_weight, len(shape))}

    def _weight(self, given):
        """The weight of an element as a formula; empty where all are 1."""
        return "weight" if "weight" in given else ""

    def _weighed(self, formula, given):
        """A formula times the weight of the element."""
        weight = self._weight(given)
        return f"({formula}) * {weight}" if weight else f"({formula})"

    def _total(self, k, n, given):
        """What the loss is divided by: a number, or `n`, which is computed."""
        whole, weight = _whole(given), self._weight(given)
        if self.normalization == "VALID" and weight:
            return sum_of_weights(k, n, weight, range(whole.ndim), **given)
        return divisor(self.normalization, whole.size, whole.shape[0], None)

    def _sum(self, k, loss, n, summed, given):
        k.sum(self._weighed(self.each(), given), summed, range(_whole(given).ndim), **given)
        k.map(self.mean, loss, summed=summed, n=self._total(k, n, given))

    def _spread(self, k, dloss, n, given, **gradients):
        """Computes the gradients that are not None."""
        slopes, shape = self.slopes(), _whole(given).shape
        given |= {"dloss": dloss, "n": self._total(k, n, given)}
        for name, out in gradients.items():
            if out is not None:
                k.map(f"{self._weighed(slopes[name], given)} * (dloss / n)", out.reshape(shape), **given)


class Regression(PerElement, abstract=True):
    """A loss of numbers, by default the mean over all of them."""

    normalization: Normalization = "VALID"
    """What n is: VALID the sum of the weights of all elements, which without weights is their number, FULL their
    number, BATCH_SIZE the first axis, NONE 1."""


class Distance(Regression, abstract=True):
    """f and its slopes are formulas of d = x - target, which is kept for backward."""

    ports = "x, target, sample_weight? -> loss, difference?"
    inplace = {"difference": "x"}

    def shapes(self, x, target, sample_weight=None):
        return {"loss": super().shapes(x, target, sample_weight), "difference": x}

    def forward(self, k, x, target, loss, difference, n, summed, sample_weight=None):
        k.map("x - target", difference, x=x, target=target.reshape(x.shape))
        self._sum(k, loss, n, summed, self._given(sample_weight, d=difference))

    def backward(self, k, difference, dloss, n, dx=None, dtarget=None, sample_weight=None):
        self._spread(k, dloss, n, self._given(sample_weight, d=difference), x=dx, target=dtarget)


class Divergence(Regression, abstract=True):
    """f and its slopes are formulas of x and target."""

    def forward(self, k, x, target, loss, n, summed, sample_weight=None):
        self._sum(k, loss, n, summed, self._given(sample_weight, x=x, target=target))

    def backward(self, k, x, target, dloss, n, dx=None, dtarget=None, sample_weight=None):
        self._spread(k, dloss, n, self._given(sample_weight, x=x, target=target), x=dx, target=dtarget)


class EuclideanLoss(Distance):
    """Half the squared distance per sample: loss = sum(w (x - target)^2) / (2 n), n by default the first axis.

    w is 1, or comes from sample_weight, which has the axes of x or the first of them. For the mean over all elements
    there is MSELoss.
    """

    normalization: Normalization = "BATCH_SIZE"
    """What n is: BATCH_SIZE the first axis, FULL the number of elements, VALID the sum of their weights, NONE 1."""

    mean = "summed * (0.5 / n)"

    aliases = ("L2Loss",)
    cases = [
        Case(x=[[1.0, 2.0], [3.0, 4.0]], target=[[0.0, 2.0], [3.0, 1.0]], expect={"loss": 2.5}),
        Case(x=(3, 2, 2), target=(3, 2, 2)),
        Case(x=(3, 1), target=(3,), sample_weight=[1.0, 0.0, 0.5]),
        Case(x=(3, 2, 2), target=(3, 4), normalization="NONE"),
    ]

    def each(self):
        return "d * d"

    def slopes(self):
        return {"x": "d", "target": "-d"}


class MSELoss(Distance):
    """Mean squared error: loss = sum(w (x - target)^2) / n, n by default the number of elements.

    w is 1, or comes from sample_weight, which has the axes of x or the first of them. EuclideanLoss is half of it, per
    sample.
    """

    cases = [
        Case(x=[[1.0, 2.0], [3.0, 4.0]], target=[[0.0, 2.0], [3.0, 1.0]], expect={"loss": 2.5}),
        Case(x=(3, 2, 2), target=(3, 2, 2)),
        Case(x=[[1.0], [3.0]], target=[0.0, 0.0], sample_weight=[3.0, 1.0], expect={"loss": 3.0}),
        Case(x=(2, 3), target=(2, 3), sample_weight=[[1.0, 0.0, 2.0], [0.5, 1.0, 1.0]]),
        Case(x=(2, 3), target=(2, 3), sample_weight=[0.0, 3.0], normalization="FULL"),
        Case(x=(2, 3), target=(2, 3), normalization="BATCH_SIZE"),
        Case(x=(2, 3), target=(2, 3), sample_weight=[0.0, 0.0], expect={"loss": 0.0}),
    ]

    def each(self):
        return "d * d"

    def slopes(self):
        return {"x": "2 * d", "target": "-2 * d"}


class L1Loss(Distance):
    """Mean absolute error: loss = sum(w |x - target|) / n, n by default the number of elements.

    w is 1, or comes from sample_weight, which has the axes of x or the first of them. The gradient is 0 where x is the
    target.
    """

    aliases = ("MAELoss",)
    cases = [
        Case(x=[[1.0, 2.0], [3.0, 4.0]], target=[[0.0, 2.0], [3.0, 1.0]], expect={"loss": 1.0}),
        Case(x=(3, 2, 2), target=(3, 2, 2)),
        Case(x=(2, 3), target=(2, 3), sample_weight=[0.5, 2.0]),
    ]

    def each(self):
        return "abs(d)"

    def slopes(self):
        return {"x": "sign(d)", "target": "-sign(d)"}


class Bent(Distance, abstract=True):
    """factor m (|d| - m / 2), d = x - target, m = min(|d|, bend): a parabola that goes on as a straight line."""

    def each(self):
        small = "min(abs(d), bend)"
        return f"factor * {small} * (abs(d) - 0.5 * {small})"

    def slopes(self):
        slope = "factor * max(min(d, bend), -bend)"
        return {"x": slope, "target": f"-({slope})"}


class HuberLoss(Bent):
    """Half the squared error where |x - target| <= delta, and delta (|x - target| - delta / 2) where it is larger.

    loss = sum(w f(x, target)) / n, n by default the number of elements; w is 1, or comes from sample_weight, which has
    the axes of x or the first of them. Huber 1964.
    """

    delta: PositiveFloat = 1.0
    """The error from which on the loss grows linearly."""

    cases = [
        Case(x=[[0.5, 3.0]], target=[[0.0, 0.0]], expect={"loss": (0.125 + 2.5) / 2}),
        Case(x=[[0.5, -3.0]], target=[[0.0, 0.0]], delta=2.0, expect={"loss": (0.125 + 4.0) / 2}),
        Case(x=(3, 4), target=(3, 4), delta=0.5),
        Case(x=(3, 4), target=(3, 4), sample_weight=[1.0, 2.0, 0.0]),
    ]

    def numbers(self):
        return {"bend": self.delta, "factor": 1.0}


class SmoothL1Loss(Bent):
    """(x - target)^2 / (2 beta) where |x - target| < beta, and |x - target| - beta / 2 where it is larger.

    loss = sum(w f(x, target)) / n, n by default the number of elements; w is 1, or comes from sample_weight, which has
    the axes of x or the first of them. It is HuberLoss divided by beta. Girshick 2015.
    """

    beta: PositiveFloat = 1.0
    """The error from which on the loss is that of L1Loss, less beta / 2."""

    cases = [
        Case(x=[[0.5, 3.0]], target=[[0.0, 0.0]], expect={"loss": (0.125 + 2.5) / 2}),
        Case(x=[[0.5, -3.0]], target=[[0.0, 0.0]], beta=2.0, expect={"loss": (0.0625 + 2.0) / 2}),
        Case(x=(3, 4), target=(3, 4), beta=0.5),
        Case(x=(3, 4), target=(3, 4), sample_weight=[1.0, 2.0, 0.0], normalization="BATCH_SIZE"),
    ]

    def numbers(self):
        return {"bend": self.beta, "factor": 1 / self.beta}


class KLDivLoss(Divergence):
    """Divergence of the probabilities `target` from those whose logarithms x are: loss = sum(w t (log t - x)) / n.

    n is by default the first axis, so that the loss is the mean over samples, as PyTorch's with reduction "batchmean".
    w is 1, or comes from sample_weight, which has the axes of x or the first of them. LogSoftmax gives such x. Kullback
    and Leibler 1951.
    """

    normalization: Normalization = "BATCH_SIZE"
    """What n is: BATCH_SIZE the first axis, FULL the number of elements, VALID the sum of their weights, NONE 1."""

    takes = {"x": "LogSoftmax", "target": "Softmax"}
    cases = [
        Case(x=[[math.log(0.25), math.log(0.75)]], target=[[0.5, 0.5]], expect={"loss": 0.5 * math.log(4 / 3)}),
        Case(x=[[-1.0, -2.0]], target=[[0.0, 1.0]], expect={"loss": 2.0}),
        Case(x=(3, 4), target=[[0.1, 0.2, 0.3, 0.4]] * 3),
        Case(x=(2, 2), target=[[0.5, 0.5], [0.3, 0.7]], sample_weight=[1.0, 3.0], normalization="VALID"),
    ]

    def numbers(self):
        return {"least": FLT_MIN}

    def each(self):
        return "target * (log(max(target, least)) - x)"

    def slopes(self):
        return {"x": "-target", "target": "log(max(target, least)) + 1 - x"}


class PoissonNLLLoss(Divergence):
    """Minus the log-likelihood of counts `target` under Poisson's distribution of mean exp(x), less what x does not
    change: loss = sum(w (exp(x) - target x)) / n.

    n is by default the number of elements; w is 1, or comes from sample_weight, which has the axes of x or the first of
    them.
    """

    log_input: bool = True
    """Whether x is the logarithm of the mean; else it is the mean itself, and the loss x - target log(x + eps)."""
    eps: NonNegativeFloat = 1e-8
    """Added to x in the logarithm, without log_input."""

    cases = [
        Case(x=[[0.0, math.log(2)]], target=[[3.0, 1.0]], expect={"loss": (1 + 2 - math.log(2)) / 2}),
        Case(x=[[1.0, math.e]], target=[[3.0, 1.0]], log_input=False, eps=0.0, expect={"loss": math.e / 2}),
        Case(x=(3, 4), target=[[0.0, 1.0, 2.0, 5.0]] * 3),
        Case(x=(3, 4), target=[[0.0, 1.0, 2.0, 5.0]] * 3, log_input=False, positive=True),
        Case(x=(2, 2), target=[[0.0, 1.0], [2.0, 3.0]], sample_weight=[1.0, 0.5]),
    ]

    def numbers(self):
        return {} if self.log_input else {"eps": self.eps}

    def each(self):
        return "exp(x) - target * x" if self.log_input else "x - target * log(x + eps)"

    def slopes(self):
        if self.log_input:
            return {"x": "exp(x) - target", "target": "-x"}
        return {"x": "1 - target / (x + eps)", "target": "-log(x + eps)"}


class GaussianNLLLoss(Regression):
    """Minus the log-likelihood of `target` under the normal distribution of mean x and variance `var`, less a constant:
    loss = sum(w (log v + (x - target)^2 / v) / 2) / n, v = max(var, eps).

    n is by default the number of elements; w is 1, or comes from sample_weight, which has the axes of x or the first of
    them. The gradient by var is that by v, also where it is less than eps, so that it can grow again. Nix and Weigend
    1994.
    """

    eps: PositiveFloat = 1e-6
    """The smallest variance that counts as it is."""

    mean = "summed * (0.5 / n)"

    ports = "x, target, var, sample_weight? -> loss"
    cases = [
        Case(x=(3, 4), target=(3, 4), var=[[0.5, 1.0, 2.0, 0.1]] * 3),
        Case(x=[[1.0, 3.0]], target=[[1.0, 1.0]], var=[[1.0, 4.0]], expect={"loss": (math.log(4) + 1) / 4}),
        Case(x=[[1.0]], target=[[2.0]], var=[[-1.0]], eps=0.5, expect={"loss": 1 - math.log(2) / 2}, gradient=False),
        Case(x=(2, 2), target=(2, 2), var=[[0.5, 1.0], [2.0, 3.0]], sample_weight=[1.0, 0.5]),
    ]

    def numbers(self):
        return {"eps": self.eps}

    def each(self):
        return "log(max(var, eps)) + (x - target) * (x - target) / max(var, eps)"

    def slopes(self):
        pull = "(x - target) / max(var, eps)"
        return {"x": pull, "target": f"-{pull}", "var": f"0.5 * (1 / max(var, eps) - ({pull}) * ({pull}))"}

    def shapes(self, x, target, sample_weight=None, var=None):
        if size(var) != size(x):
            same("x and var", (x, var))
        return super().shapes(x, target, sample_weight)

    def forward(self, k, x, target, var, loss, n, summed, sample_weight=None):
        self._sum(k, loss, n, summed, self._given(sample_weight, x=x, target=target, var=var))

    def backward(self, k, x, target, var, dloss, n, dx=None, dtarget=None, dvar=None, sample_weight=None):
        given = self._given(sample_weight, x=x, target=target, var=var)
        self._spread(k, dloss, n, given, x=dx, target=dtarget, var=dvar)


def _whole(given):
    """An array of all elements, among what formulas are given."""
    return next(iter(given.values()))
