"""One blocking call in a worker thread, which its operation may stop waiting for."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextvars import Context
from typing import Generic, TypeVar

import anyio
import anyio.to_thread

from .errors import OperationCancelled

__all__ = ["ThreadCall"]

logger = logging.getLogger("cancelable_core")

T = TypeVar("T")


class ThreadCall(Generic[T]):
    """Runs ``func`` in a context of its own and knows whether somebody still waits for it.

    Args:
        func: What to call; its variables do not leak into the pool's next job.
        context: The context variables to call it with.
        count_abandoned: Told +1 when the caller leaves while the call runs, and -1 when such a call ends.
    """

    def __init__(self, func: Callable[[], T], context: Context, count_abandoned: Callable[[int], object]) -> None:
        self._func = func
        self._context = context
        self._count_abandoned = count_abandoned
        self._lock = threading.Lock()
        self._running = False
        self._abandoned = False

    async def wait(self, *, limiter: anyio.CapacityLimiter | None = None, abandon_on_cancel: bool) -> T:
        """Run it in a worker thread; with ``abandon_on_cancel`` a native cancelation ends the wait, not the call."""
        try:
            return await anyio.to_thread.run_sync(self._run, abandon_on_cancel=abandon_on_cancel, limiter=limiter)
        except BaseException:
            self._abandon()
            raise

    def _run(self) -> T:
        with self._lock:
            if self._abandoned:  # left before a thread was free: do not begin what nobody wants
                raise OperationCancelled("the call was abandoned before it began")
            self._running = True
        try:
            return self._context.run(self._func)
        except Exception as error:
            if self._abandoned and not isinstance(error, OperationCancelled):
                logger.warning("an abandoned thread ended with an error", exc_info=error)
            raise
        finally:
            with self._lock:
                self._running = False
                if self._abandoned:
                    self._count_abandoned(-1)

    def _abandon(self) -> None:
        with self._lock:
            self._abandoned = True
            if self._running:
                self._count_abandoned(+1)  # inside the lock: always before the -1
