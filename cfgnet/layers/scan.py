"""Layers that run layers of their own, step by step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveInt, model_validator

from cfgnet.document import named
from cfgnet.errors import ShapeError
from cfgnet.explain import did_you_mean, listed, problem, shown
from cfgnet.graph import TensorType
from cfgnet.layer import Case, Layer, Param, param_key, text
from cfgnet.layers._loop import Loop, Run, Source
from cfgnet.layers.shape import Split
from cfgnet.part import Config, Ints, Names


def _by_name(value: object) -> object:
    """A name, or a list of names, as a mapping of each to itself."""
    names = [value] if isinstance(value, str) else value
    return {name: name for name in names} if isinstance(names, list | tuple) else value


Wires = Annotated[dict[str, str], BeforeValidator(_by_name, json_schema_input_type=dict[str, str] | str | list[str])]
"""What tensors are called inside, and outside; a list where that is the same."""


class FirstValue(Config):
    """A state that starts as a number, the same everywhere."""

    value: float = 0.0
    """The number."""
    shape: Ints | None = None
    """The shape of the state; 0 takes the axis of `like` at the same place."""
    like: str | None = None
    """A tensor inside, a step of a sequence for one, whose shape the state has."""

    @model_validator(mode="after")
    def _has_a_shape(self) -> FirstValue:
        if self.shape is None and self.like is None:
            raise ValueError("give the shape of the state, or like: a tensor inside that has its shape")
        if self.shape is not None and any(n < (0 if self.like else 1) for n in self.shape):
            raise ValueError("shape: expected numbers >= 1, or 0 beside like")
        return self

    def shaped(self, like: tuple[int, ...]) -> tuple[int, ...]:
        """The shape, where `like` has its own; ShapeError if an axis is missing there."""
        if self.shape is None:
            return like
        if any(not n and axis >= len(like) for axis, n in enumerate(self.shape)):
            raise ShapeError(f"shape {list(self.shape)} takes an axis that {self.like} ({text(like)}) does not have")
        return tuple(n or like[axis] for axis, n in enumerate(self.shape))


def _in_full(value: object) -> object:
    """A number as a state without axes that starts so, and a mapping as what it says."""
    if isinstance(value, str | FirstValue):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return FirstValue(value=value, shape=())
    if isinstance(value, Mapping):
        return FirstValue.model_validate(value)
    raise problem(
        f"expected a tensor or a number, got {shown(value)}", "as in {h: h0}, {h: {value: 0, like: x}}, or {h: 0}"
    )


First = Annotated[str | FirstValue, BeforeValidator(_in_full, json_schema_input_type=str | float | FirstValue)]
"""How a state starts: as a tensor, or as a number."""


_RNN = [
    {"type": "InnerProduct", "name": "u", "inputs": "x", "num_output": 2},
    {"type": "InnerProduct", "name": "v", "inputs": "h", "num_output": 2, "bias_term": False},
    {"type": "Eltwise", "name": "z", "inputs": ["u", "v"]},
    {"type": "TanH", "inputs": "z"},
]
_WEIGHT: dict[str, Any] = {"u.weight": [[3.0]]}


class Scan(Layer):
    """Runs its body once for each step of `sequences`, or `steps` times, with states that go from step to step.

    The body is a list of layers as that of a net, and reads tensors by the names that they have inside: of a tensor in
    `sequences` the part that belongs to the step, x[t], one in `non_sequences` whole, and each of `state` as the step
    before left it. What a state starts as is a tensor, a number for one without axes, {value: 0, shape: [32, 128]}, or
    {value: 1, like: x} for the shape of a step of x. `update` says which tensor of the body each state becomes; with
    one state it is by default the output of the body's last layer. A step cannot change the shape of a state.

    First the states come out, steps x ..., in the order of `state`, then those that `collect` names. A single output
    has the name of the layer, of several each is called LAYER/NAME; `outputs` may name as many of them, from the first,
    as are wanted. Gradients go to sequences, non-sequences, states that are tensors, and the parameters of the body,
    which all steps share. They are called LAYER/LAYER_OF_BODY.weight.

    With truncate: n, gradients go back over at most n steps: at every n-th step, counted from the end, what comes
    before is taken as given; `cfgnet grad-check` checks the whole gradient. With keep: last, the values of the other
    steps are held in memory only as far as gradients go back through them. A loss stands behind the layer, not in the
    body. Random numbers, as of Dropout, are others at each step. The loop is recorded once, when the net is made.
    Werbos 1990, and Williams and Peng 1990 on truncation.
    """

    body: list[Layer] = Field(min_length=1)
    """The layers that run at each step."""
    sequences: Wires = {}
    """The tensors whose first axis is the step, by the names that a step of them has inside; or a list of names."""
    state: dict[str, First] = {}
    """What goes from step to step, by its name inside, with how it starts."""
    non_sequences: Wires = {}
    """The tensors that are the same at each step, by their names inside; or a list of names."""
    steps: PositiveInt | None = None
    """How many steps there are, where there are no sequences."""
    update: dict[str, str] = {}
    """The tensor of the body that each state becomes."""
    collect: Names = ()
    """Tensors of the body that come out too, stacked over the steps."""
    reverse: bool = False
    """Whether the layer goes from the last step to the first; what comes out of a step stands where its x does."""
    truncate: PositiveInt | None = None
    """Over how many steps gradients go back at most; by default all."""
    keep: Literal["all", "last"] = "all"
    """Whether a state comes out with its value after each step, or the last one only."""

    ports = "*x?:any -> *y, kept?, kept_int?:int"
    cases = [
        # A running sum.
        Case(
            sequences={"x": "data"},
            state={"total": {"value": 0, "like": "x"}},
            body=[{"type": "Eltwise", "inputs": ["x", "total"]}],
            x=[[1.0, 2.0, 2.0, 2.0]],
            expect={"y": [[1.0, 3.0, 5.0, 7.0]]},
        ),
        # A ** 3, without the powers before it.
        Case(
            state={"power": {"value": 1, "like": "A"}},
            non_sequences=["A"],
            steps=3,
            keep="last",
            body=[{"type": "Eltwise", "operation": "PROD", "inputs": ["power", "A"]}],
            x=[[0.0, 1.0, 2.0, 3.0]],
            expect={"y": [[0.0, 1.0, 8.0, 27.0]]},
        ),
        # Fibonacci's numbers: each of two states becomes a tensor that the other one, or nobody, makes.
        Case(
            state={"a": 0, "b": 1},
            update={"a": "b", "b": "sum"},
            collect="a",
            outputs=["next", "after", "now"],
            steps=5,
            body=[{"type": "Eltwise", "name": "sum", "inputs": ["a", "b"]}],
            gradient=False,  # there is nothing to differentiate by
            expect={"y": [[1.0, 1.0, 2.0, 3.0, 5.0], [1.0, 2.0, 3.0, 5.0, 8.0], [0.0, 1.0, 1.0, 2.0, 3.0]]},
        ),
        # h = 2 h + w x from the last step to the first, with a weight w of 3.
        Case(
            sequences={"x": "data"},
            state={"h": "h0"},
            reverse=True,
            body=[
                {"type": "InnerProduct", "name": "u", "inputs": "x", "num_output": 1, "bias_term": False},
                {"type": "Eltwise", "inputs": ["u", "h"], "coeff": [1, 2]},
            ],
            x=[[[[1.0]], [[0.0]], [[2.0]]], [[0.5]]],
            expect={"y": [[[[31.0]], [[14.0]], [[7.0]]]]},
            **_WEIGHT,
        ),
        Case(sequences={"x": "data"}, state={"h": "h0"}, body=_RNN, x=((4, 2, 3), (2, 2))),
        Case(sequences={"x": "data"}, state={"h": "h0"}, body=_RNN, keep="last", x=((4, 2, 3), (2, 2))),
        Case(sequences={"x": "data"}, state={"h": "h0"}, body=_RNN, keep="last", reverse=True, x=((3, 2, 3), (2, 2))),
        # A state that is not read, another that starts as a number, and a tensor of the body that comes out.
        Case(
            sequences={"x": "data"},
            state={"c": {"like": "x", "shape": [0, 2]}, "last": "data0", "hidden": {"shape": [2, 2]}},
            non_sequences={"scale": "gain"},
            update={"c": "next", "last": "x", "hidden": "squash"},
            collect=["squash", "u"],
            outputs=["c", "last", "hidden", "squash"],
            body=[
                {"type": "InnerProduct", "name": "u", "inputs": "x", "num_output": 2},
                {"type": "Eltwise", "name": "next", "inputs": ["u", "c", "hidden"], "coeff": [1, 0.5, 0.3]},
                {"type": "TanH", "name": "squash", "inputs": "next"},
                {"type": "Eltwise", "name": "unused", "operation": "PROD", "inputs": ["squash", "scale"]},
            ],
            x=((3, 2, 3), (2, 3), (2, 2)),
        ),
        # In a test as well as in training: the state before, times what is the same at each step.
        Case(
            state={"h": "h0"},
            non_sequences={"w": "w"},
            steps=3,
            keep="last",
            train=False,
            body=[{"type": "MatMul", "inputs": ["h", "w"]}],
            x=((2, 3), (3, 3)),
        ),
        # Characters, and a scan inside the scan.
        Case(
            sequences={"x": "data"},
            state={"h": {"shape": [2, 2]}},
            body=[
                {"type": "Embed", "input_dim": 3, "num_output": 2, "name": "e"},
                {
                    "type": "Scan",
                    "name": "inner",
                    "steps": 2,
                    "keep": "last",
                    "state": {"g": "h"},
                    "non_sequences": {"e": "e"},
                    "body": [
                        {"type": "InnerProduct", "name": "v", "inputs": "g", "num_output": 2},
                        {"type": "Eltwise", "inputs": ["v", "e"]},
                        "TanH",
                    ],
                },
            ],
            x=[[[0, 2], [1, 1], [2, 0]]],
        ),
        # The gradient is less than that of forward on purpose.
        Case(sequences={"x": "data"}, state={"h": "h0"}, body=_RNN, truncate=2, x=((5, 2, 3), (2, 2)), gradient=False),
    ]

    @model_validator(mode="before")
    @classmethod
    def _name_layers(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("body"), list):
            return {**value, "body": named(value["body"])}
        return value

    @model_validator(mode="after")
    def _makes_sense(self):
        names = [*self.sequences, *self.state, *self.non_sequences]
        for place, name in enumerate(names):
            if name in names[:place]:
                raise ValueError(f"two tensors are called {name!r} inside: give each a name of its own")
        if not self.sequences and self.steps is None:
            raise ValueError("give sequences, or steps: how often the body runs")
        if not self.state and not self.collect:
            raise ValueError("give state, or collect: nothing comes out else")
        if self.outputs is None and (twice := [name for name in self.collect if name in self.state]):
            raise ValueError(f"collect: {twice[0]!r} is a state, too: say with outputs what each is called outside")
        for name in self.update:
            if name not in self.state:
                raise ValueError(f"update speaks of {name!r}, which is no state; " + listed("there are", [*self.state]))
        if len(self.state) > 1 and (left := [name for name in self.state if name not in self.update]):
            raise ValueError(f"update: say which tensor {' and '.join(left)} becomes, as in {{{left[0]}: NAME}}")
        return self

    @property
    def _outside(self) -> dict[str, str]:
        """The tensors that go in, by their names inside."""
        states = {name: first for name, first in self.state.items() if isinstance(first, str)}
        return self.sequences | states | self.non_sequences

    def mentioned(self):
        return tuple(self._outside.values())

    def default_outputs(self):
        names = [*self.state, *self.collect]
        return (self.name,) if len(names) == 1 else tuple(f"{self.name}/{name}" for name in names)

    def exact(self):
        """A loop as it is, over all of whose steps gradients go back."""
        return self.model_copy(update={"truncate": None, "body": [layer.exact() for layer in self.body]})

    def for_backward(self):
        return frozenset({"kept", "kept_int"})

    # What is planned.

    def inside(self, planner, kinds, x=()):
        given = {
            name: TensorType(shape, kind)
            for name, shape, kind in zip(self._outside, x, kinds.get("x", ()), strict=False)
        }
        if len(x) != len(self._outside):
            names = ", ".join(self._outside) or "none"
            message = f"expected {len(self._outside)} of inputs ({names}), got {len(x)}"
            raise planner.wrong(
                message, "leave inputs out: sequences, state and non_sequences say what goes in", "inputs"
            )
        steps = self._count({name: given[name].shape for name in self.sequences})
        known = {name: TensorType((given[name].shape or ())[1:], given[name].kind) for name in self.sequences}
        known |= {name: given[name] for name in self.non_sequences}
        sources = [
            *(Source(name, "sequence", at) for at, name in enumerate(self.sequences)),
            *(Source(name, "state", *self._start(name)) for name in self.state),
            *(Source(name, "constant", [*self._outside].index(name)) for name in self.non_sequences),
        ]
        for name in self.state:
            known[name] = self._first(planner, name, given, known)
        results = [*self._updates(planner, known).values(), *self.collect]
        copies = self._copies(results, known)
        results = [copies[at].outputs[0] if at in copies else name for at, name in enumerate(results)]
        inner = planner.plan([*self.body, *copies.values()], {source.name: known[source.name] for source in sources})
        self._check(planner, inner, results)
        outputs = len(results) if self.outputs is None else len(self.outputs)
        if outputs > len(results):
            there = [*self.state, *self.collect]
            message = f"expected at most {len(there)} of outputs ({', '.join(there)}), got {outputs}"
            raise planner.wrong(message, "", "outputs")
        settings = (self.reverse, self.truncate, self.keep == "last")
        return Loop(inner, tuple(sources), tuple(results), len(self.state), outputs, steps, *settings)

    def _count(self, sequences):
        """How many steps there are."""
        for name, shape in sequences.items():
            if not shape or not shape[0]:
                raise ShapeError(f"expected steps x ... for {name}, got {text(shape)}")
        lengths = {name: shape[0] for name, shape in sequences.items()}
        if self.steps is not None:
            lengths["steps"] = self.steps
        if len({*lengths.values()}) > 1:
            found = ", ".join(f"{n} of {name}" if name != "steps" else f"steps: {n}" for name, n in lengths.items())
            raise ShapeError(f"expected one number of steps, got {found}")
        return next(iter(lengths.values()))

    def _start(self, name):
        """Which input a state starts as, or the number."""
        first = self.state[name]
        return (None, first.value) if isinstance(first, FirstValue) else ([*self._outside].index(name),)

    def _first(self, planner, name, given, known):
        """The type of a state."""
        first = self.state[name]
        if not isinstance(first, FirstValue):
            if given[name].kind == "int":
                raise planner.wrong(
                    f"the state {name} starts as whole numbers", "a state holds fractions", "state", name
                )
            return given[name]
        if first.like is not None and first.like not in known:
            hint = did_you_mean(first.like, known, listed("inside there are", [*known]))
            raise planner.wrong(f"inside there is no tensor {first.like!r}", hint, "state", name, "like")
        try:
            return TensorType(first.shaped(known[first.like].shape if first.like is not None else ()))
        except ShapeError as error:
            raise planner.wrong(str(error), "", "state", name, "shape") from None

    def _updates(self, planner, known):
        """The tensor that each state becomes."""
        if not self.state or self.update:
            return {name: self.update[name] for name in self.state}
        made = [layer.outputs or layer.default_outputs() for layer in self.body if planner.there(layer)]
        last = next((names[0] for names in reversed(made) if names), next(iter(known)))
        return dict.fromkeys(self.state, last)

    def _copies(self, results, known):
        """Layers that copy results that the body does not make, or that are there twice, by their places."""
        return {
            at: Split(name=f"{self.name}/result{at}", inputs=(name,), outputs=(f"{self.name}/result{at}",))
            for at, name in enumerate(results)
            if name in known or name in results[:at]
        }

    def _check(self, planner, inner, results):
        """Whether the body makes what comes out of it, and states of their own shapes."""
        for node in inner.graph.nodes:
            if node.layer.weight_in_objective():
                hint = f"set its loss_weight to 0 and collect it, or put the loss behind {self.name}"
                raise planner.wrong(
                    f"{node.name} counts in the objective, as no layer inside can", hint, "body", node.index
                )
        states = [*self.state]
        for at, name in enumerate(results):
            keys = ("update", states[at]) if at < len(states) else ("collect", at - len(states))
            kind = inner.tensors.get(name)
            if kind is None:
                hint = did_you_mean(name, inner.tensors, listed("inside there are", [*inner.tensors]))
                raise planner.wrong(f"inside there is no tensor {name!r}", hint, *keys)
            if kind.kind == "int":
                raise planner.wrong(f"{name!r} holds whole numbers", "what comes out of the body is fractions", *keys)
            if at < len(states) and kind.shape != inner.tensors[states[at]].shape:
                before, after = text(inner.tensors[states[at]].shape), text(kind.shape)
                message = f"the state {states[at]} is {before} before a step, and {after} after it"
                raise planner.wrong(message, planner.way_to(inner, name), *keys)

    def shapes(self, inside):
        kept = {"kept": inside.kept("float"), "kept_int": inside.kept("int")}
        return {"y": inside.shapes} | {port: shape for port, shape in kept.items() if shape}

    def params(self, inside):
        for shaped in inside.inner.nodes:
            for name, key in shaped.params.items():
                slot, spec = inside.inner.slots[key], shaped.node.layer.param.get(name)
                called = param_key(shaped.name, name)
                yield Param(called, slot.shape, slot.filler, slot.trainable, slot.turned, spec)

    def scratch(self, inside):
        return {"room": inside.scratch}

    def flops(self, inside):
        return inside.steps * sum(shaped.flops for shaped in inside.inner.nodes)

    # What is computed.

    def forward(self, k, inside, y, room, rng, train, x=(), params=None, kept=None, kept_int=None):
        self._run(k, inside, y, room, rng, train, x, params, kept, kept_int).forward()

    def backward(
        self, k, inside, y, room, rng, train, dy, x=(), params=None, kept=None, kept_int=None, dx=(), dparams=None
    ):
        self._run(k, inside, y, room, rng, train, x, params, kept, kept_int).backward(dy, dx, dparams or {})

    def _run(self, k, inside, y, room, rng, train, x, params, kept, kept_int):
        return Run(inside, self.name, k, x, y, {"float": kept, "int": kept_int}, room, params or {}, rng, train)
