"""The imperative way: within `cn.eager()` every operation is computed as it is written.

    with cn.eager():
        x = cn.variable("x", value=[1.0, 2.0])
        y = x * x
        print(y)              # [1. 4.]
        y.sum().backward()
        print(x.grad)         # [2. 4.]

What was computed is remembered as symbols, so that `backward` computes the gradients by the same plan as a compiled
function: bit for bit the same.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from cfgnet.backend import Backend, get_backend
from cfgnet.backend.kernels import Immediate
from cfgnet.errors import CfgnetError
from cfgnet.layer import Kind, Layer
from cfgnet.rules import Phase
from cfgnet.symbolic.expr import Expr, Maker, name
from cfgnet.symbolic.lower import lower
from cfgnet.symbols.function import compile
from cfgnet.symbols.origin import Applied, Gradient, Output, Shared, Variable, leaf, origins
from cfgnet.symbols.symbol import SESSION, Operand, Symbol, operation

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


class Session:
    """What a program within `cn.eager()` computes with."""

    def __init__(self, backend: Backend, settings: dict[str, Any]):
        self.backend, self.settings = backend, settings
        self._counts = Counter[str]()
        self._values: dict[Variable, Array] = {}

    def variable(self, origin: Variable, value: Any) -> Array:
        """The value of a variable, which is remembered for the way back."""
        self._values[origin] = self.array(value, origin.kind)
        return self._values[origin]

    def value_of(self, origin: Variable) -> Array:
        """The value that a variable was given."""
        return self._values[origin]

    def array(self, value: Any, kind: Kind = "float") -> Array:
        """A value as an array of the session."""
        import numpy as np

        return np.array(value, self.settings["dtype"] if kind == "float" else "int32")

    def name(self, kind: type[Layer]) -> str:
        """A name for the next layer of a type; by it its parameters start, as those of a compiled one do."""
        self._counts[kind.type_name] += 1
        return f"{kind.type_name.lower()}{self._counts[kind.type_name]}"

    def computed(self, made: Expr, operands: Sequence[Symbol]) -> Symbol:
        """The result of one operation, with its value."""
        xp, dtype = self.backend.xp, self.settings["dtype"]
        maker = Maker()
        values = [self.value(each) for each in operands]
        given = [maker.leaf(name(f"x{place}", value.shape)) for place, value in enumerate(values)]
        root = maker.make(made.op, *given, **dict(made.settings))
        program = lower({"y": root})
        arrays = {f"x{place}": xp.asarray(value) for place, value in enumerate(values)}
        arrays["y"] = xp.empty(root.shape, dtype)
        work = xp.empty(program.room, dtype)
        program.record(Immediate(self.backend.k), arrays, work, lambda flat, shape: flat.reshape(shape))
        return Symbol(made, self.backend.to_host(arrays["y"]))

    def applied(self, made: Applied) -> Any:
        """The outputs of a layer, with their values."""
        values = [self.value(each) for each in made.inputs]
        kinds: list[Kind] = ["int" if value.dtype.kind == "i" else "float" for value in values]
        fed = [Symbol(leaf(Variable(f"input{place}", kind=kind))) for place, kind in enumerate(kinds)]
        alone = Applied(made.layer, tuple(fed))
        count = len(made.layer.outputs or ("",))
        function = compile([Symbol(leaf(Output(alone, n))) for n in range(count)], **self.settings)
        found = function(**{f"input{place}": value for place, value in enumerate(values)})
        symbols = tuple(Symbol(leaf(Output(made, n)), value) for n, value in enumerate(found))
        return symbols[0] if count == 1 else symbols

    @staticmethod
    def value(of: Symbol) -> Array:
        """The value of a symbol; CfgnetError for one that was made outside of `cn.eager()`."""
        if of.value is None:
            raise CfgnetError(f"{of} has no value: it was made outside of cn.eager()")
        return of.value


@contextlib.contextmanager
def eager(*, dtype: str = "float32", backend: str = "auto", phase: Phase = "train", seed: int = 1) -> Iterator[None]:
    """Within it, every operation on symbols is computed as it is written, and symbols have a `value`."""
    settings = {"dtype": dtype, "backend": backend, "phase": phase, "seed": seed, "name": "net"}
    token = SESSION.set(Session(get_backend(backend, dtype=dtype), settings))
    try:
        yield
    finally:
        SESSION.reset(token)


def backward(of: Symbol, gradient: Operand = 1.0) -> None:
    """Sets `grad` of the variables and parameters that `of` was computed from; `gradient` is that of `of` itself."""
    now = SESSION.get()
    if now is None:
        raise CfgnetError("backward works within cn.eager(); elsewhere use cn.grad")
    if not isinstance(gradient, float | int) or gradient != 1:
        of = operation("sum", of * gradient)
    made = [each for each in origins([of.expr]) if isinstance(each, Variable | Shared)]
    wanted = [each for each in made if not isinstance(each, Variable) or each.kind == "float"]
    values = {each.name: now.value_of(each) for each in made if isinstance(each, Variable)}
    function = compile([Symbol(leaf(Gradient(of, Symbol(leaf(each))))) for each in wanted], **now.settings)
    for each, found in zip(wanted, function(**values), strict=True):
        each.grad = found
