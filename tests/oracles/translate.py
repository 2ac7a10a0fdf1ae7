"""From Caffe's layer messages to cfgnet's layers: the field names are the same, so this is mostly tables."""

import inspect
import types
from dataclasses import dataclass, field

import numpy as np

import cfgnet.layers  # noqa: F401  # says where the layer types lie
from cfgnet.init import Filler
from cfgnet.layer import Kind, Layer
from cfgnet.layers.lstm import LSTM
from cfgnet.layers.rnn import RNN
from cfgnet.policy import Policy
from cfgnet.rules import State
from cfgnet.solver import Solver

SOURCES = {"Input", "HDF5Data", "Data", "MemoryData", "DummyData", "ImageData"}
"""Layers that only bring tensors in; here the test feeds these."""
WIRING = {"name", "type", "bottom", "top", "param", "include", "exclude"}
IMPLEMENTATION = {"engine", "force_nd_im2col", "stable_prod_grad", "debug_info"}
"""Fields that choose how Caffe computes, not what."""
RENAMED = {"concat_dim": "axis", "slice_dim": "axis"}
INEXACT = {"ContrastiveLoss": {"eps": 1e-4}}
"""What Caffe does in its backward without a field for it; cfgnet's default is the exact gradient."""
STATISTICS = {"BatchNorm": ("mean", "variance", "factor")}
"""Caffe lets `param` speak of these, although it never trains them."""
STATES = ("h0", "c0")
"""The inputs of recurrent layers that are states."""
LIFE = {
    *("net", "train_net", "test_net", "test_iter", "test_interval", "test_compute_loss", "test_initialization"),
    *("max_iter", "display", "average_loss", "debug_info", "random_seed", "solver_mode", "device_id", "weights"),
    *("snapshot", "snapshot_prefix", "snapshot_diff", "snapshot_format", "snapshot_after_train", "layer_wise_reduce"),
}
"""Solver fields that do not touch the arithmetic of one update."""
DEFAULTS = {
    "Nesterov": {"momentum": 0.0},
    "AdaDelta": {"momentum": 0.0, "delta": 1e-8},
    "Adam": {"momentum": 0.0},
}
"""Caffe's defaults, where cfgnet has others."""
UNUSED = {"momentum", "momentum2", "delta", "rms_decay", "gamma", "power", "stepsize", "stepvalue"}
"""Solver fields that Caffe leaves unread where a solver or policy has no use for them."""
PER_BOTTOM = {"Convolution", "Deconvolution"}
"""Layers that Caffe lets work on several bottoms, one top each, with one set of parameters."""


class UnsupportedError(Exception):
    """A part of Caffe that cfgnet does not have yet; the case is skipped."""


def carrying(cls):
    """A recurrent layer that starts with the state that the last forward pass ended with, as Caffe's does.

    cfgnet's is handed its state: here by itself, in arrays that are kept between the passes.
    """
    states = [port.name[0] for port in cls.wiring.inputs if port.name in STATES]

    def forward(self, k, **arrays):
        kept = {f"{state}0": np.zeros_like(arrays[state]) for state in states}
        cls.forward(self, k, **arrays, **kept)
        for state in states:
            k.copy(arrays[state], kept[f"{state}0"])

    asked = [
        one.replace(kind=one.KEYWORD_ONLY, default=one.empty if name in states else one.default)
        for name, one in inspect.signature(cls.forward).parameters.items()
        if name not in ("self", *STATES)
    ]
    owner = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    forward.__signature__ = inspect.Signature([owner, *asked])
    body = {"__module__": __name__, "forward": forward}
    return types.new_class(f"Carrying{cls.__name__}", (cls,), {"abstract": True}, lambda space: space.update(body))


CARRYING = {cls: carrying(cls) for cls in (LSTM, RNN)}


@dataclass
class Translation:
    """A net in cfgnet's layers."""

    layers: list[Layer] = field(default_factory=list)
    inputs: dict[str, Kind] = field(default_factory=dict)
    """What comes from outside, and whether some layer takes it as whole numbers."""
    tensors: dict[str, str] = field(default_factory=dict)
    """The tensor that holds the last value of each of Caffe's blobs."""


def translate(messages, phase="train"):
    """The translation of a net's layer messages in one phase; UnsupportedError if a type is missing in cfgnet."""
    net = Translation()
    for message in messages:
        if not there(message, phase):
            continue
        if message["type"][0] in SOURCES:
            net.tensors |= {top: top for top in message["top"]}
            net.inputs |= dict.fromkeys(message["top"], "float")
        else:
            for each in single(message):
                add(net, each)
    return net


def rules(message):
    """The rules of a message, as fields of a layer."""

    def rule(given):
        return {key: plain(value).lower() if key == "phase" else plain(value) for key, value in given.items()}

    return {side: [rule(given) for given in message.get(side, [])] for side in ("include", "exclude")}


def there(message, phase):
    """Whether a layer is there in a phase; which class judges the rules makes no difference."""
    return LSTM.model_validate({"num_output": 1, **rules(message)}).there(phase, State())


def single(message):
    """The layers of cfgnet that a layer of Caffe stands for."""
    name, kind, bottoms, tops = (
        message["name"][0],
        message["type"][0],
        message.get("bottom", []),
        message.get("top", []),
    )
    if kind == "ArgMax":
        return argmax(message)
    if kind in ("LSTM", "RNN") and len(tops) > 1:
        # No gradient of Caffe goes back through the states that come out; here none goes back through a copy.
        y, *states = tops
        inner = [f"{state}/{name}" for state in states]
        return [
            message | {"top": [y, *inner]},
            *(
                {"name": [f"{name}.{state}"], "type": ["Concat"], "bottom": [own], "top": [state]}
                for own, state in zip(inner, states, strict=True)
            ),
        ]
    if kind in PER_BOTTOM and len(bottoms) > 1:
        specs = message.get("param", [])
        count = 1 + message["convolution_param"][0].get("bias_term", [True])[0]
        specs = [{"name": [f"{name}.{i}"]} | (specs[i] if i < len(specs) else {}) for i in range(count)]
        names = [name, *(f"{name}.{i}" for i in range(1, len(bottoms)))]
        return [
            message | {"name": [own], "param": specs, "bottom": [bottom], "top": [top]}
            for own, bottom, top in zip(names, bottoms, tops, strict=True)
        ]
    return [message]


def argmax(message):
    """With out_max_val, what comes out in Caffe is the values, or without an axis the indices and the values."""
    given = dict(message.get("argmax_param", [{}])[0])
    message = message | {"argmax_param": [given]}
    if not given.pop("out_max_val", [False])[0]:
        return [message]
    name, (top,) = message["name"][0], message["top"]
    index, values = f"{top}/index", f"{top}/values"
    if "axis" in given:
        return [message | {"top": [index, top]}]
    both = {"name": [f"{name}.both"], "type": ["Concat"], "bottom": [index, values], "top": [top]}
    return [message | {"top": [index, values]}, both]


def add(net, message):
    """Adds one layer. A tensor of cfgnet is written once, so a blob that is written again gets a fresh name."""
    name, kind = message["name"][0], message["type"][0]
    cls = Layer.find(kind)
    if cls is None:
        raise UnsupportedError(f"cfgnet has no layer type {kind}")
    given = fields(message)
    if not given.get("expose_hidden"):
        cls = CARRYING.get(cls, cls)
    for blob in message.get("bottom", []):
        if blob not in net.tensors:
            net.tensors[blob] = blob
            net.inputs[blob] = "float"
    inputs = [net.tensors[blob] for blob in message.get("bottom", [])]
    outputs = [f"{top}/{name}" if top in net.tensors else top for top in message.get("top", [])]
    net.tensors |= dict(zip(message.get("top", []), outputs, strict=True))
    settings = {"name": name, "inputs": inputs, **INEXACT.get(kind, {}), **given}
    bound = cls.model_validate(settings).wired().bind("inputs", tuple(inputs))
    for port, tensor in bound.items():
        if tensor in net.inputs and any(p.name == port and p.kind == "int" for p in cls.wiring.inputs):
            net.inputs[tensor] = "int"
    if outputs:
        settings["outputs"] = outputs
    if specs := message.get("param"):
        settings["param"] = params(cls, specs, bound)
    net.layers.append(cls.model_validate(settings))


def fields(message):
    """The settings of a layer: `xxx_param { ... }` is opened, for a layer of cfgnet has its fields at the top."""
    found = {}
    for key, given in message.items():
        if key.endswith("_param"):
            found |= {RENAMED.get(k, k): plain(v) for k, v in given[0].items() if k not in IMPLEMENTATION}
        elif key not in WIRING:
            found[key] = plain(given)
    for one, other in (("pad_h", "pad_w"), ("pad_w", "pad_h")):
        if one in found:
            found.setdefault(other, 0)  # where Caffe takes one of them alone
    if isinstance(found.get("loss_weight"), list):  # one for each top; cfgnet weighs the first
        found["loss_weight"], *others = found["loss_weight"]
        if any(others):
            raise UnsupportedError("cfgnet weighs the first output of a layer only")
    if "normalize" in found:  # the deprecated spelling, which `normalization` overrules
        found.setdefault("normalization", "VALID" if found["normalize"] else "BATCH_SIZE")
        del found["normalize"]
    return found


def plain(given):
    """One value or a list of them; a filler as a mapping, a shape as its numbers."""
    if len(given) > 1:
        return given
    value = given[0]
    if not isinstance(value, dict):
        return value
    return plain(value["dim"]) if value.keys() == {"dim"} else {k: plain(v) for k, v in value.items()}


def params(cls, specs, bound):
    """Caffe's param messages, which go by position, under the names that cfgnet has for parameters."""
    names = STATISTICS.get(cls.type_name) or cls.param_names()
    if cls.type_name == "Scale" and len(bound) == 2:
        names = ("bias",)
    if "x_static" not in bound:
        names = tuple(name for name in names if name != "weight_static")
    return {name: setting(spec) for name, spec in zip(names, specs, strict=False)}


def setting(spec):
    """A param message as ParamSpec has it; STRICT sharing is the only one that cfgnet knows."""
    return {
        "share" if key == "name" else key: plain(value)
        for key, value in spec.items()
        if (key, value) != ("share_mode", ["STRICT"])
    }


def solver(message):
    """The solver of a message, without the fields that are no arithmetic; UnsupportedError if its type is missing."""
    given = {key: plain(value) for key, value in message.items()}
    kind, policy = Solver.find(given.get("type", "SGD")), Policy.find(given["lr_policy"])
    if kind is None:
        raise UnsupportedError(f"cfgnet has no solver {given['type']}")
    if policy is None:
        raise UnsupportedError(f"cfgnet has no lr_policy {given['lr_policy']}")
    own = {key: value for key, value in given.items() if key in policy.model_fields}
    rest = DEFAULTS.get(kind.type_name, {}) | {key: value for key, value in given.items() if key not in (*own, *LIFE)}
    rest = {key: value for key, value in rest.items() if key in kind.model_fields or key not in UNUSED}
    if rest.get("clip_gradients", 0) < 0:
        del rest["clip_gradients"]
    return Solver.model_validate(rest | {"type": kind.type_name, "lr_policy": {"type": policy.type_name, **own}})


def filler(message):
    """The filler of a message; UnsupportedError if its type is missing."""
    given = {key: plain(value) for key, value in message.items()}
    kind = Filler.find(given.pop("type", "constant"))
    if kind is None:
        raise UnsupportedError(f"cfgnet has no filler {plain(message['type'])}")
    return kind.model_validate({key: value for key, value in given.items() if key in kind.model_fields})
