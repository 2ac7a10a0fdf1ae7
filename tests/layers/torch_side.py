"""What PyTorch makes of the rows of `torch_rows.py`; a program for a Python that needs nothing but torch and numpy.

`python torch_side.py FOLDER` reads rows.json and given.npz there, and writes theirs.npz and errors.json.
"""

import json
import sys
import traceback
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  as everyone calls it
from torch.func import functional_call
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

GATES = [0, 1, 3, 2]
"""Where PyTorch's LSTM has the gates i, f, o, g of Caffe's, and the other way round."""


def by_axes(*functions):
    """A function that is the one for as many spatial axes as x has."""
    return lambda x, *others, **settings: functions[x.ndim - 3](x, *others, **settings)


def batch_norm(x, mean, variance, factor, weight=None, bias=None, training=True, eps=1e-5):
    if training:  # where all of the running statistics is new, they are those of the batch
        mean, variance, momentum = mean.clone(), variance.clone(), 1.0
        y = F.batch_norm(x, mean, variance, weight, bias, True, momentum, eps)
        return y, mean, variance, torch.ones_like(factor)
    return F.batch_norm(x, mean / factor, variance / factor, weight, bias, False, 0.0, eps), mean, variance, factor


def renamed(cell, suffix, weight_x, weight_h, bias, bias_h=None):
    """Our parameters in PyTorch's order, by its names. Of its second bias we have no more than the last part."""
    if bias_h is None:
        bias_h = torch.zeros_like(bias)
    second = torch.cat([torch.zeros(len(bias) - len(bias_h)), bias_h])
    found = {"weight_ih": weight_x, "weight_hh": weight_h, "bias_ih": bias, "bias_hh": second}
    if cell == "LSTM":
        found = {name: each.unflatten(0, (4, -1))[GATES].flatten(0, 1) for name, each in found.items()}
    return {f"{name}_{suffix}": each for name, each in found.items()}


def through(cell, x, weights, states=None, lengths=None, **settings):
    """What a module of PyTorch makes of sequences, and its states."""
    inputs, size = weights["weight_ih_l0"].shape[1], weights["weight_hh_l0"].shape[1]
    module, steps, x = getattr(torch.nn, cell)(inputs, size, **settings), len(x), x.flatten(2)
    if lengths is not None:
        x = pack_padded_sequence(x, lengths.long(), enforce_sorted=False)
    y, states = functional_call(module, weights, (x, states))
    if lengths is not None:
        y, _ = pad_packed_sequence(y, total_length=steps)
    return y, *(states if cell == "LSTM" else (states,))


def recurrent(
    x, cell, h0=None, c0=None, lengths=None, reverse=False, weight_y=None, bias_y=None, settings=None, **weights
):
    """One direction; PyTorch has the reverse one as the second half of both."""
    theirs, states = renamed(cell, "l0", **weights), [state for state in (h0, c0) if state is not None]
    if reverse:
        theirs |= renamed(cell, "l0_reverse", **weights)
        states = [state.tile(2, 1, 1) for state in states]
    given = tuple(states) if len(states) > 1 else next(iter(states), None)
    y, *last = through(cell, x, theirs, given, lengths, bidirectional=reverse, **(settings or {}))
    if reverse:
        y, last = y.chunk(2, -1)[1], [state[1:] for state in last]
    if weight_y is not None:
        y = torch.tanh(F.linear(y, weight_y, bias_y))
    return y, *last


def recurrent_stack(x, cell, layers, lengths=None, bidirectional=False, **weights):
    theirs = {}
    for number in range(layers):
        for part, suffix in (("forward.", ""), ("reverse.", "_reverse")) if bidirectional else (("", ""),):
            prefix = f"layer{number + 1}.{part}" if bidirectional or number < layers - 1 else ""
            names = ["weight_x", "weight_h", "bias", *(["bias_h"] if cell == "GRU" else [])]
            theirs |= renamed(cell, f"l{number}{suffix}", **{name: weights[prefix + name] for name in names})
    return through(cell, x, theirs, lengths=lengths, num_layers=layers, bidirectional=bidirectional)


def attention(x, weight_in, weight_out, bias_in=None, bias_out=None, memory=None, mask=None, heads=1, causal=False):
    query, key = (each.transpose(0, 1) for each in (x, x if memory is None else memory))
    later = torch.ones(len(query), len(key), dtype=torch.bool).triu(1) if causal else None
    y, _ = F.multi_head_attention_forward(
        query, key, key, x.shape[2], heads, weight_in, bias_in, None, None, False, 0.0, weight_out, bias_out,
        key_padding_mask=None if mask is None else mask == 0, attn_mask=later, need_weights=False,
    )  # fmt: skip
    return y.transpose(0, 1)


TRANSFORMER = {
    "attention.weight_in": "self_attn.in_proj_weight", "attention.bias_in": "self_attn.in_proj_bias",
    "attention.weight_out": "self_attn.out_proj.weight", "attention.bias_out": "self_attn.out_proj.bias",
    "fc1.weight": "linear1.weight", "fc1.bias": "linear1.bias",
    "fc2.weight": "linear2.weight", "fc2.bias": "linear2.bias",
}  # fmt: skip
"""What PyTorch calls the parameters; norm1 and norm2 have the same names."""


def transformer(x, mask=None, heads=1, causal=False, activation="gelu", norm_first=True, **weights):
    hidden, features = weights["fc1.weight"].shape
    module = torch.nn.TransformerEncoderLayer(features, heads, hidden, 0.0, activation, norm_first=norm_first)
    module.self_attn.batch_first = True
    # The last layer of the block is named like the block, be it a norm or not.
    names = {"weight": "norm2.weight", "bias": "norm2.bias", **TRANSFORMER}
    given = {names.get(name, name): tensor for name, tensor in weights.items()}
    later = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1) if causal else None
    return functional_call(
        module, given, (x,), {"src_mask": later, "src_key_padding_mask": None if mask is None else mask == 0}
    )


def cross_entropy(x, label, weight=None, **settings):
    return F.cross_entropy(x, label.long(), None if weight is None else torch.tensor(weight), **settings)


def focal(x, label, gamma):
    log_p = F.log_softmax(x, 1).gather(1, label.long().unsqueeze(1))
    return -((1 - log_p.exp()) ** gamma * log_p).mean()


def sigmoid_focal(x, target, gamma, alpha):
    p = torch.sigmoid(x)
    hit = p * target + (1 - p) * (1 - target)
    factor = alpha * target + (1 - alpha) * (1 - target)
    return (factor * (1 - hit) ** gamma * F.binary_cross_entropy_with_logits(x, target, reduction="none")).mean()


def bce_mean(x, target, sample_weight=None, pos_weight=None):
    weight = None if sample_weight is None else sample_weight[:, None].expand_as(x)
    pos_weight = None if pos_weight is None else torch.tensor(pos_weight)
    return F.binary_cross_entropy_with_logits(x, target, weight, pos_weight=pos_weight)


def dice(x, target):
    both, either = (x * target).flatten(1).sum(1), (x + target).flatten(1).sum(1)
    return (1 - (2 * both + 1) / (either + 1)).mean()


def ctc(x, label, lengths=None, label_lengths=None, counts=None, **settings):
    steps = torch.full((x.shape[1],), len(x)) if lengths is None else lengths
    counts = torch.tensor(counts) if label_lengths is None else label_lengths
    labels = torch.cat([each[:count] for each, count in zip(label, counts, strict=True)])
    return F.ctc_loss(F.log_softmax(x, 2), labels.long(), steps.long(), counts.long(), **settings)


def gated(x, gate, dim):
    a, b = x.chunk(2, dim)
    return a * getattr(F, gate)(b)


CALLS = {
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "prelu": lambda x, slope: F.prelu(x, slope),
    "elu": F.elu,
    "selu": F.selu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "softplus": F.softplus,
    # The gradient of F.hardsigmoid takes 1 / 6 in float32 also for float64, and is off by 3e-8.
    "hardsigmoid": lambda x: F.relu6(x + 3) / 6,
    "hardswish": F.hardswish,
    "clamp": torch.clamp,
    "silu": F.silu,
    "swish": lambda x, beta: x * torch.sigmoid(beta * x),
    "gelu": F.gelu,
    "mish": F.mish,
    "glu": F.glu,
    "gated": gated,
    "softmax": F.softmax,
    "log_softmax": F.log_softmax,
    "cross_entropy": cross_entropy,
    "focal": focal,
    "sigmoid_focal": sigmoid_focal,
    "bce_with_logits": lambda x, target: F.binary_cross_entropy_with_logits(x, target, reduction="sum") / len(x),
    "bce_mean": bce_mean,
    "mse": F.mse_loss,
    "l1": F.l1_loss,
    "huber": F.huber_loss,
    "smooth_l1": F.smooth_l1_loss,
    "kl_div": F.kl_div,
    "poisson_nll": F.poisson_nll_loss,
    "gaussian_nll": F.gaussian_nll_loss,
    "cosine": lambda x, other, sim, margin: F.cosine_embedding_loss(x, other, torch.where(sim > 0, 1, -1), margin),
    "triplet": lambda x, near, far, **settings: F.triplet_margin_loss(x, near, far, eps=0.0, **settings),
    "dice": dice,
    "ctc": ctc,
    "half_squares": lambda x, target: F.mse_loss(x, target, reduction="sum") / (2 * len(x)),
    "layer_norm": lambda x, weight=None, bias=None, axis=-1, **settings: F.layer_norm(
        x, x.shape[axis:], weight, bias, **settings
    ),
    "rms_norm": lambda x, weight=None, axis=-1, eps=1e-5: F.rms_norm(x, x.shape[axis:], weight, eps),
    "group_norm": lambda x, weight=None, bias=None, **settings: F.group_norm(x, weight=weight, bias=bias, **settings),
    "instance_norm": lambda x, weight=None, bias=None: F.instance_norm(x, weight=weight, bias=bias),
    "batch_norm": batch_norm,
    "local_response_norm": F.local_response_norm,
    "linear": lambda x, weight, bias=None, axis=1: F.linear(x.flatten(axis), weight, bias),
    "embedding": lambda x, weight, bias=0.0: F.embedding(x, weight) + bias,
    "matmul": lambda a, b, turn_a=False, turn_b=False: torch.matmul(a.mT if turn_a else a, b.mT if turn_b else b),
    "gather": lambda x, index, dim=0: x.index_select(dim, index.flatten()).unflatten(dim, index.shape),
    "index_select": lambda x, index, dim: x.index_select(dim, torch.tensor(index)),
    "permute": torch.permute,
    "pad": F.pad,
    "unfold": lambda x, windows, **settings: F.unfold(x, **settings).unflatten(2, windows),
    "where": lambda condition, a, b: torch.where(condition != 0, a, b),
    "tile": torch.tile,
    "repeat_interleave": torch.repeat_interleave,
    "cat": lambda *, dim, **x: torch.cat(list(x.values()), dim),
    "sum": lambda x, factor=1.0, **settings: factor * x.sum(**settings),
    "sum_abs": lambda x, factor=1.0, **settings: factor * x.abs().sum(**settings),
    "sum_squares": lambda x, factor=1.0, **settings: factor * x.square().sum(**settings),
    "mean": lambda x, factor=1.0, **settings: factor * x.mean(**settings),
    "amax": lambda x, factor=1.0, **settings: factor * x.amax(**settings),
    "amin": lambda x, factor=1.0, **settings: factor * x.amin(**settings),
    "max": torch.max,
    "logsumexp": lambda x, factor=1.0, **settings: factor * x.logsumexp(**settings),
    "conv": by_axes(F.conv1d, F.conv2d, F.conv3d),
    "deconv": by_axes(F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d),
    "max_pool": by_axes(F.max_pool1d, F.max_pool2d, F.max_pool3d),
    "avg_pool": by_axes(F.avg_pool1d, F.avg_pool2d, F.avg_pool3d),
    "lp_pool": by_axes(F.lp_pool1d, F.lp_pool2d, F.lp_pool3d),
    "adaptive_max_pool": by_axes(F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d),
    "adaptive_avg_pool": by_axes(F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d),
    "interpolate": F.interpolate,
    "pixel_shuffle": F.pixel_shuffle,
    "pixel_unshuffle": F.pixel_unshuffle,
    "dropout": lambda x: F.dropout(x, training=False),
    "recurrent": recurrent,
    "recurrent_stack": recurrent_stack,
    "attention": attention,
    "transformer": transformer,
}
"""What a row may name: functions of our inputs and parameters, by our names, and of the settings in the row."""


def run(row, given):
    """Outputs and gradients of one row, as arrays by name."""
    tensors = {name: torch.from_numpy(array) for name, array in given.items() if not name.startswith("d:")}
    for name in row["differentiated"]:
        tensors[name].requires_grad_()
    first = [tensors[name] for name in ("x",) if name in tensors]  # which PyTorch calls input or self
    rest = {name: tensor for name, tensor in tensors.items() if name != "x"}
    found = CALLS[row["call"]](*first, **rest, **row["settings"])
    found = dict(zip(row["results"], found if isinstance(found, tuple) else (found,), strict=False))
    seeds = {name: torch.from_numpy(given["d:" + name]) for name in found if "d:" + name in given}
    torch.autograd.backward([found[name] for name in seeds], list(seeds.values()))
    gradients = {"d:" + name: tensors[name].grad for name in row["differentiated"]}
    return {name: tensor.detach().numpy() for name, tensor in (found | gradients).items()}


def main(folder):
    torch.set_default_dtype(torch.float64)
    rows = json.loads((folder / "rows.json").read_text("utf-8"))
    theirs, errors = {}, {}
    with np.load(folder / "given.npz") as given:
        for number, row in enumerate(rows):
            prefix = f"{number}/"
            own = {key.removeprefix(prefix): given[key] for key in given.files if key.startswith(prefix)}
            try:
                theirs |= {prefix + name: array for name, array in run(row, own).items()}
            except Exception:
                errors[str(number)] = traceback.format_exc()
    np.savez(folder / "theirs.npz", **theirs)
    (folder / "errors.json").write_text(json.dumps(errors), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
