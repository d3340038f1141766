"""The region around one blocking call in which a cancel may interrupt it, and nothing after it."""

from __future__ import annotations

import logging
import time
from functools import partial
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from .flags import WAKE, Watcher
from .shielding import is_shielded
from .timer_thread import shared_timer

if TYPE_CHECKING:
    from .errors import OperationCancelled
    from .timer_thread import Timer
    from .token import CancelationToken

__all__ = ["Interrupter", "InterruptibleRegion"]

logger = logging.getLogger("cancelable_core")

_FIRST_REPEAT_SECONDS = 0.02
_LAST_REPEAT_SECONDS = 1.0


class Interrupter:
    """What stops one kind of blocking call. Derive from it, and give it to `Cancelable.interruptible`.

    Concurrency:
        `interrupt` is called from a pool thread while the region's own thread blocks, `is_interruption` in the region's thread.
    """

    repeats: bool = False
    """Whether `interrupt` is called again, ever more rarely, while the region is not left.

    A cancel may come after the region is entered and before the call in it has begun. An interruption that leaves no trace on
    an idle object, as a database's does, is lost then, and without another one the call would run to its end.
    """

    ends_quietly: bool = False
    """Whether a call that returns after `interrupt` was called is taken for interrupted as well.

    A socket that was shut down reads as one whose stream has ended, and nothing tells the two apart.
    """

    def interrupt(self) -> None:
        """Make the blocking call end. What it raises is logged, counted, and changes nothing about the cancel."""
        raise NotImplementedError

    def is_interruption(self, error: Exception) -> bool:
        """Whether an error that leaves the region after `interrupt` was called is what it makes the call raise."""
        raise NotImplementedError


class _Operation(Protocol):
    """What a region needs of its operation."""

    @property
    def token(self) -> CancelationToken: ...

    def check(self) -> None: ...

    def error(self) -> OperationCancelled: ...

    def time_out_in_threads(self) -> list[Timer]: ...

    def count_failed_interruption(self) -> None: ...


class InterruptibleRegion(Watcher):
    """A ``with`` block around one blocking call; see `Cancelable.interruptible`. Used once.

    A cancel only leaves a note for the pool, where `_fire` takes the region's lock. Whoever leaves takes back the permission
    first and the lock second: so he waits for a firing that has begun, and one that has not finds nothing to fire at.
    """

    __slots__ = ("_armed", "_fired", "_interrupter", "_lock", "_operation", "_timers")

    def __init__(self, operation: _Operation, interrupter: Interrupter) -> None:
        self._operation = operation
        self._interrupter = interrupter
        self._lock = Lock()
        self._armed = False
        self._fired = False
        self._timers: list[Timer] = []

    def __enter__(self) -> Self:
        self.arm()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.disarm()
        error = self.translated(exc)
        if error is not None:
            raise error from exc

    def arm(self) -> None:
        """From now on a cancel interrupts. For hooks that are called before and after a call; others use ``with``.

        Raises:
            OperationCancelled: It was cancelled already: the call must not begin.
        """
        self._operation.check()
        if is_shielded(self._operation):
            return
        shared_timer().start()  # here, so that a cancel in a signal handler has nothing to start
        self._timers = self._operation.time_out_in_threads()
        self._armed = True
        token = self._operation.token
        if not token.watch(self, WAKE) and token.is_cancelled:
            self.disarm()
            raise self._operation.error()

    def disarm(self) -> None:
        """From now on nothing is interrupted; waits for an interruption in progress. Idempotent."""
        self._armed = False
        self._operation.token.unwatch(self)
        for timer in self._timers:
            timer.cancel()
        with self._lock:
            pass

    def translated(self, error: BaseException | None) -> OperationCancelled | None:
        """The operation's error, where ``error`` is what the interruption made of the call; else None."""
        if not self._fired:
            return None
        if error is None:
            interrupted = self._interrupter.ends_quietly
        else:
            interrupted = isinstance(error, Exception) and self._interrupter.is_interruption(error)
        return self._operation.error() if interrupted else None

    def wake(self) -> None:
        shared_timer().dispatch(self._fire)

    def _fire(self, again_after_seconds: float = _FIRST_REPEAT_SECONDS) -> None:
        failure: Exception | None = None
        with self._lock:
            if not self._armed:
                return
            self._fired = True
            try:
                self._interrupter.interrupt()
            except Exception as error:
                failure = error
        if failure is not None:
            logger.error("an interrupter failed; the cancel stands, the call goes on", exc_info=failure)
            self._operation.count_failed_interruption()
        if self._interrupter.repeats:
            self._fire_again(again_after_seconds)

    def _fire_again(self, after_seconds: float) -> None:
        fire = partial(self._fire, min(2 * after_seconds, _LAST_REPEAT_SECONDS))
        timer_thread = shared_timer()
        # not added to the timers: the region may be left right now, and then it finds nothing to do
        timer_thread.schedule(time.monotonic() + after_seconds, partial(timer_thread.dispatch, fire))
