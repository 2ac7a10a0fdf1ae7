"""One step of long short-term memory."""

from __future__ import annotations

from cfgnet.errors import ShapeError
from cfgnet.layer import Case, Layer, text


class LSTMUnit(Layer):
    """One step of an LSTM: c = sigmoid(f) * cont * c_prev + sigmoid(i) * tanh(g), and h = sigmoid(o) * tanh(c).

    c_prev, c and h are sequences x units; i, f, o and g are the four parts, in this order, of gates (sequences x 4
    times the units). There may be more axes in front, such as Caffe's of 1 step. cont (without the axis of the units)
    is 0 where a sequence starts and 1 where it goes on, as it does by default; it has no gradient. For whole sequences
    there is LSTM.

    For cont between 0 and 1 the gradient of f is the exact one; Caffe's is another there.
    """

    ports = "c_prev, gates, cont? -> c, h"
    cases = [
        # i, f and o are 1/2, and tanh(g) is: c = 1/2 * cont * c_prev + 1/4.
        Case(
            c_prev=[[1.0], [1.0], [1.0]],
            gates=[[0.0, 0.0, 0.0, 0.5493061443340549]] * 3,
            cont=[1.0, 0.0, 0.5],
            outputs=["c", "h"],
            expect={"c": [[0.75], [0.25], [0.5]], "h": [[0.3175744762], [0.1224593312], [0.2310585786]]},
        ),
        Case(c_prev=(1, 3, 4), gates=(1, 3, 16), outputs=["c", "h"]),
        Case(c_prev=(1, 3, 2), gates=(1, 3, 8), cont=[[0.0, 1.0, 0.5]], outputs=["c", "h"]),
        Case(c_prev=(2, 3), gates=(2, 12), cont=(2,), outputs=["c", "h"]),
    ]

    def shapes(self, c_prev, gates, cont=None):
        if len(c_prev) < 2:
            raise ShapeError(f"expected c_prev of sequences x units, got {text(c_prev)}")
        wide = (*c_prev[:-1], 4 * c_prev[-1])
        if gates != wide:
            hint = "i, f, o and g lie side by side, each as wide as c_prev"
            raise ShapeError(f"expected gates of {text(wide)}, got {text(gates)}", hint)
        if cont not in (None, c_prev[:-1]):
            raise ShapeError(f"expected cont of {text(c_prev[:-1])}, got {text(cont)}")
        return {"c": c_prev, "h": c_prev}

    def scratch(self, c_prev):
        return {"kept": c_prev, "work": c_prev}

    def forward(self, k, c_prev, gates, c, h, kept, cont=None):
        i, f, o, g = _parts(gates)
        _keep(k, c_prev, cont, kept)
        k.map("sigmoid(f) * kept + sigmoid(i) * tanh(g)", c, f=f, kept=kept, i=i, g=g)
        k.map("sigmoid(o) * tanh(c)", h, o=o, c=c)

    def backward(self, k, c_prev, gates, c, dc, dh, kept, work, cont=None, dc_prev=None, dgates=None):
        i, f, o, g = _parts(gates)
        k.map("dc + dh * sigmoid(o) * (1 - tanh(c) * tanh(c))", work, dc=dc, dh=dh, o=o, c=c)
        if dgates is not None:
            di, df, do, dg = _parts(dgates)
            _keep(k, c_prev, cont, kept)
            k.map("dh * tanh(c) * sigmoid(o) * (1 - sigmoid(o))", do, dh=dh, c=c, o=o)
            k.map("work * kept * sigmoid(f) * (1 - sigmoid(f))", df, work=work, kept=kept, f=f)
            k.map("work * tanh(g) * sigmoid(i) * (1 - sigmoid(i))", di, work=work, g=g, i=i)
            k.map("work * sigmoid(i) * (1 - tanh(g) * tanh(g))", dg, work=work, i=i, g=g)
        if dc_prev is not None:
            k.map("work * sigmoid(f)", dc_prev, work=work, f=f)
            _keep(k, dc_prev, cont, dc_prev)


def _parts(gates):
    """Views of the four gates, which lie side by side."""
    units = gates.shape[-1] // 4
    return [gates[..., at : at + units] for at in range(0, 4 * units, units)]


def _keep(k, state, cont, kept):
    """kept = cont * state."""
    if cont is None:
        k.copy(state, kept)
    else:
        k.map("state * cont", kept, state=state, cont=cont[..., None])
