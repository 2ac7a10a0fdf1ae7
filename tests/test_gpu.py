"""A whole training on a GPU, against the same on numpy; the layers one by one are in tests/layers."""

import json

import numpy as np
import pytest

import cfgnet
from cfgnet.trainer import resume

pytestmark = pytest.mark.gpu

NET = """
name: gpu
data:
  train: {source: digits, batch_size: 32, shuffle: true, transform: {scale: 0.0625}}
  test: {source: digits, split: test, batch_size: 100, transform: {scale: 0.0625}}
layers:
  - {type: Convolution, name: conv, num_output: 8, kernel_size: 3, pad: 1}
  - {type: BatchNorm}
  - {type: Scale, bias_term: true}
  - {type: ReLU}
  - {type: Pooling, kernel_size: 2, stride: 2}
  - {type: InnerProduct, name: hidden, num_output: 32}
  - {type: ReLU}
  - {type: Dropout}
  - {type: InnerProduct, name: score, num_output: 10}
  - {type: SoftmaxWithLoss, name: loss, inputs: [score, label]}
  - {type: Accuracy, name: accuracy, inputs: [score, label], phase: test}
solver: {type: SGD, base_lr: 0.05, momentum: 0.9, weight_decay: 0.0005, clip_gradients: 5}
train: {max_iter: 40, display: 1, test_interval: 20}
dtype: float64
"""


def losses(run):
    entries = map(json.loads, (run.path / "log.jsonl").read_text().splitlines())
    return [entry["loss"] for entry in entries if "loss" in entry]


def test_a_training_takes_the_same_steps_as_on_numpy(tmp_path):
    spec = cfgnet.loads(NET)
    host, device = (cfgnet.train(spec, runs=tmp_path, backend=name) for name in ("numpy", "cupy"))
    np.testing.assert_allclose(losses(device), losses(host), rtol=1e-6)
    assert device.metrics == pytest.approx(host.metrics, rel=1e-6)
    for name, value in host.params.items():
        np.testing.assert_allclose(device.params[name], value, rtol=1e-5, atol=1e-7)


def test_a_run_can_go_on_on_another_backend(tmp_path):
    run = cfgnet.train(cfgnet.loads(NET, ["train.max_iter=20"]), runs=tmp_path, backend="cupy")
    more = resume(run.path, ("train.max_iter=40",), backend="numpy")
    whole = cfgnet.train(cfgnet.loads(NET), runs=tmp_path, backend="numpy")
    assert more.metrics == pytest.approx(whole.metrics, rel=1e-6)


def test_auto_takes_the_gpu(tmp_path):
    net = cfgnet.Net(cfgnet.loads(NET, ["backend=auto"]))
    assert net.backend.name == "cupy" and net.backend.device.startswith("GPU, ")
