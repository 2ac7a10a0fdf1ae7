"""Interrupt: turns Ctrl-C and a request to end into a flag that the training reads between two iterations."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class Interrupt:
    """While it is entered, SIGINT and SIGTERM set `signal`; a second one ends the process at once, as it used to."""

    WATCHED = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.signal = 0
        """The number of the signal that came, or 0."""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
            self._before = {number: signal.signal(number, self._caught) for number in self.WATCHED}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _caught(self, number: int, _: FrameType | None) -> None:
        self.signal = number
        for each, handler in self._before.items():
            signal.signal(each, handler)
