"""cfgnet: neural networks from one YAML file, with hand-written gradients that are checked.

The public names, each loaded when it is first used, so that importing the package costs nothing:

    spec = cfgnet.load("net.yaml")              a validated Spec; SpecError lists every mistake
    net = cfgnet.Net(spec, phase="train")       planned and allocated
    run = cfgnet.train(spec)                    the same trainer as the shell; run.metrics, run.path
    cfgnet.grad_check(spec)                     a verdict per layer and parameter
    cfgnet.time_net(spec)                       what a training step takes, as a whole and by layers
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
    from cfgnet.timing import time_net as time_net
    from cfgnet.trainer import train as train

_HOME = {
    "Case": "layer",
    "CfgnetError": "errors",
    "Layer": "layer",
    "Net": "net",
    "Param": "layer",
    "Spec": "spec",
    "SpecError": "errors",
    "grad_check": "gradcheck",
    "load": "prepare",
    "loads": "prepare",
    "time_net": "timing",
    "train": "trainer",
}

__all__ = ["__version__", *_HOME, "Net"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'cfgnet' has no attribute {name!r}")
    return getattr(importlib.import_module(f"cfgnet.{_HOME[name]}"), name)
