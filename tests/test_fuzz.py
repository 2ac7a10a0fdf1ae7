"""Whatever is given for a configuration, cfgnet understands it or says what is wrong: nothing else ever comes out."""

from __future__ import annotations

import contextlib
import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cfgnet
from cfgnet import formula, yamlio
from cfgnet.backend import get_backend
from cfgnet.cli.check import examined
from cfgnet.errors import CfgnetError, SpecError
from cfgnet.prepare import prepare

TIMES = 1
"""Set it to 20 for a long run."""
BASE = """\
name: net
vars: {hidden: 12, deep: [1, 2]}
data:
  train: {source: synthetic, count: 20, inputs: [1, 6, 6], batch_size: 5, classification: 3, shuffle: true}
  test: &test
    source: synthetic
    split: test
    count: 10
    inputs: [1, 6, 6]
    classification: 3
    batch_size: 5
    transform: {scale: 0.5, crop_size: 6, mean_value: 0.1}
layers:
  - {type: Convolution, name: conv, num_output: 4, kernel_size: 3, pad: 1, group: 1, weight_filler: {type: msra}}
  - BatchNorm
  - {type: Scale, bias_term: true}
  - type: ReLU
  - {type: Pooling, name: pool, pool: MAX, kernel_size: 2, stride: 2}
  - {type: Slice, name: cut, axis: 1, slice_point: 2, outputs: [a, b]}
  - {type: Concat, name: both, inputs: [a, b], axis: 1}
  - {type: Eltwise, name: sum, inputs: [both, pool], operation: SUM, coeff: [1, -1]}
  - {type: Reshape, name: flat, shape: [0, -1]}
  - {type: InnerProduct, name: ip, num_output: "${hidden}", param: {weight: {lr_mult: 2, share: w}}}
  - {type: Dropout, dropout_ratio: 0.5, phase: train}
  - {type: InnerProduct, name: score, inputs: ip, num_output: "${deep}", axis: 1}
  - {type: SoftmaxWithLoss, name: loss, inputs: [score, label], ignore_label: 2}
  - {type: Accuracy, name: accuracy, inputs: [score, label], phase: test}
solver:
  type: AdamW
  base_lr: 0.1
  lr_policy: {type: step, gamma: 0.1, stepsize: 10, warmup: {fraction: 0.2, shape: constant}}
  momentum: {type: one_cycle, start: 0.8, end: 0.95}
  params: [{match: "*.bias", lr_mult: 2, decay_mult: 0}, {match: [ip, score.weight], decay_mult: 0.5}]
  freeze: conv
  average: {decay: 0.99}
train: {max_iter: 10, early_stop: {patience: 2}, best: accuracy}
seed: 1
""".replace('"${deep}"', "3")
NASTY = (
    "-1 0 1 2 3 7 1e999 -0.0 .nan .inf 99999999999999999999 0x7fffffff 1e-400 ~ true [] {} [[]] {a:1} [1,2,3] '' "
    "x ReLU data label conv score test train &a *a *test !!python/name:os.system ! | > - ? : ${ ${} $${ "
    '"${1/0}" "${hidden}" "${hidden*1e308*10}" "${9**99}" "${deep}" <<:'
)
WITH_BLOCKS = """\
vars: {n: 2, wide: [3, 4], deep: true}
data: {train: {source: synthetic, count: 20, inputs: [1, 6, 6], batch_size: 5, classification: 3}}
blocks:
  conv:
    args: [num_output, size: 3, pad: "${size // 2}"]
    layers:
      - {type: Convolution, name: c, num_output: "${num_output}", kernel_size: "${size}", pad: "${pad}"}
      - {type: ReLU}
  residual:
    args: {num_output: 4}
    inputs: [input, skip]
    outputs: [sum, first]
    layers:
      - {type: conv, name: first, num_output: "${num_output}"}
      - {type: conv, name: second, num_output: "${num_output}", when: "${num_output > 3}"}
      - {type: Eltwise, name: sum, inputs: [second, skip]}
layers:
  - {type: conv, name: stem, num_output: 4}
  - {type: residual, name: r, inputs: [stem, stem], outputs: [a, b], param: {first/c.weight: {lr_mult: 2}}}
  - repeat: "${min(n, 9)}"
    index: i
    scope: "s${i}"
    frozen: false
    layers:
      - {type: residual, inputs: [a, b], share: r}
      - {type: Pooling, name: "p${i}", kernel_size: 1, when: "${deep}"}
  - {scope: tower, layers: [{type: InnerProduct, name: fc, num_output: "${wide[0]}"}, {name_scope: x, type: ReLU}]}
  - {scope: tower, reuse: true, layers: [{type: InnerProduct, name: fc, num_output: 3, inputs: s0/p0}]}
  - {type: SoftmaxWithLoss, name: loss, inputs: [tower_1/fc, label]}
solver: {type: SGD, base_lr: 0.1}
train: {max_iter: 10}
"""
LINES = BASE.splitlines()
TOKENS = sorted({token for line in LINES for token in line.replace(",", " ").split() if len(token) > 1})


def examples(count: int) -> Any:
    """So many examples, always the same, without a limit on the time of a single one, which the tests set."""
    return settings(max_examples=count * TIMES)


@st.composite
def mutated(draw: st.DrawFn, text: str = BASE) -> str:
    """A text with one to four changes, such as a user's hand or cat could make."""
    lines = text.splitlines()
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(lines) - 1))
        other = draw(st.integers(0, len(lines) - 1))
        line = lines[at]
        place = draw(st.integers(0, len(line)))
        kind = draw(st.sampled_from(("value", "value", "token", "drop", "twice", "swap", "cut", "insert", "indent")))
        if kind == "value":
            words = [word for word in line.replace("{", " ").replace("}", " ").replace(",", " ").split() if word]
            if words:
                lines[at] = line.replace(draw(st.sampled_from(words)), draw(st.sampled_from(NASTY.split())), 1)
        elif kind == "token":
            lines[at] = line[:place] + draw(st.sampled_from(TOKENS)) + line[place:]
        elif kind == "drop":
            lines[at] = ""
        elif kind == "twice":
            lines.insert(at, line)
        elif kind == "swap":
            lines[at], lines[other] = lines[other], lines[at]
        elif kind == "cut":
            lines[at] = line[:place] + line[place + 1 :]
        elif kind == "insert":
            lines[at] = (
                line[:place] + draw(st.sampled_from("{}[]:,-&*!|>'\"#%@` \t\0\x85\u2028\ufeff$~<?")) + line[place:]
            )
        else:
            lines[at] = " " * draw(st.integers(0, 8)) + line.lstrip()
    return "\n".join(lines)


def load_and_prepare(text: str) -> None:
    """Does what `cfgnet check` does; whatever is raised but CfgnetError passes."""
    with contextlib.suppress(CfgnetError):
        spec = cfgnet.loads(text)
        assert cfgnet.loads(spec.to_yaml()) == spec
        examined(spec, prepare(spec, get_backend("numpy")))


def test_the_base_of_the_mutations_is_right() -> None:
    assert set(prepare(cfgnet.loads(BASE)).plans) == {"train", "test"}
    assert len(prepare(cfgnet.loads(WITH_BLOCKS)).plans["train"].nodes) == 23


@examples(250)
@given(mutated())
def test_a_changed_configuration_is_understood_or_refused(text: str) -> None:
    load_and_prepare(text)


@examples(250)
@given(mutated(WITH_BLOCKS))
def test_a_changed_configuration_with_blocks_is_understood_or_refused(text: str) -> None:
    load_and_prepare(text)


WILD = (
    st.sampled_from(
        [-1, 0, 1, 2, 3, 7, 64, -(10**6), 10**5, 2**31, 2**63, 10**30, 0.5, -0.0, 1e-320, 1e308, None, True]
    )
    | st.sampled_from([float("nan"), float("inf"), [], {}, [0], [-1], [1, 2], [1, 2, 3], [[]], {"type": "ReLU"}, ""])
    | st.sampled_from(["data", "label", "conv", "a", "score", "test", "train", "MAX", "digits", "fixed", "msra", "1"])
    | st.sampled_from(["${hidden}", "${-hidden}", "${hidden / 7}", "${1e308 * 10}", "${deep}", "${", "\0", "é", "../x"])
    | st.sampled_from(TOKENS)
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value in `value` but itself."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, item in items for place in ((*path, key), *places(item, (*path, key)))]


@st.composite
def with_other_values(draw: st.DrawFn, text: str = BASE) -> str:
    """A text with one to three values replaced, removed or moved, as YAML that reads without a mistake."""
    value = yamlio.parse(text).value
    for _ in range(draw(st.integers(1, 3))):
        *way, last = draw(st.sampled_from(places(value)))
        holder = value
        for step in way:
            holder = holder[step]
        kind = draw(st.sampled_from(("replace", "replace", "replace", "remove", "rename", "copy")))
        if kind == "replace":
            holder[last] = copy.deepcopy(draw(WILD))
        elif kind == "remove":
            del holder[last]
        elif isinstance(holder, dict):
            holder[draw(st.sampled_from(TOKENS))] = holder.pop(last) if kind == "rename" else holder[last]
        else:
            holder.insert(0, holder.pop(last) if kind == "rename" else holder[last])
    return yamlio.dump(value)


@examples(300)
@given(with_other_values())
def test_other_values_are_understood_or_refused(text: str) -> None:
    load_and_prepare(text)


@examples(300)
@given(with_other_values(WITH_BLOCKS))
def test_other_values_around_blocks_are_understood_or_refused(text: str) -> None:
    load_and_prepare(text)


@examples(150)
@given(st.text(max_size=60) | st.text("ab01.-:,[]{}&*!|>'\"#%$\n \t?<~", max_size=60))
def test_any_text_is_yaml_or_refused(text: str) -> None:
    with contextlib.suppress(SpecError):
        yamlio.parse(text)
    load_and_prepare(text)


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(["on", "1e3", "010", "0x1", "1_0", "~", "null", "<<", "=", "1:30", "2020-01-01", "- a", "a: b"])
)
keys = st.text(max_size=8)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4), max_leaves=12
)


def same(one: Any, other: Any) -> bool:
    """Equality that knows types, the sign of zero, and that nan is nan."""
    if isinstance(one, float) and isinstance(other, float):
        return repr(one) == repr(other)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    return type(one) is type(other) and bool(one == other)


@examples(250)
@given(values)
def test_what_is_dumped_reads_back_the_same(value: Any) -> None:
    document = yamlio.parse(yamlio.dump(value))
    assert document.problems == []
    assert same(document.value, value)


PIECES = (
    "x y z w v 1 2.5 1e308 9 ** * / // % + - ( ) , min max round abs sqrt int float 'a' \"b\" not and or if else < == "
    "None True [ ] { } . __class__ lambda : := = @ ~ ^ | & 1j ... await yield * ** \\ # \n \0 f'{x}' b'a'"
)


@examples(500)
@given(st.text(max_size=40) | st.lists(st.sampled_from(PIECES.split(" ")), max_size=12).map(" ".join))
def test_any_formula_has_a_value_or_is_refused(text: str) -> None:
    with contextlib.suppress(formula.FormulaError):
        value = formula.evaluate(text, {"x": 3, "y": 0.5, "z": "text", "w": [1], "v": None}.__getitem__)
        assert value is None or isinstance(value, int | float | str | list)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 200_000,
        "- " * 100_000,
        "{a: " * 10_000,
        "a: " * 1000,
        "? " * 10_000,
        '"' + "\\" * 100_000,
        "&a " * 10_000,
        "x: &a [*a]",
        "a: &a\n  b: *a",
        "\n".join(f"k{i}: &k{i} [{', '.join([f'*k{i - 1}'] * 9)}]" if i else "k0: &k0 [x]" for i in range(40)),
        "a: |\n" + " " * 100_000,
        "x" * 100_000,
        "vars: {a: '${" + "(" * 900 + ")" * 900 + "}'}",
        "vars: {a: '${" + "-" * 990 + "1}'}",
        "vars: {a: '" + "${b}" * 5000 + "', b: 1}",
        "vars: {a: '" + "${" * 5000 + "'}",
        "\n".join(["vars:", *(f"  a{i}: '${{a{i + 1}}}'" for i in range(5000)), "  a5000: 1"]),
        "\n".join(["vars:", "  a0: 'xxxxxxxxxx'", *(f"  a{i}: '${{a{i - 1}}}${{a{i - 1}}}'" for i in range(1, 60))]),
        "layers: [" + "{type: ReLU}, " * 5000 + "]",
        "layers: [" + "ReLU, " * 5000 + "]\ndata: {train: {source: synthetic, count: 9, batch_size: 9, formula: x}}",
        "layers:\n" + "\n".join(f"  - {{type: ReLU, name: r{i}, inputs: r{i + 1}}}" for i in range(2000)),
    ],
)
def test_a_text_made_to_hurt_is_understood_or_refused(text: str) -> None:
    load_and_prepare(text)
