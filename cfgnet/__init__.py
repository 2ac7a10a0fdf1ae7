"""cfgnet: neural networks from one YAML file, with hand-written gradients that are checked.

The public names, each loaded when it is first used, so that importing the package costs nothing:

    spec = cfgnet.load("net.yaml")              a validated Spec; SpecError lists every mistake
    net = cfgnet.Net(spec, phase="train")       planned and allocated
    run = cfgnet.train(spec)                    the same trainer as the shell; run.metrics, run.path
    cfgnet.grad_check(spec)                     a verdict per layer and parameter
    cfgnet.time_net(spec)                       what a training step takes, as a whole and by layers

and nets that are put together in Python:

    x = cfgnet.variable("x")                    a tensor that is fed
    w = cfgnet.shared(0.0, "w")                 a parameter
    y = cfgnet.tanh(w * x + 1)                  operators, the functions of formulas, and layers.InnerProduct(x, ...)
    f = cfgnet.compile([y, cfgnet.grad(y, w)])  a function, called as f(x=...); f.to_yaml() is its configuration
    with cfgnet.eager(): ...                    every operation is computed as it is written
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from cfgnet._version import __version__

if TYPE_CHECKING:
    from cfgnet.errors import CfgnetError as CfgnetError
    from cfgnet.errors import SpecError as SpecError
    from cfgnet.gradcheck import grad_check as grad_check
    from cfgnet.layer import Case as Case
    from cfgnet.layer import Layer as Layer
    from cfgnet.layer import Param as Param
    from cfgnet.net import Net as Net
    from cfgnet.prepare import load as load
    from cfgnet.prepare import loads as loads
    from cfgnet.spec import Spec as Spec
    from cfgnet.symbols.function import Function as Function
    from cfgnet.symbols.function import compile as compile
    from cfgnet.symbols.function import grad as grad
    from cfgnet.symbols.functions import constant as constant
    from cfgnet.symbols.functions import shared as shared
    from cfgnet.symbols.functions import variable as variable
    from cfgnet.symbols.imperative import eager as eager
    from cfgnet.symbols.scan import scan as scan
    from cfgnet.symbols.symbol import Symbol as Symbol
    from cfgnet.timing import time_net as time_net
    from cfgnet.trainer import train as train

_HOME = {
    "Case": "layer",
    "CfgnetError": "errors",
    "Function": "symbols.function",
    "Layer": "layer",
    "Net": "net",
    "Param": "layer",
    "Spec": "spec",
    "SpecError": "errors",
    "Symbol": "symbols.symbol",
    "compile": "symbols.function",
    "constant": "symbols.functions",
    "eager": "symbols.imperative",
    "grad": "symbols.function",
    "grad_check": "gradcheck",
    "load": "prepare",
    "loads": "prepare",
    "scan": "symbols.scan",
    "shared": "symbols.functions",
    "time_net": "timing",
    "train": "trainer",
    "variable": "symbols.functions",
}
_FUNCTIONS = (
    *(
        "abs",
        "equal",
        "erf",
        "exp",
        "expand",
        "expm1",
        "log",
        "log1p",
        "log_softmax",
        "logsumexp",
        "max",
        "mean",
        "min",
        "not_equal",
    ),
    *(
        "relu",
        "reshape",
        "sigmoid",
        "sign",
        "softmax",
        "softplus",
        "sqrt",
        "sum",
        "tanh",
        "transpose",
        "trunc",
        "where",
    ),
)
"""The functions of formulas, for symbols."""


__all__ = ["__version__", *_HOME, "Net"]


def __getattr__(name: str) -> Any:
    if name == "layers":
        return importlib.import_module("cfgnet.layers")
    if name in _FUNCTIONS:
        return importlib.import_module("cfgnet.symbols.functions").function(name)
    if name not in _HOME:
        raise AttributeError(f"module 'cfgnet' has no attribute {name!r}")
    return getattr(importlib.import_module(f"cfgnet.{_HOME[name]}"), name)
