"""Random expressions: compiled in each tier, as they were written, and derived; against float64 and differences."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cfgnet as cn
from cfgnet.symbolic.compile import GRADIENT, RESULT, Compiled
from cfgnet.symbolic.derive import gradients, stepwise
from cfgnet.symbolic.expr import Maker, in_order, name
from cfgnet.symbolic.lower import lower
from cfgnet.symbolic.ops import value
from cfgnet.symbolic.parse import parse
from cfgnet.symbolic.simplify import RULES
from cfgnet.symbolic.write import write
from cfgnet.symbols.symbol import operation, symbol

from .graphs import cases, pools, said
from .running import TIERS, Bound, close, run

random_graphs = settings(max_examples=1000, suppress_health_check=list(HealthCheck))
fewer = settings(random_graphs, max_examples=500)
more = settings(random_graphs, max_examples=20_000)


def everything_agrees(case, data):
    assert said(parse(write(case.root))) == said(case.root)
    found = Compiled(write(case.root), case.shapes)
    plain = case.typed(Maker(), case.root)
    y = value(plain, case.point)
    close(value(found.root, case.point), y, 1e-14)

    # The derivative: differences, the plain one, and the one that is made simpler and reads what is saved.
    maker = Maker()
    root = case.typed(maker, case.root)
    leaves = [maker.leaf(name(key, array.shape)) for key, array in case.point.items()]
    slopes = gradients(maker, root, leaves, maker.leaf(name(GRADIENT, root.shape)))
    zero_or = [
        np.zeros(leaf.shape) if s is None else value(s, {**case.point, GRADIENT: case.dy})
        for leaf, s in zip(leaves, slopes, strict=True)
    ]
    wanted = dict(zip(case.point, zero_or, strict=True))
    size = max(1.0, *(float(np.abs(g).max(initial=0)) for g in wanted.values()))
    along = sum(float(np.sum(g * case.way[key])) for key, g in wanted.items())
    terms = sum(float(np.sum(np.abs(g * case.way[key]))) for key, g in wanted.items())
    assert abs(along - case.slope()) <= 1e-8 * max(1.0, terms)
    known = {**case.point, RESULT: y, GRADIENT: case.dy} | {k: value(n, case.point) for k, n in found.saved.items()}
    for key, slope in found.slopes.items():
        close(value(slope, known), wanted[key], 1e-12, size)

    # What runs: bound once, and run at another point first, so that nothing may have been computed once and for all.
    how = {key: data.draw(st.sampled_from(["wanted", "added", ""])) for key in case.point}
    parts = [[key for key in how if how[key] == way] for way in ("wanted", "added")]
    for k, dtype, bound in TIERS.values():
        result, slopes = run(found, k, dtype, [case.moved(3.0), case.point], case.dy, *parts)
        close(result, y, bound)
        for key, slope in slopes.items():
            close(slope, wanted[key], bound, size)


@random_graphs
@given(case=cases(), data=st.data())
def test_a_random_expression(case, data):
    everything_agrees(case, data)


@pytest.mark.torture
@more
@given(case=cases(), data=st.data())
def test_many_random_expressions(case, data):
    everything_agrees(case, data)


@fewer
@given(pool=pools(), data=st.data())
def test_several_results_at_once(pool, data):
    """Any of what is there: leaves, numbers, what others are made of, and the same under two names."""
    maker = Maker(RULES if data.draw(st.booleans()) else {})
    typed = [pool.typed(maker, node) for node in pool.roots]
    chosen = data.draw(st.lists(st.sampled_from(typed), min_size=1, max_size=5))
    roots = {f"= {number}": node for number, node in enumerate(chosen)}
    added = data.draw(st.lists(st.sampled_from(sorted(roots)), unique=True))
    program = lower(roots, added)
    for k, dtype, bound in TIERS.values():
        bound_one = Bound(program, pool.shapes, {key: node.shape for key, node in roots.items()}, k, dtype)
        results = bound_one(pool.point, 1.0)
        for key, node in roots.items():
            close(results[key] - (key in added), value(node, pool.point), bound)


def symbols_of(root, leaves):
    """An expression as the Python front end makes it, one operation at a time."""
    done = {}
    for node in in_order([root]):
        if node.op == "name":
            done[id(node)] = leaves[node.setting("name")]
        elif node.op == "const":
            done[id(node)] = node.number
        else:
            done[id(node)] = operation(node.op, *(done[id(arg)] for arg in node.args), **dict(node.settings))
    return symbol(done[id(root)])


@fewer
@given(case=cases())
def test_as_it_is_written_it_computes_what_is_compiled(case):
    names = {key: key.replace("layer.", "") for key in case.point}
    y = value(case.typed(Maker(), case.root), case.point)
    compiled = symbols_of(case.root, {key: cn.variable(known) for key, known in names.items()})
    settings = {"dtype": "float64", "backend": "numpy"}
    point = {names[key]: array for key, array in case.point.items()}
    found = cn.compile(compiled, **settings)(**point)
    close(found, y, 1e-13)
    with cn.eager(**settings):
        leaves = {key: cn.variable(names[key], value=array) for key, array in case.point.items()}
        written = symbols_of(case.root, leaves)
        close(written.value, y, 1e-13)
        if stepwise(case.root):
            return
        written.sum().backward()
        grads = {key: leaf.grad for key, leaf in leaves.items()}
    variables = {key: cn.variable(known) for key, known in names.items()}
    total = symbols_of(case.root, variables).sum()
    slopes = cn.compile(cn.grad(total, list(variables.values())), **settings)(**point)
    for key, slope in zip(names, slopes, strict=True):
        np.testing.assert_array_equal(grads[key], slope)
