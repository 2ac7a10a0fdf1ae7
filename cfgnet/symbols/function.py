"""Functions that compute symbols, and gradients of symbols."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cfgnet import yamlio
from cfgnet.compute import Computation, Wanted, input_types, shaped_graph
from cfgnet.errors import CfgnetError, DataError
from cfgnet.explain import did_you_mean, listed
from cfgnet.rules import Phase
from cfgnet.spec import Spec
from cfgnet.symbolic.derive import gradients, why_not
from cfgnet.symbolic.expr import Expr, Maker, in_order
from cfgnet.symbolic.simplify import RULES
from cfgnet.symbols.origin import Fixed, Gradient, Named, Shared, Variable, leaf, origins, sources
from cfgnet.symbols.symbol import Operand, Symbol, operation, symbol
from cfgnet.symbols.writing import Written, write_layers

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


@dataclass
class Stage:
    """One configuration with what it computes: values, and gradients of one tensor."""

    spec: Spec
    written: Written
    fetch: dict[Any, str]
    """The tensors that are wanted, each under a key of its own."""
    of: str = ""
    wrt: dict[str, str] | None = None
    """What the gradients are called where they are used, with the tensors that they are by."""


class Function:
    """Computes tensors from arrays by the names of variables: `f(A=..., B=...)`.

    The result is an array, or a list where several symbols were compiled. Each combination of shapes is planned when it
    first comes. Then `updates` are computed as well, and give parameters new values.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        outputs: Sequence[Any],
        updates: Sequence[tuple[Shared, Any]] = (),
        *,
        single: bool = False,
        phase: Phase = "test",
    ):
        self.stages, self._outputs, self._updates = stages, outputs, updates
        self._single, self._phase = single, phase
        names = dict.fromkeys(name for stage in self.stages for name in stage.spec.inputs)
        self.variables = [name for name in names if not name.startswith(_GRADIENT)]
        """The names of the variables that are fed."""
        self._computations: dict[Any, Computation] = {}

    @property
    def spec(self) -> Spec:
        """The configuration that computes the same; CfgnetError where none can say it."""
        if len(self.stages) > 1 or self._updates or self.stages[0].wrt:
            raise CfgnetError(
                "a configuration does not hold gradients through layers, nor updates: a training computes them; where "
                "all variables have shapes, cn.grad gives formulas, which it does hold"
            )
        if large := self.stages[0].written.too_large:
            raise CfgnetError(f"the values of {large[0]} are too many for a configuration")
        return self.stages[0].spec

    def to_yaml(self) -> str:
        """The configuration as text, without what it leaves at the defaults; `cfgnet.loads` reads it back as `spec`."""
        spec, written = self.spec, self.stages[0].written
        if not written.inputs and not written.layers:
            return spec.to_yaml()
        fields = {key: field for key, field in Spec.model_fields.items() if key not in ("inputs", "layers")}
        said = {key: value for key, field in fields.items() if (value := getattr(spec, key)) != field.default}
        return yamlio.dump(written.configuration(**said))

    def __call__(self, **feeds: Any) -> Any:
        """The values; DataError where what is fed does not fit, SpecError where shapes do not meet."""
        import numpy as np

        arrays = {name: np.asarray(value) for name, value in feeds.items()}
        for name in arrays:
            if name not in self.variables:
                hint = did_you_mean(name, self.variables, listed("there are", self.variables))
                raise DataError(f"there is no variable {name!r}; {hint}")
        for name in self.variables:
            if name not in arrays:
                raise DataError(f"no value is given for the variable {name!r}")
        found: dict[Any, Array] = {}
        for number, stage in enumerate(self.stages):
            computation = self._computation(number, stage, arrays)
            values = computation(arrays)
            found |= {key: values[name] for key, name in stage.fetch.items()}
            if stage.wrt:
                gradients_ = computation.gradients()
                arrays |= {name: gradients_[tensor] for name, tensor in stage.wrt.items()}
        for target, new in self._updates:
            target.value = np.broadcast_to(found[new], target.value.shape).astype(float)
        results = [found[key] for key in self._outputs]
        return results[0] if self._single else results

    def _computation(self, number: int, stage: Stage, arrays: Mapping[str, Array]) -> Computation:
        """What computes a stage from arrays of these shapes, with the values that parameters have now."""
        given = {name: arrays[name] for name in stage.spec.inputs}
        key = (number, *((name, array.shape) for name, array in given.items()))
        if key not in self._computations:
            types = input_types(stage.spec, given, None)
            wanted = Wanted(
                tuple(stage.fetch.values()), tuple((stage.wrt or {}).values()), (stage.of,) * bool(stage.of)
            )
            self._computations[key] = Computation(stage.spec, types, wanted, phase=self._phase)
        computation = self._computations[key]
        for name, origin in stage.written.values.items():
            if name in computation.net.params:
                value = computation.net.params[name].value
                value[...] = computation.backend.xp.asarray(origin.value, value.dtype)
        return computation


_GRADIENT = "gradient of "


def compile(
    outputs: Symbol | Sequence[Symbol] | Spec,
    updates: Mapping[Symbol, Operand] | None = None,
    *,
    dtype: str | None = None,
    backend: str = "auto",
    phase: Phase = "test",
    seed: int = 1,
    name: str = "net",
) -> Function:
    """A function that computes symbols, or the results of a configuration with `inputs`.

    `updates` are the next values of parameters, by parameter. `dtype` is float32, but float64 where a variable asks for
    that. Raises CfgnetError where two tensors have one name, and
    SpecError where a layer is set up wrongly.
    """
    if isinstance(outputs, Spec):
        return _of_spec(outputs, phase)
    given = [outputs] if isinstance(outputs, Symbol) else list(outputs)
    changed = [(_parameter(target), symbol(new)) for target, new in (updates or {}).items()]
    made = origins([each.expr for each in (*given, *(new for _, new in changed))])
    precise = any(isinstance(origin, Variable) and origin.precise for origin in made)
    chosen = dtype or ("float64" if precise else "float32")
    settings = {"dtype": chosen, "backend": backend, "seed": seed, "name": name}
    stages = _stages([*given, *(new for _, new in changed)], settings)
    new_values = [(target, id(new.expr)) for target, new in changed]
    keys = [id(each.expr) for each in given]
    return Function(stages, keys, new_values, single=isinstance(outputs, Symbol), phase=phase)


def _of_spec(spec: Spec, phase: Phase) -> Function:
    """A function of what a configuration is fed."""
    graph, _ = shaped_graph(spec, phase)
    results = [*graph.results]
    stage = Stage(spec, Written(), {name: name for name in results})
    return Function([stage], results, single=len(results) == 1, phase=phase)


def _stages(wanted: Sequence[Symbol], settings: Mapping[str, Any]) -> list[Stage]:
    """First what no gradient goes into, with the gradients of one tensor, then those of others, then the rest."""
    asked = [origin for origin in origins([each.expr for each in wanted]) if isinstance(origin, Gradient)]
    by_tensor: dict[int, list[Gradient]] = {}
    for origin in asked:
        by_tensor.setdefault(id(origin.of.expr), []).append(origin)
    called = {id(origin): f"{_GRADIENT}{number}" for number, origin in enumerate(asked)}
    plain = [each.expr for each in wanted if not any(isinstance(o, Gradient) for o in origins([each.expr]))]
    stages = list[Stage]()
    for group in by_tensor.values():
        of = group[0].of.expr
        written = write_layers([*plain, of, *(origin.wrt.expr for origin in group)])
        wrt = {called[id(origin)]: written.tensor(origin.wrt.expr) for origin in group}
        fetch = {id(expr): written.tensor(expr) for expr in plain or [of]}
        spec = Spec.model_validate(written.configuration(**settings))
        stages.append(Stage(spec, written, fetch, written.tensor(of), wrt))
        plain = []
    rest = [each.expr for each in wanted if not any(id(each.expr) in stage.fetch for stage in stages)]
    if rest:
        written = write_layers(rest, called)
        spec = Spec.model_validate(written.configuration(**settings))
        stages.append(Stage(spec, written, {id(expr): written.tensor(expr) for expr in rest}))
    return stages


def _parameter(target: Symbol) -> Shared:
    if not isinstance(target.origin, Shared):
        raise CfgnetError(f"only what cn.shared made can be updated, not {target}")
    return target.origin


# Gradients.


def grad(of: Symbol, wrt: Symbol | Sequence[Symbol], output: Operand | None = None) -> Any:
    """The gradient of the sum of a tensor by another, or a list by several; `output` is the gradient of `of` itself.

    Where `of` is a formula, and the shapes of all that it is made of are known, the gradient is a formula as well, of
    which there are gradients again. Otherwise it is found by going back through the layers. CfgnetError where `of` does
    not depend on it, or has no gradient by it.
    """
    several = not isinstance(wrt, Symbol)
    by = list(wrt) if not isinstance(wrt, Symbol) else [wrt]
    if output is not None:
        of = operation("sum", of * output)
    found = _formulas(of, by) or [_through(of, each) for each in by]
    return found if several else found[0]


def _through(of: Symbol, wrt: Symbol) -> Symbol:
    made = origins([of.expr])
    inside = {id(node) for node in in_order([of.expr, *(e for o in made for e in sources(o))])}
    if wrt.origin not in made and id(wrt.expr) not in inside:
        raise CfgnetError(f"{of} does not depend on {wrt}")
    return Symbol(leaf(Gradient(of, wrt)))


def _formulas(of: Symbol, wrt: Sequence[Symbol]) -> list[Symbol] | None:
    """The gradients as formulas; None where shapes are not known, or a layer lies between."""
    maker, given = Maker(RULES), dict[Any, Expr]()
    chosen = {id(each.origin): each for each in wrt if each.origin}
    if len(chosen) < len(wrt):
        return None
    for origin in origins([of.expr], set(chosen)):
        shape = getattr(origin, "shape", None)
        if isinstance(origin, Fixed):
            shape = tuple(origin.value.shape)
        if isinstance(origin, Variable | Shared | Fixed) and shape is not None:
            given[origin] = maker.leaf(leaf(origin, shape))
        elif isinstance(origin, Named) and id(origin) not in chosen:
            given[origin] = maker.typed(origin.formula, given)
        else:
            return None
    root = maker.typed(of.expr, given)
    targets = [given.get(each.origin) for each in wrt]
    for each, target in zip(wrt, targets, strict=True):
        if target is None:
            raise CfgnetError(f"{of} does not depend on {each}")
    leaves_ = [target for target in targets if target is not None]
    found = gradients(maker, root, leaves_, maker.const(1, root.shape or ()))
    for each, target, gradient in zip(wrt, leaves_, found, strict=True):
        if gradient is None:
            raise CfgnetError(f"{of} has no gradient by {each}: {why_not(root, target)}")
    return [Symbol(gradient) for gradient in found if gradient is not None]
