"""Addresses: how people name a value of a configuration, as in `layers.conv1.num_output`, and the path that it has."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from cfgnet.errors import Path
from cfgnet.explain import did_you_mean, listed


class AddressError(LookupError):
    """There is nothing at an address; `hint` says what may have been meant."""

    def __init__(self, message: str, hint: str = ""):
        super().__init__(message)
        self.hint = hint


def step(node: Any, steps: Sequence[str], done: str = "") -> tuple[Path, int]:
    """The way from `node` that the first of `steps` say, and how many of them do.

    A mapping takes one step, its key, or several that are one key with dots. A list takes a number, or the name of an
    item, which may hold dots and may stand in a group. AddressError where a list has no such item.
    """
    if not isinstance(node, list):
        known: dict[str, Path] = {key: (key,) for key in node} if isinstance(node, dict) else {}
        return _longest(known, steps) or ((steps[0],), 1)
    names = dict(named_items(node))
    if found := _longest(names, steps):
        return found
    number = int(steps[0]) if re.fullmatch(r"-?[0-9]{1,9}", steps[0]) else None
    if number is not None and -len(node) <= number < len(node):
        return (number % len(node),), 1
    count = f"{done} has {len(node)} items, counted from 0" if node else f"{done} is empty"
    hint = did_you_mean(steps[0], names, listed("named", names) if number is None and names else count)
    raise AddressError(f"there is no {steps[0]!r} in {done}", hint)


def _longest(known: dict[str, Path], steps: Sequence[str]) -> tuple[Path, int] | None:
    """What as many of the steps as possible name together."""
    for count in range(len(steps), 0, -1):
        if (name := ".".join(steps[:count])) in known:
            return known[name], count
    return None


def named_items(items: Sequence[Any], scope: str = "") -> Iterator[tuple[str, Path]]:
    """The items of a list that have a name, also those in groups, by the names that layers get from scopes around."""
    for index, item in enumerate(items):
        if not isinstance(item, dict):
            continue
        within = f"{scope}{item['scope']}/" if isinstance(item.get("scope"), str) else scope
        if "name" in item:
            yield f"{within}{item['name']}", (index,)
        elif isinstance(item.get("layers"), list):
            for name, path in named_items(item["layers"], within):
                yield name, (index, "layers", *path)


def find(value: Any, address: str) -> Path:
    """The path of an address in `value`; AddressError if there is nothing."""
    steps, path, done = address.split("."), list[str | int](), list[str]()
    each: Any
    while steps:
        way, count = step(value, steps, ".".join(done))
        for each in way:
            if not isinstance(value, list) and (not isinstance(value, dict) or each not in value):
                known = list(value) if isinstance(value, dict) else []
                where = ".".join(done) or "the configuration"
                hint = did_you_mean(str(each), known, listed("there are", known) if known else "")
                raise AddressError(f"there is no {each!r} in {where}", hint)
            value = value[each]
        path += way
        done, steps = done + steps[:count], steps[count:]
    return tuple(path)
