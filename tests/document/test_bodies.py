"""A setting that is itself a list of layers may have blocks, repetitions and conditions, too."""

import pytest

import cfgnet
import cfgnet.layers  # noqa: F401  registers the layer types, before a test puts a copy in their place
from cfgnet.errors import SpecError
from cfgnet.layer import Case, Layer


@pytest.fixture
def loop(monkeypatch):
    """A layer type with a body, which computes nothing."""
    monkeypatch.setattr(Layer, "registry", dict(Layer.registry))

    class Looped(Layer):
        """y = x."""

        body: list[Layer]
        over: str = "x"
        cases = [Case(x=(2,), body=[{"type": "ReLU"}])]

        def mentioned(self):
            return (self.over,)

        def shapes(self, x):
            return x

        def forward(self, k, x, y):
            k.copy(x, y)

    return Looped


def layers(text):
    data = "data: {train: {source: synthetic, count: 8, inputs: [3], batch_size: 4, classification: 2}}\n"
    return cfgnet.loads(f"{data}{text}\nsolver: {{type: SGD, base_lr: 0.1}}\ntrain: {{max_iter: 1}}").layers


BLOCKS = """
vars: {n: 2}
blocks:
  cell: {args: [k], layers: [{type: InnerProduct, name: fc, inputs: input, num_output: "${k * n}"}, {type: TanH}]}
layers:
  - {type: InnerProduct, name: h, num_output: 3}
"""


def test_a_body_is_a_net_of_its_own(loop):
    found = layers(
        BLOCKS
        + """
  - scope: s
    layers:
      - {type: InnerProduct, name: h, num_output: 3}
      - type: Looped
        over: h
        body:
          - {type: cell, name: c, inputs: [x], k: 3}
          - {type: ReLU, repeat: 2}
          - {type: Eltwise, inputs: [c, relu2], when: "${n > 1}"}
  - {type: Looped, body: [ReLU]}
"""
    )
    inner, plain = found[2], found[3]
    assert (inner.name, inner.inputs) == ("s/looped1", ("s/h",))
    assert [(layer.name, layer.inputs) for layer in inner.body] == [
        ("c/fc", ("x",)), ("c", None), ("relu1", None), ("relu2", None), ("eltwise1", ("c", "relu2")),
    ]  # fmt: skip
    assert inner.body[0].num_output == 6
    assert [layer.name for layer in plain.body] == [""]


def test_mistakes_in_a_body_have_their_lines(loop):
    with pytest.raises(SpecError) as caught:
        layers(
            BLOCKS
            + """
  - type: Looped
    body:
      - {type: cell, k: 2}
      - {type: cell, k: x, inputs: [x]}
      - {type: ReLU, negative_slop: 1}
"""
        )
    assert [line.partition("  ")[0] for line in str(caught.value).splitlines() if not line.startswith(" ")] == [
        "<text>:5:30", "<text>:5:88", "<text>:13:22",
    ]  # fmt: skip
