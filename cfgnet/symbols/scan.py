"""Loops of symbols: a function of one step becomes the body of a Scan layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from cfgnet.errors import CfgnetError
from cfgnet.layers.scan import Scan
from cfgnet.symbolic.expr import Expr
from cfgnet.symbols.origin import Applied, Origin, Output, Variable, leaf, leaves, origins, sources
from cfgnet.symbols.symbol import SESSION, Operand, Symbol, symbol
from cfgnet.symbols.writing import write_layers


def scan(
    step: Callable[..., Symbol | Sequence[Symbol]],
    sequences: Symbol | Sequence[Symbol] = (),
    state: Operand | Sequence[Operand] = (),
    non_sequences: Symbol | Sequence[Symbol] = (),
    *,
    steps: int | None = None,
    reverse: bool = False,
    truncate: int | None = None,
    keep: Literal["all", "last"] = "all",
    name: str = "",
) -> Any:
    """Runs `step` once for each step of the sequences, or `steps` times, with states that go from step to step.

    `step` is called once, with a step of each of `sequences`, the states as the step before left them, and
    `non_sequences`, and returns the next states, and after them what else should come out. What comes out is a symbol,
    or a tuple of them: the states after each step, steps x ..., or the last with keep="last", then the others. Other
    symbols that `step` uses are the same at each step. `cfgnet layers Scan` says the rest. CfgnetError in `cn.eager()`,
    where a loop is an ordinary one.
    """
    if SESSION.get():
        raise CfgnetError("in cn.eager() a loop is written as a loop of Python")
    given = [_listed(sequences), _listed(state), _listed(non_sequences)]
    inner = [
        [Variable(f"{kind}{place}") for place in range(len(group))] for kind, group in zip("xsc", given, strict=True)
    ]
    made = _listed(step(*(Symbol(leaf(origin)) for group in inner for origin in group)))
    if len(made) < len(given[1]) or not made:
        raise CfgnetError(f"the step returns {len(made)} symbols, and there are {len(given[1])} states")
    results = [symbol(each).named(f"next{place}") for place, each in enumerate(made)]
    outer = _outer([each.expr for each in results], [origin for group in inner for origin in group])
    written = write_layers([each.expr for each in results], {id(o): f"o{place}" for place, o in enumerate(outer)})
    states = {origin.name: each for origin, each in zip(inner[1], given[1], strict=True)}
    tensors = {key: each for key, each in states.items() if not isinstance(each, int | float)}
    constants = [*(origin.name for origin in inner[2]), *(f"o{place}" for place in range(len(outer)))]
    said: dict[str, Any] = {
        "name": name,
        "sequences": {origin.name: origin.name for origin in inner[0]},
        "state": {key: key if key in tensors else each for key, each in states.items()},
        "non_sequences": {key: key for key in constants},
        "body": written.layers,
        "update": {key: f"next{place}" for place, key in enumerate(states)},
        "collect": tuple(f"next{place}" for place in range(len(states), len(results))),
        "steps": steps,
        "reverse": reverse,
        "truncate": truncate,
        "keep": keep,
    }
    fields = Scan.model_fields
    layer = Scan.model_validate(
        {key: each for key, each in said.items() if key == "body" or each != fields[key].default}
    )
    inputs = [*given[0], *tensors.values(), *given[2], *(Symbol(leaf(origin)) for origin in outer)]
    applied = Applied(layer, tuple(map(symbol, inputs)))
    outputs = tuple(Symbol(leaf(Output(applied, number))) for number in range(len(results)))
    return outputs[0] if len(outputs) == 1 else outputs


def _listed(given: Any) -> list[Any]:
    return list(given) if isinstance(given, list | tuple) else [given]


def _outer(roots: Sequence[Expr], inner: Sequence[Origin]) -> list[Origin]:
    """What the body reads and does not depend on the step."""
    inside = {id(origin) for origin in inner}
    made = origins(roots)
    for origin in made:
        if any(id(each) in inside for each in leaves(sources(origin))):
            inside.add(id(origin))
    read = leaves([*roots, *(expr for origin in made if id(origin) in inside for expr in sources(origin))])
    return [origin for origin in read if id(origin) not in inside]
