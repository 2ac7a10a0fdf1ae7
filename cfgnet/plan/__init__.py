"""Plan: from a graph to everything that can be known before the first number, one pass after the other."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from cfgnet.backend import Backend
from cfgnet.errors import Locate, Problem
from cfgnet.graph import Graph
from cfgnet.plan.gradients import differentiate, undifferentiated, without_backward
from cfgnet.plan.layout import channels_last, orders
from cfgnet.plan.memory import ITEMSIZE, Lives, count, placed
from cfgnet.plan.model import Backward, Decision, Flow, Inside, Memory, Place, Plan, Shaped, Slot
from cfgnet.plan.shapes import infer
from cfgnet.plan.simplify import Change, constants, once, simplified, wanted_of
from cfgnet.plan.verify import verify
from cfgnet.solver import Solver

__all__ = ["Backward", "Decision", "Flow", "Inside", "Memory", "Place", "Plan", "Shaped", "Slot", "make_plan"]


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
    the graph is made simpler and arrays share memory, so that only results, losses, what a test counts and what `keep`
    names can be read after a step. `solver` says by patterns how parameters are treated.
    """
    locate, asked = locate or Locate(), dict.fromkeys([*wrt, *(of or ()), *keep], "it is asked for by name")
    changes: list[Change] = []
    nodes, tensors, slots, problems = infer(graph, backend.k, locate, solver)
    params = {shaped.name: shaped.params for shaped in nodes}
    while reuse and not problems and len(nodes) == len(graph.nodes):
        changed, done, refused = simplified(graph, nodes, wanted_of(graph, asked))
        changes += done
        if changed is graph:
            changes += refused
            break
        graph = changed
        before = slots
        nodes, tensors, slots, problems = infer(graph, backend.k, locate, solver, before)
        slots = {key: slot for key, slot in before.items() if key in slots}
    if problems or len(nodes) < len(graph.nodes):
        return None, problems
    seeds, backward, problems = differentiate(graph, nodes, tensors, slots, wrt, of)
    if problems:
        return None, problems
    nodes, tensors, unsaved = without_backward(nodes, tensors, backward)
    layouts = channels_last(nodes, tensors)
    kept = {*graph.results, *graph.loss_weights, *graph.counted, *(tensors.keys() & asked)} if reuse else {*tensors}
    fixed = constants(nodes) if reuse else frozenset[int]()
    lives = Lives(nodes, tensors, backward, seeds, frozenset(kept), ITEMSIZE[dtype], fixed)
    if reuse:
        lives.in_place(layouts)
    places, arena = placed(lives.lives, reuse)
    memory = count(nodes, slots, backward, lives, arena)
    simpler = (*(change.decision for change in changes), *once(nodes, fixed))
    decisions = (*simpler, *undifferentiated(nodes, backward, seeds), *unsaved, *orders(nodes, tensors, layouts))
    plan = Plan(
        graph,
        dtype,
        tuple(nodes),
        tensors,
        layouts,
        slots,
        params,
        seeds,
        backward,
        frozenset(kept),
        places,
        memory,
        fixed,
        {old: new for change in changes for old, new in change.renamed.items()},
        (*decisions, *(lives.decisions(places) if reuse else ())),
    )
    verify(plan)
    return plan, []
