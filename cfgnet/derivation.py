"""The derivative of a tensor by another, as a formula: what the Expression layers on the way say, put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cfgnet.errors import CfgnetError
from cfgnet.explain import did_you_mean, listed
from cfgnet.graph import Graph, Node
from cfgnet.layer import Shape
from cfgnet.layers.expression import Expression
from cfgnet.symbolic.derive import gradients, why_not
from cfgnet.symbolic.expr import Expr, Maker, in_order, name
from cfgnet.symbolic.parse import parse
from cfgnet.symbolic.simplify import RULES
from cfgnet.symbolic.write import write


@dataclass(frozen=True)
class Derivation:
    """A derivative as a formula over the names of tensors and parameters."""

    of: str
    wrt: str
    plain: str
    """As the rules of the single operations give it."""
    simple: str
    """Made simpler, as it is computed."""


def derive(graph: Graph, shapes: Mapping[str, Shape], of: str, wrt: Sequence[str]) -> list[Derivation]:
    """The derivatives of a tensor by several, or by parameters such as `layer.name`.

    A tensor in `shapes` has that shape; another that goes in is taken for a number. Raises CfgnetError where there is
    no derivative, or where a layer lies between that is not an Expression, whose gradient is no formula.
    """
    found = []
    for each in wrt:
        sides = [_derivative(Maker(rules), graph, shapes, of, each) for rules in ({}, RULES)]
        found.append(Derivation(of, each, *sides))
    return found


def _derivative(maker: Maker, graph: Graph, shapes: Mapping[str, Shape], of: str, wrt: str) -> str:
    leaves: dict[str, Expr] = {}
    root = _whole(maker, graph, shapes, of, wrt, leaves)
    if wrt not in leaves:
        raise CfgnetError(f"{of} does not depend on {wrt!r}; it depends on: {', '.join(leaves) or 'nothing'}")
    (gradient,) = gradients(maker, root, [leaves[wrt]], maker.const(1, root.shape or ()))
    if gradient is None:
        raise CfgnetError(f"{of} has no gradient by {wrt!r}: {why_not(root, leaves[wrt])}")
    return write(gradient)


def formula_of(graph: Graph, shapes: Mapping[str, Shape], of: str) -> str:
    """What a tensor is, as a formula over what goes into the Expression layers that it comes from."""
    return write(_whole(Maker(), graph, shapes, of, of, {}))


def _whole(maker: Maker, graph: Graph, shapes: Mapping[str, Shape], of: str, wrt: str, leaves: dict[str, Expr]) -> Expr:
    """A tensor as an expression over `leaves`: tensors that no Expression makes, parameters, and `wrt`."""
    order = [node for node in graph.nodes if isinstance(node.layer, Expression)]
    made: dict[str, Expr] = {}

    def leaf(key: str, shape: Shape) -> Expr:
        return leaves.setdefault(key, maker.leaf(name(key, shape)))

    def tensor(key: str) -> Expr:
        return made[key] if key in made and key != wrt else leaf(key, shapes.get(key, ()))

    for node in order:
        layer = node.layer
        assert isinstance(layer, Expression)
        given = {known: tensor(key) for known, key in zip(layer.mentioned(), node.reads(), strict=True)}
        given |= {key: leaf(f"{node.name}.{key}", start.shape) for key, start in layer.params.items()}
        made[node.writes()[0]] = maker.typed(parse(layer.formula), given)
    if of not in made:
        if of not in graph.producer and of not in graph.inputs:
            known = [*made, *graph.inputs]
            raise CfgnetError(f"there is no tensor {of!r}\n  {did_you_mean(of, known, listed('there are', known))}")
        kind = graph.producer[of].layer.type_name if of in graph.producer else "an input"
        raise CfgnetError(
            f"{of!r} is no formula: it is {kind}; `cfgnet run --grad` computes gradients through any layer"
        )
    used = {id(node) for node in in_order([made[of]])}
    for key in [key for key, node in leaves.items() if id(node) not in used]:
        del leaves[key]
    _refuse_detours(graph, of, wrt, leaves)
    return made[of]


def _refuse_detours(graph: Graph, of: str, wrt: str, leaves: Mapping[str, Expr]) -> None:
    """Raises CfgnetError where a layer that is no Expression lies between."""
    for key in leaves:
        between = _depends(graph, key, wrt) if key != wrt else None
        if between:
            through = f"{between.name} ({between.layer.type_name})"
            raise CfgnetError(
                f"{of} depends on {wrt!r} also through {through}, whose gradient is no formula; "
                f"`cfgnet run --grad {wrt}` computes it"
            )


def _depends(graph: Graph, tensor: str, wrt: str) -> Node | None:
    """The layer that makes a tensor, if that depends on `wrt`."""
    reached = {wrt}
    for node in graph.nodes:
        if reached & set(node.reads()) or wrt.rpartition(".")[0] == node.name:
            reached |= set(node.writes())
    return graph.producer.get(tensor) if tensor in reached else None
