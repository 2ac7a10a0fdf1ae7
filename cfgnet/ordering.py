"""The running order of things that wait for one another, by their positions in a list."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def running_order(sources: Sequence[set[int]]) -> tuple[list[int], list[int]]:
    """The positions in an order in which each comes behind its sources, and those that never can.

    As written where possible: as if the list were gone through again and again, each time with what has all its
    sources. So each comes in the round of its sources, and in the next one if one of them stands behind it.
    """
    readers: list[list[int]] = [[] for _ in sources]
    for at, needed in enumerate(sources):
        for source in needed:
            readers[source].append(at)
    rounds, missing = [0] * len(sources), [len(needed) for needed in sources]
    ready = [at for at, count in enumerate(missing) if not count]
    for at in ready:  # which grows meanwhile
        for reader in readers[at]:
            rounds[reader] = max(rounds[reader], rounds[at] + (reader < at))
            missing[reader] -= 1
            if not missing[reader]:
                ready.append(reader)
    ready.sort(key=lambda at: (rounds[at], at))
    return ready, [at for at, count in enumerate(missing) if count]


def circles(sources: Sequence[set[int]], waiting: Sequence[int]) -> Iterator[list[int]]:
    """The circles among positions that wait for one another; in each, every one has the next as a source.

    It starts at its first position. What only waits for a circle is in none.
    """
    among = set(waiting)
    left = dict.fromkeys(waiting)
    while left:
        at, seen = next(iter(left)), dict[int, None]()
        while at in left and at not in seen:
            seen[at] = None
            at = min(sources[at] & among)
        for one in seen:
            del left[one]
        if at in seen:
            way = list(seen)
            members = way[way.index(at) :]
            start = members.index(min(members))
            yield [*members[start:], *members[:start]]
