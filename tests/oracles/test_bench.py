"""The bench itself: it reads prototxt, translates it, leaves no case out, and notices a wrong number."""

import shutil
from dataclasses import dataclass

import numpy as np
import pytest

from . import test_caffe_layers, test_caffe_nets, test_caffe_solvers
from .bench import Case, Check, Tally, error, find, share
from .conftest import DEFAULT, policies
from .prototxt import parse
from .translate import UnsupportedError, solver, translate

TEXT = """
name: "net"  # a comment
layer { name: 'a # b' type: "X" x_param < k: -1 f: 1e-3 g: .5f on: true pool: MAX > }
layer: { shape { dim: [2, 3] dim: 4 }; weight: inf, }
"""


def test_parse():
    assert parse(TEXT) == {
        "name": ["net"],
        "layer": [
            {
                "name": ["a # b"],
                "type": ["X"],
                "x_param": [{"k": [-1], "f": [0.001], "g": [0.5], "on": [True], "pool": ["MAX"]}],
            },
            {"shape": [{"dim": [2, 3, 4]}], "weight": ["inf"]},
        ],
    }


@pytest.mark.parametrize("text", ["a {", "a: {b: 1", "a:", 'a: "x', "a: [1, 2", "a { b"])
def test_parse_error(text):
    with pytest.raises(ValueError, match="prototxt"):
        parse(text)


def layers(text, phase="train"):
    return translate(parse(text)["layer"], phase)


def test_in_place_layers_get_names_of_their_own():
    net = layers("""
        layer { name: "in" type: "Input" top: "x" }
        layer { name: "r" type: "ReLU" bottom: "x" top: "x" relu_param { negative_slope: 0.1 engine: CAFFE } }
        layer { name: "s" type: "Sigmoid" bottom: "x" top: "x" }
        layer { name: "t" type: "TanH" bottom: "x" top: "t" include { phase: TEST } }
        layer { name: "l" type: "EuclideanLoss" bottom: "x" bottom: "y" loss_weight: 0.5 }
    """)
    assert [(layer.inputs, layer.outputs) for layer in net.layers] == [
        (("x",), ("x/r",)),
        (("x/r",), ("x/s",)),
        (("x/s", "y"), None),
    ]
    assert net.inputs == {"x": "float", "y": "float"}
    assert net.tensors["x"] == "x/s"
    assert net.layers[0].negative_slope == 0.1
    assert net.layers[2].loss_weight == 0.5


def test_fields_and_params():
    conv, norm, scale, shape, loss = layers("""
        layer { name: "c" type: "Convolution" bottom: "x" top: "c"
          param { name: "w" lr_mult: 2 } param { decay_mult: 0 }
          convolution_param { num_output: 2 kernel_size: 3 kernel_size: 1 weight_filler { type: "gaussian" std: 0.1 } }
        }
        layer { name: "n" type: "BatchNorm" bottom: "c" top: "n" param { lr_mult: 0 } param { lr_mult: 0 } }
        layer { name: "s" type: "Scale" bottom: "n" bottom: "f" top: "s" param { lr_mult: 3 }
          scale_param { bias_term: true } }
        layer { name: "r" type: "Reshape" bottom: "s" top: "r" reshape_param { shape { dim: 0 dim: -1 } } }
        layer { name: "l" type: "SoftmaxWithLoss" bottom: "r" bottom: "label" loss_param { normalize: false } }
    """).layers
    assert conv.kernel_size == (3, 1)
    assert conv.weight_filler.std == 0.1
    assert (conv.param["weight"].share, conv.param["weight"].lr_mult, conv.param["bias"].decay_mult) == ("w", 2, 0)
    assert list(norm.param) == ["mean", "variance"]
    assert list(scale.param) == ["bias"]
    assert shape.shape == (0, -1)
    assert loss.normalization == "BATCH_SIZE"


def test_the_values_of_an_argmax_are_an_output_of_their_own():
    index, both, joined, values = layers("""
        layer { name: "i" type: "ArgMax" bottom: "x" top: "i" argmax_param { out_max_val: false top_k: 2 } }
        layer { name: "b" type: "ArgMax" bottom: "x" top: "b" argmax_param { out_max_val: true } }
        layer { name: "v" type: "ArgMax" bottom: "x" top: "v" argmax_param { out_max_val: true axis: 1 } }
    """).layers
    assert (index.outputs, index.top_k) == (("i",), 2)
    assert (both.outputs, joined.inputs, joined.outputs) == (("b/index", "b/values"), ("b/index", "b/values"), ("b",))
    assert (values.outputs, values.axis) == (("v/index", "v"), 1)


def test_a_convolution_of_two_bottoms_is_two_that_share():
    one, two = layers("""
        layer { name: "c" type: "Convolution" bottom: "x" bottom: "y" top: "a" top: "b"
          convolution_param { num_output: 2 kernel_size: 3 bias_term: false } }
    """).layers
    assert (one.name, one.inputs, one.outputs) == ("c", ("x",), ("a",))
    assert (two.name, two.inputs, two.outputs) == ("c.1", ("y",), ("b",))
    assert one.param == two.param and one.param["weight"].share == "c.0" and "bias" not in one.param


def test_unknown_types_are_named():
    with pytest.raises(UnsupportedError, match="cfgnet has no layer type Nonsense"):
        layers('layer { name: "n" type: "Nonsense" bottom: "x" top: "y" }')
    with pytest.raises(UnsupportedError, match="cfgnet has no solver Nonsense"):
        solver(parse('type: "Nonsense" lr_policy: "fixed"'))
    with pytest.raises(UnsupportedError, match="cfgnet has no lr_policy nonsense"):
        solver(parse('lr_policy: "nonsense"'))


def test_the_default_folder_has_every_case_of_the_core():
    counts = {kind: len(find(DEFAULT / kind)) for kind in ("layers", "solvers", "nets")}
    counts["lr_policies"] = len(policies(DEFAULT))
    assert all(counts[kind] >= n for kind, n in {"layers": 103, "solvers": 8, "nets": 4, "lr_policies": 10}.items())


def test_errors():
    assert error([1.0, 100.0], [1.1, 90.0]) == pytest.approx(1 / 9)
    assert error([0.0], [0.5]) == 0.5
    assert share([0.01, 0.0], [0.01, 0.002]) == pytest.approx(0.2)
    assert error([np.inf], [np.inf]) == 0
    assert not error([np.nan], [1.0]) <= 1
    assert not error([1.0], [np.nan]) <= 1
    check = Check(Tally(), "layer", "x")
    with pytest.raises(AssertionError, match="Caffe has"):
        check("out_0", np.zeros((2, 1)), np.zeros((1, 2)), 1)
    with pytest.raises(AssertionError, match="allowed 1e-05"):
        check("out_0", np.full(2, 2e-5), np.zeros(2), 1e-5)
    with pytest.raises(AssertionError, match="of the largest element"):
        check("out_0", np.array([0.01, 2e-5]), np.array([0.01, 0.0]), 1e-3)


@dataclass
class Kind:
    """A sort of case, an example of it, and the test that runs it."""

    folder: str
    test: object


KINDS = {
    "layer": Kind("layers/conv_basic", lambda case, check: test_caffe_layers.test_layer(case, "float64", check)),
    "norm": Kind("layers/bn_train", lambda case, check: test_caffe_layers.test_layer(case, "float64", check)),
    "solver": Kind("solvers/sgd_iter_size2", test_caffe_solvers.test_solver),
    "net": Kind("nets/inplace_chain", lambda case, check: test_caffe_nets.test_net(case, "float64", check)),
}


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        *(("layer", key) for key in ("out_0", "din_0", "dparam_0", "dparam_1", "unheard_of")),
        *(("norm", f"param_after_{i}") for i in range(3)),
        *(("solver", key) for key in ("traj_ip1_w", "update_ip2_b", "lr", "loss_last_subbatch", "unheard_of")),
        *(("net", key) for key in ("blob_c", "dparam_c_0", "param_after3_ip_0", "param_after3_bn_1", "unheard_of")),
    ],
)
def test_a_wrong_number_is_found(kind, key, tmp_path):
    shutil.copytree(DEFAULT / KINDS[kind].folder, tmp_path, dirs_exist_ok=True)
    with np.load(tmp_path / "data.npz") as file:
        arrays = dict(file)
    arrays[key] = arrays.get(key, np.zeros(1)).copy()
    arrays[key].flat[-1] += 0.01
    np.savez(tmp_path / "data.npz", **arrays)
    with pytest.raises(AssertionError):
        KINDS[kind].test(Case(tmp_path), Check(Tally(), "", ""))
