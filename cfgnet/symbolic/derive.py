"""Derivatives of expressions, as expressions: from the result back to what it was made of, summed where paths meet."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from cfgnet.symbolic.expr import Expr, Maker, in_order, names
from cfgnet.symbolic.ops import OPS, sum_to
from cfgnet.symbolic.parse import parse


def gradients(maker: Maker, root: Expr, wrt: Sequence[Expr], dy: Expr) -> list[Expr | None]:
    """The gradient of `root` by each of `wrt`, of `dy`, its own; None where no gradient gets there."""
    reached = depending([root], wrt)
    found: dict[int, Expr] = {id(root): dy}
    for node in reversed(list(in_order([root]))):
        if not node.args or id(node) not in found or id(node) not in reached:
            continue
        for arg, share in zip(node.args, _shares(maker, node, found[id(node)], reached), strict=True):
            if share is not None:
                before = found.get(id(arg))
                found[id(arg)] = share if before is None else maker.make("add", before, share)
    return [found.get(id(each)) if id(each) in reached else None for each in wrt]


def depending(roots: Sequence[Expr], on: Sequence[Expr]) -> Collection[int]:
    """The ids of all expressions that depend on one of `on`, themselves included."""
    reached = {id(each) for each in on}
    for node in in_order(roots):
        if any(id(arg) in reached for arg in node.args):
            reached.add(id(node))
    return reached


def _shares(maker: Maker, node: Expr, dy: Expr, reached: Collection[int]) -> Sequence[Expr | None]:
    """What each operand of an operation gets of the gradient of its result."""
    op = OPS[node.op]
    if op.gradient:
        return op.gradient(maker, node, dy)
    given = {**dict(zip("abc", node.args, strict=False)), "y": node, "dy": dy}
    shares: list[Expr | None] = []
    for arg, slope in zip(node.args, op.slopes, strict=True):
        wanted = slope and id(arg) in reached
        shares.append(sum_to(maker, maker.typed(parse(slope), given), maker.shape(arg)) if wanted else None)
    return shares


def stepwise(root: Expr) -> set[str]:
    """The names by which an expression has no gradient, because it changes in steps only; shapes need not be known."""
    reached, smooth = {id(root)}, set[str]()
    for node in reversed(list(in_order([root]))):
        if id(node) in reached and node.args:
            slopes = OPS[node.op].slopes or node.args
            reached |= {id(arg) for arg, slope in zip(node.args, slopes, strict=True) if slope}
        elif id(node) in reached and node.op == "name":
            smooth.add(node.setting("name"))
    return {*names(root)} - smooth


def why_not(root: Expr, wrt: Expr) -> str:
    """Why no gradient of `root` gets to `wrt`: it does not depend on it, or only through these operations."""
    reached = depending([root], [wrt])
    if id(root) not in reached:
        return "it does not depend on it"
    cut = {
        node.op
        for node in in_order([root])
        for arg, slope in zip(node.args, OPS[node.op].slopes if node.args else (), strict=False)
        if not slope and id(arg) in reached
    }
    return "it depends on it only through what has no gradient: " + ", ".join(sorted(cut))
