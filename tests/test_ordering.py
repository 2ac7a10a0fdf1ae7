"""What waits for one another comes in order; against the plain way, which goes through the list again and again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cfgnet.ordering import circles, running_order


@st.composite
def sources(draw: st.DrawFn) -> list[set[int]]:
    count = draw(st.integers(0, 12))
    return [draw(st.sets(st.integers(0, count - 1), max_size=3)) for _ in range(count)]


def plain(sources: list[set[int]]) -> tuple[list[int], list[int]]:
    order, waiting, before = list[int](), list(range(len(sources))), -1
    while len(order) > before:
        before = len(order)
        for at in waiting:
            if sources[at] <= {*order}:
                order.append(at)
        waiting = [at for at in waiting if at not in order]
    return order, waiting


@given(sources())
def test_the_order_is_that_of_going_through_again_and_again(sources: list[set[int]]) -> None:
    assert running_order(sources) == plain(sources)


@given(sources())
def test_where_something_waits_there_are_circles_apart_from_one_another(sources: list[set[int]]) -> None:
    waiting = running_order(sources)[1]
    found = list(circles(sources, waiting))
    assert bool(found) == bool(waiting)
    for circle in found:
        assert circle[0] == min(circle)
        assert all(after in sources[at] for at, after in zip(circle, [*circle[1:], circle[0]], strict=True))
    members = [at for circle in found for at in circle]
    assert len(members) == len({*members})
