"""The kernels `k`: what layers need of an array module, written once for every module that answers to numpy's names.

A kernel is handed its arrays once, and returns the call that computes: shapes, views and temporary arrays are settled
before the first step. Layers do not see that. They call `k.softmax(x, y, axis)`; a method that asks for `k`, and not
for `xp`, is run once, when the net is made, and the net keeps the calls. So such a method works by kernels alone.

Results are written into arguments. Arrays may lie in memory in any order; where the channels lie last, the kernels of
convolution and pooling are fastest.
"""

from __future__ import annotations

from cfgnet.backend.kernels.attention import Attention
from cfgnet.backend.kernels.base import Call, ConvAlgo, Immediate, Record, Recorder, in_turn
from cfgnet.backend.kernels.classes import Classes
from cfgnet.backend.kernels.convolution import Convolution
from cfgnet.backend.kernels.ctc import CTC
from cfgnet.backend.kernels.elementwise import Elementwise
from cfgnet.backend.kernels.extremes import Extremes
from cfgnet.backend.kernels.gru import GRU
from cfgnet.backend.kernels.lstm import LSTM
from cfgnet.backend.kernels.matrix import Matrix
from cfgnet.backend.kernels.normalization import Normalization
from cfgnet.backend.kernels.resampling import Resampling
from cfgnet.backend.kernels.rnn import RNN
from cfgnet.backend.kernels.rows import Rows
from cfgnet.backend.kernels.various import Various

__all__ = ["Call", "ConvAlgo", "Immediate", "Kernels", "Record", "Recorder", "in_turn"]


class Kernels(
    Convolution,
    Resampling,
    LSTM,
    GRU,
    RNN,
    Attention,
    Matrix,
    Rows,
    Classes,
    CTC,
    Extremes,
    Normalization,
    Various,
    Elementwise,
):
    """All kernels over an array module `xp`, for any dtype and any number of axes; a faster tier overrides some."""
