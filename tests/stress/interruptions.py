"""Runs a piece of code once for every bytecode at which something else can come in between.

A signal handler, or another thread, gets its turn between two bytecodes. A race found by luck needs the right one of some
hundreds; here each gets its turn: the first run is interrupted at the first bytecode of the suite that it executes, the second
run at the second, and so on, until a run ends before its turn comes.
"""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any, NamedTuple

import cancelable_core

SUITE = str(Path(cancelable_core.__file__).parent)


class Scenario(NamedTuple):
    """Fresh objects and what to do with them."""

    interrupted: Callable[[], object]
    interrupter: Callable[[], object]
    check: Callable[[], object]


def interrupt_everywhere(make: Callable[[], Scenario]) -> int:
    """Play the scenario once per point, and once with the interrupter after the end. Returns how many points there are."""
    with _every_bytecode_reported():
        points = _play(make(), sys.maxsize)
        assert points > 5, "next to nothing of the suite was executed"
        for at in range(points + 1):
            _play(make(), at)
    return points


def _play(scenario: Scenario, at: int) -> int:
    global _playing
    _playing = play = _Play(at, scenario.interrupter)
    try:
        try:
            scenario.interrupted()
        finally:
            _playing = None
        if not play.interrupted:
            scenario.interrupter()
        scenario.check()
    except BaseException as error:
        error.add_note(f"interrupted at {play.place}")
        raise
    return play.points


class _Play:
    """Counts the bytecodes of this thread and calls the interrupter, right here, when its turn has come."""

    def __init__(self, at: int, interrupter: Callable[[], object]) -> None:
        self.interrupted = False
        self.place = "the end"
        self.points = 0
        self._at = at
        self._interrupter = interrupter
        self._thread = threading.get_ident()

    def come_by(self, code: CodeType, offset: int) -> None:
        if threading.get_ident() != self._thread:
            return
        if self.points == self._at and not self.interrupted:
            self.interrupted = True
            self.place = f"{code.co_qualname}, bytecode {offset}"
            self._interrupter()
        self.points += not self.interrupted


_playing: _Play | None = None


if sys.version_info >= (3, 12):
    _TOOL = 4  # one of the ids that nobody has reserved

    @contextmanager
    def _every_bytecode_reported() -> Iterator[None]:
        monitoring = sys.monitoring
        codes = _codes_of_the_suite()
        monitoring.use_tool_id(_TOOL, "interruptions")
        monitoring.register_callback(_TOOL, monitoring.events.INSTRUCTION, _report)
        for code in codes:
            monitoring.set_local_events(_TOOL, code, monitoring.events.INSTRUCTION)
        try:
            yield
        finally:
            for code in codes:
                monitoring.set_local_events(_TOOL, code, 0)
            monitoring.free_tool_id(_TOOL)

    def _codes_of_the_suite() -> set[CodeType]:
        gc.unfreeze()  # what was there when the tests began is not listed otherwise
        # not isinstance, which asks lazy objects of other tests' frameworks what they are
        codes = [thing.__code__ for thing in gc.get_objects() if type(thing) is FunctionType]
        gc.freeze()
        for code in codes:
            codes.extend(constant for constant in code.co_consts if isinstance(constant, CodeType))
        return {code for code in codes if code.co_filename.startswith(SUITE)}

else:

    @contextmanager
    def _every_bytecode_reported() -> Iterator[None]:
        before = sys.gettrace()
        sys.settrace(_trace)
        try:
            yield
        finally:
            sys.settrace(before)

    def _trace(frame: FrameType, event: str, argument: Any) -> Any:
        if event == "opcode":
            _report(frame.f_code, frame.f_lasti)
        elif event == "call":
            if not frame.f_code.co_filename.startswith(SUITE):
                return None
            frame.f_trace_opcodes = True
            frame.f_trace_lines = False
        return _trace


def _report(code: CodeType, offset: int) -> None:
    if _playing is not None:
        _playing.come_by(code, offset)


class Meanwhile:
    """An interrupter that runs a function in another thread, as far as that gets before it has to wait."""

    def __init__(self, func: Callable[[], object], *, patience_seconds: float = 0.005) -> None:
        self._func = func
        self._patience_seconds = patience_seconds
        self._value: Any = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        self._value = self._func()

    def __call__(self) -> None:
        self._thread.start()
        self._thread.join(self._patience_seconds)

    def end(self, deadline_seconds: float = 10.0) -> Any:
        """What the function returned, once it has ended."""
        self._thread.join(deadline_seconds)
        assert not self._thread.is_alive(), "it never ended"
        return self._value
