"""Random expressions: compiled in each tier, as they were written, and derived; against float64 and differences."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cfgnet.symbolic.compile import GRADIENT, RESULT, Compiled
from cfgnet.symbolic.derive import gradients
from cfgnet.symbolic.expr import Maker, name
from cfgnet.symbolic.lower import lower
from cfgnet.symbolic.ops import value
from cfgnet.symbolic.parse import parse
from cfgnet.symbolic.simplify import RULES
from cfgnet.symbolic.write import write

from .graphs import cases, pools, said
from .running import TIERS, Bound, close, run

random_graphs = settings(max_examples=1000, suppress_health_check=list(HealthCheck))
fewer = settings(random_graphs, max_examples=300)
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
