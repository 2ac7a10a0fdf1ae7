"""The table of `test_against_torch.py`, one row per type and variant.

A row says the type with its settings and inputs, the function of `torch_side.py`, and PyTorch's settings.
"""

from dataclasses import dataclass
from typing import Any

from cfgnet import rng
from cfgnet.gradcheck import case_net
from cfgnet.layer import Case, Layer

FAR = [[-1000.0, -30.0, -3.0, -2.9, -1e-4, 0.0, 1e-4, 2.9, 3.0, 30.0, 1000.0]]
"""Where exponentials overflow, and where functions bend."""


@dataclass(frozen=True)
class Row:
    type: str
    case: Case
    call: str
    settings: dict[str, Any]

    def net(self, tier, dtype):
        """Our net, with parameters other than those of the filler also in all layers of a block."""
        cls = Layer.members()[self.type]
        net = case_net(cls, self.case, tier, dtype)
        for shaped in net.plan.nodes[1:]:
            for key in shaped.params.values():
                value = net.params[key].value
                value[...] = rng.generator(0, "torch", key).normal(size=value.shape)
        return net


def row(type_, case, call, **settings):
    return Row(type_, case, call, settings)


def elementwise(type_, call, ours=None, **settings):
    """Rows for one function of each element: over normal numbers, and over FAR."""
    return [row(type_, Case(x=x, **(ours or {})), call, **settings) for x in ((4, 5, 3), FAR)]


def recurrent(type_, states, **ours):
    """Rows for a recurrent layer: over steps, from states and to states, backwards, and for several lengths."""

    def variant(x=(5, 3, 4), given=None, **theirs):
        case = Case(x=x, num_output=6, outputs=["y", *states], **(given or {}), **theirs, **ours)
        return row(type_, case, "recurrent", cell=type_, **theirs)

    first = {"expose_hidden": True} | {f"{state}0": (1, 3, 6) for state in states}
    lengths = {"padded": True, "lengths": [2, 5, 1]}
    return [
        row(type_, Case(x=(5, 3, 4), num_output=6, **ours), "recurrent", cell=type_),
        variant((4, 3, 2, 3)),
        variant(given=first),
        variant(given=first, reverse=True),
        variant(given=first | lengths),
        variant(given=first | lengths, reverse=True),
    ]


ROWS = [
    # Functions of each element.
    *elementwise("ReLU", "relu"),
    *elementwise("LeakyReLU", "leaky_relu"),
    *elementwise("LeakyReLU", "leaky_relu", {"negative_slope": 0.3}, negative_slope=0.3),
    *elementwise("ELU", "elu"),
    *elementwise("ELU", "elu", {"alpha": 0.3}, alpha=0.3),
    *elementwise("SELU", "selu"),
    *elementwise("Sigmoid", "sigmoid"),
    *elementwise("TanH", "tanh"),
    *elementwise("BNLL", "softplus"),
    *elementwise("BNLL", "softplus", {"beta": 2.5}, beta=2.5),
    *elementwise("HardSigmoid", "hardsigmoid"),
    *elementwise("HardSwish", "hardswish"),
    *elementwise("Clip", "clamp", {"min": -3.0, "max": 1e-4}, min=-3.0, max=1e-4),
    *elementwise("Swish", "silu"),
    *elementwise("Swish", "swish", {"beta": -1.5}, beta=-1.5),
    *elementwise("GELU", "gelu"),
    *elementwise("GELU", "gelu", {"approximate": "tanh"}, approximate="tanh"),
    *elementwise("Mish", "mish"),
    row("PReLU", Case(x=(3, 4, 5, 2), slope=(4,)), "prelu"),
    row("PReLU", Case(x=(3, 4), slope=(4,)), "prelu"),
    row("PReLU", Case(x=(3, 4, 5), slope=[-0.7], channel_shared=True), "prelu"),
    row("Dropout", Case(x=(3, 4), train=False), "dropout"),
    # Gates and softmax.
    row("GLU", Case(x=(3, 8)), "glu", dim=1),
    row("GLU", Case(x=(2, 3, 6), axis=-1), "glu", dim=-1),
    row("GLU", Case(x=(2, 6, 3, 4), gate="gelu"), "gated", gate="gelu", dim=1),
    row("GLU", Case(x=(2, 6, 3), gate="swish"), "gated", gate="silu", dim=1),
    row("GLU", Case(x=(4, 6), gate="tanh", axis=0), "gated", gate="tanh", dim=0),
    row("GLU", Case(x=(4, 6), gate="relu"), "gated", gate="relu", dim=1),
    row("Softmax", Case(x=(5, 7)), "softmax", dim=1),
    row("Softmax", Case(x=(2, 5, 3, 4)), "softmax", dim=1),
    row("Softmax", Case(x=(2, 5, 3), axis=-1), "softmax", dim=-1),
    row("Softmax", Case(x=(33, 1000)), "softmax", dim=1),
    row("Softmax", Case(x=FAR), "softmax", dim=1),
    row("LogSoftmax", Case(x=(5, 7)), "log_softmax", dim=1),
    row("LogSoftmax", Case(x=(4, 5, 3), axis=0), "log_softmax", dim=0),
    row("LogSoftmax", Case(x=(2, 5, 3, 4)), "log_softmax", dim=1),
    row("LogSoftmax", Case(x=FAR), "log_softmax", dim=1),
    # Normalisation.
    row("LayerNorm", Case(x=(3, 7), weight=(7,), bias=(7,)), "layer_norm"),
    row("LayerNorm", Case(x=(2, 5, 33), eps=0.1), "layer_norm", eps=0.1),
    row("LayerNorm", Case(x=(2, 3, 4, 5), axis=1), "layer_norm", axis=1),
    row("LayerNorm", Case(x=(2, 3, 4), affine=False), "layer_norm"),
    row("LayerNorm", Case(x=(64, 257)), "layer_norm"),
    row("RMSNorm", Case(x=(3, 7)), "rms_norm"),
    row("RMSNorm", Case(x=(2, 3, 17), eps=0.1), "rms_norm", eps=0.1),
    row("RMSNorm", Case(x=(2, 3, 4), axis=-2, affine=False), "rms_norm", axis=-2),
    row("GroupNorm", Case(x=(2, 6, 3, 4), num_groups=3), "group_norm", num_groups=3),
    row("GroupNorm", Case(x=(2, 6, 5), num_groups=1, eps=0.1), "group_norm", num_groups=1, eps=0.1),
    row("GroupNorm", Case(x=(3, 8), num_groups=2, affine=False), "group_norm", num_groups=2),
    row("InstanceNorm", Case(x=(2, 3, 4, 5)), "instance_norm"),
    row("InstanceNorm", Case(x=(2, 3, 7), affine=True), "instance_norm"),
    row("InstanceNorm", Case(x=(2, 3, 2, 3, 2), affine=True), "instance_norm"),
    row("BatchNorm", Case(x=(4, 3, 5, 2), affine=True), "batch_norm"),
    row("BatchNorm", Case(x=(16, 32, 9, 9), affine=True), "batch_norm"),
    row("BatchNorm", Case(x=(6, 5), affine=True, eps=0.1), "batch_norm", eps=0.1),
    row("BatchNorm", Case(x=(3, 2, 7)), "batch_norm"),
    row(
        "BatchNorm",
        Case(x=(4, 3, 2), affine=True, train=False, mean=(3,), variance=[1.0, 2.0, 0.5], factor=[1.5]),
        "batch_norm",
        training=False,
    ),
    row(
        "LRN",
        Case(x=(2, 7, 3, 2), local_size=3, alpha=0.7, beta=0.6, k=1.5),
        "local_response_norm",
        **{"size": 3, "alpha": 0.7, "beta": 0.6, "k": 1.5},
    ),
    # Products.
    row("InnerProduct", Case(x=(5, 3, 4), num_output=6), "linear"),
    row("InnerProduct", Case(x=(5, 3, 4), num_output=6, axis=2, bias_term=False), "linear", axis=2),
    row("InnerProduct", Case(x=(65, 300), num_output=129), "linear"),
    row("Embed", Case(x=[[2, 0, 2], [1, 4, 4]], num_output=3, input_dim=6), "embedding"),
    row("Embed", Case(x=[3, 1, 1, 0], num_output=5, input_dim=4, bias_term=False), "embedding"),
    row("MatMul", Case(a=(3, 4), b=(4, 5)), "matmul"),
    row("MatMul", Case(a=(2, 3, 4, 5), b=(2, 3, 5, 2)), "matmul"),
    row("MatMul", Case(a=(2, 1, 3, 4), b=(5, 4, 2)), "matmul"),
    row("MatMul", Case(a=(2, 5, 4), b=(5, 3), transpose_a=True), "matmul", turn_a=True),
    row("MatMul", Case(a=(2, 3, 2, 4), b=(1, 5, 4), transpose_b=True), "matmul", turn_b=True),
    row("MatMul", Case(a=(4, 3), b=(2, 5, 4), transpose_a=True, transpose_b=True), "matmul", turn_a=True, turn_b=True),
    # What moves, picks and reduces.
    row("Gather", Case(x=(5, 3), index=[[0, 2], [2, 4]]), "gather"),
    row("Gather", Case(x=(2, 5, 3), index=[1, 1, 4], axis=1), "gather", dim=1),
    row("Gather", Case(x=(2, 3, 4), indices=[3, 0, 0], axis=-1), "index_select", index=[3, 0, 0], dim=-1),
    row("Transpose", Case(x=(2, 3, 4, 5), axes=[0, -1, 1, 2]), "permute", dims=[0, 3, 1, 2]),
    row("Transpose", Case(x=(2, 3, 4)), "permute", dims=[2, 1, 0]),
    row("Pad", Case(x=(2, 3, 4, 5), before=[1, 2], after=[0, 3], value=0.5), "pad", pad=[2, 3, 1, 0], value=0.5),
    row("Pad", Case(x=(2, 3, 4, 5), before=[1, 4], after=[3, 2], mode="REFLECT"),
        "pad", pad=[4, 2, 1, 3], mode="reflect"),
    row("Pad", Case(x=(2, 3, 7), before=2, after=6, mode="REFLECT"), "pad", pad=[2, 6], mode="reflect"),
    row("Pad", Case(x=(2, 3, 4, 5), before=[5, 1], after=[0, 7], mode="EDGE"),
        "pad", pad=[1, 7, 5, 0], mode="replicate"),
    row("Pad", Case(x=(1, 2, 3, 2, 2), before=1, after=2, mode="EDGE"), "pad", pad=[1, 2] * 3, mode="replicate"),
    row("Where", Case(condition=[[1.0], [0.0]], a=(2, 3), b=(3,)), "where"),
    row("Tile", Case(x=(2, 3, 4), tiles=3, axis=1), "tile", dims=[1, 3, 1]),
    row("Repeat", Case(x=(2, 3, 4), repeats=2, axis=-1), "repeat_interleave", repeats=2, dim=-1),
    row("Concat", Case(x=((2, 3, 4), (2, 1, 4), (2, 2, 4))), "cat", dim=1),
    row("Reduction", Case(x=(3, 4, 5), coeff=-2.0), "sum", factor=-2.0),
    row("Reduction", Case(x=(3, 4, 5), axes=[0, 2], keepdims=True), "sum", dim=[0, 2], keepdim=True),
    row("Reduction", Case(x=(3, 4, 5), axis=1, operation="ASUM"), "sum_abs", dim=[1, 2]),
    row("Reduction", Case(x=(3, 4, 5), axis=2, operation="SUMSQ", coeff=0.5), "sum_squares", dim=2, factor=0.5),
    row("Reduction", Case(x=(2, 3, 4, 5), axes=[2, 3], operation="MEAN"), "mean", dim=[2, 3]),
    row("Reduction", Case(x=(3, 4, 5), axis=1, operation="MAX", coeff=3.0), "amax", dim=[1, 2], factor=3.0),
    row("Reduction", Case(x=(3, 4, 5), axes=1, operation="MIN", keepdims=True), "amin", dim=1, keepdim=True),
    row("Reduction", Case(x=(3, 4, 5), axes=1, operation="MAX", outputs=["y", "index"]), "max", dim=1),
    row("Reduction", Case(x=(3, 4, 5), axis=-1, operation="LOGSUMEXP"), "logsumexp", dim=-1),
    row("Reduction", Case(x=(3, 4, 5), axes=[0, 1], operation="LOGSUMEXP", coeff=0.5),
        "logsumexp", dim=[0, 1], factor=0.5),
    # Windows.
    row("Convolution", Case(x=(2, 3, 7, 6), num_output=4, kernel_size=3), "conv"),
    row("Convolution", Case(x=(2, 16, 9, 9), num_output=16, kernel_size=3, pad=1), "conv", padding=1),
    row("Convolution", Case(x=(2, 32, 17, 18), num_output=48, kernel_size=3, pad=1), "conv", padding=1),
    row("Convolution", Case(x=(2, 3, 40, 41), num_output=33, kernel_size=7, stride=2, pad=3),
        "conv", stride=2, padding=3),
    row("Convolution", Case(x=(2, 3, 9, 8), num_output=4, kernel_size=3, stride=2, pad=1), "conv", stride=2, padding=1),
    row("Convolution", Case(x=(2, 3, 9, 8), num_output=4, kernel_size=[1, 5], stride=[1, 3], pad=[0, 2]),
        "conv", stride=[1, 3], padding=[0, 2]),
    row("Convolution", Case(x=(2, 3, 9, 8), num_output=2, kernel_size=3, dilation=[2, 3], pad=2),
        "conv", dilation=[2, 3], padding=2),
    row("Convolution", Case(x=(2, 6, 5, 5), num_output=4, kernel_size=3, group=2, bias_term=False), "conv", groups=2),
    row("Convolution", Case(x=(2, 6, 7, 7), num_output=6, kernel_size=3, group=6, pad=1), "conv", groups=6, padding=1),
    row("Convolution", Case(x=(2, 3, 7, 7), num_output=6, kernel_size=5, group=3, stride=2),
        "conv", groups=3, stride=2),
    row("Convolution", Case(x=(2, 5, 4, 4), num_output=7, kernel_size=1), "conv"),
    row("Convolution", Case(x=(2, 3, 11), num_output=4, kernel_size=3, stride=2, dilation=2, pad=3),
        "conv", stride=2, dilation=2, padding=3),
    row("Convolution", Case(x=(2, 2, 4, 5, 6), num_output=3, kernel_size=[2, 3, 3], pad=[0, 1, 2], stride=[1, 2, 1]),
        "conv", padding=[0, 1, 2], stride=[1, 2, 1]),
    row("DepthwiseConvolution", Case(x=(2, 3, 7, 6), kernel_size=3, pad=1), "conv", groups=3, padding=1),
    row("DepthwiseConvolution", Case(x=(2, 3, 9, 8), kernel_size=[3, 2], multiplier=2, stride=[1, 2], dilation=[2, 1]),
        "conv", groups=3, stride=[1, 2], dilation=[2, 1]),
    row("Deconvolution", Case(x=(2, 4, 5, 6), num_output=3, kernel_size=4, stride=2, pad=1),
        "deconv", stride=2, padding=1),
    row("Deconvolution", Case(x=(2, 4, 5, 3), num_output=6, kernel_size=3, stride=2, group=2, bias_term=False),
        "deconv", stride=2, groups=2),
    row("Deconvolution", Case(x=(2, 3, 4, 4), num_output=3, kernel_size=4, stride=2, pad=1, group=3),
        "deconv", stride=2, padding=1, groups=3),
    row("Deconvolution", Case(x=(2, 3, 4, 5), num_output=2, kernel_size=3, stride=2, pad=1, dilation=2,
                              output_padding=1),
        "deconv", stride=2, padding=1, dilation=2, output_padding=1),
    row("Deconvolution", Case(x=(2, 3, 6), num_output=4, kernel_size=3, stride=3), "deconv", stride=3),
    row("Deconvolution", Case(x=(1, 2, 3, 2, 4), num_output=3, kernel_size=[2, 3, 3], stride=[2, 1, 2]),
        "deconv", stride=[2, 1, 2]),
    row("Im2col", Case(x=(2, 3, 6, 5), kernel_size=3, stride=2, pad=1),
        "unfold", windows=[3, 3], kernel_size=3, stride=2, padding=1),
    row("Pooling", Case(x=(2, 3, 7, 6), kernel_size=3, stride=2, pad=1, outputs=["y", "mask"]),
        "max_pool", kernel_size=3, stride=2, padding=1, ceil_mode=True, return_indices=True),
    row("Pooling", Case(x=(2, 3, 7, 8), kernel_h=2, kernel_w=3, stride_h=2, stride_w=1, round_mode="FLOOR"),
        "max_pool", kernel_size=[2, 3], stride=[2, 1]),
    row("Pooling", Case(x=(2, 3, 9), kernel_size=4, stride=3, pad=1, outputs=["y", "mask"]),
        "max_pool", kernel_size=4, stride=3, padding=1, ceil_mode=True, return_indices=True),
    row("Pooling", Case(x=(2, 3, 5, 4, 6), kernel_size=2, stride=2, outputs=["y", "mask"]),
        "max_pool", kernel_size=2, stride=2, ceil_mode=True, return_indices=True),
    row("Pooling", Case(x=(2, 3, 8, 7), pool="AVE", kernel_size=3, stride=2, pad=1),
        "avg_pool", kernel_size=3, stride=2, padding=1, ceil_mode=True),
    row("Pooling", Case(x=(2, 3, 7, 7), pool="AVE", kernel_size=4, stride=3, pad=2, round_mode="FLOOR"),
        "avg_pool", kernel_size=4, stride=3, padding=2),
    row("Pooling", Case(x=(2, 3, 9), pool="AVE", kernel_size=4, stride=3, pad=1),
        "avg_pool", kernel_size=4, stride=3, padding=1, ceil_mode=True),
    row("Pooling", Case(x=(2, 3, 5, 4, 6), pool="AVE", kernel_size=3, stride=2, pad=1),
        "avg_pool", kernel_size=3, stride=2, padding=1, ceil_mode=True),
    row("Pooling", Case(x=(2, 3, 4, 5), global_pooling=True), "adaptive_max_pool", output_size=1),
    row("Pooling", Case(x=(2, 3, 4, 5), pool="AVE", global_pooling=True), "adaptive_avg_pool", output_size=1),
    row("LpPooling", Case(x=(2, 3, 7, 6), kernel_size=3, stride=2, round_mode="FLOOR"),
        "lp_pool", norm_type=2.0, kernel_size=3, stride=2),
    row("LpPooling", Case(x=(2, 3, 6, 6), p=3.0, kernel_size=[2, 3], stride=[2, 3], positive=True),
        "lp_pool", norm_type=3.0, kernel_size=[2, 3], stride=[2, 3]),
    row("LpPooling", Case(x=(2, 3, 7), p=1.5, kernel_size=3, positive=True),
        "lp_pool", norm_type=1.5, kernel_size=3, stride=1),
    *(row("AdaptivePooling", Case(x=x, pool=pool, output_size=size), call, output_size=size)
      for x, size in {(2, 3, 7, 10): [5, 4], (2, 3, 6, 4): [3, 2], (2, 2, 3, 4): [5, 6], (2, 3, 7): [5],
                      (2, 2, 5, 4, 7): [2, 3, 5]}.items()
      for pool, call in {"MAX": "adaptive_max_pool", "AVE": "adaptive_avg_pool"}.items()),
    *(row("Upsample", Case(x=x, **given), "interpolate", **theirs)
      for x in [(2, 3, 4, 5), (2, 3, 9, 7)]
      for given, theirs in [
          ({"scale": 2.0}, {"scale_factor": 2.0}),
          ({"scale": [1.5, 0.5]}, {"scale_factor": [1.5, 0.5]}),
          ({"scale": [0.7, 3.3]}, {"scale_factor": [0.7, 3.3]}),
          ({"size": [5, 7]}, {"size": [5, 7]}),
          ({"size": [13, 3]}, {"size": [13, 3]}),
          ({"scale": 2.0, "mode": "bilinear"}, {"scale_factor": 2.0, "mode": "bilinear"}),
          ({"scale": [1.7, 0.6], "mode": "bilinear"}, {"scale_factor": [1.7, 0.6], "mode": "bilinear"}),
          ({"size": [5, 7], "mode": "bilinear"}, {"size": [5, 7], "mode": "bilinear"}),
          ({"scale": 3.0, "mode": "bilinear", "align_corners": True},
           {"scale_factor": 3.0, "mode": "bilinear", "align_corners": True}),
          ({"size": [1, 6], "mode": "bilinear", "align_corners": True},
           {"size": [1, 6], "mode": "bilinear", "align_corners": True}),
      ]),
    row("Upsample", Case(x=(2, 3, 4), size=7, mode="bilinear"), "interpolate", size=7, mode="linear"),
    row("Upsample", Case(x=(1, 2, 3, 2, 4), scale=2.0, mode="bilinear"),
        "interpolate", scale_factor=2.0, mode="trilinear"),
    row("PixelShuffle", Case(x=(2, 18, 2, 3), blocksize=3), "pixel_shuffle", upscale_factor=3),
    row("PixelUnshuffle", Case(x=(2, 3, 6, 4), blocksize=2), "pixel_unshuffle", downscale_factor=2),
    # Sequences.
    *recurrent("LSTM", "hc"),
    row("LSTM", Case(x=(4, 17, 30), num_output=65), "recurrent", cell="LSTM"),
    *recurrent("GRU", "h"),
    row("GRU", Case(x=(4, 17, 30), num_output=65), "recurrent", cell="GRU"),
    *recurrent("RNN", "h", output=False),
    row("RNN", Case(x=(5, 3, 4), num_output=6, outputs=["y", "h"]), "recurrent", cell="RNN"),
    row("RNN", Case(x=(5, 3, 4), num_output=6, output=False, nonlinearity="relu"),
        "recurrent", cell="RNN", settings={"nonlinearity": "relu"}),
    row("RecurrentStack", Case(x=(5, 3, 4), num_output=6, num_layers=3), "recurrent_stack", cell="LSTM", layers=3),
    row("RecurrentStack", Case(x=(5, 3, 4), cell="GRU", num_output=2, num_layers=2, bidirectional=True),
        "recurrent_stack", cell="GRU", layers=2, bidirectional=True),
    row("RecurrentStack", Case(x=(5, 3, 4), lengths=[2, 5, 1], num_output=3, num_layers=2, bidirectional=True),
        "recurrent_stack", cell="LSTM", layers=2, bidirectional=True),
    row("RecurrentStack", Case(x=(5, 3, 4), lengths=[4, 1, 5], cell="RNN", num_output=3, num_layers=2),
        "recurrent_stack", cell="RNN", layers=2),
    row("MultiHeadAttention", Case(x=(2, 5, 6), num_heads=3), "attention", heads=3),
    row("MultiHeadAttention", Case(x=(2, 70, 16), num_heads=2, causal=True), "attention", heads=2, causal=True),
    row("MultiHeadAttention", Case(x=(2, 5, 6), num_heads=2, causal=True), "attention", heads=2, causal=True),
    row("MultiHeadAttention", Case(x=(2, 3, 8), memory=(2, 5, 8), num_heads=4, bias_term=False), "attention", heads=4),
    row("MultiHeadAttention", Case(x=(2, 3, 4), memory=(2, 4, 4), mask=[[1, 1, 0, 0], [1, 0, 1, 1]], num_heads=1),
        "attention"),
    row("MultiHeadAttention", Case(x=(2, 3, 4), memory=(2, 3, 4), mask=[[1, 1, 0], [1, 0, 1]], num_heads=2,
                                   causal=True),
        "attention", heads=2, causal=True),
    row("TransformerEncoder", Case(x=(2, 5, 6), num_output=6, num_heads=3, num_hidden=9), "transformer", heads=3),
    row("TransformerEncoder", Case(x=(2, 3, 4), num_output=4, num_heads=2, num_hidden=5, norm_first=False, causal=True,
                                   activation="ReLU"),
        "transformer", heads=2, norm_first=False, causal=True, activation="relu"),
    row("TransformerEncoder", Case(x=(2, 3, 4), mask=[[1, 1, 0], [1, 0, 0]], num_output=4, num_heads=2, num_hidden=3),
        "transformer", heads=2),
    # Losses.
    row("SoftmaxWithLoss", Case(x=(4, 3), label=[0, 2, 1, 2]), "cross_entropy"),
    row("SoftmaxWithLoss", Case(x=(2, 3, 2), label=[[0, 2], [9, 1]], ignore_label=9), "cross_entropy", ignore_index=9),
    row("SoftmaxWithLoss", Case(x=(2, 3, 2), label=[[0, 2], [0, 1]], normalization="NONE"),
        "cross_entropy", reduction="sum"),
    row("SigmoidCrossEntropyLoss", Case(x=(3, 4), target=[[0.0, 1.0, 0.5, 1.0]] * 3), "bce_with_logits"),
    row("EuclideanLoss", Case(x=(3, 2, 2), target=(3, 2, 2)), "half_squares"),
    row("SoftmaxWithLoss", Case(x=(2, 3, 2), label=[[0, 2], [9, 1]], ignore_label=9, class_weights=[1.0, 2.0, 0.5]),
        "cross_entropy", ignore_index=9, weight=[1.0, 2.0, 0.5]),
    row("SoftmaxWithLoss", Case(x=(4, 3), label=[0, 2, 1, 2], label_smoothing=0.2),
        "cross_entropy", label_smoothing=0.2),
    row("SoftmaxWithLoss", Case(x=(2, 3, 2), label=[[0, 2], [9, 1]], ignore_label=9, label_smoothing=0.1,
                                class_weights=[1.0, 2.0, 0.5]),
        "cross_entropy", ignore_index=9, label_smoothing=0.1, weight=[1.0, 2.0, 0.5]),
    row("SoftmaxWithLoss", Case(x=(2, 3, 2, 2), label=[[[0, 2], [1, 1]]] * 2, label_smoothing=0.3,
                                normalization="NONE"),
        "cross_entropy", label_smoothing=0.3, reduction="sum"),
    row("FocalLoss", Case(x=(4, 3), label=[0, 2, 1, 2]), "focal", gamma=2.0),
    row("FocalLoss", Case(x=(2, 3, 2), label=[[0, 2], [1, 1]], gamma=0.5), "focal", gamma=0.5),
    row("SigmoidFocalLoss", Case(x=(3, 4), target=[[0.0, 1.0, 0.0, 1.0]] * 3), "sigmoid_focal", gamma=2.0, alpha=0.25),
    row("SigmoidFocalLoss", Case(x=(3, 4), target=[[0.0, 1.0, 1.0, 1.0]] * 3, gamma=0.5, alpha=0.7),
        "sigmoid_focal", gamma=0.5, alpha=0.7),
    row("BCEWithLogitsLoss", Case(x=(3, 4), target=[[0.0, 1.0, 0.5, 1.0]] * 3), "bce_mean"),
    row("BCEWithLogitsLoss", Case(x=(2, 3), target=[[0.0, 1.0, 0.3], [1.0, 1.0, 0.0]], pos_weight=[0.5, 2.0, 3.0]),
        "bce_mean", pos_weight=[0.5, 2.0, 3.0]),
    row("BCEWithLogitsLoss", Case(x=(2, 3), target=[[0.0, 1.0, 0.3], [1.0, 1.0, 0.0]], sample_weight=[2.0, 0.5]),
        "bce_mean"),
    row("MSELoss", Case(x=(3, 2, 2), target=(3, 2, 2)), "mse"),
    row("L1Loss", Case(x=(3, 2, 2), target=(3, 2, 2)), "l1"),
    row("HuberLoss", Case(x=(3, 8), target=(3, 8), delta=0.7), "huber", delta=0.7),
    row("SmoothL1Loss", Case(x=(3, 8), target=(3, 8), beta=0.7), "smooth_l1", beta=0.7),
    row("SmoothL1Loss", Case(x=(3, 8), target=(3, 8), normalization="NONE"), "smooth_l1", reduction="sum"),
    row("KLDivLoss", Case(x=(3, 4), target=[[0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1], [0.25, 0.25, 0.4, 0.1]]),
        "kl_div", reduction="batchmean"),
    row("PoissonNLLLoss", Case(x=(3, 4), target=[[0.0, 1.0, 2.0, 5.0]] * 3), "poisson_nll"),
    row("PoissonNLLLoss", Case(x=(3, 4), target=[[0.0, 1.0, 2.0, 5.0]] * 3, log_input=False, positive=True),
        "poisson_nll", log_input=False),
    row("GaussianNLLLoss", Case(x=(3, 4), target=(3, 4), var=[[0.5, 1.0, 2.0, 0.1]] * 3), "gaussian_nll"),
    row("CosineEmbeddingLoss", Case(x=(4, 3), other=(4, 3), sim=[1, 0, -1, 1], margin=-0.5), "cosine", margin=-0.5),
    row("TripletMarginLoss", Case(x=(6, 3), near=(6, 3), far=(6, 3)), "triplet"),
    row("TripletMarginLoss", Case(x=(6, 3), near=(6, 3), far=(6, 3), swap=True, margin=3.0),
        "triplet", swap=True, margin=3.0),
    row("TripletMarginLoss", Case(x=(6, 3), near=(6, 3), far=(6, 3), norm="L1"), "triplet", p=1.0),
    row("DiceLoss", Case(x=(2, 3, 2), target=[[[1.0, 0.0], [0.0, 0.0], [0.5, 1.0]]] * 2, positive=True), "dice"),
    row("CTCLoss", Case(x=(6, 3, 4), label=[[1, 2, 2], [3, -1, -1], [1, 1, -1]], normalization="NONE"),
        "ctc", counts=[3, 1, 2], reduction="sum"),
    row("CTCLoss", Case(x=(6, 3, 4), label=[[1, 2, 2], [3, 9, 9], [1, 3, 2]], lengths=[6, 3, 4],
                        label_lengths=[2, 1, 3], normalization="LABEL_LENGTH"),
        "ctc", reduction="mean"),
    row("CTCLoss", Case(x=(2, 3, 4), label=[[1, 1], [1, 2], [3, -1]], zero_infinity=True, normalization="NONE"),
        "ctc", counts=[2, 2, 1], zero_infinity=True, reduction="sum"),
    row("CTCLoss", Case(x=(7, 2, 5), label=[[0, 1, 1], [3, 2, 0]], blank=4, normalization="NONE"),
        "ctc", counts=[3, 3], blank=4, reduction="sum"),
]  # fmt: skip
