"""The layer types, one family to a file. Importing this package registers them all; there is no list to keep."""

from __future__ import annotations

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
