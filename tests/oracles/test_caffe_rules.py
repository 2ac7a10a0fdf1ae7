"""Rules: which layers of a net are there, in states of every phase, level and stage."""

from cfgnet.graph import TensorType, build
from cfgnet.layer import Layer
from cfgnet.rules import State

from .prototxt import parse
from .translate import rules


def test_rules(rule_case, check):
    text, state = rule_case
    sources, *rest = parse(text)["layer"]
    # What the layers compute is no matter here.
    layers = [
        Layer.model_validate({"type": "TanH", "name": m["name"][0], "inputs": m["bottom"], **rules(m)}) for m in rest
    ]
    inputs = {top: TensorType((1, 2)) for top in sources["top"]}
    phase = state["phase"].lower()
    graph, problems = build(layers, phase, inputs, state=State(level=state["level"], stage=tuple(state["stages"])))
    assert problems == []
    there = {node.name for node in graph.nodes}
    check("layers", [layer.name in there for layer in layers], [layer.name in state["layers"] for layer in layers], 0)
    assert set(state["layers"]) <= {layer.name for layer in layers}
