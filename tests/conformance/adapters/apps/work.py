"""What the applications have in common: gates that tests open, the jobs they submit, and what their views do."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import repeat
from typing import Any

import anyio

from cancelable_core import Cancelable, CancelationReason, current_operation

__all__ = [
    "ASYNC_VIEWS",
    "ASYNC_WORK",
    "DEADLINE_SECONDS",
    "SYNC_VIEWS",
    "WORK",
    "async_stream",
    "gate",
    "reset_gates",
    "stream",
]

DEADLINE_SECONDS = 20.0
"""Reached by failing tests only."""

_SHORT_SECONDS = 0.001


class Gate:
    """A place where work stands until a test lets it pass."""

    def __init__(self) -> None:
        self._reached = threading.Event()
        self._opened = threading.Event()

    def open(self) -> None:
        """Let everybody pass, now and later."""
        self._opened.set()

    def wait_until_reached(self) -> None:
        """Wait until somebody stands here."""
        assert self._reached.wait(DEADLINE_SECONDS), "nobody came to the gate"

    def note(self) -> None:
        """Somebody came by."""
        self._reached.set()

    def pass_through(self) -> None:
        """Stand here, deaf to cancels."""
        self.note()
        assert self._opened.wait(DEADLINE_SECONDS), "the gate was not opened"

    async def apass_through(self) -> None:
        """The same in a task."""
        self.note()
        with anyio.CancelScope(shield=True), anyio.fail_after(DEADLINE_SECONDS):
            while not self._opened.is_set():
                await anyio.sleep(_SHORT_SECONDS)


_gates: dict[str, Gate] = {}
_gates_lock = threading.Lock()


def gate(name: str) -> Gate:
    """The gate of this name."""
    with _gates_lock:
        return _gates.setdefault(name, Gate())


def reset_gates() -> None:
    """Open all gates and forget them."""
    with _gates_lock:
        for each in _gates.values():
            each.open()
        _gates.clear()


def _operation() -> Cancelable:
    operation = current_operation()
    assert operation is not None, "there is no operation here"
    return operation


# --- jobs: each is told at which gate it stands


def stubborn(at: str) -> None:
    """Heeds a cancel no sooner than its gate opens."""
    gate(at).pass_through()
    _operation().check()


def obedient(at: str) -> None:
    """Ends as soon as it is cancelled, and not before."""
    gate(at).note()
    _operation().sleep(DEADLINE_SECONDS)


def quick(at: str) -> str:
    """Completes."""
    return at


class WorkFailed(Exception):
    """What failing jobs and views raise."""


def failing(at: str) -> None:
    """Fails."""
    raise WorkFailed(at)


async def async_stubborn(at: str) -> None:
    """See `stubborn`."""
    await gate(at).apass_through()
    await _operation().checkpoint()


async def async_obedient(at: str) -> None:
    """See `obedient`."""
    gate(at).note()
    await anyio.sleep(DEADLINE_SECONDS)


async def async_quick(at: str) -> str:
    """See `quick`."""
    return at


async def async_failing(at: str) -> None:
    """See `failing`."""
    raise WorkFailed(at)


WORK: dict[str, Callable[[str], Any]] = {
    "stubborn": stubborn,
    "obedient": obedient,
    "quick": quick,
    "failing": failing,
    "async-stubborn": async_stubborn,
    "async-obedient": async_obedient,
    "async-quick": async_quick,
    "async-failing": async_failing,
}
"""Jobs by the name that the applications' routes take; plain and async ones."""

ASYNC_WORK = frozenset(name for name in WORK if name.startswith("async-"))

# --- views: what each does inside its request's operation; the text it returns is the body


def check() -> str:
    operation = _operation()
    while True:
        gate("view").note()
        operation.check()
        operation.wait(_SHORT_SECONDS)


def sleep() -> str:
    gate("view").note()
    _operation().sleep(DEADLINE_SECONDS)
    return "slept"


def iterate() -> str:
    operation = _operation()
    for _ in operation.iterate(repeat(None)):
        gate("view").note()
        operation.wait(_SHORT_SECONDS)
    return "iterated"


def wait_and_finish() -> str:
    gate("view").pass_through()
    return "finished"


def child() -> str:
    """Opens an operation of its own."""
    with Cancelable("inner"):
        return "with a child"


def in_child() -> str:
    """Notices its own request's cancel in an operation inside."""
    with Cancelable("inner") as inner:
        gate("view").note()
        inner.sleep(DEADLINE_SECONDS)
    return "slept"


def another_cancelled() -> str:
    """Fails because an operation inside was cancelled, which the request itself was not."""
    with Cancelable("inner") as inner:
        inner.cancel_sync(CancelationReason.MANUAL, "only the inner one")
        inner.check()
    return "checked"


def hello() -> str:
    return "hello"


def fails() -> str:
    raise WorkFailed


SYNC_VIEWS: dict[str, Callable[[], str]] = {
    "check": check,
    "sleep": sleep,
    "iterate": iterate,
    "wait-and-finish": wait_and_finish,
    "child": child,
    "in-child": in_child,
    "another-cancelled": another_cancelled,
    "hello": hello,
    "fails": fails,
}


async def async_sleep() -> str:
    """Waits for something that knows nothing of operations."""
    gate("view").note()
    await anyio.sleep(DEADLINE_SECONDS)
    return "slept"


async def async_checkpoint() -> str:
    while True:
        gate("view").note()
        await _operation().checkpoint()
        await anyio.sleep(_SHORT_SECONDS)


async def async_wait_and_finish() -> str:
    await gate("view").apass_through()
    return "finished"


async def async_child() -> str:
    async with Cancelable("inner"):
        return "with a child"


async def async_in_child() -> str:
    async with Cancelable("inner"):
        gate("view").note()
        await anyio.sleep(DEADLINE_SECONDS)
    return "slept"


async def async_another_cancelled() -> str:
    async with Cancelable("inner") as inner:
        inner.cancel_sync(CancelationReason.MANUAL, "only the inner one")
        await anyio.sleep(DEADLINE_SECONDS)
    return "slept"


async def async_hello() -> str:
    return "hello"


async def async_fails() -> str:
    raise WorkFailed


ASYNC_VIEWS: dict[str, Callable[[], Any]] = {
    "sleep": async_sleep,
    "checkpoint": async_checkpoint,
    "wait-and-finish": async_wait_and_finish,
    "child": async_child,
    "in-child": async_in_child,
    "another-cancelled": async_another_cancelled,
    "hello": async_hello,
    "fails": async_fails,
}


def stream() -> Iterator[bytes]:
    """Two chunks with a gate between them."""
    yield b"first,"
    gate("stream").pass_through()
    _operation().check()
    yield b"second"


async def async_stream() -> AsyncIterator[bytes]:
    """The same in a task."""
    yield b"first,"
    await gate("stream").apass_through()
    yield b"second"
