"""The layer types, one family to a file, which is imported when one of its types is named; there is no list to keep."""

from __future__ import annotations

import functools
from typing import Any

from cfgnet.layer import Layer
from cfgnet.part import Home

Layer.home = Home(__name__, __path__, Layer.spell)


def __getattr__(name: str) -> Any:
    """A layer type as a function of symbols, as in `layers.InnerProduct(x, num_output=10)`."""
    kind = Layer.find(name)
    if kind is None:
        raise AttributeError("; ".join(Layer.unknown(name)))
    return functools.partial(_applied, kind)


def _applied(kind: type[Layer], x: Any, *others: Any, **settings: Any) -> Any:
    return x.applied(kind, (x, *others), settings)
