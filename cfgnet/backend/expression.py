"""Expressions: elementwise formulas as short programs, which every tier of the kernels runs in its own way.

`compiled("dy * (1 - y * y)")` is a list of instructions; each applies one function to arrays, numbers, or results of
earlier instructions. Equal parts of a formula are computed once. In front of a formula may stand names for parts of it,
as in "t = exp(-x); t / (1 + t)".
"""

from __future__ import annotations

import ast
import functools
from dataclasses import dataclass
from functools import partial

from cfgnet.errors import ContractError

Operand = str | float | int
"""The name of an array or number that is handed over, a number in the formula, or the place of an earlier result."""

_BINARY: dict[type[ast.AST], str] = {
    ast.Add: "add",
    ast.Sub: "subtract",
    ast.Mult: "multiply",
    ast.Div: "divide",
    ast.Pow: "power",
    ast.Gt: "greater",
    ast.GtE: "greater_equal",
    ast.Lt: "less",
    ast.LtE: "less_equal",
    ast.Eq: "equal",
}
FUNCTIONS = {
    "max": ("maximum", 2),
    "min": ("minimum", 2),
    "where": ("where", 3),
    "sigmoid": ("sigmoid", 1),
    "abs": ("absolute", 1),
    **{name: (name, 1) for name in ("exp", "expm1", "log", "log1p", "sqrt", "tanh", "erf", "sign", "trunc")},
}
"""What a formula may call: the name in it, the instruction, and how many arguments it takes."""
MOST_FACTORS = 16
"""Up to which whole number in a formula a power is a product, which is off by half as many units in the last place."""


@dataclass(frozen=True)
class Instruction:
    """One function of one to three operands; the result is known by the instruction's place in the program."""

    function: str
    operands: tuple[Operand, ...]
    """An int is the place of an earlier instruction; a number is always a float."""


@dataclass(frozen=True)
class Program:
    """A formula as instructions, the last of which gives its value."""

    formula: str
    instructions: tuple[Instruction, ...]
    names: tuple[str, ...]
    """The arrays and numbers that it asks for."""

    @functools.cached_property
    def last_uses(self) -> dict[Operand, int]:
        """The last instruction that reads each name, and each result by its place in the program."""
        return {o: n for n, i in enumerate(self.instructions) for o in i.operands if not isinstance(o, float)}

    @functools.cached_property
    def places(self) -> tuple[int, ...]:
        """The temporary array that each instruction but the last writes; one is used again once it is read out."""
        free, count, places = list[int](), 0, list[int]()
        for number, instruction in enumerate(self.instructions[:-1]):
            if not free:
                free, count = [count], count + 1
            places.append(free.pop())
            free += [places[o] for o in {*instruction.operands} if isinstance(o, int) and self.last_uses[o] == number]
        return tuple(places)


@functools.cache
def compiled(formula: str) -> Program:
    """The program of `formula`; ContractError where it is not one, because formulas stand in code."""
    try:
        *parts, last = ast.parse(formula.strip()).body
    except SyntaxError as error:
        raise ContractError(f"not a formula: {formula!r} ({error.msg})") from None
    compiler = _Compiler(formula)
    for part in parts:
        compiler.name(part)
    if not isinstance(last, ast.Expr):
        raise ContractError(f"{ast.unparse(last)!r} has no value in the formula {formula!r}")
    result = compiler.operand(last.value)
    if not isinstance(result, int):
        result = compiler.emit("copy", result)
    names = dict.fromkeys(o for i in compiler.program for o in i.operands if isinstance(o, str))
    return Program(formula, tuple(compiler.program), tuple(names))


class _Compiler:
    def __init__(self, formula: str):
        self.formula = formula
        self.program: list[Instruction] = []
        self.places: dict[tuple[Instruction, tuple[type, ...]], int] = {}
        """The place of every instruction, so that an equal one is found again; the number 2.0 is not the place 2."""
        self.parts: dict[str, Operand] = {}
        """The parts of the formula that have names."""

    def name(self, part: ast.stmt) -> None:
        """Gives a part of the formula its name."""
        match part:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                self.parts[name] = self.operand(value)
            case _:
                raise ContractError(f"{ast.unparse(part)!r} cannot stand in the formula {self.formula!r}")

    def emit(self, function: str, *operands: Operand) -> int:
        made = Instruction(function, operands)
        place = self.places.setdefault((made, tuple(map(type, operands))), len(self.program))
        if place == len(self.program):
            self.program.append(made)
        return place

    def power(self, base: Operand, exponent: Operand) -> Operand:
        """base ** exponent; by something faster than a power where the exponent is a number in the formula."""
        if exponent == 0.5:
            return self.emit("sqrt", base)
        if not isinstance(exponent, float) or not exponent.is_integer() or not 0 < abs(exponent) <= MOST_FACTORS:
            return self.emit("power", base, exponent)
        square = base if exponent > 0 else self.emit("divide", 1.0, base)
        factors, left = list[Operand](), int(abs(exponent))
        while left:
            if left % 2:
                factors.append(square)
            left //= 2
            if left:
                square = self.emit("multiply", square, square)
        return functools.reduce(partial(self.emit, "multiply"), factors)

    def operand(self, node: ast.expr) -> Operand:
        match node:
            case ast.Constant(value=int() | float() as number):
                return float(number)
            case ast.Name(id=name):
                return self.parts.get(name, name)
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
                return -float(number)
            case ast.UnaryOp(op=ast.USub(), operand=inner):
                return self.emit("negative", self.operand(inner))
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
                if isinstance(op, ast.Pow):
                    return self.power(self.operand(left), self.operand(right))
                return self.emit(_BINARY[type(op)], self.operand(left), self.operand(right))
            case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _BINARY:
                return self.emit(_BINARY[type(op)], self.operand(left), self.operand(right))
            case ast.Call(func=ast.Name(id=name), args=given, keywords=[]) if name in FUNCTIONS:
                function, count = FUNCTIONS[name]
                if len(given) == count:
                    return self.emit(function, *map(self.operand, given))
        raise ContractError(f"{ast.unparse(node)!r} cannot stand in the formula {self.formula!r}")
