"""Layers that write what they read to a file."""

from __future__ import annotations

import io
import os
from pathlib import Path

from cfgnet.errors import DataError, ShapeError
from cfgnet.layer import Case, Layer
from cfgnet.part import Names


class HDF5Output(Layer):
    """Writes its inputs to an HDF5 file at each forward pass, one dataset for each; the file holds the last batch.

    As in Caffe the datasets of two inputs are called data and label, unless `datasets` says otherwise. It takes h5py,
    which comes with `pip install 'cfgnet[data]'`. `cfgnet predict` writes the predictions of many samples.
    """

    file_name: str
    """The file, which is overwritten."""
    datasets: Names = ("data", "label")
    """Names of the datasets, in the order of the inputs."""

    ports = "*x ->"
    cases = [
        Case(x=((2, 3), (2,)), file_name=os.devnull, expect={}),
        Case(x=((2, 3),), file_name=os.devnull, datasets=["x"]),
    ]

    def shapes(self, x):
        if len(x) != len(self.datasets):
            raise ShapeError(f"datasets has {len(self.datasets)} names for {len(x)} inputs")
        return {}

    def flops(self):
        return 0

    def forward(self, xp, x):
        try:
            import h5py
        except ImportError:
            raise DataError("writing HDF5 needs h5py: pip install 'cfgnet[data]'") from None
        content = io.BytesIO()
        with h5py.File(content, "w") as file:
            for name, array in zip(self.datasets, x, strict=True):
                file[name] = array.get() if hasattr(array, "get") else array  # from the memory of a GPU
        try:
            Path(self.file_name).expanduser().write_bytes(content.getvalue())
        except OSError as error:
            raise DataError(f"{self.file_name}: cannot be written: {error.strerror or error}") from None
