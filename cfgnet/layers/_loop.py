"""How a body of layers runs over steps: what lies where in memory, and what is recorded for each step."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

from cfgnet import recording
from cfgnet.errors import Problem
from cfgnet.graph import TensorType
from cfgnet.layer import Kind, Shape, size
from cfgnet.plan import Backward
from cfgnet.plan.gradients import differentiate, varies
from cfgnet.plan.memory import added_elements, asked
from cfgnet.plan.model import most_scratch
from cfgnet.plan.shapes import Inner

Array = Any
LINE = 16
"""Arrays inside the scratch start at multiples of so many elements, which is a line of the cache."""


class Source(NamedTuple):
    """A tensor that the body reads and does not make."""

    name: str
    role: str
    """sequence, state or constant."""
    at: int | None = None
    """Which input of the layer it is; None for a state that starts as a number."""
    value: float = 0.0


class Stack(NamedTuple):
    """A tensor of the body of which forward keeps the values for backward, at `times` steps from the `first` one on."""

    name: str
    shape: Shape
    kind: Kind
    first: int
    times: int


@dataclass(frozen=True)
class Loop:
    """A planned body, and the steps over which it runs; steps are counted in the order in which they run."""

    inner: Inner
    sources: tuple[Source, ...]
    results: tuple[str, ...]
    """The tensors of the body that states become, in the order of the states, and then those that are collected."""
    states: int
    """How many of these are states."""
    outputs: int
    """How many of these come out."""
    steps: int
    reverse: bool
    truncate: int | None
    last: bool
    """Whether of states only the last value comes out."""

    # What the body is.

    def of(self, role: str) -> list[Source]:
        """The sources of one role."""
        return [source for source in self.sources if source.role == role]

    def shape(self, name: str) -> Shape:
        """The shape of a tensor at one step."""
        return self.inner.tensors[name].shape or ()

    @cached_property
    def made(self) -> dict[str, TensorType]:
        """The tensors that the body makes."""
        return {name: kind for name, kind in self.inner.tensors.items() if name not in self.inner.graph.inputs}

    @cached_property
    def becomes(self) -> dict[str, str]:
        """The tensor that each state becomes."""
        return {source.name: name for source, name in zip(self.of("state"), self.results, strict=False)}

    def part(self, whole: Array, step: int) -> Array:
        """The part of a sequence that belongs to a step, as a view."""
        return whole[self.steps - 1 - step if self.reverse else step, ...]

    def border(self, step: int) -> bool:
        """Whether no gradient goes back from a step to the one before it."""
        return step == 0 or (self.truncate is not None and (self.steps - step) % self.truncate == 0)

    def whole(self, index: int) -> bool:
        """Whether a result comes out with its values at all steps."""
        return index < self.outputs and not (self.last and index < self.states)

    @property
    def shapes(self) -> list[Shape]:
        """What comes out."""
        shapes = enumerate(map(self.shape, self.results[: self.outputs]))
        return [(self.steps, *shape) if self.whole(index) else shape for index, shape in shapes]

    # Gradients.

    def gradients(
        self, inputs: Collection[int], params: Collection[str]
    ) -> tuple[set[str], dict[str, float], tuple[Backward, ...], list[Problem]]:
        """What gets a gradient, the results from which gradients start, the backward calls of a step, and problems.

        `inputs` and `params` are those whose gradients are wanted. A state gets one if it depends on any of that.
        """
        inner = self.inner
        slots = {key: replace(slot, trainable=slot.trainable and key in params) for key, slot in inner.slots.items()}
        wrt = {source.name for source in self.sources if source.at in inputs}
        reached = varies(inner.nodes, slots, wrt)
        while more := {state for state, name in self.becomes.items() if name in reached} - wrt:
            wrt |= more
            reached = varies(inner.nodes, slots, wrt)
        begun = {source.name for source in self.of("constant")} & wrt
        ends = dict.fromkeys(self.results, 1.0)
        found = differentiate(inner.graph, inner.nodes, inner.tensors, slots, wrt, ends, begun)
        return wrt, *found

    @cached_property
    def _most(self) -> tuple[Backward, ...]:
        """The backward calls of a step where all gradients are wanted that there can be."""
        inputs = self.inner.graph.inputs
        at = [s.at for s in self.sources if s.at is not None and inputs[s.name].kind == "float"]
        return self.gradients(at, self.inner.slots)[2]

    def _of(self, step: Backward) -> tuple[set[str], dict[str, float], tuple[Backward, ...], list[Problem]]:
        """The gradients that a backward call of the layer wants."""
        flows = step.flows.get("x")
        inputs = [index for index, flow in enumerate(flows) if flow] if isinstance(flows, tuple) else []
        return self.gradients(inputs, step.params)

    def obstacles(self, step: Backward) -> list[Problem]:
        """What in the body stands in the way of a backward call."""
        return [self.inner.placed(problem) for problem in self._of(step)[3]]

    # In words.

    def origins(self, reads: Sequence[str]) -> Mapping[str, str]:
        """What each tensor is that goes into the body, where the layer reads those."""
        found = {}
        for source in self.sources:
            outside = reads[source.at] if source.at is not None else f"{source.value:g}"
            said = {
                "sequence": f"a step of {outside}",
                "state": f"state, first {outside}",
                "constant": f"all of {outside}",
            }
            found[source.name] = said[source.role]
        return found

    def calls(self, step: Backward) -> tuple[Mapping[str, str], tuple[Backward, ...]]:
        """Where the gradients of results come from, and the backward calls of a step."""
        _, seeds, backward, _ = self._of(step)
        outside = {*self.results[: self.outputs]}
        states = {*self.results[: self.states]}
        words = {
            name: " and ".join(["the next step"] * (name in states) + ["outside"] * (name in outside)) for name in seeds
        }
        return words, backward

    # Memory.

    @cached_property
    def stacks(self) -> tuple[Stack, ...]:
        """What forward has to keep, because backward asks for it, and it does not come out of the layer.

        Where only last values come out, no gradient comes to more than the last `truncate` steps.
        """
        wanted = {name for call in self._most for name in asked(self.inner.nodes[call.node])}
        wanted |= {self.becomes[name] for name in wanted if name in self.becomes}
        out = {name: self.whole(index) for index, name in enumerate(self.results[: self.outputs])}
        start = 0 if self.truncate is None or any(out.values()) else max(0, self.steps - self.truncate)
        found = []
        for name, kind in self.made.items():
            first = max(0, start - (name in self.becomes.values()))  # what a state was before the first such step
            times = self.steps - first - (name in out)  # the last value comes out
            if name in wanted and not out.get(name) and times:
                found.append(Stack(name, kind.shape or (), kind.kind, first, times))
        return tuple(found)

    def kept(self, kind: Kind) -> Shape | None:
        """The shape of what is kept of one kind, all stacks one behind the other."""
        elements = sum(stack.times * size(stack.shape) for stack in self.stacks if stack.kind == kind)
        return (elements,) if elements else None

    @cached_property
    def places(self) -> dict[tuple[str, str], slice]:
        """Where in the workspace everything lies that one step takes, by use and tensor."""
        sizes = {
            ("work", ""): most_scratch(self.inner.nodes),
            ("added", ""): added_elements(self._most, self.inner.tensors),
        }
        for source in self.of("state"):
            uses = ("start", "turn 0", "turn 1", "carry 0", "carry 1")
            sizes |= {(use, source.name): size(self.shape(source.name)) for use in uses}
        for name in self.made:
            sizes |= {(use, name): size(self.shape(name)) for use in ("once", "gradient")}
        found, at = dict[tuple[str, str], slice](), 0
        for key, elements in sizes.items():
            found[key] = slice(at, at + elements)
            at += -(-elements // LINE) * LINE
        return found

    @property
    def scratch(self) -> Shape:
        """The workspace that a pass takes."""
        return (max(piece.stop for piece in self.places.values()),)


@dataclass(frozen=True)
class Run:
    """A loop with its arrays: what is recorded of it."""

    loop: Loop
    owner: str
    """The name of the layer whose body it is."""
    k: Any
    x: Sequence[Array]
    y: Sequence[Array]
    kept: Mapping[Kind, Array | None]
    room: Array
    params: Mapping[str, Array]
    rng: Any
    train: bool

    def piece(self, use: str, name: str = "", kind: Kind = "float") -> Array:
        """A piece of the workspace, as an array of the shape of a tensor."""
        flat = self.room[self.loop.places[use, name]]
        if not name:
            return flat
        shape = self.loop.shape(name)
        return (flat if kind == "float" else flat.view("int32")[: size(shape)]).reshape(shape)

    @cached_property
    def stacks(self) -> dict[tuple[str, int], Array]:
        """What is kept, by tensor and step; empty where there is no backward."""
        found, at = dict[tuple[str, int], Array](), {"float": 0, "int": 0}
        for stack in self.loop.stacks:
            flat, elements = self.kept[stack.kind], stack.times * size(stack.shape)
            if flat is not None:
                whole = flat[at[stack.kind] :][:elements].reshape(stack.times, *stack.shape)
                found |= {(stack.name, stack.first + n): whole[n, ...] for n in range(stack.times)}
            at[stack.kind] += elements
        return found

    def tensor(self, name: str, step: int) -> Array:
        """Where a tensor that the body makes lies at a step."""
        loop = self.loop
        index = loop.results.index(name) if name in loop.results else len(loop.results)
        comes_out = index < loop.outputs
        if loop.whole(index):
            return loop.part(self.y[index], step)
        if (name, step) in self.stacks:
            return self.stacks[name, step]
        if index >= loop.states:
            return self.piece("once", name, loop.made[name].kind)
        # A step reads what the one before it made, so that there are two in turn; the last one may come out.
        turn = (loop.steps - 1 - step) % 2
        return self.y[index] if comes_out and not turn else self.piece(f"turn {turn}", loop.of("state")[index].name)

    def source(self, source: Source, step: int) -> Array:
        """Where a tensor that the body reads and does not make lies at a step."""
        if source.role == "state" and step:
            return self.tensor(self.loop.becomes[source.name], step - 1)
        if source.at is None:
            return self.piece("start", source.name)
        whole = self.x[source.at]
        return self.loop.part(whole, step) if source.role == "sequence" else whole

    def arrays(self, step: int, gradients: Mapping[str, Array], grads: Mapping[str, Array]) -> recording.Arrays:
        """All that the layers of the body are handed at a step."""
        tensors = {source.name: self.source(source, step) for source in self.loop.sources}
        tensors |= {name: self.tensor(name, step) for name in self.loop.made}
        work, added = self.piece("work"), self.piece("added")
        return recording.Arrays(tensors, gradients, self.params, grads, work, added)

    def fill(self) -> None:
        """Writes the numbers with which states start."""
        for source in self.loop.of("state"):
            if source.at is None:
                self.k.map("value", self.piece("start", source.name), value=source.value)

    def forward(self) -> None:
        """All steps of all layers of the body."""
        self.fill()
        for step in range(self.loop.steps):
            arrays = self.arrays(step, {}, {})
            for shaped in self.loop.inner.nodes:
                offered = recording.offer(shaped, arrays, self.rng.inside(shaped.name, step), self.train)
                recording.forward(shaped, offered, self.k.of(f"{self.owner}/{shaped.name} forward"))

    def backward(self, dy: Sequence[Array | None], dx: Sequence[Array | None], grads: Mapping[str, Array]) -> None:
        """All steps backwards: the gradients of the inputs of the layer that are not None, and of the parameters."""
        Back(self, dy, dx, grads).record()


class Back:
    """The way back through a loop."""

    def __init__(self, run: Run, dy: Sequence[Array | None], dx: Sequence[Array | None], grads: Mapping[str, Array]):
        self.run, self.loop, self.k = run, run.loop, run.k
        self.dy, self.dx, self.grads = dy, dx, grads
        inputs = [index for index, target in enumerate(dx) if target is not None]
        self.wrt, self.ends, self.calls, _ = self.loop.gradients(inputs, grads)
        self.reached = {flow.tensor for call in self.calls for flow in call.all_flows}
        nodes = [self.loop.inner.nodes[call.node].node for call in self.calls]
        made = {name for node in nodes for name in node.writes() if self.loop.made[name].kind == "float"}
        self.zeros = made - self.reached - self.ends.keys()
        """Tensors with a gradient into which none flows."""
        self.inside = (made | self.reached) & self.loop.made.keys()
        """The tensors that the body makes and that have a gradient."""

    def target(self, source: Source) -> Array | None:
        """The gradient of an input of the layer; None where it is not wanted."""
        return self.dx[source.at] if source.at is not None and self.dx else None

    def record(self) -> None:
        """All of it, from the last step to the first."""
        self.run.fill()
        for name in sorted(self.zeros):
            self.k.map("0", self.run.piece("gradient", name))
        for source in self.loop.sources:
            unreached = source.name not in self.reached
            if (target := self.target(source)) is not None and (source.role == "constant" or unreached):
                self.k.map("0", target)
        carried = False
        for step in reversed(range(self.loop.steps)):
            carried = self.step(step, carried) and not self.loop.border(step)

    def step(self, step: int, carried: bool) -> bool:
        """One step; False where no gradient comes to it. `carried` is whether states bring one from the next step."""
        gradients = self.gradients(step)
        upper = {name: self.upper(index, step) for index, name in enumerate(self.loop.results) if name in self.ends}
        brought = {name for state, name in self.loop.becomes.items() if carried and state in self.reached}
        if not brought and all(each is None for each in upper.values()):
            self.clear(step, gradients)
            return False
        for name, dy in upper.items():
            self.begin(gradients[name], dy, name in brought)
        arrays = self.run.arrays(step, gradients, self.grads)
        for call in self.calls:
            shaped = self.loop.inner.nodes[call.node]
            offered = recording.offer(shaped, arrays, self.run.rng.inside(shaped.name, step), self.run.train)
            recording.backward(call, shaped, offered, arrays, self.k.of(f"{self.run.owner}/{shaped.name} backward"))
        return True

    def clear(self, step: int, gradients: Mapping[str, Array]) -> None:
        """Writes the gradients of the inputs that belong to a step to which no gradient comes."""
        for source in self.loop.sources:
            own = source.role == "sequence" or (source.role == "state" and step == 0)
            if own and source.name in self.reached and source.name in gradients:
                self.k.map("0", gradients[source.name])

    def begin(self, total: Array, dy: Array | None, brought: bool) -> None:
        """The gradient of a result of a step: what the next step brought, which is there already, and `dy`."""
        if brought and dy is not None:
            self.k.map("total + dy", total, total=total, dy=dy)
        elif dy is not None:
            self.k.copy(dy, total)
        elif not brought:
            self.k.map("0", total)

    def upper(self, index: int, step: int) -> Array | None:
        """The gradient of a result that comes from outside at a step."""
        dy = self.dy[index] if index < self.loop.outputs else None
        if dy is not None and self.loop.whole(index):
            return self.loop.part(dy, step)
        return dy if step == self.loop.steps - 1 else None

    def gradients(self, step: int) -> dict[str, Array]:
        """Where the gradients of all tensors of the body lie at a step; that of a state goes to the step before it."""
        run = self.run
        found = {name: run.piece("gradient", name) for name in self.inside | self.ends.keys()}
        for state, name in self.loop.becomes.items():
            if name in self.ends:
                found[name] = run.piece(f"carry {(step + 1) % 2}", state)
        for source in self.loop.sources:
            target = self.target(source)
            if source.role == "state" and source.name in self.wrt and not self.loop.border(step):
                target = run.piece(f"carry {step % 2}", source.name)
            elif source.role == "state" and step > 0:
                target = None
            if target is not None:
                found[source.name] = self.loop.part(target, step) if source.role == "sequence" else target
        return found
