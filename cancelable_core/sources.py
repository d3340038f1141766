"""What feeds a token besides callers and clocks: signals of the process and conditions that come true."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Protocol

from .callables import is_coroutine_function
from .models import CancelationReason
from .timer_thread import shared_timer

if TYPE_CHECKING:
    from .timer_thread import Timer
    from .token import CancelationToken

__all__ = ["ConditionSource", "SignalSource", "Source"]

logger = logging.getLogger("cancelable_core")


class Source(Protocol):
    """Watches while an operation is open and cancels its token when its time has come."""

    def start(self, token: CancelationToken) -> None:
        """Begin to watch."""
        ...

    def stop(self) -> None:
        """Stop watching; harmless when it never started."""
        ...


class SignalSource:
    """Cancels on any of the given signals. Chains to the handlers found there, and puts them back.

    Handlers that turn Ctrl-C into a ``KeyboardInterrupt``, Python's own and those of ``asyncio.run`` and ``trio.run``, are
    replaced rather than chained to: raising, or cancelling the whole program, would defeat the orderly end.
    """

    def __init__(self, signals: Sequence[int]) -> None:
        if not signals:
            raise ValueError("with_signal needs at least one signal")
        self._signals = list(dict.fromkeys(signal.Signals(number) for number in signals))
        self._before: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}
        self._token: CancelationToken | None = None

    def start(self, token: CancelationToken) -> None:
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("with_signal works in the main thread only: Python delivers signals nowhere else")
        self._token = token
        for number in self._signals:
            self._before[number] = signal.getsignal(number)
            signal.signal(number, self._handle)

    def stop(self) -> None:
        self._token = None
        for number, before in self._before.items():
            # someone who installed a handler over ours chains to us: leave theirs in place, ours only passes on from now
            if signal.getsignal(number) == self._handle:
                signal.signal(number, signal.SIG_DFL if before is None else before)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._token is not None:
            name = signal.Signals(number).name
            self._token.cancel_sync(CancelationReason.SIGNAL, origin=name)
        before = self._before.get(number)
        if callable(before) and not (self._token is not None and _interrupts_the_program(before)):
            before(number, frame)


def _interrupts_the_program(handler: object) -> bool:
    """Whether this is Python's own handler of Ctrl-C, or the one that asyncio.run or trio.run puts in its place."""
    func = handler.func if isinstance(handler, partial) else handler
    module = getattr(func, "__module__", None)
    return func is signal.default_int_handler or module == "asyncio.runners" or str(module).startswith("trio.")


class ConditionSource:
    """Cancels when ``predicate()`` returns true; asked on the pool, so that it may block without holding up anything."""

    def __init__(self, predicate: Callable[[], object], check_interval_seconds: float) -> None:
        if not callable(predicate) or is_coroutine_function(predicate):
            raise TypeError("with_condition takes a plain function as predicate; it is called in a thread")
        if not check_interval_seconds > 0:
            raise ValueError(f"check_interval_seconds must be more than 0, not {check_interval_seconds}")
        self._predicate = predicate
        self._interval_seconds = check_interval_seconds
        self._token: CancelationToken | None = None
        self._timer: Timer | None = None

    def start(self, token: CancelationToken) -> None:
        self._token = token
        shared_timer().dispatch(self._ask)

    def stop(self) -> None:
        self._token = None
        if self._timer is not None:
            self._timer.cancel()

    def _ask(self) -> None:
        token = self._token
        if token is None or token.is_cancelled:
            return
        try:
            holds = self._predicate()
        except Exception:
            logger.exception("a cancel condition raised; it is not asked again, the operation goes on")
            return
        if holds:
            if self._token is token:
                token.cancel_sync(CancelationReason.CONDITION, origin=getattr(self._predicate, "__name__", None))
            return
        timer = shared_timer()
        self._timer = timer.schedule(time.monotonic() + self._interval_seconds, partial(timer.dispatch, self._ask))
