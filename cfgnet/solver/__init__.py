"""Solvers: from gradients to an update; one family to a file, which is imported when one of its members is named."""

from __future__ import annotations

from cfgnet.part import Home
from cfgnet.solver.base import Average, ParamGroup, Solver, Treatment
from cfgnet.solver.descent import SGD

Solver.home = Home(__name__, __path__, Solver.spell)

__all__ = ["SGD", "Average", "ParamGroup", "Solver", "Treatment"]
