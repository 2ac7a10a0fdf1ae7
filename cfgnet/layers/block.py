"""Ready blocks: layer types that stand for several layers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt

from cfgnet.layer import Block, Case, Layer
from cfgnet.layers.activation import ReLU, Sigmoid
from cfgnet.layers.attention import MultiHeadAttention
from cfgnet.layers.conv import Convolution, DepthwiseConvolution
from cfgnet.layers.dense import InnerProduct
from cfgnet.layers.eltwise import Eltwise
from cfgnet.layers.gated import GELU
from cfgnet.layers.noise import Dropout
from cfgnet.layers.norm import BatchNorm, Scale
from cfgnet.layers.normalize import LayerNorm
from cfgnet.layers.pool import Pooling
from cfgnet.layers.shape import Concat
from cfgnet.part import Ints


class Shortcut(Block, abstract=True):
    """A block whose result is added to what goes in, and rectified (He et al. 2016)."""

    num_output: PositiveInt
    """Number of channels that come out."""
    stride: PositiveInt = 1
    """By how much the block makes the planes smaller."""
    project: bool | None = None
    """Whether a 1x1 convolution brings what goes in to the size of the result; by default if stride is not 1.

    It is needed where the number of channels changes.
    """

    def convolved(self, part: str, x: str, num_output: int, kernel_size: int, stride: int = 1) -> list[Layer]:
        """A convolution that keeps the size of the planes, but for its stride, and BatchNorm behind it."""
        name = f"{self.name}/{part}"
        pad = (kernel_size - 1) // 2
        settings = {"num_output": num_output, "kernel_size": (kernel_size,), "stride": (stride,), "pad": (pad,)}
        return [
            self.inner(Convolution, part, [x], bias_term=False, **settings),
            self.inner(BatchNorm, f"{part}.norm", [name], affine=True),
        ]

    def rectified(self, part: str, x: str) -> Layer:
        """A ReLU behind the BatchNorm of a convolution."""
        return self.inner(ReLU, f"{part}.relu", [x])

    def added(self, x: str, last: str) -> list[Layer]:
        """What goes in, brought to the size of the result if need be, and added to it."""
        projected = self.stride != 1 if self.project is None else self.project
        layers = self.convolved("shortcut", x, self.num_output, 1, self.stride) if projected else []
        other = f"{self.name}/shortcut.norm" if projected else x
        return [
            *layers,
            self.inner(Eltwise, "sum", [last, other]),
            self.inner(ReLU, "", [f"{self.name}/sum"]),
        ]


class Residual(Shortcut):
    """The basic residual block: y = relu(x + norm(conv3(relu(norm(conv3(x)))))), with two 3x3 convolutions.

    The norms are BatchNorm with affine. He et al. 2016, of whose ResNet-18 and ResNet-34 it is the block.
    """

    cases = [
        Case(x=(3, 4, 5, 5), num_output=4),
        Case(x=(3, 2, 5, 5), num_output=3, stride=2),
        Case(x=(3, 2, 4, 4), num_output=3, project=True),
    ]

    def expand(self, x):
        first, second = f"{self.name}/conv1", f"{self.name}/conv2"
        return [
            *self.convolved("conv1", x, self.num_output, 3, self.stride),
            self.rectified("conv1", f"{first}.norm"),
            *self.convolved("conv2", f"{first}.relu", self.num_output, 3),
            *self.added(x, f"{second}.norm"),
        ]


class Bottleneck(Shortcut):
    """The residual block of deep nets: 1x1, 3x3 and 1x1 convolutions, of which the first two have fewer channels.

    y = relu(x + norm(conv1(relu(norm(conv3(relu(norm(conv1(x))))))))); the norms are BatchNorm with affine, and the
    stride is that of the 3x3 convolution. He et al. 2016, of whose ResNet-50 it is the block.
    """

    reduction: PositiveInt = 4
    """How many times fewer channels the 3x3 convolution has than the result."""

    cases = [Case(x=(3, 8, 4, 4), num_output=8), Case(x=(3, 3, 5, 5), num_output=4, reduction=2, stride=2)]

    def expand(self, x):
        middle = max(1, self.num_output // self.reduction)
        names = [f"{self.name}/conv{i}" for i in (1, 2, 3)]
        return [
            *self.convolved("conv1", x, middle, 1),
            self.rectified("conv1", f"{names[0]}.norm"),
            *self.convolved("conv2", f"{names[0]}.relu", middle, 3, self.stride),
            self.rectified("conv2", f"{names[1]}.norm"),
            *self.convolved("conv3", f"{names[1]}.relu", self.num_output, 1),
            *self.added(x, f"{names[2]}.norm"),
        ]


class Inception(Block):
    """GoogLeNet's block: 1x1, 3x3 and 5x5 convolutions and a 3x3 MAX pooling side by side, joined along the channels.

    In front of the 3x3 and the 5x5 convolution, and behind the pooling, is a 1x1 convolution; all are rectified. The
    result has num_1x1 + num_3x3 + num_5x5 + num_pool channels. Szegedy et al. 2015.
    """

    num_1x1: PositiveInt
    """Channels of the 1x1 convolution."""
    reduce_3x3: PositiveInt
    """Channels of the 1x1 convolution in front of the 3x3 one."""
    num_3x3: PositiveInt
    """Channels of the 3x3 convolution."""
    reduce_5x5: PositiveInt
    """Channels of the 1x1 convolution in front of the 5x5 one."""
    num_5x5: PositiveInt
    """Channels of the 5x5 convolution."""
    num_pool: PositiveInt
    """Channels of the 1x1 convolution behind the pooling."""

    cases = [Case(x=(2, 3, 5, 5), num_1x1=2, reduce_3x3=2, num_3x3=3, reduce_5x5=1, num_5x5=2, num_pool=1)]

    def expand(self, x):
        def branch(part, source, num_output, kernel_size=1):
            pad = (kernel_size - 1) // 2
            settings = {"num_output": num_output, "kernel_size": (kernel_size,), "pad": (pad,)}
            return [
                self.inner(Convolution, part, [source], **settings),
                self.inner(ReLU, f"{part}.relu", [f"{self.name}/{part}"]),
            ]

        joined = [f"{self.name}/{part}.relu" for part in ("1x1", "3x3", "5x5", "pool_proj")]
        return [
            *branch("1x1", x, self.num_1x1),
            *branch("3x3_reduce", x, self.reduce_3x3),
            *branch("3x3", f"{self.name}/3x3_reduce.relu", self.num_3x3, 3),
            *branch("5x5_reduce", x, self.reduce_5x5),
            *branch("5x5", f"{self.name}/5x5_reduce.relu", self.num_5x5, 5),
            self.inner(Pooling, "pool", [x], kernel_size=(3,), stride=(1,), pad=(1,)),
            *branch("pool_proj", f"{self.name}/pool", self.num_pool),
            self.inner(Concat, "", joined),
        ]


class SeparableConvolution(Block):
    """Separable convolution: each channel is convolved by itself, then a 1x1 convolution mixes the channels.

    It takes about kernel^2 times fewer multiplications than a Convolution with as many channels. Chollet 2017.
    """

    num_output: PositiveInt
    """Number of output channels."""
    kernel_size: Ints
    """Size of the window: one number for all axes, or one per axis."""
    stride: Ints = ()
    """Distance between windows, 1 by default: one number, or one per axis."""
    pad: Ints = ()
    """Zeros on each side, 0 by default: one number, or one per axis."""
    multiplier: PositiveInt = 1
    """How many channels each channel has between the two convolutions."""
    bias_term: bool = True
    """Whether to add a bias, behind the 1x1 convolution."""

    aliases = ("SeparableConv2D",)
    cases = [
        Case(x=(2, 3, 5, 4), num_output=4, kernel_size=3, pad=1),
        Case(x=(2, 3, 6), num_output=2, kernel_size=3, stride=2, multiplier=2, bias_term=False),
    ]

    def expand(self, x):
        window = {name: getattr(self, name) for name in ("kernel_size", "stride", "pad", "multiplier")}
        mixed = {"num_output": self.num_output, "bias_term": self.bias_term, "kernel_size": (1,)}
        return [
            self.inner(DepthwiseConvolution, "depthwise", [x], bias_term=False, **window),
            self.inner(Convolution, "", [f"{self.name}/depthwise"], **mixed),
        ]


class SqueezeExcite(Block):
    """Weighs the channels by what is in all of them: y = x * sigmoid(w2 relu(w1 mean(x))), mean over each plane.

    Hu et al. 2018.
    """

    num_output: PositiveInt
    """Number of channels of x, which come out again."""
    reduction: int = Field(default=16, ge=1)
    """How many times fewer values there are between the two layers."""

    cases = [Case(x=(2, 4, 3, 3), num_output=4, reduction=2)]

    def expand(self, x):
        names = {part: f"{self.name}/{part}" for part in ("mean", "squeeze", "relu", "excite", "gate")}
        few = max(1, self.num_output // self.reduction)
        return [
            self.inner(Pooling, "mean", [x], pool="AVE", global_pooling=True),
            self.inner(InnerProduct, "squeeze", [names["mean"]], num_output=few),
            self.inner(ReLU, "relu", [names["squeeze"]]),
            self.inner(InnerProduct, "excite", [names["relu"]], num_output=self.num_output),
            self.inner(Sigmoid, "gate", [names["excite"]]),
            self.inner(Scale, "", [x, names["gate"]], axis=0),
        ]


class TransformerEncoder(Block):
    """A layer of a transformer: attention of a sequence to itself, and two fully connected layers for each step.

    With norm_first, z = x + attention(norm(x)) and y = z + fc2(gelu(fc1(norm(z)))); without, z = norm(x + attention(x))
    and y = norm(z + fc2(gelu(fc1(z)))), as in Vaswani et al. 2017. The norms are LayerNorm. x is samples x steps x
    features; `mask` (samples x steps) is 0 at the steps that do not count.
    """

    num_output: PositiveInt
    """Number of features of x, which come out again."""
    num_heads: PositiveInt
    """How many heads the attention has."""
    num_hidden: PositiveInt
    """Number of values between the two fully connected layers; often four times the features."""
    causal: bool = False
    """Whether a step is kept from looking at those behind it."""
    norm_first: bool = True
    """Whether a norm stands in front of each half, or behind its sum; deep stacks train more easily with the first."""
    activation: Literal["GELU", "ReLU"] = "GELU"
    """What stands between the two fully connected layers."""
    dropout_ratio: float = Field(default=0.0, ge=0, lt=1)
    """Probability with which an element of each half's result is set to 0 in training, before it is added."""

    ports = "x, mask?:int -> y"
    cases = [
        Case(x=(2, 3, 4), num_output=4, num_heads=2, num_hidden=6),
        Case(x=(2, 3, 4), num_output=4, num_heads=1, num_hidden=5, norm_first=False, causal=True, activation="ReLU"),
        Case(x=(2, 3, 4), mask=[[1, 1, 0], [1, 0, 0]], num_output=4, num_heads=2, num_hidden=3),
    ]

    def expand(self, x, mask=None):
        kinds: dict[str, type[Layer]] = {"GELU": GELU, "ReLU": ReLU}

        def attention(source):
            inputs = [source] if mask is None else [source, source, mask]
            settings = {"num_heads": self.num_heads, "causal": self.causal}
            return [self.inner(MultiHeadAttention, "attention", inputs, **settings)]

        def connected(source):
            names = [f"{self.name}/fc1", f"{self.name}/activation"]
            return [
                self.inner(InnerProduct, "fc1", [source], num_output=self.num_hidden, axis=2),
                self.inner(kinds[self.activation], "activation", names[:1]),
                self.inner(InnerProduct, "fc2", names[1:], num_output=self.num_output, axis=2),
            ]

        first = "sum1" if self.norm_first else "norm1"
        return [
            *self._half(x, attention, "1", first),
            *self._half(f"{self.name}/{first}", connected, "2", ""),
        ]

    def _half(self, x, layers, number, last):
        """What goes in plus what `layers` make of it, with a norm in front or behind; the last is called `last`."""
        norm, total = f"norm{number}", f"sum{number}"
        made = layers(f"{self.name}/{norm}" if self.norm_first else x)
        result = made[-1].name
        if self.dropout_ratio:
            made.append(self.inner(Dropout, f"dropout{number}", [result], dropout_ratio=self.dropout_ratio))
            result = made[-1].name
        if self.norm_first:
            return [self.inner(LayerNorm, norm, [x]), *made, self.inner(Eltwise, last, [x, result])]
        return [*made, self.inner(Eltwise, total, [x, result]), self.inner(LayerNorm, last, [f"{self.name}/{total}"])]
