"""Programs of expressions: what becomes one formula, what is a view, and which places are used again."""

import itertools

import numpy as np
import pytest

from cfgnet.errors import ShapeError
from cfgnet.symbolic.compile import GRADIENT, RESULT, Compiled
from cfgnet.symbolic.expr import Maker, name
from cfgnet.symbolic.lower import MOST_TOGETHER, lower
from cfgnet.symbolic.ops import value
from cfgnet.symbolic.parse import parse

from .running import TIERS, Bound, close, run

every_tier = pytest.mark.parametrize(("k", "dtype", "bound"), TIERS.values(), ids=TIERS)
A, B = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), np.array([0.5, -1.0, 2.0])


def typed(formula, shapes, maker=None):
    maker = maker or Maker()
    return maker.typed(parse(formula), {key: maker.leaf(name(key, shape)) for key, shape in shapes.items()})


def program(formula, shapes):
    return lower({"= y": typed(formula, shapes)})


def kernels(formula, shapes):
    return [each.kernel for each in program(formula, shapes).kernels]


# What becomes one formula.


@pytest.mark.parametrize(
    ("formula", "wanted"),
    [
        ("tanh(a * b + 1) / (2 + exp(-a))", ["map"]),
        ("where(a > b, a * (a > 0), min(a, 1)) != 0", ["map"]),
        ("where(a > b, a * (a > 0), min(b, 1)) != 0", ["map", "map"]),  # the smaller one is computed once for all rows
        ("sum(a * a + b, axis=0)", ["sum"]),
        ("(a + 1).T[::-1, 0] * 2", ["map", "map"]),  # a view of the first, which is not copied
        ("mean(a * b)", ["sum", "map"]),
        ("a.T @ (a + b)", ["map", "matmul"]),
        ("a.T @ a", ["matmul"]),
        ("sum(expand(b, 2, 3))", ["sum"]),
        ("sum(expand(b, 2, 3) + 1)", ["map", "sum"]),  # nothing in the formula has the shape of what is summed
        ("reshape(a.T, 6)", ["copy"]),
        ("reshape(a, 6)", ["map"]),
        ("softmax(a.T)", ["copy", "softmax"]),
        ("max(a * b, axis=1)", ["map", "max"]),
    ],
)
def test_operations_by_elements_are_worked_out_together(formula, wanted):
    used = {key: shape for key, shape in {"a": (2, 3), "b": (3,)}.items() if key in formula.replace("softmax", "")}
    assert kernels(formula, used) == wanted


def test_what_two_formulas_read_is_stored_once():
    found = lower(
        {"= 0": typed("exp(a)", {"a": (4,)}, maker := Maker()), "= 1": typed("exp(a) * 2", {"a": (4,)}, maker)}
    )
    assert [each.formula for each in found.kernels] == ["exp(x0)", "x0 * 2"]
    assert found.kernels[1].operands["x0"].source == "= 0" and found.room == 0


# Long formulas.

LONG = "tanh(" * 70 + "a" + ")" * 70
SHARED = "+".join(f"tanh(a + {n})" for n in range(40))


@every_tier
@pytest.mark.parametrize("formula", [LONG, SHARED], ids=["deep", "wide"])
def test_a_long_formula_is_cut_into_several(formula, k, dtype, bound):
    found = program(formula, {"a": (3,)})
    assert all(each.formula.count(";") < MOST_TOGETHER for each in found.kernels)
    assert len(found.kernels) <= 6
    result = Bound(found, {"a": (3,)}, {"= y": (3,)}, k, dtype)({"a": B})["= y"]
    close(result, value(typed(formula, {"a": (3,)}), {"a": B}), bound)


@pytest.mark.parametrize("formula", [LONG, SHARED, "max(sum(a * b, axis=0) @ w.T * a[0] + c, axis=0) * sign(c * b)"])
def test_the_room_is_enough_whichever_gradients_are_wanted(formula):
    shapes = {"a": (2, 3), "b": (2, 3), "w": (3, 3), "c": (3,)} if "w" in formula else {"a": (3,)}
    found = Compiled(formula, shapes)
    for ways in itertools.product(["wanted", "added", ""], repeat=len(shapes)):
        parts = [[leaf for leaf, way in zip(shapes, ways, strict=True) if way == each] for each in ("wanted", "added")]
        assert found.backward(*parts).room <= found.room


# Places.


def test_a_place_is_used_again_when_nobody_reads_it_any_more():
    found = program("w @ (w @ (w @ (w @ (w @ (w @ a)))))", {"w": (8, 8), "a": (8, 8)})
    assert (found.room, found.apart) == (2 * 64, 5 * 64)


@pytest.mark.parametrize(
    "formula", ["exp(w @ a) @ (w @ (w @ a)) + softmax(w @ a @ a) @ w", "max(w @ a + w @ w @ a, axis=1)"]
)
def test_nothing_is_computed_over_what_is_still_read(formula):
    """Every place that is read holds what was last computed there, and that whole."""
    found = program(formula, {"w": (8, 8), "a": (8, 8)})
    written, owner = {}, np.full(found.room, -1)
    reads = {id(each): [ref for ref in each.operands.values() if isinstance(ref.source, int)] for each in found.kernels}
    for number, each in enumerate(found.kernels):
        for ref in reads[id(each)]:
            first, count = ref.source, int(np.prod(ref.shape))
            assert len(set(owner[first : first + count])) == 1 and owner[first] == written[first]
        if isinstance(each.target.source, int):
            first, count = each.target.source, int(np.prod(each.target.shape))
            assert not any(
                first < ref.source + int(np.prod(ref.shape)) and ref.source < first + count for ref in reads[id(each)]
            )
            owner[first : first + count] = written[first] = number


# Results.


@every_tier
def test_results_may_be_leaves_numbers_and_the_same(k, dtype, bound):
    maker = Maker()
    shapes = {"a": (2, 3), "b": (3,)}
    leaf, number = typed("a", shapes, maker), maker.const(2.5, (2, 3))
    total, product = typed("sum(a)", shapes, maker), typed("a @ b", shapes, maker)
    roots = {"leaf": leaf, "again": leaf, "number": number, "more": number, "total": total, "other": total}
    roots |= {
        "product": product,
        "twice": typed("a @ b * 2", shapes, maker),
        "view": typed("reshape(a.T, 6)", shapes, maker),
    }
    for added in ([], ["again", "more", "other", "product", "view"], list(roots)):
        found = Bound(lower(roots, added), shapes, {key: root.shape for key, root in roots.items()}, k, dtype)
        results = found({"a": A, "b": B}, 10.0)
        for key, root in roots.items():
            close(results[key] - 10.0 * (key in added), value(root, {"a": A, "b": B}), bound)


def test_a_sum_and_a_product_are_added_without_another_array():
    for formula in ("sum(a * b, axis=0)", "a.T @ a", "b @ a", "reshape(b @ a, 1, 2)"):
        shapes = {"a": (3, 2), "b": (3,)} if "@" in formula else {"a": (2, 3), "b": (3,)}
        assert lower({"= y": typed(formula, shapes)}, ["= y"]).apart == 0


def test_a_matrix_that_all_rows_go_through_has_its_gradient_by_one_product():
    """Not by one for each of many matrices, and their sum."""
    for added in ([], ["w"]):
        found = Compiled("a @ w", {"a": (5, 2, 3), "w": (3, 4)}).backward([] if added else ["w"], added)
        assert [each.kernel for each in found.kernels] == ["matmul"]
        assert found.room == 0


def test_what_is_added_to_two_results_is_computed_once():
    total = typed("sum(a * a)", {"a": (2, 3)})
    found = lower({"= 0": total, "= 1": total}, ["= 0", "= 1"])
    assert [each.kernel for each in found.kernels] == ["sum", "map", "map"]


@every_tier
@pytest.mark.parametrize(
    ("formula", "shapes", "wanted"),
    [
        ("a * w", {"a": (2, 2, 3), "w": (2, 1, 1)}, ["w"]),
        ("a @ w", {"a": (2, 2, 3), "w": (2, 3, 2)}, ["w"]),  # a product of several matrices
        ("sign(w * a)", {"a": (2,), "w": ()}, ["w"]),  # whose gradient is the number 0
        ("w + a", {"a": (2,), "w": (2,)}, ["w", "a"]),  # both gradients are dy
    ],
)
def test_gradients_are_added_to_what_is_there(formula, shapes, wanted, k, dtype, bound):
    found, random = Compiled(formula, shapes), np.random.default_rng(1)
    point = {key: random.normal(size=shape) for key, shape in shapes.items()}
    dy = random.normal(size=found.shape)
    _, whole = run(found, k, dtype, [point], dy, wanted, [])
    _, added = run(found, k, dtype, [point], dy, [], wanted)
    for key in wanted:
        close(added[key], whole[key], bound)


def test_a_largest_is_found_again_where_it_was_found():
    """What its gradient compares is saved: in rows of other lengths, the last bit of softplus may be another."""
    found = Compiled("max(softplus(a).T, axis=0)", {"a": (2, 2)})
    assert [node.op for node in found.saved.values()] == ["softplus"]
    assert Compiled("max(a.T, axis=0)", {"a": (2, 2)}).saved == {}


@every_tier
def test_one_element_is_a_view_and_no_copy(k, dtype, bound):
    found = Compiled("a[0, -2] * a + place_of", {"a": (1, 4), "place_of": ()})
    points = [{"a": np.full((1, 4), 9.0), "place_of": 0.0}, {"a": np.array([[1.0, 2.0, 3.0, 4.0]]), "place_of": 0.5}]
    y, slopes = run(found, k, dtype, points, np.ones((1, 4)), ["a"], [])
    close(y, np.array([[3.5, 6.5, 9.5, 12.5]]), bound)
    close(slopes["a"], np.array([[3.0, 3.0, 13.0, 3.0]]), bound)


@every_tier
@pytest.mark.parametrize(
    "formula",
    [
        "reshape(a.T, 6) * 2",
        "tanh(reshape(a[:, 1:], 4))",
        "reshape(expand(a[0], 4, 3), 12) + 1",
        "reshape(a.T, 2, 3) @ a.T",
        "softmax(a[:, ::-1].T) + 1",
        "sum(reshape(reshape(a.T, 6)[::-1], 2, 3), axis=0)",
        "transpose(reshape(a, 3, 1, 2), 2, 0, 1)[1, ::-1] * a[:1, 0]",
    ],
)
def test_views_of_views_are_read_anew_in_each_run(formula, k, dtype, bound):
    found, random = Compiled(formula, {"a": (2, 3)}), np.random.default_rng(4)
    points = [{"a": random.normal(size=(2, 3))} for _ in range(3)]
    dy = random.normal(size=found.shape)
    y, slopes = run(found, k, dtype, points, dy, ["a"], [])
    close(y, value(found.root, points[-1]), bound)
    plain = value(found.slopes["a"], {**points[-1], RESULT: y, GRADIENT: dy, **saved_of(found, points[-1])})
    close(slopes["a"], plain, 10 * bound)


def saved_of(found, point):
    return {key: value(node, point) for key, node in found.saved.items()}


# Nothing and one.


@every_tier
@pytest.mark.parametrize(
    ("formula", "shapes"),
    [
        ("x * 2 + 1", {"x": (0, 3)}),
        ("sum(x) + sum(x, axis=0)", {"x": (0, 3)}),
        ("mean(x, axis=1) + max(x, axis=1)", {"x": (0, 3)}),
        ("softmax(x) * log_softmax(x)", {"x": (0, 3)}),
        ("x @ w", {"x": (0, 3), "w": (3, 2)}),
        ("x.T @ w", {"x": (0, 3), "w": (0, 2)}),
        ("x * w + v", {"x": (0, 3), "w": (1,), "v": (3,)}),
        ("sum(x[5:]) + x", {"x": (3,)}),
        ("sum(expand(x, 0, 3) * w)", {"x": (1, 3), "w": ()}),
        ("reshape(x, 3, -1)", {"x": (0, 3)}),
        ("a * b + 1", {"a": (), "b": ()}),
        ("sum(a) + max(a) - mean(a) * a.T", {"a": ()}),
        ("a[None] * a[...] * reshape(a, 1, 1)", {"a": ()}),
        ("a @ b", {"a": (3,), "b": (3,)}),
    ],
)  # fmt: skip
def test_tensors_without_elements_and_scalars(formula, shapes, k, dtype, bound):
    found, random = Compiled(formula, shapes), np.random.default_rng(2)
    point = {key: random.normal(size=shape) for key, shape in shapes.items()}
    y, slopes = run(found, k, dtype, [point], np.ones(found.shape), [], list(shapes))
    close(y, value(found.root, point), bound)
    assert all(np.isfinite(slope).all() for slope in slopes.values())


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        ("mean(x)", "expected at least one element along the axes that go, got 0x3"),
        ("max(x, axis=0)", "expected at least one element along the axes that go, got 0x3"),
        ("softmax(x, axis=0)", "expected at least one element along the axis of a softmax, got axis 0 of 0x3"),
        ("reshape(x, 0, -1)", "0x3 cannot be reshaped to 0, -1"),
    ],
)
def test_what_no_elements_have(formula, message):
    with pytest.raises(ShapeError, match=message):
        typed(formula, {"x": (0, 3)})
