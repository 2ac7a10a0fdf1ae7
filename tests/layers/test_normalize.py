"""Layers that normalise each sample by itself, against the reference implementation of ONNX and scipy."""

import numpy as np
import pytest
import scipy.stats

from .test_against_others import net_of, numbers
from .test_elementwise import onnx_value

X = 3 * numbers(0, 3, 6, 4, 5) + 2
KINDS = {
    "LayerNormalization last": ({"type": "LayerNorm"}, {}),
    "LayerNormalization": ({"type": "LayerNorm", "axis": 2, "eps": 0.125}, {"axis": 2, "epsilon": 0.125}),
    "RMSNormalization last": ({"type": "RMSNorm"}, {}),
    "RMSNormalization": ({"type": "RMSNorm", "axis": 1, "eps": 0.125}, {"axis": 1, "epsilon": 0.125}),
    "GroupNormalization": ({"type": "GroupNorm", "num_groups": 3}, {"num_groups": 3}),
    "InstanceNormalization": ({"type": "InstanceNorm", "affine": True}, {}),
}
FLOAT32 = {"GroupNormalization"}
"""What ONNX's reference computes in float32."""


@pytest.mark.parametrize("name", KINDS)
def test_normalisation_is_that_of_onnx(name):
    fields, attributes = KINDS[name]
    net = net_of(fields, x=X)
    learned = {key.removeprefix("layer."): parameter.value for key, parameter in net.params.items()}
    assert list(learned) == (["weight"] if "RMS" in name else ["weight", "bias"])
    expected = onnx_value(name.split()[0], X, **learned, **attributes)
    bound = 2e-6 if name in FLOAT32 else 1e-9  # of all, eps is in float32
    np.testing.assert_allclose(net["layer"], expected, rtol=bound, atol=bound)


def test_mvn_is_the_z_score_of_scipy():
    for across, axes in ((False, (2, 3)), (True, (1, 2, 3))):
        ours = net_of({"type": "MVN", "across_channels": across, "eps": 1e-20}, x=X)["layer"]
        flat = X.reshape(*X.shape[: axes[0]], -1)
        np.testing.assert_allclose(ours.reshape(flat.shape), scipy.stats.zscore(flat, axis=-1), rtol=1e-12, atol=1e-13)


def test_one_group_is_a_layer_norm_and_as_many_as_channels_an_instance_norm():
    def y(**fields):
        return net_of({"affine": False, **fields}, x=X)["layer"]

    np.testing.assert_array_equal(y(type="GroupNorm", num_groups=1), y(type="LayerNorm", axis=1))
    np.testing.assert_array_equal(y(type="GroupNorm", num_groups=6), y(type="InstanceNorm"))
