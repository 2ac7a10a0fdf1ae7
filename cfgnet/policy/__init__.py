"""Policies: how a number, such as the learning rate, follows the iteration; one idea to a file."""

from __future__ import annotations

from cfgnet.policy.base import Policy, Scheduled, Warmup, value_of
from cfgnet.policy.cycle import Cosine, OneCycle
from cfgnet.policy.fall import Fixed
from cfgnet.policy.plateau import ReduceOnPlateau, Watch

__all__ = ["Cosine", "Fixed", "OneCycle", "Policy", "ReduceOnPlateau", "Scheduled", "Warmup", "Watch", "value_of"]
