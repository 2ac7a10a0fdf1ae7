"""Recurrent layers in C: every thread has sequences of its own from start to end."""

from __future__ import annotations

from typing import Any

import numpy as np

from cfgnet.backend.kernels.base import Array, Call
from cfgnet.backend.kernels.memory import zeros
from cfgnet.backend.native.base import NativeBase, plain

AT_HAND = 3 << 19
"""How many bytes of weights a core's second cache has room for, beside what else is read in a step."""


class NativeRecurrent(NativeBase):
    """`lstm`, `gru`, `rnn` and their gradients, where all arrays are float32 in one piece."""

    def lstm(
        self,
        gates: Array,
        weight: Array,
        y: Array,
        cells: Array,
        before: Array,
        cont: Array | None = None,
        h0: Array | None = None,
        c0: Array | None = None,
        valid: Array | None = None,
        reverse: bool = False,
        inputs: tuple[Array, Array, Array] | None = None,
    ) -> Call:
        """As the numpy kernel; inputs are summed up with the state, where both weights are soon read at each step."""
        arrays = {"gates": gates, "y": y, "cells": cells, "before": before, "h0": h0, "c0": c0}
        if not y.size or not plain(weight, cont, valid, *arrays.values()):
            return super().lstm(gates, weight, y, cells, before, cont, h0, c0, valid, reverse, inputs)
        first, summed = self._inputs_of(gates, weight, inputs)
        packs, packed = self._packed("gates_pack", y.shape[2], packed=weight)
        call = self.pool.call("lstm", **packed, **summed, **arrays, **self._walk(y, cont, valid, reverse))
        return self._in_turn(*first, *packs, call)

    def _inputs_of(
        self, gates: Array, weight: Array, inputs: tuple[Array, Array, Array] | None
    ) -> tuple[list[Call], dict[str, Any]]:
        """What comes before `lstm` because of its inputs, and what that is told of them."""
        if inputs is None:
            return [], {"x": None, "bias": None, "inputs": 0, "packed_x": None}
        x, weight_x, bias = inputs
        if not x.size or not plain(*inputs) or weight_x.nbytes + weight.nbytes > AT_HAND:
            _, nothing = self._inputs_of(gates, weight, None)
            return [self.product(x, weight_x.T, gates.reshape(len(x), -1), bias)], nothing
        packs, packed = self._packed("gates_pack", weight.shape[1], packed_x=weight_x)
        return packs, {"x": x, "bias": bias, "inputs": x.shape[1], **packed}

    def lstm_dz(
        self,
        dy: Array,
        gates: Array,
        cells: Array,
        weight: Array,
        dz: Array,
        cont: Array | None = None,
        dh: Array | None = None,
        dc: Array | None = None,
        dh0: Array | None = None,
        dc0: Array | None = None,
        valid: Array | None = None,
        reverse: bool = False,
    ) -> Call:
        """As the numpy kernel."""
        arrays = {"dy": dy, "gates": gates, "cells": cells, "dz": dz}
        arrays |= {"dh": dh, "dc": dc, "dh0": dh0, "dc0": dc0}
        if not dy.size or not plain(weight, cont, valid, *arrays.values()):
            return super().lstm_dz(dy, gates, cells, weight, dz, cont, dh, dc, dh0, dc0, valid, reverse)
        packs, packed = self._packed("gates_pack_back", dy.shape[2], packed=weight)
        return self._in_turn(
            *packs, self.pool.call("lstm_dz", **packed, **arrays, **self._walk(dy, cont, valid, reverse))
        )

    def gru(
        self,
        gates: Array,
        weight: Array,
        bias: Array | None,
        y: Array,
        inner: Array,
        before: Array,
        cont: Array | None = None,
        h0: Array | None = None,
        reset_after: bool = True,
        valid: Array | None = None,
        reverse: bool = False,
    ) -> Call:
        """As the numpy kernel."""
        arrays = {"gates": gates, "bias": bias, "y": y, "inner": inner, "before": before, "h0": h0}
        if not y.size or not plain(weight, cont, valid, *arrays.values()):
            return super().gru(gates, weight, bias, y, inner, before, cont, h0, reset_after, valid, reverse)
        together = len(weight) if reset_after else 2 * weight.shape[1]
        packs, packed = self._packed("gates_pack", y.shape[2], packed=weight[:together], packed_n=weight[together:])
        call = self.pool.call(
            "gru", **packed, **arrays, **self._walk(y, cont, valid, reverse), reset_after=int(reset_after)
        )
        return self._in_turn(*packs, call)

    def gru_dz(
        self,
        dy: Array,
        gates: Array,
        inner: Array,
        before: Array,
        weight: Array,
        dz: Array,
        dinner: Array,
        cont: Array | None = None,
        dh: Array | None = None,
        dh0: Array | None = None,
        reset_after: bool = True,
        valid: Array | None = None,
        reverse: bool = False,
    ) -> Call:
        """As the numpy kernel."""
        arrays = {"dy": dy, "gates": gates, "inner": inner, "before": before, "dz": dz, "dinner": dinner}
        arrays |= {"dh": dh, "dh0": dh0}
        if not dy.size or not plain(weight, cont, valid, *arrays.values()):
            return super().gru_dz(
                dy, gates, inner, before, weight, dz, dinner, cont, dh, dh0, reset_after, valid, reverse
            )
        together = 2 * weight.shape[1]
        packs, packed = self._packed(
            "gates_pack_back", dy.shape[2], packed=weight[:together], packed_n=weight[together:]
        )
        call = self.pool.call(
            "gru_dz", **packed, **arrays, **self._walk(dy, cont, valid, reverse), reset_after=int(reset_after)
        )
        return self._in_turn(*packs, call)

    def rnn(
        self,
        y: Array,
        weight: Array,
        before: Array,
        cont: Array | None = None,
        h0: Array | None = None,
        relu: bool = False,
        valid: Array | None = None,
        reverse: bool = False,
    ) -> Call:
        """As the numpy kernel."""
        arrays = {"y": y, "before": before, "h0": h0}
        if not y.size or not plain(weight, cont, valid, *arrays.values()):
            return super().rnn(y, weight, before, cont, h0, relu, valid, reverse)
        packs, packed = self._packed("gates_pack", y.shape[2], packed=weight)
        return self._in_turn(
            *packs, self.pool.call("rnn", **packed, **arrays, **self._walk(y, cont, valid, reverse), relu=int(relu))
        )

    def rnn_dz(
        self,
        dy: Array,
        y: Array,
        weight: Array,
        dz: Array,
        cont: Array | None = None,
        dh: Array | None = None,
        dh0: Array | None = None,
        relu: bool = False,
        valid: Array | None = None,
        reverse: bool = False,
    ) -> Call:
        """As the numpy kernel."""
        arrays = {"dy": dy, "y": y, "dz": dz, "dh": dh, "dh0": dh0}
        if not dy.size or not plain(weight, cont, valid, *arrays.values()):
            return super().rnn_dz(dy, y, weight, dz, cont, dh, dh0, relu, valid, reverse)
        packs, packed = self._packed("gates_pack_back", dy.shape[2], packed=weight)
        return self._in_turn(
            *packs, self.pool.call("rnn_dz", **packed, **arrays, **self._walk(dy, cont, valid, reverse), relu=int(relu))
        )

    def _packed(self, kernel: str, hidden: int, **weights: Array) -> tuple[list[Call], dict[str, Array | None]]:
        """The calls that pack weights (gates * H, ...), and where to by name: whole vectors of units for each row.

        For a weight of no gates that is None.
        """
        calls, found = list[Call](), dict[str, Array | None](dict.fromkeys(weights))
        for name, weight in weights.items():
            (rows, depth), whole = weight.shape, -(-hidden // self.pool.lanes) * self.pool.lanes
            if rows:
                packed = found[name] = zeros(np, rows // hidden * depth * whole, np.float32)
                sizes = {"gates": rows // hidden, "hidden": hidden, "depth": depth}
                calls.append(self.pool.call(kernel, weight=weight, packed=packed, **sizes))
        return calls, found

    def _walk(self, y: Array, cont: Array | None, valid: Array | None, reverse: bool) -> dict[str, Array | int | None]:
        """What all calls are told, by the names of the fields in C: each thread has some of the sequences."""
        steps, sequences, hidden = y.shape
        sizes = {"steps": steps, "sequences": sequences, "hidden": hidden, "parts": min(sequences, self.pool.threads)}
        return {"cont": cont, "valid": valid, "reverse": int(reverse), **sizes}
