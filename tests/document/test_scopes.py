"""Scopes: names in front of names, and parameters that are reused, by the rules of TensorFlow's variable_scope."""

import numpy as np
import pytest

import cfgnet
from cfgnet.errors import SpecError
from cfgnet.rundir import newest
from cfgnet.trained import Trained

HEAD = """
data: {train: {source: synthetic, count: 8, inputs: [3], batch_size: 4, classification: 2}}
solver: {type: SGD, base_lr: 0.1}
train: {max_iter: 2}
layers:
"""


def loaded(layers):
    return cfgnet.loads(HEAD + layers)


def wiring(spec):
    """What each layer reads, by its name; None for what a plain list says nothing of."""
    return {layer.name: layer.inputs for layer in spec.layers}


def problem(layers):
    with pytest.raises(SpecError) as caught:
        loaded(layers)
    return str(caught.value)


def test_a_variable_in_bar_in_foo_is_called_foo_bar_q():
    spec = loaded("""
  - scope: foo
    layers:
      - scope: bar
        layers: [{type: Parameter, name: q, shape: [2]}]
""")
    assert [layer.name for layer in spec.layers] == ["foo/bar/q"]
    assert [
        *cfgnet.Net(
            loaded("""
  - {type: InnerProduct, name: fc, num_output: 2}
  - {scope: foo/bar, type: Parameter, name: q, shape: [2]}
  - {type: Bias, inputs: [fc, foo/bar/q]}
  - {type: SoftmaxWithLoss}
""")
        ).plan.slots
    ][2:] == ["foo/bar/q.value"]


def test_a_name_scope_does_not_change_the_names_of_variables():
    spec = loaded("""
  - scope: foo
    layers:
      - name_scope: bar
        layers:
          - {type: Parameter, name: v, shape: []}
          - {type: Power, name: add, inputs: v, shift: 1.0}
  - {type: Power, name: read, inputs: foo/v}
""")
    assert [layer.name for layer in spec.layers] == ["foo/v", "foo/bar/add", "read"]
    assert wiring(spec)["foo/bar/add"] == ("foo/v",)


def test_a_scope_opened_again_without_reuse_is_an_error_on_a_taken_name():
    said = problem("""
  - {scope: foo, type: InnerProduct, name: v, num_output: 2}
  - {scope: foo, type: InnerProduct, name: w, num_output: 2}
  - {scope: foo, type: InnerProduct, name: v, num_output: 2}
""")
    assert said == (
        "<text>:9:44  the name 'foo/v' is taken\n"
        "  the other is at line 7; reuse: true at the scope shares its parameters"
    )
    assert problem("""
  - {scope: foo, type: InnerProduct, name: v, num_output: 2}
  - {scope: foo, reuse: false, layers: [{type: InnerProduct, name: v, num_output: 2}]}
""").startswith("<text>:8:")


TOWERS = """
  - scope: tower
    layers:
      - {type: InnerProduct, name: fc, inputs: data, num_output: 3}
      - {type: ReLU}
  - scope: tower
    reuse: true
    layers:
      - {type: InnerProduct, name: fc, inputs: tower/relu1, num_output: 3}
      - {type: ReLU}
  - {type: InnerProduct, name: score, num_output: 2}
  - {type: SoftmaxWithLoss, name: loss, inputs: [score, label]}
"""


def test_with_reuse_the_variable_is_the_same_array():
    spec = loaded(TOWERS)
    assert [layer.name for layer in spec.layers][:4] == ["tower/fc", "tower/relu1", "tower_1/fc", "tower_1/relu1"]
    net = cfgnet.Net(spec)
    assert [*net.plan.slots] == ["tower/fc.weight", "tower/fc.bias", "score.weight", "score.bias"]
    shared = {node.name: node.params for node in net.plan.nodes}
    assert shared["tower/fc"] == shared["tower_1/fc"] == {"weight": "tower/fc.weight", "bias": "tower/fc.bias"}
    assert all(result.verdict in ("ok", "kink") for result in cfgnet.grad_check(spec))


def test_what_is_reused_gives_the_gradients_of_a_shared_parameter(tmp_path):
    by_hand = """
  - {type: InnerProduct, name: tower/fc, num_output: 3, param: {weight: {share: w}, bias: {share: b}}}
  - {type: ReLU, name: one}
  - {type: InnerProduct, name: other, num_output: 3, param: {weight: {share: w}, bias: {share: b}}}
  - {type: ReLU, name: two}
  - {type: InnerProduct, name: score, num_output: 2}
  - {type: SoftmaxWithLoss, name: loss, inputs: [score, label]}
"""
    ours, theirs = (cfgnet.train(loaded(text), runs=tmp_path).params for text in (TOWERS, by_hand))
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        np.testing.assert_array_equal(value, theirs[name])


def test_reuse_of_a_name_that_does_not_exist_is_an_error():
    assert "there is no layer 'foo/v' whose parameters could be reused" in problem("""
  - {scope: foo, reuse: true, type: InnerProduct, name: v, num_output: 2}
""")
    said = problem("""
  - {scope: foo, type: InnerProduct, name: v, num_output: 2}
  - {scope: foo, reuse: true, type: InnerProduct, name: w, num_output: 2}
""")
    assert "there is no layer 'foo/w' whose parameters could be reused" in said and "'foo/v'" in said


def test_reuse_holds_for_the_scopes_inside():
    spec = loaded("""
  - {scope: a, layers: [{scope: b, layers: [{type: InnerProduct, name: v, num_output: 3}]}]}
  - {scope: a, reuse: true, layers: [{scope: b, layers: [{type: InnerProduct, name: v, num_output: 3}]}]}
  - {scope: a, reuse: true, layers: [{scope: b, layers: [{type: InnerProduct, name: v, num_output: 3}]}]}
""")
    assert [(layer.name, layer.share) for layer in spec.layers] == [
        ("a/b/v", None), ("a_1/b/v", "a/b/v"), ("a_2/b/v", "a/b/v"),
    ]  # fmt: skip


def test_what_is_reused_has_to_be_of_the_same_type_and_shape():
    assert "'foo/v' is a layer of type InnerProduct, and here it is Parameter" in problem("""
  - {scope: foo, type: InnerProduct, name: v, num_output: 2}
  - {scope: foo, reuse: true, type: Parameter, name: v, shape: [2]}
""")
    with pytest.raises(SpecError, match=r"weight is shared with foo/v.weight, which is 2x3; here it is 2x2"):
        cfgnet.Net(
            loaded("""
  - {scope: foo, type: InnerProduct, name: v, num_output: 2}
  - {scope: foo, reuse: true, type: InnerProduct, name: v, num_output: 2}
""")
        )


def test_a_name_is_looked_for_in_the_nearest_scope_first_then_outwards():
    spec = loaded("""
  - {type: ReLU, name: x}
  - {type: ReLU, name: y}
  - scope: a
    layers:
      - {type: ReLU, name: x}
      - scope: b
        layers:
          - {type: Eltwise, name: first, inputs: [x, y]}
          - {type: ReLU, name: y}
          - {type: Eltwise, name: second, inputs: [x, y]}
  - {type: Eltwise, name: outside, inputs: [x, a/b/y]}
""")
    read = wiring(spec)
    assert read["a/b/first"] == ("a/x", "a/b/y")  # also what is written further down
    assert read["a/b/second"] == ("a/x", "a/b/y")
    assert read["outside"] == ("x", "a/b/y")


def test_names_by_which_parameters_are_shared_belong_to_the_scope():
    spec = loaded("""
  - {scope: a, layers: [{type: InnerProduct, num_output: 3, param: {weight: {share: w}}}]}
  - {scope: b, layers: [{type: InnerProduct, num_output: 3, param: {weight: {share: w}, bias: {share: /b}}}]}
  - {type: InnerProduct, num_output: 3, param: {weight: {share: a/w}, bias: {share: b}}}
""")
    shares = [{name: each.share for name, each in layer.param.items()} for layer in spec.layers]
    assert shares == [{"weight": "a/w"}, {"weight": "b/w", "bias": "b"}, {"weight": "a/w", "bias": "b"}]


def test_layers_without_a_name_are_counted_in_each_scope():
    spec = loaded("""
  - ReLU
  - {scope: a, layers: [ReLU, ReLU]}
  - ReLU
  - {scope: a, type: ReLU}
""")
    assert [layer.name for layer in spec.layers] == ["relu1", "a/relu1", "a/relu2", "relu2", "a/relu3"]
    assert set(wiring(spec).values()) == {None}


def test_a_group_says_something_of_all_its_layers():
    spec = loaded("""
  - {phase: train, frozen: true, layers: [{type: InnerProduct, num_output: 2}, {type: ReLU, frozen: false}]}
  - {type: InnerProduct, num_output: 2}
""")
    assert [(layer.phase, layer.frozen) for layer in spec.layers] == [
        ("train", True), ("train", False), (None, False),
    ]  # fmt: skip


def test_the_formula_of_an_expression_means_the_names_of_its_scope():
    spec = loaded("""
  - {type: InnerProduct, name: a, num_output: 2}
  - scope: s
    layers:
      - {type: InnerProduct, name: a, num_output: 2}
      - {type: Expression, name: e, formula: "a + x"}
  - {type: Expression, name: f, formula: "a + x"}
""")
    assert wiring(spec) == {"a": None, "s/a": None, "s/e": ("s/a", "s/a"), "f": None}


def test_the_parameters_of_one_layer_can_be_those_of_another():
    spec = loaded("""
  - {type: InnerProduct, name: one, num_output: 3}
  - {type: InnerProduct, name: two, num_output: 3, share: one}
  - {type: SoftmaxWithLoss}
""")
    assert [*cfgnet.Net(spec).plan.slots] == ["one.weight", "one.bias"]
    assert "did you mean 'one'?" in problem("""
  - {type: InnerProduct, name: one, num_output: 3}
  - {type: InnerProduct, name: two, num_output: 3, share: oen}
  - {type: Nothing}
""")


def test_a_layer_that_shares_may_stand_in_front_of_the_one_that_it_shares_with():
    spec = loaded("""
  - {type: InnerProduct, name: two, num_output: 3, share: one}
  - {type: InnerProduct, name: one, num_output: 3, param: {weight: {lr_mult: 2}}, bias_term: false}
  - {type: SoftmaxWithLoss}
""")
    slots = cfgnet.Net(spec).plan.slots
    assert [*slots] == ["one.weight", "one.bias"] and slots["one.weight"].lr_mult == 2


def test_a_block_class_is_reused_with_all_its_layers():
    spec = cfgnet.loads("""
data: {train: {source: synthetic, count: 8, inputs: [2, 5, 5], batch_size: 4, classification: 2}}
solver: {type: SGD, base_lr: 0.1}
train: {max_iter: 2}
layers:
  - {scope: a, type: Residual, name: r, num_output: 2}
  - {scope: a, reuse: true, type: Residual, name: r, num_output: 2}
  - {type: InnerProduct, name: score, num_output: 2}
  - {type: SoftmaxWithLoss}
""")
    plan = cfgnet.Net(spec).plan
    assert {key.partition("/")[0] for key in plan.slots} == {"a", "score.weight", "score.bias"}
    once, again = (next(node for node in plan.nodes if node.name == f"{scope}/r/conv1") for scope in ("a", "a_1"))
    assert once.params == again.params == {"weight": "a/r/conv1.weight"}


def test_settings_of_a_parameter_stand_at_the_layer_that_owns_it():
    with pytest.raises(SpecError, match="say it at one, whose parameters these are"):
        cfgnet.Net(
            loaded("""
  - {type: InnerProduct, name: one, num_output: 3}
  - {type: InnerProduct, name: two, num_output: 3, share: one, param: {weight: {lr_mult: 2}}}
  - {type: SoftmaxWithLoss}
""")
        )


def test_a_prediction_by_a_layer_that_reuses_needs_only_that(tmp_path):
    spec = loaded("""
  - {scope: t, type: InnerProduct, name: fc, num_output: 2}
  - {scope: t, reuse: true, type: InnerProduct, name: fc, inputs: data, num_output: 2}
  - {type: SoftmaxWithLoss, name: loss, inputs: [t/fc, label]}
""")
    run = cfgnet.train(spec, runs=tmp_path)
    trained = Trained.load(run.path, newest(run.path))
    samples = np.eye(3, dtype=np.float32)
    expected = samples @ run.params["t/fc.weight"].T + run.params["t/fc.bias"]
    np.testing.assert_allclose(trained.predictor("t_1/fc")(data=samples), expected, atol=1e-6)
