"""Solvers: from gradients to an update; one family to a file. Importing this package registers them all."""

from __future__ import annotations

import importlib
import pkgutil

from cfgnet.solver.base import Average, ParamGroup, Solver, Treatment

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

from cfgnet.solver.descent import SGD  # noqa: E402  after its siblings, which it does not need

__all__ = ["SGD", "Average", "ParamGroup", "Solver", "Treatment"]
