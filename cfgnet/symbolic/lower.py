"""From expressions to calls of kernels: what is worked out element by element together, and where the rest is kept.

Operations by elements that only serve one another become one formula, so that nothing between them is written to
memory; a sum takes in the formula of what it sums. Everything else has a kernel, and its result a place in `work`,
which is used again when nobody reads it any more. Other shapes, orders and parts of what is there are views of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from cfgnet.layer import Shape, broadcast, size
from cfgnet.symbolic.expr import Expr, Maker, Rule, in_order, made_anew
from cfgnet.symbolic.ops import COMPARISONS, OPS, axes_of, last_or, reshaped, turning
from cfgnet.symbolic.program import Kernel, Program, Ref, placed_in_work
from cfgnet.symbolic.write import number

MOST_TOGETHER = 64
"""The most operations of one formula; the kernels in C have room for those, with what they read."""
VIEWS = ("reshape", "transpose", "slice", "expand")


def _mean(maker: Maker, op: str, args: tuple[Expr, ...], settings: Mapping[str, Any]) -> Expr:
    """A sum, and its part."""
    total = maker.make("sum", *args, **settings)
    count = size(maker.shape(args[0])) // max(1, size(maker.shape(total)))
    return maker.make("multiply", maker.const(1 / max(1, count)), total)


def _logsumexp(maker: Maker, op: str, args: tuple[Expr, ...], settings: Mapping[str, Any]) -> Expr:
    """log(sum(exp(x))) = m + log(sum(exp(x - m))), where m is the largest x, or 0 where that is not finite."""
    (x,) = args
    along = {"axis": settings.get("axis"), "keepdims": True}
    zero, most = maker.const(0), maker.make("max", x, **along)
    finite = maker.make("equal", maker.make("subtract", most, most), zero)
    most = maker.make("where", finite, most, zero)
    total = maker.make("sum", maker.make("exp", maker.make("subtract", x, most)), **along)
    found = maker.make("add", most, maker.make("log", total))
    return reshaped(maker, found, OPS[op].shape(maker.shape(x), **settings))


PRIMITIVE: Mapping[str, Sequence[Rule]] = {"mean": (_mean,), "logsumexp": (_logsumexp,)}
"""What is made of operations that have no kernel of their own."""


def lower(roots: Mapping[str, Expr], added: Sequence[str] = ()) -> Program:
    """The program that computes expressions into arrays, by name; it adds to those that `added` names."""
    made = made_anew(Maker(PRIMITIVE), list(roots.values()), {})
    return _Lowering(dict(zip(roots, made, strict=True)), set(added)).program()


class _Lowering:
    """Works out the kernels, with a number for each place in `work`; where these lie is decided in the end."""

    def __init__(self, roots: dict[str, Expr], added: set[str]):
        self.targets = {name: Ref(name, _shape(root)) for name, root in roots.items()}
        self.added = added
        self.roots = {name: self.peeled(name, root) for name, root in roots.items()}
        self.order = list(in_order(self.roots.values()))
        self.readers: dict[int, list[Expr]] = {id(node): [] for node in self.order}
        for node in self.order:
            for arg in node.args:
                self.readers[id(arg)].append(node)
        self.results = {id(root) for root in self.roots.values()}
        self.group = self.grouped()
        self.refs: dict[int, Ref] = {}
        self.kernels: list[Kernel] = []
        self.sizes: list[int] = []
        """How many elements each place in `work` has."""

    def peeled(self, name: str, root: Expr) -> Expr:
        """What is reshaped to a result; it can be computed into a view of the result."""
        while root.op == "reshape":
            (root,) = root.args
            self.targets[name] = self.targets[name].seen("reshape", _shape(root))
        return root

    def grouped(self) -> dict[int, int]:
        """For every operation by elements, the id of the one into whose formula it goes; its own if it is stored."""
        group: dict[int, int] = {}
        apart = self.results | _too_long(self.order)
        for node in reversed(self.order):
            into = {group[id(reader)] if _takes_in(reader, node) else 0 for reader in self.readers[id(node)]}
            inside = _each_by_itself(node) and id(node) not in apart and len(into) == 1
            group[id(node)] = (into.pop() if inside else 0) or id(node)
        return group

    def program(self) -> Program:
        first: dict[int, str] = {}
        for name, root in self.roots.items():
            if name not in self.added:
                first.setdefault(id(root), name)
        for node in self.order:
            if self.group[id(node)] == id(node):
                self.store(node, first.get(id(node)))
        for name, root in self.roots.items():
            if first.get(id(root)) != name:
                self.deliver(name, root)
        return placed_in_work(self.kernels, self.sizes)

    # Where things are.

    def aside(self, node: Expr) -> Ref:
        """A place in `work` for an expression."""
        self.sizes.append(size(_shape(node)))
        return Ref(len(self.sizes) - 1, _shape(node))

    def emit(self, kernel: str, target: Ref, operands: Mapping[str, Ref], formula: str = "", **settings: Any) -> None:
        self.kernels.append(Kernel(kernel, target, operands, formula, settings))

    def store(self, node: Expr, result: str | None) -> None:
        """Computes an expression to where it can be read: the result of that name, or a place in `work`."""
        if node.op == "name":
            self.refs[id(node)] = self.named(node, result)
            return
        if result is None:
            if node.op in VIEWS and (view := self.view(node)):
                self.refs[id(node)] = view
                return
            if node.number is not None and all(OPS[reader.op].spelling for reader in self.readers[id(node)]):
                return  # it stands in formulas
            if self.goes_straight(node):
                return
        target = self.aside(node) if result is None else self.targets[result]
        self.compute(node, target)
        self.refs[id(node)] = target

    def named(self, node: Expr, result: str | None) -> Ref:
        ref = Ref(node.setting("name"), _shape(node))
        if result is not None:
            self.emit("map", self.targets[result], {"x": ref}, "x")
        return ref

    def view(self, node: Expr) -> Ref | None:
        """A view of what an expression is made of; None where its elements have to be copied first."""
        (x,) = node.args
        ref = self.refs[id(x)]
        how: Any = {"slice": node.setting("index"), "transpose": turning(len(_shape(x)), node.setting("axes"))}
        if node.op == "reshape" and any(kind != "reshape" for kind, _ in ref.views):
            return None
        return ref.seen(node.op, how[node.op] if node.op in how else _shape(node))

    def plain(self, node: Expr) -> Ref:
        """Where an expression lies in one piece; it is copied there if it is a view."""
        ref = self.refs[id(node)]
        if any(kind != "reshape" for kind, _ in ref.views):
            self.refs[id(node)] = self.aside(node)
            self.emit("copy", self.refs[id(node)], {"x": ref})
        return self.refs[id(node)]

    # How things are computed.

    def compute(self, node: Expr, target: Ref, add: bool = False) -> None:
        """Asks for the kernel of an operation."""
        if node.number is not None or OPS[node.op].spelling:
            operands, formula = self.formula(node)
            if add:
                *parts, last = formula.split("; ")
                operands, formula = {"total": target, **operands}, "; ".join([*parts, f"total + ({last})"])
            self.emit("map", target, operands, formula)
        elif node.op == "sum":
            self.sum(node, target, add)
        elif node.op == "matmul":
            a, b = node.args
            self.emit("matmul", target, {"a": self.refs[id(a)], "b": self.refs[id(b)]}, add=add)
        elif node.op in ("max", "min"):
            axes = axes_of(_shape(node.args[0]), node.setting("axis"))
            kept = tuple(1 if axis in axes else n for axis, n in enumerate(_shape(node.args[0])))
            self.emit(node.op, target.seen("reshape", kept), {"x": self.refs[id(node.args[0])]}, axes=axes)
        elif node.op in ("softmax", "log_softmax"):
            axis = last_or(node) % len(_shape(node))
            self.emit(node.op, target, {"x": self.plain(node.args[0])}, axis=axis)
        elif node.op == "place":
            self.emit("place", target, {"x": self.refs[id(node.args[0])]}, index=node.setting("index"))
        else:
            self.emit("copy", target, {"x": self.view(node) or self.refs[id(node.args[0])]})

    def sum(self, node: Expr, target: Ref, add: bool) -> None:
        """A sum over axes, of a formula where what is summed is not needed otherwise."""
        (x,) = node.args
        axes = axes_of(_shape(x), node.setting("axis"))
        operands, formula = self.formula(x) if self.group[id(x)] == id(node) else ({"x": self.refs[id(x)]}, "x")
        if broadcast("", *(ref.seen_shape for ref in operands.values())) != _shape(x):
            whole = self.aside(x)
            self.emit("map", whole, operands, formula)
            operands, formula = {"x": whole}, "x"
        lost = tuple(n for axis, n in enumerate(_shape(x)) if axis not in axes)
        self.emit("sum", target.seen("reshape", lost), operands, formula, axes=axes, add=add)

    def formula(self, root: Expr) -> tuple[dict[str, Ref], str]:
        """What the formula of an expression and of all that goes into it reads, and the formula."""
        operands: dict[str, Ref] = {}
        called: dict[int, str] = {}
        lines: list[str] = []

        def operand(node: Expr) -> str:
            while node.op == "expand":  # which the formula does anyway
                (node,) = node.args
            if node.number is not None:
                return number(node.number) if node.number >= 0 else f"({number(node.number)})"
            if id(node) not in called:
                called[id(node)] = f"x{len(operands)}"
                operands[called[id(node)]] = self.refs[id(node)]
            return called[id(node)]

        if root.number is not None:
            return {}, number(root.number)
        for node in in_order([root]):
            if self.group[id(node)] == self.group[id(root)] and node.args:
                text = _spelled(node, [operand(arg) for arg in node.args])
                lines.append(text if node is root else f"t{len(lines)} = {text}")
                called[id(node)] = f"t{len(lines) - 1}"
        return operands, "; ".join(lines)

    # Results.

    def goes_straight(self, node: Expr) -> bool:
        """Whether an expression is added to a single result, by a kernel that can, and not needed elsewhere."""
        adds = node.op == "sum" or (node.op == "matmul" and len(_shape(node)) == 2) or _each_by_itself(node)
        added = [name for name, root in self.roots.items() if root is node]
        return adds and len(added) == 1 and not self.readers[id(node)]

    def deliver(self, name: str, root: Expr) -> None:
        """Brings a result to an array that is added to, or to a second one."""
        target, there = self.targets[name], self.refs.get(id(root))
        if name not in self.added:
            self.emit("map", target, {"x": there} if there else {}, "x" if there else number(root.number or 0.0))
        elif there or root.number is not None:
            more = "x" if there else number(root.number or 0.0)
            self.emit("map", target, {"total": target, **({"x": there} if there else {})}, f"total + {more}")
        else:
            self.compute(root, target, add=True)


def _shape(node: Expr) -> Shape:
    return Maker.shape(node)


def _each_by_itself(node: Expr) -> bool:
    """Whether an expression is an operation by elements."""
    return bool(node.args and OPS[node.op].spelling)


def _too_long(order: Sequence[Expr]) -> set[int]:
    """The ids of what is stored lest a formula become too long.

    That follows from what goes into a formula, whoever reads it, so that a part of the results needs no other places
    than all of them do.
    """
    found: set[int] = set()
    inside: dict[int, frozenset[int]] = {}
    for node in order:
        taken = {id(arg): inside[id(arg)] for arg in node.args if _takes_in(node, arg) and id(arg) not in found}
        while len(frozenset().union(*taken.values())) >= MOST_TOGETHER:
            longest = max(taken, key=lambda arg: len(taken[arg]))
            found.add(longest)
            del taken[longest]
        inside[id(node)] = frozenset().union(*taken.values(), [id(node)]) if _each_by_itself(node) else frozenset()
    return found


def _takes_in(reader: Expr, node: Expr) -> bool:
    """Whether the formula of `node` may stand in that of a reader."""
    return reader.op == "sum" or (bool(OPS[reader.op].spelling) and reader.shape == node.shape)


def _spelled(node: Expr, operands: list[str]) -> str:
    """An operation as a formula of kernels writes it; `t3` is an operand in the same formula, `x3` one from memory."""
    true = [arg.op in COMPARISONS and text.startswith("t") for arg, text in zip(node.args, operands, strict=True)]
    spelling = OPS[node.op].spelling
    if node.op == "where" and not true[0]:
        spelling = "where(a == 0, c, b)"
    as_it_is = (node.op == "where", False, False) if node.op != "multiply" else [not all(true)] * 2
    given = [
        f"where({text}, 1, 0)" if is_true and not good else text
        for text, is_true, good in zip(operands, true, as_it_is, strict=False)
    ]
    return re.sub(r"\b[abc]\b", lambda found: given["abc".index(found[0])], spelling)
