"""Plan: from a graph to everything that can be known before the first number, one pass after the other."""

from __future__ import annotations

from collections.abc import Collection

from cfgnet.backend import Backend
from cfgnet.errors import Locate, Problem
from cfgnet.graph import Graph
from cfgnet.plan.gradients import differentiate
from cfgnet.plan.memory import count
from cfgnet.plan.model import Backward, Flow, Memory, Plan, Shaped, Slot
from cfgnet.plan.shapes import infer
from cfgnet.plan.verify import verify

__all__ = ["Backward", "Flow", "Memory", "Plan", "Shaped", "Slot", "make_plan"]


def make_plan(
    graph: Graph, backend: Backend, *, itemsize: int = 4, locate: Locate | None = None, wrt: Collection[str] = ()
) -> tuple[Plan | None, list[Problem]]:
    """The plan of a graph, or None with what is wrong; `wrt` names inputs that get a gradient too."""
    nodes, tensors, slots, problems = infer(graph, backend.k, locate or Locate())
    if problems or len(nodes) < len(graph.nodes):
        return None, problems
    seeds, backward, problems = differentiate(graph, nodes, tensors, slots, wrt)
    if problems:
        return None, problems
    memory = count(nodes, tensors, slots, backward, seeds, itemsize)
    plan = Plan(graph, tuple(nodes), tensors, slots, seeds, backward, memory)
    verify(plan)
    return plan, []
