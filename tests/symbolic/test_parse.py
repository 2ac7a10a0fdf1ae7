"""Formulas are read as Python reads them, written so that they read back the same, and refused in words."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfgnet.formula import FormulaError
from cfgnet.symbolic.expr import Expr, Maker, in_order, name, names
from cfgnet.symbolic.ops import value
from cfgnet.symbolic.parse import ALLOWED, FUNCTIONS, MAX_DEPTH, MAX_LENGTH, parse
from cfgnet.symbolic.write import write

from .graphs import said


@pytest.mark.parametrize(
    ("formula", "wanted"),
    [
        ("a + b * c", "a + b * c"),
        ("(a + b) * c", "(a + b) * c"),
        ("a - (b - c)", "a - (b - c)"),
        ("(a - b) - c", "a - b - c"),
        ("a / (b * c)", "a / (b * c)"),
        ("a ** b ** c", "a ** b ** c"),
        ("(a ** b) ** c", "(a ** b) ** c"),
        ("-a ** 2", "-a ** 2"),
        ("(-a) ** 2", "(-a) ** 2"),
        ("2 ** -a", "2 ** (-a)"),
        ("a @ b @ c", "a @ b @ c"),
        ("a @ (b @ c)", "a @ (b @ c)"),
        ("-2 * a", "-2 * a"),
        ("--a", "-(-a)"),
        ("- -2", "-(-2)"),
        ("-(2)", "-2"),
        ("+a", "a"),
        ("1e3 + 0.5 + 1_000 + 0x10 + 1e-7", "1000 + 0.5 + 1000 + 16 + 1e-07"),
        ("a < b", "a < b"),
        ("(a < b) < c", "(a < b) < c"),
        ("a < b <= c", "(a < b) * (b <= c)"),
        ("a == (b != c)", "a == (b != c)"),
        ("a if b else c", "where(b, a, c)"),
        ("max(a, b, 1)", "max(max(a, b), 1)"),
        ("max(a)", "max(a)"),
        ("min(a, axis=-1)", "min(a, axis=-1)"),
        ("sum(a, 0)", "sum(a, axis=0)"),
        ("sum(a, axis=[0, 2], keepdims=True)", "sum(a, axis=(0, 2), keepdims=True)"),
        ("sum(a, axis=None, keepdims=False)", "sum(a)"),
        ("reshape(a, 2, -1)", "reshape(a, 2, -1)"),
        ("reshape(a, (2, 3))", "reshape(a, 2, 3)"),
        ("reshape(a, shape=6)", "reshape(a, 6)"),
        ("reshape(a, ())", "reshape(a, ())"),
        ("transpose(a)", "a.T"),
        ("transpose(a, 1, 0)", "transpose(a, 1, 0)"),
        ("a.T.T", "a.T.T"),
        ("(a + b).T[0]", "(a + b).T[0]"),
        ("(2).T", "(2).T"),
        ("-a[0]", "-a[0]"),
        ("(-a)[0]", "(-a)[0]"),
        ("a[1:, ::-1, None, ..., -2]", "a[1:, ::-1, None, ..., -2]"),
        ("a[1:2:3]", "a[1:2:3]"),
        ("a[()]", "a[()]"),
        ("layer.w * 2", "layer.w * 2"),
        ("layer.w.T", "layer.w.T"),
        ("  a\n + b  ", "a + b"),
        ("größe * 2", "größe * 2"),
    ],
)
def test_a_formula_is_read_and_written(formula, wanted):
    assert write(parse(formula)) == wanted
    assert said(parse(wanted)) == said(parse(formula))


def test_names_are_in_the_order_in_which_they_are_written():
    assert names(parse("b * a + layer.w * b - T")) == ("b", "a", "layer.w", "T")


@pytest.mark.parametrize(
    ("formula", "column", "message", "hint"),
    [
        ("__import__('os').system('true')", 1, "is not allowed here", ALLOWED),
        ("__import__('os')", 1, "unknown function '__import__'", "known: exp"),
        ("open('net.yaml')", 1, "unknown function 'open'", "known: exp"),
        ("a.__class__.__mro__", 1, "'a.__class__.__mro__' is not allowed here", ALLOWED),
        ("(lambda: a)()", 1, "'(lambda: a)()' is not allowed here", ALLOWED),
        ("a * lambda: b", 5, "not an expression", ALLOWED),
        ("[a for a in b]", 1, "'[a for a in b]' is not allowed here", ALLOWED),
        ("a + 'text'", 5, "\"'text'\" is not allowed here", ALLOWED),
        ("a * True", 5, "'True' is not allowed here", ALLOWED),
        ("a * 2j", 5, "'2j' is not allowed here", ALLOWED),
        ("{a}", 1, "'{a}' is not allowed here", ALLOWED),
        ("a, b", 1, "'(a, b)' is not allowed here", ALLOWED),
        ("(a := b)", 2, "'(a := b)' is not allowed here", ALLOWED),
        ("2 * reluu(a)", 5, "unknown function 'reluu'", "did you mean 'relu'?"),
        ("größe * reluu(a)", 9, "unknown function 'reluu'", "did you mean 'relu'?"),
        ("np.exp(a)", 1, "'np.exp(a)' is not allowed here", "write exp(...)"),
        ("a.sum() + 1", 1, "'a.sum()' is not allowed here", "write sum(...)"),
        ("a and b", 1, "'a and b' is not allowed here", "a * b is both"),
        ("(a > 0) | (b > 0)", 1, "is not allowed here", "max(a, b) one of them"),
        ("not a", 1, "'not a' is not allowed here", "1 - a its opposite"),
        ("a // 2", 1, "'a // 2' is not allowed here", "trunc(a / b)"),
        ("a % 2", 1, "'a % 2' is not allowed here", "trunc(a / b)"),
        ("a is b", 1, "'a is b' is not allowed here", ALLOWED),
        ("", 1, "not an expression", ALLOWED),
        ("a +", 4, "not an expression", ALLOWED),
        ("a b", 3, "not an expression", ALLOWED),
        ("2 * (a + b", 5, "not an expression: '(' is never closed", ""),
        ("a * 1e999", 5, "expected a number that is not infinite", ""),
        ("-" + "9" * 400, 1, "expected a number that is not infinite", ""),
        ("exp(a, 2)", 1, "expected exp(a), got exp(a, 2)", ""),
        ("exp(x=a)", 1, "expected exp(a), got exp(x=a)", ""),
        ("where(a, b)", 1, "expected where(a, b, c), got where(a, b)", ""),
        ("sum(a, 0, 1)", 1, "expected sum(a, axis=..., keepdims=...), got sum(a, 0, 1)", ""),
        ("sum(a, axes=0)", 1, "expected sum(a, axis=..., keepdims=...), got sum(a, axes=0)", ""),
        ("sum(a, 0, axis=1)", 1, "expected sum(a, axis=..., keepdims=...), got sum(a, 0, axis=1)", ""),
        ("sum(a, axis=0, axis=1)", 1, "expected sum(a, axis=..., keepdims=...)", ""),
        ("sum(a, **b)", 1, "expected sum(a, axis=..., keepdims=...), got sum(a, **b)", ""),
        ("sum(a, axis=b)", 13, "expected a whole number, got 'b'", ""),
        ("sum(a, axis=True)", 13, "expected a whole number, got 'True'", ""),
        ("sum(a, axis=(0, (1, 2)))", 17, "expected a whole number, got '(1, 2)'", ""),
        ("sum(a, keepdims=1)", 17, "expected keepdims=True or False, got '1'", ""),
        ("max(a, b, axis=0)", 1, "expected max(a, axis=..., keepdims=...) or max(a, b, ...)", ""),
        ("max()", 1, "expected max(a, axis=..., keepdims=...) or max(a, b, ...), got max()", ""),
        ("softmax(a, axis=(0, 1))", 17, "expected a whole number, got '(0, 1)'", ""),
        ("reshape(a)", 1, "expected reshape(a, shape=...), got reshape(a)", ""),
        ("reshape(a, 2, shape=3)", 1, "expected reshape(a, shape=...), got reshape(a, 2, shape=3)", ""),
        ("reshape(a, (2,), 3)", 12, "expected a whole number, got '(2,)'", ""),
        ("a[b]", 3, "expected a whole number, got 'b'", ""),
        ("a[0.5]", 3, "expected a whole number, got '0.5'", ""),
        ("a[True]", 3, "expected a whole number, got 'True'", ""),
        ("a[::0]", 3, "the step of a slice is not 0", ""),
        ("(" * 500 + "a" + ")" * 500, 0, "nested too deep", ""),
        ("tanh(" * (MAX_DEPTH - 1) + "a" + ")" * (MAX_DEPTH - 1), 0, "nested too deep", ""),
        ("+".join("a" * 4000), 0, "nested too deep", ""),
        ("-" * 9000 + "a", 0, "nested too deep", ""),
        ("a" * (MAX_LENGTH + 1), 0, f"longer than {MAX_LENGTH:,} characters", ""),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else None,
)  # fmt: skip
def test_what_is_no_formula_is_refused(formula, column, message, hint):
    with pytest.raises(FormulaError) as caught:
        parse(formula)
    assert (caught.value.column, message in str(caught.value)) == (column, True), caught.value
    assert hint in caught.value.hint


def test_the_depth_that_is_allowed_is_parsed_and_computed():
    deep = "+".join("a" * (MAX_DEPTH - 50))
    maker = Maker()
    assert value(maker.typed(parse(deep), {"a": maker.leaf(name("a", ()))}), {"a": 2}) == 2 * (MAX_DEPTH - 50)


def test_a_mark_points_into_a_long_formula():
    formula = " + ".join(f"a{n}" for n in range(50)) + " + foo(b) + " + " + ".join(f"c{n}" for n in range(50))
    with pytest.raises(FormulaError) as caught:
        parse(formula)
    message, shown, mark = caught.value.pointing(formula).splitlines()
    assert message == f"formula, column {formula.index('foo') + 1}: unknown function 'foo'"
    assert shown[mark.index("^") :].startswith("foo(b) + c0")
    assert len(shown) < 120 and shown.strip().startswith("... ") and shown.endswith(" ...")


@given(st.text("ab.2[]():,+-*/@<=>= TNone'\"\\\n", max_size=30))
def test_any_text_is_a_formula_or_refused(text):
    try:
        found = parse(text)
    except FormulaError as error:
        assert 0 <= error.column <= len(text) + 2
    else:
        assert said(parse(write(found))) == said(found)


def test_every_function_is_read():
    for function in FUNCTIONS:
        arguments = {"where": "a, b, c", "reshape": "a, 6", "expand": "a, 6"}.get(function, "a")
        found = parse(f"{function}({arguments})")
        assert isinstance(found, Expr) and found.op == function


def test_numbers_read_back_to_the_same_bits():
    for number in np.random.default_rng(0).normal(size=200) * 10.0 ** np.arange(-100, 100):
        (found,) = {n.number for n in in_order([parse(write(parse(repr(float(number)))))]) if n.number is not None}
        assert found == number
