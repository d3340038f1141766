"""What the tests of the core share: threads that are joined, conditions that become true, code that is interrupted."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Generic, TypeVar

import anyio
import anyio.to_thread

import cancelable_core

T = TypeVar("T")

DEADLINE_SECONDS = 10.0
"""Reached by failing tests only."""

CORE = str(Path(cancelable_core.__file__).parent)


class Running(Generic[T]):
    """A function in a thread of its own; `result` joins it and gives what it returned or raises what it raised."""

    def __init__(self, func: Callable[..., T], *args: Any) -> None:
        self._func, self._args = func, args
        self._value: T | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._value = self._func(*self._args)
        except BaseException as error:
            self._error = error

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def result(self) -> T:
        self._thread.join(DEADLINE_SECONDS)
        assert not self._thread.is_alive(), "the thread still runs"
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]


def in_thread(func: Callable[..., T], *args: Any) -> T:
    """Call it in a fresh thread and wait."""
    return Running(func, *args).result()


async def a_loop_works() -> str:
    """What any code may do that was given a thread, or a loop, of its own."""
    await anyio.sleep(0.001)
    return "it works"


def start_a_loop() -> str:
    """Run `a_loop_works`, as plain code does in a thread."""
    return anyio.run(a_loop_works)


def happens(event: threading.Event) -> None:
    """Wait in a thread."""
    assert event.wait(DEADLINE_SECONDS), "it did not happen"


async def happens_soon(event: threading.Event) -> None:
    """Wait in a task."""
    assert await anyio.to_thread.run_sync(event.wait, DEADLINE_SECONDS), "it did not happen"


def becomes_true(condition: Callable[[], object]) -> None:
    """Look again and again, where there is nothing to wait on."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not become true"
        time.sleep(0.001)


async def becomes_true_soon(condition: Callable[[], object]) -> None:
    """The same in a task."""
    with anyio.fail_after(DEADLINE_SECONDS):
        while not condition():
            await anyio.sleep(0.001)


def blocked_in(thread_name: str, func_name: str) -> bool:
    """Whether a thread of this name stands in a function of this name."""
    idents = [thread.ident for thread in threading.enumerate() if thread.name == thread_name]
    frames = [sys._current_frames().get(ident) for ident in idents if ident is not None]
    return any(_is_in(frame, func_name) for frame in frames)


def _is_in(frame: FrameType | None, func_name: str) -> bool:
    while frame is not None:
        if frame.f_code.co_name == func_name:
            return True
        frame = frame.f_back
    return False


class InterruptedAt:
    """Calls ``handler`` once, before the given line of the core that this thread comes to: what a signal handler would do.

    Trying every step in turn tries every place at which a signal can arrive, as far as lines tell.
    """

    def __init__(self, step: int, handler: Callable[[], object]) -> None:
        self._left = step
        self._handler = handler
        self.fired = False

    def __enter__(self) -> InterruptedAt:
        self._before = sys.gettrace()
        sys.settrace(self._enter_frame)
        return self

    def __exit__(self, *exc_info: object) -> None:
        sys.settrace(self._before)

    def _enter_frame(self, frame: FrameType, event: str, arg: object) -> Any:
        return self._at_line if frame.f_code.co_filename.startswith(CORE) and not self.fired else None

    def _at_line(self, frame: FrameType, event: str, arg: object) -> Any:
        if event == "line" and not self.fired:
            if self._left == 0:
                self.fired = True
                self._handler()
            self._left -= 1
        return self._at_line


def at_every_line(scenario: Callable[[int], bool]) -> int:
    """Run ``scenario(step)`` for step 0, 1, 2, … until it says that its interruption did not come; returns how many did."""
    step = 0
    while scenario(step):
        step += 1
    assert step > 3, "the core was never interrupted: is it traced at all?"
    return step
