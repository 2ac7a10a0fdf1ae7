"""Threads: a few workers that run the parts of one call side by side.

numpy lets go of Python's lock inside of BLAS, copies and ufuncs. What a part computes never depends on which thread
runs it or when, so that the same number of threads gives the same bits.
"""

from __future__ import annotations

import contextvars
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any

Call = Callable[[], Any]
Work = tuple[contextvars.Context, Call]
"""A call, and the context of whoever wants it, which says for example what numpy does about an overflow."""
MOST = 8
"""The largest number of threads that is taken unasked; a net of the usual size has no work for more."""


def processors() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Threads:
    """`count` threads, the calling one included; the others start when first needed, and end with this object."""

    def __init__(self, count: int | None = None):
        self.count = count or min(MOST, processors())
        self._queues: list[SimpleQueue[Work | None]] = []
        self._done: SimpleQueue[BaseException | None] = SimpleQueue()
        weakref.finalize(self, _end, self._queues)

    def together(self, calls: Sequence[Call]) -> Call:
        """One call that runs `calls`, at most `count`, side by side; raises what one of them raised."""
        while len(self._queues) < len(calls) - 1:
            queue: SimpleQueue[Work | None] = SimpleQueue()
            self._queues.append(queue)
            threading.Thread(target=_work, args=(queue, self._done), name="cfgnet-kernels", daemon=True).start()
        first, *others = calls
        given = list(zip(self._queues, others, strict=False))

        def run() -> None:
            done = self._done  # through self, so that the threads live as long as a call that needs them
            for queue, call in given:
                queue.put((contextvars.copy_context(), call))
            try:
                first()
            finally:
                raised = [done.get() for _ in given]
            for error in filter(None, raised):
                raise error

        return run


def _work(queue: SimpleQueue[Work | None], done: SimpleQueue[BaseException | None]) -> None:
    while work := queue.get():
        context, call = work
        try:
            context.run(call)
            done.put(None)
        except BaseException as error:
            done.put(error)


def _end(queues: list[SimpleQueue[Work | None]]) -> None:
    for queue in queues:
        queue.put(None)
