"""The whole road in a second: train two steps, stop, go on to four, and test."""

import numpy as np

import cfgnet
from cfgnet.rundir import newest
from cfgnet.snapshot import read
from cfgnet.trainer import resume

TINY = """
name: tiny
data:
  train: {source: digits, batch_size: 8, shuffle: true, transform: {scale: 0.0625}}
  test: {source: digits, split: test, batch_size: 120, transform: {scale: 0.0625}}
layers:
  - {type: Convolution, num_output: 2, kernel_size: 3}
  - {type: ReLU}
  - {type: Pooling, kernel_size: 2, stride: 2}
  - {type: InnerProduct, name: score, num_output: 10}
  - {type: SoftmaxWithLoss, name: loss, inputs: [score, label]}
  - {type: Accuracy, name: accuracy, inputs: [score, label], phase: test}
solver: {type: SGD, base_lr: 0.05, momentum: 0.9}
train: {max_iter: %d}
"""


def test_a_training_that_goes_on_is_the_same_as_one_that_never_stopped(tmp_path):
    whole = cfgnet.train(cfgnet.loads(TINY % 4), runs=tmp_path)
    half = cfgnet.train(cfgnet.loads(TINY % 2), runs=tmp_path)
    assert half.path != whole.path
    more = resume(half.path, ("train.max_iter=4",))
    assert more.metrics == whole.metrics and set(whole.metrics) == {"loss", "accuracy"}
    one, two = read(newest(whole.path)), read(newest(half.path))
    assert one.arrays.keys() == two.arrays.keys()
    assert all(np.array_equal(one.arrays[name], two.arrays[name]) for name in one.arrays)
