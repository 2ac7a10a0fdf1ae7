"""Layers that write files."""

import h5py
import numpy as np
import pytest

import cfgnet
from cfgnet.errors import DataError

NET = """
data: {{train: {{source: digits, batch_size: 4}}}}
layers:
  - {{type: InnerProduct, name: score, num_output: 3}}
  - {{type: HDF5Output, inputs: [score, label], file_name: {file}}}
"""


def test_hdf5_output_writes_the_last_batch(tmp_path):
    net = cfgnet.Net(cfgnet.loads(NET.format(file=tmp_path / "out.h5")))
    for seed in range(2):
        data = np.random.default_rng(seed).normal(size=(4, 1, 8, 8)).astype(np.float32)
        net.forward(data=data, label=np.arange(4, dtype=np.int32))
    with h5py.File(tmp_path / "out.h5") as file:
        np.testing.assert_array_equal(file["data"], net["score"])
        assert list(file["label"]) == [0, 1, 2, 3] and list(file) == ["data", "label"]


def test_hdf5_output_says_where_it_cannot_write(tmp_path):
    net = cfgnet.Net(cfgnet.loads(NET.format(file=tmp_path / "none" / "out.h5")))
    with pytest.raises(DataError, match=r"out.h5: cannot be written: No such file"):
        net.forward(data=np.zeros((4, 1, 8, 8), np.float32), label=np.zeros(4, np.int32))
