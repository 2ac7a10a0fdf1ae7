"""Layer: what a layer type must say about itself. Everything else is derived from it.

A layer is a frozen pydantic model: an instance *is* its validated configuration. Arrays belong to the Net. Two rules:

1. *Ask by name.* Every method receives exactly the names in its signature. `shapes, params, scratch, flops` receive
   shapes; `forward, backward` receive arrays. Names: the ports (`x`, `y`), parameters (`weight`), scratch (`work`),
   their gradients (`dx`, `dy`, `dweight`), and `xp` (the array module), `k` (the kernels), `rng`, `train`. A default of
   None means "can do without": an absent optional port, a gradient that nobody needs. A type whose parameters are named
   by its configuration asks for `params`, all of them by name, and for `dparams`, those gradients that are wanted.
2. *Write, don't return.* Outputs and input gradients are overwritten, parameter gradients are added to. Read
   everything before you write over something it may share.

The methods of a member:

    inside(planner, kinds, x, ...) -> what the layer plans inside itself by way of `planner`, where it has layers of its
                      own; all other methods may ask for it as `inside`; `kinds` are float or int, by input port
    shapes(x, ...) -> Shape, or {port: Shape} where there are several outputs; raises ShapeError
    params(x, ...) -> iterable of Param                       (none if not defined)
    scratch(k, x, ...) -> {name: Shape} of workspace, undefined at entry, shared with other layers; with more than two
                          axes it lies in memory as the tensors do
    flops(x, y, ...) -> floating-point operations of forward, a multiply-add as 2   (size of the first output)
    forward(k, x, y, ...)
    backward(k, x, dy, dx=None, ...)                          (not differentiable if not defined)
    weigh(xp, ...) -> what the batch counts in the mean over a test of an output of one number, which is what the layer
                      divided it by   (the samples of the batch)
    tally(xp, ...) -> arrays that the batch adds to the total of a test, where no mean is the output of all samples
    merge(xp, total, tally) -> the total with one more batch   (total + tally)
    score(xp, total) -> {output: value} for a total
    unchanged(x, y, train) -> whether every output is the only input as it is, for these shapes and in this phase; such
                          a layer is left out of a plan where nobody asks for its output by name   (it is not)
    uses_up(x, y, ...) -> the inputs in whose own memory backward may write their gradient, because it reads no element
                          of them after it has written there   (none)

What backward asks for stays alive until then, and nothing else does, nor what `shape_only` names: of that, only the
shape can be relied on. Asking for an optional output (`mask?`) saves it; one of those in `for_backward` is there only
where backward is called.

A method that asks for `k` and not for `xp` works by kernels alone: it is run once, when a net is made, and the net
keeps the calls of the kernels. `k.map("dy * (1 - y * y)", dx, y=y, dy=dy)` does for most of them. A method that asks
for `xp` computes with arrays itself, and is run at each step; it may use kernels too.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import operator
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, model_validator

from cfgnet.errors import ContractError, ShapeError
from cfgnet.init import Filler
from cfgnet.part import Config, Names, Part
from cfgnet.ports import Kind as Kind
from cfgnet.ports import Ports
from cfgnet.rules import Phase, Rules, State

Shape = tuple[int, ...]
HELPERS = frozenset({"xp", "k", "rng", "train"})


@dataclass(frozen=True)
class Param:
    """A parameter before it exists. One that is not `trainable` is a statistic that forward itself keeps."""

    name: str
    shape: Shape
    filler: Filler
    trainable: bool = True
    turned: bool = False
    """Whether the last axes come first in memory, (kernel..., inputs, outputs), as kernels read the weight."""
    spec: ParamSpec | None = None
    """How the training treats it, where `param` of the layer does not say."""


def param_key(layer: str, name: str) -> str:
    """What a parameter of a layer is called in the net: conv1.weight, or rnn/u.weight for u.weight of rnn."""
    part, _, short = name.rpartition(".")
    return f"{layer}/{part}.{short}" if part else f"{layer}.{short}"


class Case:
    """One configuration of a layer with inputs: a row of the tables of tests and of `cfgnet grad-check`.

    Keywords are fields (`num_output=2`), input ports and parameters. A port or parameter is given as a tuple, its shape
    (it is then filled with normal numbers), or as a list or number, its values. `expect` holds what outputs must be.
    """

    def __init__(
        self,
        *,
        expect: Mapping[str, Any] | None = None,
        avoid: float | None = None,
        positive: bool = False,
        train: bool = True,
        gradient: bool = True,
        **given: Any,
    ):
        self.expect = expect or {}
        self.avoid = avoid
        """A kink: random inputs keep 0.05 away from it."""
        self.positive = positive
        """Whether random inputs are positive."""
        self.train = train
        """The phase."""
        self.gradient = gradient
        """Whether the gradient is compared; False where it is not that of forward on purpose."""
        self.given = given

    def layer(self, cls: type[Layer]) -> Layer:
        """The layer that this case configures."""
        return cls.model_validate({k: v for k, v in self.given.items() if k in cls.model_fields})

    def values(self, cls: type[Layer]) -> dict[str, Any]:
        """What is given for ports and parameters."""
        return {k: v for k, v in self.given.items() if k not in cls.model_fields}

    def __str__(self) -> str:
        items = {k: v for k, v in self.given.items() if not isinstance(v, list)} | ({} if self.train else {"test": 1})
        return " ".join(f"{k}={text(v) if isinstance(v, tuple) else v}" for k, v in items.items()) or "values"


class ParamSpec(Config):
    """How the training treats one parameter of a layer."""

    share: str | None = None
    """Parameters with the same `share` name are one array; the first layer's filler starts it."""
    lr_mult: NonNegativeFloat = 1.0
    """Factor on the learning rate; 0 freezes the parameter, and its gradient is not computed."""
    decay_mult: NonNegativeFloat = 1.0
    """Factor on the weight decay."""


class Layer(Part, family="layer type"):
    """A layer; the fields are common to all types."""

    name: str = Field(default="", pattern=r"^[A-Za-z0-9_./-]*$")
    """Name of the layer; by default the type in lower case with a number."""
    inputs: Names | None = None
    """Tensors that go in; by default the last output, and for a port such as `label` the data tensor of that name."""
    outputs: Names | None = None
    """Tensors that come out; by default the layer's name."""
    phase: Phase | None = None
    """The phase in which the layer is there; by default both."""
    include: Rules = []
    """Rules such as {stage: deploy, min_level: 1}, of which one must hold for the layer to be there."""
    exclude: Rules = []
    """Rules of which none may hold for the layer to be there; give these or `include`, not both."""
    loss_weight: float | None = None
    """Weight of the first output in the objective; by default 1 for a loss and 0 for all others."""
    param: dict[str, ParamSpec] = {}
    """Settings by parameter name, such as {weight: {lr_mult: 2, share: w}}."""
    frozen: bool = False
    """Whether the layer's parameters stay as they are."""
    share: str | None = None
    """Another layer of the same type, all of whose parameters are those of this one, too."""

    ports: ClassVar[str] = "x -> y"
    cases: ClassVar[list[Case]] = []
    inplace: ClassVar[dict[str, str]] = {}
    """Outputs that may share the memory of an input: {"y": "x"}. Where that is a port for many, of any of them; and the
    gradient of the last may share that of the output."""
    view: ClassVar[bool] = False
    """Whether y is x in another shape, its elements in the same row-major order, so that both may be one array."""
    layout: ClassVar[Literal["rows", "any", "channels_last"]] = "rows"
    """How tensors (N, C, spatial...) may lie in memory: in rows only; in any order, so that methods never reshape them;
    or in any order, and fastest with the channels last."""
    is_loss: ClassVar[bool] = False
    """Whether the first output counts in the objective by default."""
    is_metric: ClassVar[bool] = False
    """Whether the layer only says how good the net is; by default no other layer reads its output."""
    better: ClassVar[Literal["higher", "lower"] | None] = None
    """For a metric or loss, which way its first output is better; None where it is not one number."""

    wiring: ClassVar[Ports]

    @classmethod
    def spell(cls, class_name: str) -> str:
        return class_name

    @classmethod
    def __pydantic_init_subclass__(cls, family: str = "", abstract: bool = False, **kwargs: Any) -> None:
        cls.wiring = Ports.parse(cls.ports)
        if not family and not abstract:
            wanted = ("expand",) if issubclass(cls, Block) else ("shapes", "forward")
            if not all(callable(getattr(cls, name, None)) for name in wanted):
                raise ContractError(f"layer type {cls.__name__}: define {' and '.join(f'{n}()' for n in wanted)}")
            if hasattr(cls, "tally") and not hasattr(cls, "score"):
                raise ContractError(f"layer type {cls.__name__}: define score() of what tally() adds up to")
            for output, source in cls.inplace.items():
                if source in asks(cls, "backward") and cls.shape_only is Layer.shape_only:
                    raise ContractError(
                        f"layer type {cls.__name__}: {output!r} may overwrite {source!r}, but backward asks for it"
                    )
        super().__pydantic_init_subclass__(family=family, abstract=abstract, **kwargs)

    @classmethod
    def differentiable(cls) -> bool:
        """Whether the type has a backward."""
        return hasattr(cls, "backward")

    @classmethod
    def param_names(cls) -> tuple[str, ...]:
        """The trainable parameters, in the order in which backward asks for their gradients."""
        ports = {p.name for p in (*cls.wiring.inputs, *cls.wiring.outputs)}
        others = {"d", "dparams", *(f"d{port}" for port in ports)}
        return tuple(n[1:] for n in asks(cls, "backward") if n.startswith("d") and n not in others)

    @model_validator(mode="after")
    def _include_or_exclude(self) -> Layer:
        if self.include and self.exclude:
            raise ValueError("give include or exclude, not both")
        return self

    def there(self, phase: Phase, state: State) -> bool:
        """Whether the layer is part of the net in a phase and state."""
        included = not self.include or any(rule.holds(phase, state) for rule in self.include)
        return self.phase in (None, phase) and included and not any(rule.holds(phase, state) for rule in self.exclude)

    def shape_only(self) -> frozenset[str]:
        """The inputs and outputs of which backward looks at the shape and nothing else; they need not stay alive."""
        return frozenset()

    def for_backward(self) -> frozenset[str]:
        """The optional outputs that forward writes for backward only; without a backward call they are not there."""
        return frozenset()

    def wired(self) -> Ports:
        """The ports of the layer as it is set up; by default those of its type."""
        return self.wiring

    def default_outputs(self) -> tuple[str, ...]:
        """What comes out where `outputs` is left out: by default one tensor with the layer's name, if it has to."""
        required = any(not port.optional for port in self.wired().outputs)
        return (self.name,) if self.name and required else ()

    def joined(self, before: Layer, x: Shape) -> Layer | None:
        """One layer that computes what `before` does of an x of that shape and then this one; None without such one.

        It is made by `replaced`.
        """
        return None

    def replaced(self, kind: type[Layer], **settings: Any) -> Layer:
        """A layer of another type in the place of this one: with its name, its outputs, and its weight."""
        return kind(name=self.name, outputs=self.outputs, loss_weight=self.loss_weight, **settings)

    def overwrites(self) -> Mapping[str, str]:
        """The outputs of the layer as it is set up that may overwrite an input; by default those of its type."""
        return self.inplace

    def laid_out(self) -> Literal["rows", "any", "channels_last"]:
        """The layout of the layer as it is set up; by default that of its type."""
        return self.layout

    def mentioned(self) -> tuple[str, ...]:
        """The tensors of which the layer's own settings speak; they go in where `inputs` is left out.

        One that is called `x` is the output of the layer before, unless there is a tensor of that name.
        """
        return ()

    def exact(self) -> Layer:
        """The layer as it is checked: with the whole gradient, where it leaves a part of it out on purpose."""
        return self

    def stepwise(self) -> Collection[str]:
        """Those of its parameters and of `mentioned` by which there is no gradient, as the output changes in steps."""
        return ()

    def weight_in_objective(self) -> float:
        """The weight of the first output in the objective."""
        if self.loss_weight is None:
            return 1.0 if self.is_loss else 0.0
        return self.loss_weight


class Block(Layer, abstract=True):
    """A layer that stands for several: `expand(x, ...)` says for which, given the names of the tensors that go in.

    Each is made by `inner`, and called NAME/part; the one whose part is empty has the block's own name and outputs. In
    `param`, the parameters go by part: {conv1.weight: {lr_mult: 2}}.
    """

    @classmethod
    def differentiable(cls) -> bool:
        """Whether gradients go through the block: those of its layers do."""
        return True

    def inner(self, kind: type[Layer], part: str, inputs: Sequence[str], **settings: Any) -> Layer:
        """A layer of the block, with what the block says of all its layers."""
        common: dict[str, Any] = {name: getattr(self, name) for name in ("phase", "include", "exclude", "frozen")}
        named = {key.rpartition("."): spec for key, spec in self.param.items()}
        common["param"] = {name: spec for (owner, _, name), spec in named.items() if owner == part}
        if self.share:
            common["share"] = f"{self.share}/{part}" if part else self.share
        if not part:
            common |= {"outputs": self.outputs, "loss_weight": self.loss_weight}
        return kind(name=f"{self.name}/{part}" if part else self.name, inputs=tuple(inputs), **common, **settings)


@functools.cache
def asks(cls: type[Layer], method: str) -> Mapping[str, bool]:
    """The names in the signature of a method, and whether each is required; empty if the type has no such method."""
    function = getattr(cls, method, None)
    if function is None:
        return {}
    parameters = list(inspect.signature(function).parameters.values())[1:]
    return {p.name: p.default is p.empty for p in parameters}


def answer(layer: Layer, method: str, offered: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments for a method, by the names it asks for, out of those `offered`; ContractError if one is missing."""
    wanted = asks(type(layer), method)
    missing = [name for name, required in wanted.items() if required and offered.get(name) is None]
    if missing:
        there = ", ".join(sorted(name for name, value in offered.items() if value is not None))
        raise ContractError(f"{type(layer).__name__}.{method} asks for {', '.join(missing)}; there is only {there}")
    return {name: offered[name] for name in wanted if offered.get(name) is not None}


def canonical_axis(axis: int, ndim: int, what: str = "axis", of: str = "input") -> int:
    """`axis` counted from the front; negative ones count from the end. Raises ShapeError outside [-ndim, ndim)."""
    if not -ndim <= axis < ndim:
        raise ShapeError(f"{what} {axis} is outside of the {ndim} axes of the {of}")
    return axis % ndim


def every_axis(axes: Sequence[int], ndim: int, of: str = "input") -> list[int]:
    """Several axes as `canonical_axis` counts them. Raises ShapeError for one that is there twice."""
    found = [canonical_axis(axis, ndim, of=of) for axis in axes]
    for place, axis in enumerate(found):
        if axis in found[:place]:
            raise ShapeError(f"axes {list(axes)} of {ndim}: axis {axis} is there twice")
    return found


def same(what: str, shapes: Iterable[Shape]) -> Shape:
    """The one shape that all `shapes` are; ShapeError if they differ."""
    first, *others = shapes
    for other in others:
        if other != first:
            raise ShapeError(f"expected {what} of one shape, got {text(first)} and {text(other)}")
    return first


def broadcast(what: str, *shapes: Shape) -> Shape:
    """The shape that all `shapes` have together; ShapeError, which says `what` they are, if they do not fit."""
    found = []
    for sizes in itertools.zip_longest(*(shape[::-1] for shape in shapes), fillvalue=1):
        wide = {n for n in sizes if n != 1}
        if len(wide) > 1:
            *others, last = map(text, shapes)
            rule = "on each axis, counted from the last, all sizes but 1 are equal"
            raise ShapeError(f"{what} do not meet: {', '.join(others)} and {last}", rule)
        found.append(wide.pop() if wide else 1)
    return tuple(found[::-1])


def text(shape: Shape) -> str:
    """A shape as people write it: 64x3x32x32, or `scalar`."""
    return "x".join(map(str, shape)) or "scalar"


def size(shape: Shape) -> int:
    """The number of elements, as a Python int, so that it cannot overflow."""
    return functools.reduce(operator.mul, shape, 1)
