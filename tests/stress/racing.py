"""Makes things happen at the same moment, thousands of times, and watches the counters meanwhile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from _thread import allocate_lock
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cancelable_core import OperationStatistics, OperationStatus, OperationStore

DEADLINE_SECONDS = 30.0
"""After so long something hangs. Nothing ever takes a noticeable part of it."""

SCRIPTS = Path(__file__).parent / "scripts"
ROOT = Path(__file__).parents[2]


def spin(turns: int) -> None:
    """Let a little time pass without letting go of anything."""
    for _ in range(turns):
        pass


class Racers:
    """Threads that each run one function per round, all let go at the same moment. They are started once."""

    def __init__(self, *racers: Callable[[], object]) -> None:
        self._lanes = [_Lane(racer) for racer in racers]

    def __enter__(self) -> Self:
        for lane in self._lanes:
            lane.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for lane in self._lanes:
            lane.stop()

    def run(self) -> None:
        """One round. What a racer raises is raised here."""
        for lane in self._lanes:
            lane.go.release()
        for lane in self._lanes:
            if not lane.done.acquire(timeout=DEADLINE_SECONDS):
                raise TimeoutError(f"{lane.name} hangs")
        for lane in self._lanes:
            if lane.error is not None:
                raise lane.error


class _Lane(threading.Thread):
    """One racer's thread, with a bare lock for each direction: far cheaper than a barrier."""

    def __init__(self, racer: Callable[[], object]) -> None:
        super().__init__(name=f"racer {getattr(racer, '__name__', racer)}", daemon=True)
        self._racer: Callable[[], object] | None = racer
        self.go, self.done = allocate_lock(), allocate_lock()
        self.go.acquire()
        self.done.acquire()
        self.error: BaseException | None = None

    def run(self) -> None:
        while True:
            self.go.acquire()
            racer = self._racer
            if racer is None:
                return
            try:
                racer()
            except BaseException as error:
                self.error = error
            self.done.release()

    def stop(self) -> None:
        self._racer = None
        if self.go.locked():
            self.go.release()
        self.join(DEADLINE_SECONDS)


class Snapshots:
    """Takes statistics of a store all the time, in a thread of its own, and checks each of them."""

    def __init__(self, store: OperationStore) -> None:
        self.count = 0
        self._store = store
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="snapshots", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(DEADLINE_SECONDS)
        if self._error is not None:
            raise self._error
        assert self.count > 0

    def _run(self) -> None:
        total = 0
        try:
            while not self._stop.wait(0.000_2):  # breathes: the races need the interpreter as well
                total = check_conservation(self._store.statistics(), at_least=total)
                self.count += 1
        except BaseException as error:
            self._error = error


def check_conservation(statistics: OperationStatistics, *, at_least: int = 0) -> int:
    """The total is the sum of the eight statuses, none is negative, and it never shrinks."""
    counts = [getattr(statistics, f"{status}_operations") for status in OperationStatus]
    assert sum(counts) == statistics.total_operations, statistics
    assert min(counts) >= 0, statistics
    assert statistics.abandoned_threads >= 0, statistics
    assert sum(statistics.by_kind.values()) == statistics.total_operations, statistics
    assert statistics.total_operations >= at_least, statistics
    return statistics.total_operations


def run_script(name: str, *arguments: object, timeout_seconds: float = 100.0) -> dict[str, Any]:
    """Run one of `scripts/` in a process of its own; returns the figures on its last line.

    The scripts dump all stacks and give up shortly before the time is over, so that a deadlock shows where it happened.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SCRIPT_SECONDS": str(timeout_seconds * 0.9)}
    result = subprocess.run(
        [sys.executable, "-X", "faulthandler", SCRIPTS / name, *map(str, arguments)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout_seconds,
    )
    assert result.returncode == 0, f"{name} ended with {result.returncode}\n{result.stdout}\n{result.stderr}"
    figures: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    print(name, *arguments, figures)
    return figures
