"""`cfgnet grad`: derivatives as formulas, and what is said of those that are none."""

import pytest

NET = """
inputs: {A: null, B: null, x: {shape: [2, 3]}, label: {shape: [2], kind: int}}
layers:
  - {type: Expression, name: D, formula: "B * A + 1"}
  - {type: Expression, name: h, formula: "tanh(x * w)", params: {w: 0.5}}
  - {type: ReLU, name: r}
  - {type: Expression, name: y, formula: "r * h + h ** 2"}
  - {type: Expression, name: steps, formula: "h > 0"}
  - {type: Expression, name: total, formula: "sum(h, axis=1)"}
  - {type: Expression, name: two, formula: "s[:, None] * h", inputs: [total, h]}
"""


@pytest.fixture(autouse=True)
def _files(shell, tmp_path):
    (tmp_path / "net.yaml").write_text(NET, encoding="utf-8")


def test_a_derivative_is_printed_as_the_rules_give_it_and_made_simpler(shell):
    said = shell("grad", "net.yaml", "--of", "D", "--wrt", "A,B")
    assert said.code == 0
    assert said.out == "D = B * A + 1\n\nd D / d A\n  = 1 * B\n  = B\n\nd D / d B\n  = 1 * A\n  = A\n"


@pytest.mark.parametrize(
    ("of", "by", "formula", "plain", "simple"),
    [
        ("h", "h.w", "tanh(x * h.w)", None, "sum((1 - tanh(x * h.w) * tanh(x * h.w)) * x, axis=(0, 1))"),
        ("h", "x", "tanh(x * h.w)", None, "(1 - tanh(x * h.w) * tanh(x * h.w)) * h.w"),
        ("y", "r", "r * tanh(x * h.w) + tanh(x * h.w) ** 2", "expand(1, 2, 3) * tanh(x * h.w)", "tanh(x * h.w)"),
        ("total", "h", "sum(tanh(x * h.w), axis=1)", "expand(reshape(expand(1, 2), 2, 1), 2, 3)", "expand(1, 2, 3)"),
        ("two", "total", "sum(tanh(x * h.w), axis=1)[:, None] * tanh(x * h.w)", None, None),
    ],
)
def test_a_derivative_over_the_layers_between(of, by, formula, plain, simple, shell):
    found = shell("grad", "net.yaml", "--of", of, "--wrt", by, "--json").json
    assert found["formula"] == formula
    (row,) = found["gradients"]
    assert (row["of"], row["wrt"]) == (of, by)
    assert plain in (None, row["plain"]) and simple in (None, row["simple"])


@pytest.mark.parametrize(
    ("of", "by", "message"),
    [
        ("D", "C", "D does not depend on 'C'; it depends on: B, A\n"),
        ("E", "A", "there is no tensor 'E'\n  there are: D, "),
        ("A", "B", "'A' is no formula: it is an input; `cfgnet run --grad` computes gradients through any layer\n"),
        ("r", "x", "'r' is no formula: it is ReLU; `cfgnet run --grad` computes gradients through any layer\n"),
        ("y", "x", "y depends on 'x' also through r (ReLU), whose gradient is no formula; `cfgnet run --grad x`"),
        ("y", "h.w", "y depends on 'h.w' also through r (ReLU), whose gradient is no formula"),
        ("steps", "x", "steps has no gradient by 'x': it depends on it only through what has no gradient: greater\n"),
        ("h", "h.v", "h does not depend on 'h.v'; it depends on: x, h.w\n"),
    ],
)  # fmt: skip
def test_what_is_no_formula_is_said(of, by, message, shell):
    said = shell("grad", "net.yaml", "--of", of, "--wrt", by)
    assert (said.code, said.out) == (2, "")
    assert message in said.err


def test_a_derivative_that_is_too_long_to_be_written(shell, tmp_path):
    chain = "".join(f"  - {{type: Expression, formula: 'x * x', name: y{n}}}\n" for n in range(40))
    (tmp_path / "long.yaml").write_text(
        f"inputs: {{a: null}}\nlayers:\n{chain}".replace("y0}", "y0, inputs: a}"), encoding="utf-8"
    )
    said = shell("grad", "long.yaml", "--of", "y39", "--wrt", "a")
    assert (said.code, said.err) == (2, "written as one formula, it has more than 100,000 characters\n")
    assert shell("run", "long.yaml", "--feed", "a=1", "--grad", "a", "--json").json["gradients"]["a"] == 2.0**40
