"""A layer that computes a formula, and derives its gradient."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from cfgnet.backend.kernels.memory import order
from cfgnet.errors import ShapeError
from cfgnet.explain import problem, shown
from cfgnet.init import Constant, Filler
from cfgnet.layer import Case, Layer, Param, size
from cfgnet.part import Config, Ints
from cfgnet.symbolic.check import check_derivative
from cfgnet.symbolic.compile import GRADIENT, RESULT, compiled, gradient_by
from cfgnet.symbolic.derive import stepwise
from cfgnet.symbolic.expr import in_order, names
from cfgnet.symbolic.ops import OPS
from cfgnet.symbolic.parse import Formula, parse


class Start(Config):
    """A parameter of a formula."""

    shape: Ints = ()
    """Its shape; by default it is a single number."""
    filler: Filler = Constant()
    """How it starts."""


class Declared(dict[str, Start]):
    """The parameters that a formula declares; when called, it says so to the plan, as `params` of other layers does."""

    def __call__(self) -> list[Param]:
        return [Param(name, start.shape, start.filler) for name, start in self.items()]


def _starts(value: Any) -> Any:
    """A number is a parameter that starts there."""
    if not isinstance(value, Mapping):
        return value
    for key, start in value.items():
        if not (_is_number(start) or isinstance(start, Mapping | Start)):
            message = f"expected a number, or a mapping such as {{shape: [3, 4]}}, got {shown(start)}"
            raise problem(message, at=str(key))
    numbers = {key: {"filler": {"type": "constant", "value": float(n)}} for key, n in value.items() if _is_number(n)}
    return {**value, **numbers}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


class Expression(Layer):
    """y = formula, over tensors by their names, parameters and numbers; the gradient is derived from the formula.

    A formula has + - * / ** and @, comparisons (1 where they hold, else 0), `a if c else b`, exp, expm1, log, log1p,
    sqrt, tanh, sigmoid, relu, softplus, erf, abs, sign, trunc, min and max of several, where(c, a, b); sum, mean, min,
    max and logsumexp of one tensor, over all or along `axis=` with `keepdims=True`; softmax and log_softmax along
    `axis=`; reshape(x, 3, -1), transpose(x, 1, 0), x.T, expand(x, 3, 4), and parts such as x[1:, 0]. Shapes meet as
    numpy's do.

    Each name is the tensor of that name, or a parameter that `params` declares; where no tensor is called `x`, it is
    the output of the layer before. With `inputs`, they stand for the names in the order in which those first appear.

    The formula is made simpler first, and what would overflow, such as log(1 + exp(x)), is replaced by what does not.
    `cfgnet grad` prints the derivative; it is compared with differences of values when it is first used. Where a
    function has a kink, the slope is one of those beside it: max(a, b) of equal numbers gives it to a, and relu at 0
    has slope 0. Comparisons, sign and trunc have no gradient.
    """

    formula: Formula
    """What is computed."""
    params: Annotated[dict[str, Start], BeforeValidator(_starts), AfterValidator(Declared)] = Field(
        default={}, validate_default=True
    )
    """Parameters of the formula: {beta: 1.0}, or {w: {shape: [3, 4], filler: xavier}}."""

    ports = "*x? -> y, saved?"
    cases = [
        Case(formula="2 * x + 1", x=[[[1.0, -3.0]]], expect={"y": [[3.0, -5.0]]}),
        Case(formula="B * A + 1", x=[3.0, 5.0], expect={"y": 16.0}),
        Case(formula="(A + B) * 3", x=[[2.0], [5.0]], expect={"y": [21.0]}),
        Case(formula="x * sigmoid(beta * x)", params={"beta": 1.5}, x=[(3, 4)]),
        Case(formula="log(1 + exp(x))", x=[[1000.0, -1000.0, 0.0]], expect={"y": [1000.0, 0.0, 0.6931471805599453]}),
        Case(formula="log(softmax(x))", x=[(3, 4)]),
        Case(
            formula="log(sum(exp(x), axis=1))",
            x=[[[1000.0, 1000.0], [-1e9, 2.0]]],
            expect={"y": [1000.6931471805599453, 2.0]},
        ),
        Case(formula="sum(softmax(x, axis=0) * x.T[:, :3], axis=1)", x=[(3, 3)]),
        Case(
            formula="mean((x @ w + b - t) ** 2)",
            params={"w": {"shape": [3], "filler": "xavier"}, "b": 0.5},
            x=[(5, 3), (5,)],
        ),
        Case(formula="tanh(x @ w) @ w.T", params={"w": {"shape": [4, 2], "filler": "gaussian"}}, x=[(2, 3, 4)]),
        Case(formula="max(a, 0.3) * min(b, a) + where(a > b, a * a, b)", x=[(3, 4), (4,)]),
        Case(formula="a if a > 0.4 else -a", x=[[1.0, 0.25]], expect={"y": [1.0, -0.25]}),
        Case(formula="max(x, axis=1) + min(x, axis=0) - mean(x)", x=[(3, 3)]),
        Case(formula="transpose(a @ b, 2, 0, 1)[..., ::-1, None]", x=[(2, 3, 4), (4, 5)]),
        Case(formula="a ** b + sqrt(a) / b - expm1(a) * log1p(b)", x=[(3, 4), (3, 1)], positive=True),
        Case(formula="relu(x - 0.2) + softplus(x) + erf(x) + abs(x) * sign(x)", x=[(2, 3, 2, 2)]),
        Case(
            formula="tanh(a * w + b) * (c - a)",
            params={"w": {"shape": [3, 1, 1]}},
            x=[(2, 3, 2, 4), (1, 3, 1, 4), (2, 4)],
        ),
        Case(formula="expand(reshape(x, 2, 1, 3), 2, 4, 3) * 0.5", x=[(6,)]),
        Case(formula="reshape(c * 2, -1)", params={"c": {"shape": [2, 3], "filler": {"type": "uniform"}}}),
    ]

    @model_validator(mode="after")
    def _used(self) -> Expression:
        unused = [name for name in self.params if name not in names(parse(self.formula))]
        if unused:
            raise ValueError(f"the parameter {unused[0]!r} does not stand in the formula")
        return self

    def laid_out(self):
        """Operations by elements take tensors in any order; their gradients are summed over whole axes at most."""
        return "any" if all(OPS[node.op].spelling for node in in_order([parse(self.formula)]) if node.args) else "rows"

    def mentioned(self) -> tuple[str, ...]:
        return tuple(name for name in names(parse(self.formula)) if name not in self.params)

    def stepwise(self):
        return stepwise(parse(self.formula))

    def _compiled(self, x):
        """The formula over inputs of these shapes."""
        wanted = self.mentioned()
        if len(x) != len(wanted):
            count = f"{len(wanted)} input{'s' * (len(wanted) != 1)}" + (f" ({', '.join(wanted)})" if wanted else "")
            raise ShapeError(f"expected {count}, got {len(x)}")
        shapes = dict(zip(wanted, map(tuple, x), strict=True)) | {
            name: start.shape for name, start in self.params.items()
        }
        return compiled(self.formula, tuple(shapes.items()))

    def shapes(self, x=()):
        found = self._compiled(x)
        return {"y": found.shape, **({"saved": (found.saved_size,)} if found.saved else {})}

    def scratch(self, x=()):
        room = self._compiled(x).room
        return {"work": (room,)} if room else {}

    def flops(self, x=()):
        return self._compiled(x).flops

    def shape_only(self):
        """What the derivative needs no values of; all of it may be needed where it depends on the shapes."""
        try:
            scalars = compiled(self.formula, tuple((name, ()) for name in names(parse(self.formula))))
        except ShapeError:
            return frozenset()
        read = {name for slope in scalars.slopes.values() for name in names(slope)}
        inputs = frozenset() if read & set(self.mentioned()) else frozenset({"x"})
        return inputs | (frozenset() if RESULT in read else frozenset({"y"}))

    def forward(self, k, y, params, x=(), saved=None, work=None):
        found = self._compiled([each.shape for each in x])
        self._record(k, found.forward, {RESULT: y}, params, x, saved, work, like=y)

    def backward(self, k, y, dy, params, x=(), saved=None, dx=(), dparams=None, work=None):
        found = self._compiled([each.shape for each in x])
        check_derivative(self.formula, tuple((name, leaf.shape) for name, leaf in found.leaves.items()))
        inputs = {name: to for name, to in zip(self.mentioned(), dx, strict=bool(dx)) if to is not None}
        results = {gradient_by(name): to for name, to in {**inputs, **(dparams or {})}.items()}
        program = found.backward(list(inputs), list(dparams or {}))
        self._record(k, program, {RESULT: y, GRADIENT: dy, **results}, params, x, saved, work, like=y)

    def _record(self, k, program, results, params, x, saved, work, like):
        """Asks the kernels for a program."""
        arrays = {**dict(zip(self.mentioned(), x, strict=True)), **params, **results}
        for key, (start, shape) in self._compiled([each.shape for each in x]).places.items():
            arrays[key] = saved[start : start + size(shape)].reshape(shape)
        program.record(k, arrays, work, lambda flat, shape: _laid(flat, shape, like))


def _laid(flat, shape, like):
    """A row of numbers as an array of a shape, in the order of another that is of this shape."""
    if shape != like.shape:
        return flat.reshape(shape)
    axes = order(like)
    return flat.reshape([shape[axis] for axis in axes]).transpose([axes.index(axis) for axis in range(len(axes))])
