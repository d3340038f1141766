"""Ratios to a floor, measured side by side.

Candidate and floor take turns, round by round, so that whatever else the machine does falls on both. What counts is the median
of the rounds' ratios; their spread (the middle half) tells how much to trust it. Nothing here asserts: numbers are for reading.
"""

from __future__ import annotations

import gc
import importlib.metadata
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Work = Callable[[int], object]
"""Does the thing measured so many times. The loop is its own, so that a call of ours is not part of what is measured."""

ROUNDS = 21
ROUND_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two series of the same rounds, in seconds per repetition."""

    name: str
    candidate: Sequence[float]
    floor: Sequence[float]

    @property
    def ratios(self) -> list[float]:
        """Candidate over floor, one for each round."""
        return [ours / theirs for ours, theirs in zip(self.candidate, self.floor, strict=True)]

    def __str__(self) -> str:
        lower, middle, upper = statistics.quantiles(self.ratios, n=4, method="inclusive")
        return (
            f"{self.name:<52} {middle:7.2f} x  ({lower:.2f} to {upper:.2f})   "
            f"{in_words(statistics.median(self.candidate))} over {in_words(statistics.median(self.floor))}"
        )


def compare(name: str, candidate: Work, floor: Work, *, rounds: int = ROUNDS) -> Comparison:
    """Measure ``candidate`` and ``floor`` in alternating rounds of about the same length, print and return the result."""
    repetitions = calibrated(candidate), calibrated(floor)
    ours: list[float] = []
    theirs: list[float] = []
    for number in range(rounds):
        turns = [(candidate, repetitions[0], ours), (floor, repetitions[1], theirs)]
        for work, times, series in turns if number % 2 else reversed(turns):
            series.append(seconds(work, times) / times)
    result = Comparison(name, ours, theirs)
    print(result, flush=True)
    return result


def calibrated(work: Work) -> int:
    """How many repetitions take about `ROUND_SECONDS`; warms up on the way."""
    times = 1
    while (taken := seconds(work, times)) < ROUND_SECONDS / 4:
        times *= 4
    return max(1, round(times * ROUND_SECONDS / taken))


def seconds(work: Work, times: int) -> float:
    """What ``times`` repetitions take. The garbage collector waits meanwhile: it would bill one side for both."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        started = time.perf_counter()
        work(times)
        return time.perf_counter() - started
    finally:
        if collecting:
            gc.enable()


def in_words(duration_seconds: float) -> str:
    """A duration with a unit that suits it."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if duration_seconds >= size:
            return f"{duration_seconds / size:.3g} {unit}"
    return f"{duration_seconds / 1e-9:.3g} ns"


def print_header(subject: str, *distributions: str) -> None:
    """Say what is measured, on which machine, with which versions."""
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("anyio", *distributions)]
    print(f"{subject}\n  {machine()}\n  {platform.python_implementation()} {platform.python_version()}, {', '.join(versions)}")
    if "coverage" in sys.modules or sys.gettrace() is not None:
        print("  traced: these numbers say nothing")
    print(flush=True)


def machine() -> str:
    """Processor, cores that this process may use, kernel."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{_processor()}, {cores} cores, {platform.system()} {platform.release()}"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
