"""Those who sleep until a token is cancelled: a thread on a bare lock, a task on an event of its loop."""

from __future__ import annotations

import math
from _thread import allocate_lock

import anyio

from .flags import Watcher
from .wakeup import loop_is_running_here, running_port

__all__ = ["LONGEST_WAIT_SECONDS", "TaskWaiter", "ThreadWaiter", "refuse_to_block"]

LONGEST_WAIT_SECONDS = 292 * 365 * 86_400.0
"""What the platform's lock can count; longer is for ever."""


def refuse_to_block(what: str, instead: str) -> None:
    """Raise where blocking would stop an event loop."""
    if loop_is_running_here():
        raise RuntimeError(f"{what}() would block this thread's running event loop; use {instead}")


class ThreadWaiter(Watcher):
    """A thread that blocks on a bare lock, which whoever cancels releases."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = allocate_lock()
        self._lock.acquire()

    def block(self, timeout_seconds: float | None) -> None:
        if timeout_seconds is None or timeout_seconds > LONGEST_WAIT_SECONDS:
            timeout_seconds = -1
        elif math.isnan(timeout_seconds):
            raise ValueError("timeout_seconds must not be NaN")
        else:
            timeout_seconds = max(0.0, timeout_seconds)
        self._lock.acquire(True, timeout_seconds)

    def wake(self) -> None:
        try:
            self._lock.release()
        except RuntimeError:
            pass  # woken already, by another of the things it waits for

    dropped = wake


class TaskWaiter(Watcher):
    """A task that awaits an event of its own loop."""

    __slots__ = ("event", "port")

    def __init__(self) -> None:
        self.port = running_port()
        self.event = anyio.Event()

    def wake(self) -> None:
        self.event.set()
