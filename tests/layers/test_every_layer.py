"""One table over every layer type and case: what a layer of any type must keep of its promises."""

import itertools

import numpy as np
import pytest

import cfgnet.layers  # noqa: F401  says where the layer types lie
from cfgnet.backend import get_backend, why_not
from cfgnet.errors import ContractError, Locate, ShapeError
from cfgnet.gradcheck import check_case
from cfgnet.graph import TensorType, build
from cfgnet.layer import Block, Layer, Param, asks
from cfgnet.plan.shapes import infer
from cfgnet.ports import Ports

from .rig import Rig, cases, leaves

TYPES = {name: cls for name, cls in Layer.members().items() if cls.__module__.startswith("cfgnet.")}


def over(table):
    """A parametrised test over a table of cases."""
    return pytest.mark.parametrize(("cls", "case"), [row[1:] for row in table], ids=[row[0] for row in table])


every_case = over(cases())
differentiable = over(cases(lambda cls, case: cls.differentiable()))


def same(ours, theirs, **tolerance):
    assert ours.keys() == theirs.keys()
    for name in ours:
        for a, b in zip(leaves(ours[name]), leaves(theirs[name]), strict=True):
            np.testing.assert_allclose(a, b, err_msg=name, **({"rtol": 0, "atol": 0} | tolerance))


@pytest.mark.parametrize("cls", TYPES.values(), ids=TYPES)
def test_a_type_has_cases_an_expectation_and_words_for_every_field(cls):
    shown = any(case.expect for case in cls.cases) or issubclass(cls, Block) or not cls.wiring.outputs
    assert shown, "a gradient check does not prove that forward is right"
    assert (cls.__doc__ or "").strip().endswith(".")
    assert [name for name, doc in cls.field_docs().items() if not doc.endswith(".")] == []


@over(cases(lambda cls, case: bool(case.expect)))
def test_forward_gives_what_the_case_expects(cls, case):
    outputs = Rig(cls, case).forward()
    expected = {name: value if isinstance(outputs[name], list) else [value] for name, value in case.expect.items()}
    same({name: outputs[name] for name in expected}, expected, rtol=1e-9, atol=1e-12)


@every_case
def test_forward_writes_all_of_its_outputs_and_nothing_else(cls, case):
    rig = Rig(cls, case)
    statistics = {name for name, key in rig.shaped.params.items() if not rig.net.plan.slots[key].trainable}
    names = [*rig.shaped.node.inputs, *(set(rig.shaped.params) - statistics)]
    before = {name: rig.host(rig.arrays[name]) for name in names}
    for name, value in rig.forward().items():
        unwritten = [np.isnan(a).any() if a.dtype.kind == "f" else (a == -7).any() for a in leaves(value)]
        assert not any(unwritten) or not case.train, f"{name} is not written whole"
    same({name: rig.host(rig.arrays[name]) for name in names}, before)


@over(cases(lambda cls, case: cls.differentiable() and case.gradient))
def test_gradients_are_those_of_forward(cls, case):
    results = list(check_case(cls, case, "", tolerance=1e-6, samples=300))
    assert results and not [r for r in results if r.verdict == "wrong"]
    assert all(r.error < 1e-6 for r in results if r.verdict == "ok")


@differentiable
def test_backward_overwrites_input_gradients_adds_to_those_of_parameters_and_touches_nothing_else(cls, case):
    rig = Rig(cls, case)
    rig.forward()
    wanted = rig.wanted()
    names = [name for name in rig.arrays if name not in rig.shaped.scratch]
    before = {name: rig.host(rig.arrays[name]) for name in names}
    first = rig.backward(wanted)
    assert all(np.isfinite(a).all() for value in first.values() for a in leaves(value)), "not written whole"
    second = rig.backward(wanted)
    for name in first:
        times = 2 if name[1:] in rig.shaped.params else 1
        same({name: second[name]}, {name: [times * a for a in leaves(first[name])]}, rtol=1e-12, atol=1e-15)
    same({name: rig.host(rig.arrays[name]) for name in names}, before)


@over(cases(lambda cls, case: bool(case.layer(cls).shape_only())))
def test_backward_looks_at_no_more_than_the_shape_of_what_it_names_so(cls, case):
    rig = Rig(cls, case)  # whose backward hands garbage in their place
    rig.forward()
    real = {name: rig.arrays[name] for name in rig.layer.shape_only()}
    same(rig.backward(rig.wanted()), rig.backward(rig.wanted(), **real))


@differentiable
def test_a_gradient_that_nobody_needs_can_be_left_out(cls, case):
    rig = Rig(cls, case)
    rig.forward()
    whole = rig.backward(rig.wanted())
    for name, required in asks(cls, "backward").items():
        if name in whole and not required:
            rest = {key: value for key, value in rig.wanted().items() if key != name}
            same(rig.backward(rest), {key: value for key, value in whole.items() if key != name})
    for name, value in whole.items():
        if isinstance(value, list) and len(value) > 1:
            some = rig.wanted()
            some[name][0] = None
            kept = some.copy() | {name: some[name][1:]}
            rig.layer.backward(**rig_answer(rig, some))
            same({name: rig.host(kept[name])}, {name: value[1:]})


def rig_answer(rig, gradients):
    """The arguments of backward where one gradient of several at a port is None."""
    offered = rig.offer() | rig.upper() | gradients
    return {name: offered[name] for name in asks(type(rig.layer), "backward") if offered.get(name) is not None}


@over(cases(lambda cls, case: bool(case.layer(cls).overwrites())))
def test_in_place_gives_the_same_bits(cls, case):
    apart = Rig(cls, case)
    ((output, source),) = apart.layer.overwrites().items()
    plain = apart.forward()
    for index in range(len(leaves(apart.arrays[source]))):
        together = Rig(cls, case)
        together.arrays[output] = leaves(together.arrays[source])[index].reshape(apart.arrays[output].shape)
        same(together.forward(), plain)
    if not cls.differentiable():
        return
    if source in asks(cls, "backward").keys() - apart.layer.shape_only():
        together = Rig(cls, case)  # what backward reads is not written over
        together.forward()
    whole = apart.backward(apart.wanted())
    upper, gradients = together.upper(), together.wanted()
    if "d" + output in upper:  # it is written over, too
        over_it = upper["d" + output].reshape(leaves(gradients["d" + source])[-1].shape)
        several = isinstance(gradients["d" + source], list)
        gradients["d" + source] = [*gradients["d" + source][:-1], over_it] if several else over_it
    together.backward(gradients, **upper)
    same({"d": gradients["d" + source]}, {"d": whole["d" + source]})


def uses_up(cls, case):
    return hasattr(cls, "uses_up") and Rig(cls, case).shaped.says("uses_up", ())


@pytest.mark.parametrize("backend", [name for name in ("numpy", "native") if not why_not(name)])
@over(cases(uses_up))
def test_the_gradient_of_an_input_that_is_used_up_may_lie_in_its_place(cls, case, backend):
    apart, together = (Rig(cls, case, "float32", backend, channels_last=True) for _ in range(2))
    for rig in (apart, together):
        rig.forward()
    inside = together.wanted() | {"d" + port: together.arrays[port] for port in uses_up(cls, case)}
    same(together.backward(inside), apart.backward(apart.wanted()))


@every_case
def test_float32_is_close_to_float64(cls, case):
    wide, narrow = Rig(cls, case), Rig(cls, case, "float32")
    same(narrow.forward(), wide.forward(), rtol=2e-4, atol=2e-5)
    if cls.differentiable():
        same(narrow.backward(narrow.wanted()), wide.backward(wide.wanted()), rtol=2e-3, atol=2e-4)


@over(cases(lambda cls, case: case.layer(cls).laid_out() != "rows"))
def test_channels_may_lie_last(cls, case):
    rows, last = Rig(cls, case), Rig(cls, case, channels_last=True)
    same(last.forward(), rows.forward(), rtol=1e-12, atol=1e-14)
    if cls.differentiable():
        same(last.backward(last.wanted()), rows.backward(rows.wanted()), rtol=1e-11, atol=1e-13)


@every_case
def test_settings_read_back(cls, case):
    layer = case.layer(cls)
    assert Layer.model_validate(layer.settings()) == layer
    assert layer.settings()["type"] == cls.__name__


@pytest.mark.skipif(bool(why_not("native")), reason=why_not("native"))
@every_case
def test_the_kernels_in_c_compute_the_same(cls, case):
    exact = Rig(cls, case)
    fast = Rig(cls, case, "float32", "native", channels_last=exact.layer.laid_out() != "rows")
    same(fast.forward(), exact.forward(), rtol=2e-5, atol=2e-5)
    if cls.differentiable():
        same(fast.backward(fast.wanted()), exact.backward(exact.wanted()), rtol=2e-4, atol=2e-5)


@pytest.mark.gpu
@every_case
def test_the_gpu_computes_the_same(cls, case):
    host, device = Rig(cls, case), Rig(cls, case, backend="cupy")
    same(device.forward(), host.forward(), rtol=1e-9, atol=1e-11)
    if cls.differentiable():
        same(device.backward(device.wanted()), host.backward(host.wanted()), rtol=1e-9, atol=1e-11)


# What the class statement itself refuses.


ODD = [(), (3,), (1, 1), (4, 5), (0, 3), (2, 3, 4), (2, 0, 3, 3), (2, 3, 4, 5), (2, 3, 4, 5, 6)]


@every_case
def test_whatever_goes_in_there_are_shapes_or_words(cls, case):
    ports = cls.wiring.inputs
    names = [f"{port.name}{place}" for port in ports for place in range(2 if port.many else 1)]
    layer = case.layer(cls).model_copy(update={"name": "layer", "inputs": tuple(names)})
    kinds = [port.kind if port.kind == "int" else "float" for port in ports for _ in range(2 if port.many else 1)]
    for shift, at in itertools.product((0, 1, 3), range(len(ODD))):
        shapes = (ODD[(at + shift * place) % len(ODD)] for place in range(len(names)))
        inputs = {name: TensorType(shape, kind) for name, shape, kind in zip(names, shapes, kinds, strict=True)}
        graph, problems = build([layer], "train", inputs)
        shaped, _, _, more = infer(graph, get_backend("numpy").k, Locate())
        assert (len(shaped) < len(graph.nodes)) == bool(more) or problems
        assert not any(word in str(each) for each in more for word in ("Traceback", "None", "object at"))


def test_a_class_without_forward_is_refused():
    with pytest.raises(ContractError, match="define shapes"):
        type("Half", (Layer,), {"__module__": __name__, "shapes": lambda self, x: x})


def test_a_block_without_expand_is_refused():
    with pytest.raises(ContractError, match="define expand"):
        type("Half", (Block,), {"__module__": __name__})


def test_a_class_that_overwrites_what_its_backward_asks_for_is_refused():
    body = {
        "__module__": __name__,
        "inplace": {"y": "x"},
        "shapes": lambda self, x: x,
        "forward": lambda self, x, y: None,
        "backward": lambda self, x, dy, dx: None,
    }
    with pytest.raises(ContractError, match="backward asks for it"):
        type("Greedy", (Layer,), body)


@pytest.mark.parametrize("ports", ["x", "x -> y -> z", "x:text -> y"])
def test_ports_that_cannot_be_read_are_refused(ports):
    with pytest.raises(ContractError, match=r"port"):
        type("Odd", (Layer,), {"__module__": __name__, "ports": ports})


@pytest.mark.parametrize(
    ("names", "ports"), [("pq", "xc"), ("pqr", "xac"), ("pqrs", "xabc"), ("p", None), ("pqrst", None)]
)
def test_a_port_that_may_be_left_out_is_where_a_required_one_behind_it_needs_the_name(names, ports):
    wiring = Ports.parse("x, a?, b?, c -> y")
    if ports is None:
        with pytest.raises(ShapeError, match=rf"expected 2-4 inputs \(x, a\?, b\?, c\), got {len(names)}"):
            wiring.bind("inputs", tuple(names))
    else:
        assert wiring.bind("inputs", tuple(names)) == dict(zip(ports, names, strict=True))


def test_a_second_class_of_one_name_is_refused():
    body = {"__module__": __name__, "shapes": lambda self, x: x, "forward": lambda self, x, y: None}
    with pytest.raises(ContractError, match="'ReLU' is defined twice"):
        type("ReLU", (Layer,), body)
    assert Layer.members()["ReLU"].__module__ == "cfgnet.layers.activation"


def test_a_parameter_is_described_before_it_exists():
    layer = Layer.model_validate({"type": "InnerProduct", "num_output": 3})
    assert list(layer.params((2, 4))) == [
        Param("weight", (3, 4), layer.weight_filler),
        Param("bias", (3,), layer.bias_filler),
    ]
