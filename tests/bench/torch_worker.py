"""A worker that trains a net with PyTorch, eagerly, from a description; it needs nothing but torch and numpy.

Started by path, beside `protocol.py`. One function per layer type says which of PyTorch's functions it is.
"""

import functools
import json
import time
from pathlib import Path

import protocol
import torch
import torch.nn.functional as F  # noqa: N812  as everyone calls it

GATES = [0, 1, 3, 2]
"""Where PyTorch's LSTM has the gates i, f, o, g of Caffe's, and the other way round."""
KEYS = {"weight_x": "weight_ih_l0", "weight_h": "weight_hh_l0", "bias": "bias_ih_l0"}
"""What PyTorch calls the parameters of a recurrent layer."""


class Net:
    """The net of a description, its parameters and its optimizer."""

    def __init__(self, settings):
        import numpy as np

        folder = Path(settings["folder"])
        net = json.loads((folder / "net.json").read_text("utf-8"))
        self.channels_last, self.dropout = settings["channels_last"], settings["dropout"]
        torch.set_num_threads(settings["threads"])
        before = protocol.resident_bytes()
        with np.load(folder / "batch.npz") as file:
            self.inputs = {name: self.laid(torch.from_numpy(whole(array))) for name, array in file.items()}
        with np.load(folder / "weights.npz") as file:
            self.values = {key: self.laid(torch.from_numpy(array)) for key, array in file.items()}
        self.params = {key: self.values[key].requires_grad_() for key in net["trained"]}
        self.restore = {}
        """How the gradient of a parameter that PyTorch keeps in another order is brought into ours, by key."""
        self.calls = [(LAYERS[node["type"]](self, node), node["reads"], node) for node in net["nodes"]]
        self.losses = net["losses"]
        self.optimizer = torch.optim.SGD(self.params.values(), fused=True, **net["solver"])
        device = f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads"
        self.info = {"device": device, "before_bytes": before}

    def laid(self, tensor):
        """A tensor in the order of memory that is wanted."""
        return (
            tensor.contiguous(memory_format=torch.channels_last) if self.channels_last and tensor.ndim == 4 else tensor
        )

    def objective(self):
        tensors = dict(self.inputs)
        for call, reads, node in self.calls:
            found = call(*[tensors[name] for name in reads])
            for port, name in node["outputs"].items():
                tensors[name] = found[port] if isinstance(found, dict) else found
            for name in node["drops"]:
                del tensors[name]
        terms = []
        for name, weight in self.losses.items():
            term = tensors[name].sum() if tensors[name].ndim else tensors[name]
            terms.append(term if weight == 1 else weight * term)
        return functools.reduce(torch.add, terms)

    def first(self):
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.objective()
        loss.backward()
        return loss.item()

    def step(self):
        start = time.perf_counter()
        self.optimizer.zero_grad(set_to_none=True)
        self.objective().backward()
        self.optimizer.step()
        return time.perf_counter() - start

    def gradients(self):
        return {key: self.restore.get(key, lambda g: g)(p.grad).numpy() for key, p in self.params.items()}


def whole(array):
    """Labels as PyTorch wants them: int64."""
    return array.astype("int64") if array.dtype.kind == "i" else array


# One function per layer type: what computes it.


def convolution(net, node):
    weight, bias = (net.values.get(node["params"].get(name)) for name in ("weight", "bias"))
    window, group = node["window"], node["fields"]["group"]
    stride, pad, dilation = (window[name] for name in ("stride", "pad", "dilation"))
    return lambda x: F.conv2d(x, weight, bias, stride, pad, dilation, group)


def pooling(net, node):
    largest = node["fields"]["pool"] == "MAX"
    if node["fields"]["global_pooling"]:
        return lambda x: (F.adaptive_max_pool2d if largest else F.adaptive_avg_pool2d)(x, 1)
    kernel, stride, pad = (node["window"][name] for name in ("kernel", "stride", "pad"))
    if largest:
        return lambda x: F.max_pool2d(x, kernel, stride, pad, ceil_mode=True)
    return lambda x: F.avg_pool2d(x, kernel, stride, pad, ceil_mode=True)


def inner_product(net, node):
    weight, bias = (net.values.get(node["params"].get(name)) for name in ("weight", "bias"))
    axis = node["fields"]["axis"]
    return lambda x: F.linear(x.flatten(axis), weight, bias)


def relu(net, node):
    return functools.partial(F.relu, inplace=node["in_place"])


def dropout(net, node):
    ratio = node["fields"]["dropout_ratio"] if net.dropout else 0.0
    return lambda x: F.dropout(x, ratio)


def batch_norm(net, node):
    weight, bias = (net.values.get(node["params"].get(name)) for name in ("weight", "bias"))
    mean, variance = (net.values[node["params"][name]] for name in ("mean", "variance"))
    fields = node["fields"]
    kept = {"momentum": 1 - fields["moving_average_fraction"], "eps": fields["eps"]}
    return lambda x: F.batch_norm(x, mean, variance, weight, bias, training=True, **kept)


def scale(net, node):
    weight, bias = (net.values.get(node["params"].get(name)) for name in ("weight", "bias"))
    axis = node["fields"]["axis"]

    def call(x):
        shape = (*(1,) * axis, *weight.shape, *(1,) * (x.ndim - axis - weight.ndim))
        return x * weight.view(shape) if bias is None else torch.addcmul(bias.view(shape), x, weight.view(shape))

    return call


def lrn(net, node):
    fields = node["fields"]
    return lambda x: F.local_response_norm(x, fields["local_size"], fields["alpha"], fields["beta"], fields["k"])


def eltwise(net, node):
    return lambda *x: functools.reduce(torch.add, x)


def concat(net, node):
    axis = node["fields"]["axis"]
    return lambda *x: torch.cat(x, axis)


def recurrent(net, node, module, keys, turned=lambda tensor: tensor):
    """A module of PyTorch that goes through sequences, with our parameters in the place of those that `keys` names.

    `turned` brings one into its order, and back. Where one of ours is shorter it is the last part, behind zeros.
    """
    torch.nn.init.zeros_(module.bias_hh_l0).requires_grad_(False)
    for name, theirs in keys.items():
        key, parameter = node["params"][name], getattr(module, theirs)
        size = len(net.values[key])
        with torch.no_grad():
            parameter[-size:] = turned(net.values[key])
        net.params[key] = parameter.requires_grad_()
        net.restore[key] = lambda gradient, size=size: turned(gradient[-size:])

    def call(x):
        y, states = module(x.flatten(2))
        return {"y": y, **dict(zip("hc", states if isinstance(states, tuple) else [states], strict=False))}

    return call


def lstm(net, node):
    """PyTorch's own LSTM; of its two biases, which are summed, the second stays zero."""
    size, inputs = node["fields"]["num_output"], net.values[node["params"]["weight_x"]].shape[1]

    def turned(tensor):
        return tensor.unflatten(0, (4, size))[GATES].flatten(0, 1)

    return recurrent(net, node, torch.nn.LSTM(inputs, size), KEYS, turned)


def gru(net, node):
    """PyTorch's own GRU; of its two biases, the second differs from the first in its last part only."""
    size, inputs = node["fields"]["num_output"], net.values[node["params"]["weight_x"]].shape[1]
    return recurrent(net, node, torch.nn.GRU(inputs, size), {**KEYS, "bias_h": "bias_hh_l0"})


def softmax_with_loss(net, node):
    axis = node["fields"]["axis"]
    return lambda x, label: F.cross_entropy(x.movedim(axis, -1).flatten(0, -2), label.flatten())


def euclidean_loss(net, node):
    return lambda x, target: F.mse_loss(x, target, reduction="sum") / (2 * len(x))


def embed(net, node):
    weight, bias = (net.values.get(node["params"].get(name)) for name in ("weight", "bias"))
    return (lambda x: F.embedding(x, weight)) if bias is None else (lambda x: F.embedding(x, weight) + bias)


def positional_encoding(net, node):
    weight = net.values[node["params"]["weight"]]
    return lambda x: x + weight


def layer_norm(net, node):
    weight, bias = (net.values.get(node["params"].get(name)) for name in ("weight", "bias"))
    eps = node["fields"]["eps"]
    return lambda x: F.layer_norm(x, weight.shape, weight, bias, eps)


def gelu(net, node):
    return functools.partial(F.gelu, approximate=node["fields"]["approximate"])


def multi_head_attention(net, node):
    """PyTorch's fused attention between two linear layers, which is what its own module does where it is fastest."""
    names = ("weight_in", "bias_in", "weight_out", "bias_out")
    weight_in, bias_in, weight_out, bias_out = (net.values.get(node["params"].get(name)) for name in names)
    heads, causal = node["fields"]["num_heads"], node["fields"]["causal"]

    def call(x):
        query, key, value = F.linear(x, weight_in, bias_in).unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
        found = F.scaled_dot_product_attention(query, key, value, is_causal=causal)
        return F.linear(found.transpose(1, 2).flatten(2), weight_out, bias_out)

    return call


LAYERS = {
    "Convolution": convolution,
    "Pooling": pooling,
    "InnerProduct": inner_product,
    "ReLU": relu,
    "Dropout": dropout,
    "BatchNorm": batch_norm,
    "Scale": scale,
    "LRN": lrn,
    "Eltwise": eltwise,
    "Concat": concat,
    "LSTM": lstm,
    "GRU": gru,
    "SoftmaxWithLoss": softmax_with_loss,
    "EuclideanLoss": euclidean_loss,
    "Embed": embed,
    "PositionalEncoding": positional_encoding,
    "LayerNorm": layer_norm,
    "GELU": gelu,
    "MultiHeadAttention": multi_head_attention,
}


if __name__ == "__main__":
    protocol.serve(Net)
