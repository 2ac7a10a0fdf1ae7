"""A formula over tensors of known shapes as programs of kernels: forwards, and backwards by its derivative."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

from cfgnet.layer import Shape, size
from cfgnet.symbolic.derive import gradients
from cfgnet.symbolic.expr import Expr, Maker, in_order, made_anew, name, names
from cfgnet.symbolic.lower import VIEWS, lower
from cfgnet.symbolic.ops import OPS
from cfgnet.symbolic.parse import parse
from cfgnet.symbolic.program import Program
from cfgnet.symbolic.simplify import RULES

RESULT, GRADIENT = "= y", "= dy"
"""What the programs call the result and its gradient; no formula has such names."""


def gradient_by(leaf: str) -> str:
    """What the programs call the gradient by a name of the formula."""
    return f"= d {leaf}"


class Compiled:
    """A formula with its derivative; what takes long to compute, and the derivative needs, is saved for it."""

    def __init__(self, formula: str, shapes: Mapping[str, Shape]):
        maker = Maker(RULES)
        self.leaves = {leaf: maker.leaf(name(leaf, shape)) for leaf, shape in shapes.items()}
        self.root = maker.typed(parse(formula), self.leaves)
        self.dy = maker.leaf(name(GRADIENT, self.root.shape))
        slopes = gradients(maker, self.root, list(self.leaves.values()), self.dy)
        zeros = (maker.const(0, shape) for shape in shapes.values())
        whole = [zero if slope is None else slope for slope, zero in zip(slopes, zeros, strict=True)]
        heavy = {f"= {number}": node for number, node in enumerate(_heavy(self.root))}
        known = {id(node): name(key, node.shape) for key, node in {**heavy, RESULT: self.root}.items()}
        by_known = made_anew(Maker(RULES), whole, known)
        self.slopes: Mapping[str, Expr] = dict(zip(shapes, by_known, strict=True))
        """The gradient by each name, over the names, the result, its gradient, and what is saved."""
        asked = {leaf for slope in by_known for leaf in names(slope)}
        self.saved = {key: node for key, node in heavy.items() if key in asked}

    @property
    def shape(self) -> Shape:
        """The shape of the result."""
        return Maker.shape(self.root)

    @functools.cached_property
    def places(self) -> Mapping[str, tuple[int, Shape]]:
        """Where in a row of numbers that which is saved starts, and its shape."""
        found, start = dict[str, tuple[int, Shape]](), 0
        for key, node in self.saved.items():
            found[key] = start, Maker.shape(node)
            start += size(Maker.shape(node))
        return found

    @property
    def saved_size(self) -> int:
        """How many numbers are saved."""
        return sum(size(shape) for _, shape in self.places.values())

    @functools.cached_property
    def forward(self) -> Program:
        """Computes the result, and what is saved."""
        return lower({RESULT: self.root, **self.saved})

    def backward(self, wanted: Sequence[str], added: Sequence[str] = ()) -> Program:
        """Computes the gradients by the names `wanted`; those by names in `added` are added to what is there."""
        roots = {gradient_by(leaf): self.slopes[leaf] for leaf in (*wanted, *added)}
        return lower(roots, [gradient_by(leaf) for leaf in added])

    @functools.cached_property
    def room(self) -> int:
        """How many elements of work the programs need at most, whichever gradients are wanted."""
        return max(self.forward.room, self.backward([], list(self.slopes)).apart)

    @functools.cached_property
    def flops(self) -> int:
        """Operations on numbers of the result: one for each element of each, and of a sum for each that is summed."""
        total = 0
        for node in in_order([self.root]):
            if node.op == "matmul":
                total += 2 * size(Maker.shape(node)) * Maker.shape(node.args[0])[-1]
            elif node.args and node.op not in VIEWS:
                total += max(size(Maker.shape(each)) for each in (node, *node.args))
        return total


@functools.lru_cache(maxsize=256)
def compiled(formula: str, shapes: tuple[tuple[str, Shape], ...]) -> Compiled:
    """A formula over tensors of these shapes, by name. Raises FormulaError and ShapeError."""
    return Compiled(formula, dict(shapes))


def _heavy(root: Expr) -> list[Expr]:
    """The operations below the last that are neither element by element nor views; and what a largest is found in.

    The derivative finds it again there. What is computed anew might be another in its last bits.
    """
    searched = {id(_without_views(node.args[0])) for node in in_order([root]) if node.op in ("max", "min")}
    return [
        node
        for node in in_order([root])
        if node.args
        and node is not root
        and ((not OPS[node.op].spelling and node.op not in VIEWS) or id(node) in searched)
    ]


def _without_views(node: Expr) -> Expr:
    while node.op in VIEWS:
        (node,) = node.args
    return node
