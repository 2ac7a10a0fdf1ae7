"""The layer types, one family to a file. Importing this package registers them all; there is no list to keep."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from typing import Any

from cfgnet.layer import Layer

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")


def __getattr__(name: str) -> Any:
    """A layer type as a function of symbols, as in `layers.InnerProduct(x, num_output=10)`."""
    kind = Layer.find(name)
    if kind is None:
        raise AttributeError("; ".join(Layer.unknown(name)))
    return functools.partial(_applied, kind)


def _applied(kind: type[Layer], x: Any, *others: Any, **settings: Any) -> Any:
    return x.applied(kind, (x, *others), settings)
