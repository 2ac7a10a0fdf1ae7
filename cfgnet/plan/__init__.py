"""Plan: from a graph to everything that can be known before the first number, one pass after the other."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from cfgnet.backend import Backend
from cfgnet.errors import Locate, Problem
from cfgnet.graph import Graph
from cfgnet.plan.gradients import differentiate, undifferentiated
from cfgnet.plan.layout import channels_last, orders
from cfgnet.plan.memory import ITEMSIZE, Lives, count, placed
from cfgnet.plan.model import Backward, Decision, Flow, Memory, Place, Plan, Shaped, Slot
from cfgnet.plan.shapes import infer
from cfgnet.plan.verify import verify
from cfgnet.solver import Solver

__all__ = ["Backward", "Decision", "Flow", "Memory", "Place", "Plan", "Shaped", "Slot", "make_plan"]


def make_plan(
    graph: Graph,
    backend: Backend,
    *,
    dtype: str = "float32",
    locate: Locate | None = None,
    wrt: Collection[str] = (),
    of: Mapping[str, float] | None = None,
    keep: Collection[str] = (),
    reuse: bool = False,
    solver: Solver | None = None,
) -> tuple[Plan | None, list[Problem]]:
    """The plan of a graph, or None with what is wrong; `wrt` names tensors that get a gradient too.

    `of` names the tensors that are differentiated, with a weight for each; by default they are the losses. With `reuse`
    arrays share memory, and only results, losses, what a test counts and what `keep` names can be read after a step.
    `solver` says by patterns how parameters are treated.
    """
    nodes, tensors, slots, problems = infer(graph, backend.k, locate or Locate(), solver)
    if problems or len(nodes) < len(graph.nodes):
        return None, problems
    seeds, backward, problems = differentiate(graph, nodes, tensors, slots, wrt, of)
    if problems:
        return None, problems
    layouts = channels_last(nodes, tensors)
    kept = frozenset(
        {*graph.results, *graph.loss_weights, *graph.counted, *wrt, *(tensors.keys() & keep)} if reuse else tensors
    )
    lives = Lives(nodes, tensors, backward, seeds, kept, ITEMSIZE[dtype])
    if reuse:
        lives.in_place(layouts)
    places, arena = placed(lives.lives, reuse)
    memory = count(nodes, slots, backward, lives, arena)
    decisions = (*undifferentiated(nodes, backward, seeds), *orders(nodes, tensors, layouts), *lives.decisions)
    plan = Plan(graph, dtype, tuple(nodes), tensors, layouts, slots, seeds, backward, kept, places, memory, decisions)
    verify(plan)
    return plan, []
