"""What holds for every document: expanding is a function, it is done after one time, and merging is associative."""

import copy

from hypothesis import given, settings
from hypothesis import strategies as st

from cfgnet import yamlio
from cfgnet.document import resolve
from cfgnet.document.files import merged
from cfgnet.spec import parse

often = settings(max_examples=150)
BLOCKS = {
    "plain": {"layers": ["ReLU", {"type": "TanH", "name": "t"}]},
    "sum": {"args": ["n", {"m": "${n + 1}"}], "layers": [
        {"type": "InnerProduct", "name": "a", "num_output": "${m}"},
        {"type": "plain", "when": "${n > 1}"},
        {"type": "InnerProduct", "name": "b", "inputs": "input", "num_output": "${m}"},
        {"type": "Eltwise", "inputs": ["a", "b"]},
    ]},
    "pair": {"inputs": ["x", "y"], "outputs": ["p", "q"], "layers": [
        {"type": "Eltwise", "name": "p", "inputs": ["x", "y"]},
        {"type": "sum", "name": "q", "n": 2, "inputs": "y"},
    ]},
}  # fmt: skip
leaf = st.sampled_from(
    [
        "ReLU",
        "plain",
        {"type": "ReLU"},
        {"type": "ReLU", "inputs": "data"},
        {"type": "InnerProduct", "num_output": "${wide}"},
        {"type": "sum", "n": 1},
        {"type": "sum", "n": 2, "inputs": "data"},
        {"type": "pair", "inputs": ["data", "data"]},
        {"type": "SoftmaxWithLoss"},
        {"type": "Expression", "formula": "x + data"},
    ]
)
around = st.fixed_dictionaries(
    {},
    optional={
        "repeat": st.integers(0, 3),
        "when": st.sampled_from([True, False, "${wide > 3}"]),
        "scope": st.sampled_from(["s", "s/t", "u"]),
        "phase": st.just("train"),
    },
)


def with_words(words, item):
    return words | (item if isinstance(item, dict) else {"type": item})


item = st.recursive(
    leaf | st.builds(with_words, around, leaf),
    lambda inner: st.builds(lambda words, items: words | {"layers": items}, around, st.lists(inner, max_size=3)),
    max_leaves=8,
)
documents = st.builds(
    lambda layers, wide: {"vars": {"wide": wide}, "blocks": BLOCKS, "layers": layers},
    st.lists(item, min_size=1, max_size=5),
    st.integers(2, 5),
)


def expanded(value):
    return resolve(yamlio.parse(yamlio.dump(value)))


@often
@given(documents)
def test_expanding_is_deterministic_and_changes_nothing_that_is_expanded(value):
    once, twice = expanded(value), expanded(copy.deepcopy(value))
    assert once.value == twice.value and once.problems == twice.problems
    again = expanded(once.value)
    assert again.value == once.value and not again.problems


@often
@given(documents)
def test_every_name_is_there_once_and_every_value_has_a_mark(value):
    found = expanded(value)
    if not found.problems:
        names = [layer["name"] for layer in found.value["layers"] if isinstance(layer, dict) and "name" in layer]
        assert len(names) == len(set(names))
    for index in range(len(found.value["layers"])):
        mark = found.locate(("layers", index))
        assert mark and mark.line > 1


@often
@given(documents)
def test_the_resolved_configuration_reads_back_equal(value):
    draft = parse(yamlio.parse(yamlio.dump(value)))
    if draft.spec:
        assert parse(yamlio.parse(draft.spec.to_yaml())).spec == draft.spec


scalars = st.integers(0, 9) | st.none() | st.lists(st.integers(0, 9), max_size=3)
trees = st.recursive(
    st.dictionaries(st.sampled_from("abc"), scalars, max_size=3),
    lambda inner: st.builds(
        lambda low, high: low | high,
        st.dictionaries(st.sampled_from("abc"), scalars, max_size=3),
        st.dictionaries(st.sampled_from("XYZ"), inner, max_size=3),
    ),
    max_leaves=12,
)
"""Mappings in which a key holds either mappings or other things, as those of a configuration do."""


def document(value, name):
    return yamlio.parse(yamlio.dump(value), name)


@often
@given(trees, trees, trees)
def test_merging_is_associative_with_the_marks_of_all_values(one, two, three):
    a, b, c = (document(value, name) for value, name in ((one, "a"), (two, "b"), (three, "c")))
    left, right = merged(merged(a, b), c), merged(a, merged(b, c))
    assert left.value == right.value
    assert left.values == right.values
    assert list(left.value) == list(right.value)


@often
@given(trees, trees)
def test_what_is_said_above_counts_and_what_is_not_stays(one, two):
    both = merged(document(one, "a"), document(two, "b")).value
    assert merged(document({}, "a"), document(two, "b")).value == two
    assert merged(document(one, "a"), document({}, "b")).value == one
    assert both.keys() == one.keys() | two.keys()
    for key, value in both.items():
        if not isinstance(value, dict):
            assert value == (two[key] if key in two else one[key])
