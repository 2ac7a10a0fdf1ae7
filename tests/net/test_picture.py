"""Pictures of graphs: what is drawn follows from the plan, and drawings can be read: nothing lies over a text."""

from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings

import cfgnet
from cfgnet.picture import WRITERS, picture
from cfgnet.picture.layout import layout
from cfgnet.prepare import prepare

from .nets import LOSS, build, graphs, ip

CONFIGS = Path(__file__).parents[2] / "configs"
SHIPPED = [
    "lenet_digits",
    "siamese_digits",
    "bench/resnet20",
    "bench/googlenet",
    "bench/transformer_small",
    "char_scan",
]
MEETING = [
    ip("a", "data", 4),
    "{type: ReLU, name: r, inputs: a}",
    "{type: Eltwise, name: sum, inputs: [a, r]}",
    ip("score", "sum"),
    LOSS,
]


def drawn(*layers, backward=True, **more):
    return picture(build(*layers, **more).plan, "a net", backward=backward)


def arrows(found, kind):
    return {(edge.source, edge.target, edge.array) for edge in found.edges if edge.kind == kind}


def test_the_forward_graph_is_layers_and_the_tensors_between_them():
    found = drawn(*MEETING, backward=False)
    assert {node.kind for node in found.nodes} == {"input", "layer", "parameter"}
    assert arrows(found, "tensor") == {
        ("i:data", "f:a", "data"),
        ("f:a", "f:r", "a"),
        ("f:a", "f:sum", "a"),
        ("f:r", "f:sum", "r"),
        ("f:sum", "f:score", "sum"),
        ("f:score", "f:loss", "score"),
        ("i:label", "f:loss", "label"),
    }
    (weight,) = [node for node in found.nodes if node.key == "p:a.weight"]
    assert (weight.at, weight.lines) == ("f:a", ("4x4",))


def test_a_sum_stands_where_several_gradients_of_a_tensor_meet():
    found = drawn(*MEETING)
    assert [node.name for node in found.nodes if node.kind == "sum"] == ["+ d(a)"]
    assert arrows(found, "gradient") == {
        ("o:loss", "b:loss", "d(loss)"),
        ("b:loss", "b:score", "d(score)"),
        ("b:score", "b:sum", "d(sum)"),
        ("b:sum", "b:r", "d(r)"),
        ("b:sum", "s:a", "d(a)"),
        ("b:r", "s:a", "d(a)"),
        ("s:a", "b:a", "d(a)"),
    }
    assert ("f:r", "b:r", "r") in arrows(found, "saved")  # the gradient of a ReLU is computed from its output
    assert not any(target == "b:sum" for _, target, _ in arrows(found, "saved"))


def test_the_gradient_of_a_shared_parameter_is_a_sum_and_that_of_another_belongs_to_its_call():
    shared = ", param: {weight: {share: w}}"
    found = drawn(ip("a", "data", 4, shared), ip("b", "a", 4, shared), ip("score", "b"), LOSS)
    assert {("b:a", "t:a.weight", "d(a.weight)"), ("b:b", "t:a.weight", "d(a.weight)")} <= arrows(found, "parameter")
    at = {node.key: node.at for node in found.nodes if node.kind == "gradient"}
    assert at["g:a.weight"] == "t:a.weight" and at["g:a.bias"] == "b:a" and at["g:b.bias"] == "b:b"


def test_a_loss_that_is_read_starts_with_its_weight_and_gets_more():
    loss = "{type: EuclideanLoss, name: l2, inputs: [score, data], loss_weight: 3}"
    found = drawn(ip("score", "data", 4), loss, "{type: Power, name: half, inputs: l2, scale: 0.5, loss_weight: 1}")
    assert [node.name for node in found.nodes if node.kind == "seed"] == ["d(half) = 1", "d(l2) = 3"]
    assert {("o:l2", "s:l2", "d(l2)"), ("b:half", "s:l2", "d(l2)"), ("s:l2", "b:l2", "d(l2)")} <= arrows(
        found, "gradient"
    )


def test_what_no_gradient_flows_into_starts_at_zero():
    split = "{type: Slice, name: cut, inputs: h, outputs: [left, right]}"
    found = drawn(ip("h", "data", 4), split, ip("score", "left"), LOSS)
    assert ("o:right", "b:cut", "d(right)") in arrows(found, "gradient")
    assert "d(right) = 0" in {node.name for node in found.nodes}


@settings(max_examples=40)
@given(graphs())
def test_every_gradient_of_any_graph_ends_where_its_tensor_began(layers):
    found = drawn(*layers)
    keys = {node.key for node in found.nodes}
    assert len(keys) == len(found.nodes)
    assert {end for edge in found.edges for end in (edge.source, edge.target)} <= keys
    for edge in found.edges:
        if edge.kind == "gradient" and edge.target.startswith("b:"):
            writer = edge.target[2:]
            assert edge.array in {f"d({writer})", f"d({writer}.prob)"}
    assert_readable(found)


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("backward", [False, True])
def test_in_drawings_of_shipped_nets_no_text_is_covered(name, backward):
    spec = cfgnet.load(CONFIGS / f"{name}.yaml")
    plan = prepare(spec, phases=["train"]).plans["train"]
    for each in picture(plan, spec.name, backward=backward).all():
        assert_readable(each)


LOOP = """{type: Scan, name: loop, sequences: {x: data}, update: {h: again, last: x}, outputs: [h, last],
    state: {h: {value: 1, like: x}, last: {like: x}}, body: [
      {type: Expression, name: v, formula: h * w + x, params: {w: 1.5}},
      {type: Scan, name: again, steps: 2, keep: last, state: {g: v}, body: [{type: TanH, name: t, inputs: g}]}]}"""
OVER_LOOP = "{type: EuclideanLoss, name: loss, inputs: [h, data]}"


def test_what_a_loop_runs_is_a_picture_inside_the_picture():
    whole = drawn(LOOP, OVER_LOOP, backward=False)
    (body,) = whole.inside
    (again,) = body.inside
    assert [each.title for each in whole.all()] == ["a net", "inside loop, 6 steps", "inside again, 2 steps"]
    assert list(whole.all()) == [whole, body, again]
    lines = {node.key: node.lines for node in body.nodes}
    assert lines["i:loop::x"] == ("4", "a step of data") and lines["i:loop::h"] == ("4", "state, first 1")
    assert {node.key: node.lines for node in again.nodes}["i:loop::again::g"] == ("4", "state, first v")
    assert arrows(body, "next") == {("f:loop::again", "i:loop::h", "again")}  # nobody reads the other state
    assert arrows(again, "next") == {("f:loop::again::t", "i:loop::again::g", "t")}


def test_the_gradients_inside_a_loop_start_outside_and_at_the_next_step():
    whole = drawn(LOOP, OVER_LOOP)
    (body,) = whole.inside
    (again,) = body.inside
    seeds = {node.name: node.lines for node in [*body.nodes, *again.nodes] if node.kind == "seed"}
    assert seeds == {
        "d(again)": ("from the next step and outside",),
        "d(t)": ("from the next step and outside",),
    }
    assert ("o:loop::again", "b:loop::again", "d(again)") in arrows(body, "gradient")
    assert ("b:loop::again", "b:loop::v", "d(v)") in arrows(body, "gradient")
    assert {node.name for node in body.nodes if node.kind == "gradient"} == {"d(v.w)"}
    for each in whole.all():
        assert_readable(each)
    keys = [node.key for each in whole.all() for node in each.nodes]
    assert len(keys) == len({*keys})
    for kind, write in WRITERS.items():
        assert all(node.name in write(whole) for each in whole.all() for node in each.nodes), kind
    assert WRITERS["dot"](whole).count("subgraph") == WRITERS["mermaid"](whole).count("subgraph") == 2
    ElementTree.fromstring(WRITERS["svg"](whole))


def _within(y, rect):
    return rect.top + 1e-6 < y < rect.bottom - 1e-6


def assert_readable(found):
    """Boxes lie apart, texts within their boxes, and vertical edges run beside all boxes but those they connect."""
    made = layout(found, 0.0)
    boxes = list(made.rects.values())
    assert {rect.node.key for rect in boxes} == {node.key for node in found.nodes}
    for one, other in combinations(boxes, 2):
        assert (
            one.left + one.width <= other.left + 1e-6
            or other.left + other.width <= one.left + 1e-6
            or one.bottom <= other.top + 1e-6
            or other.bottom <= one.top + 1e-6
        ), f"{one.node.key} lies over {other.node.key}"
    for edge, points in made.paths:
        ends = {edge.source, edge.target}
        ends |= {node.at for node in found.nodes if node.key in ends} | {n.key for n in found.nodes if n.at in ends}
        others = [rect for rect in boxes if rect.node.key not in ends]
        for x, y in points:
            inside = [r.node.key for r in others if abs(x - r.middle[0]) < r.width / 2 and _within(y, r)]
            assert not inside, f"{edge.array} runs through {inside}"
    for rect in boxes:
        assert rect.left >= 0 and rect.left + rect.width <= made.width and rect.bottom <= made.height


def test_every_format_holds_every_node_and_every_array():
    found = drawn(*MEETING)
    names = {node.name for node in found.nodes}
    for kind, write in WRITERS.items():
        written = write(found)
        assert all(name in written for name in names), kind
    assert WRITERS["mermaid"](found).count(":::") == len(found.nodes)
    assert WRITERS["dot"](found).count(" -> ") == len(found.edges)
    svg = ElementTree.fromstring(WRITERS["svg"](found))
    titles = [element.text for element in svg.iter("{http://www.w3.org/2000/svg}title")]
    at = {node.key: node.at or node.key for node in found.nodes}
    assert len(titles) == sum(at[edge.source] != at[edge.target] for edge in found.edges)
    assert "r 6x4" in titles and "d(a) 6x4" in titles


def test_names_that_a_format_would_take_for_its_own():
    found = drawn(ip('"end"', "data"), '{type: SoftmaxWithLoss, name: "x/y-z", inputs: [end, label]}')
    text = WRITERS["dot"](picture(build(ip("end", "data"), LOSS.replace("score", "end")).plan, 'a "title" \\ here'))
    assert text.startswith('digraph "a \\"title\\" \\\\ here" {')
    assert "x/y-z" in WRITERS["mermaid"](found)
    ElementTree.fromstring(WRITERS["svg"](picture(build(ip("end", "data"), LOSS.replace("score", "end")).plan, "<&>")))


def test_a_net_without_a_loss_has_no_gradients_to_draw():
    found = drawn(ip("a", "data"), backward=True)
    assert {node.kind for node in found.nodes} == {"input", "layer", "parameter"}
    assert_readable(found)
