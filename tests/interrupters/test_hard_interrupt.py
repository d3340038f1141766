"""`hard_interrupt` raises in the middle of Python code, and never anywhere else."""

from __future__ import annotations

import itertools
import os
import random
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from cancelable_core import Cancelable, OperationCancelled, OperationStatus, OperationTimedOut
from cancelable_core.interrupters.hard_interrupt import HardInterrupt, Injection
from tests.core.helpers import Running, happens
from tests.switching import frequent_switches

pytestmark = pytest.mark.timeout(600)

REGIONS = int(os.environ.get("CANCELABLE_HARD_REGIONS", "10000"))
"""The full count is 200,000."""


@pytest.fixture(autouse=True)
def untraced() -> Iterator[None]:
    """A tracer holds locks of its own, which is what must not be interrupted: coverage's would stay locked."""
    here, in_threads = sys.gettrace(), threading.gettrace()
    sys.settrace(None)
    threading.settrace(None)  # type: ignore[arg-type]
    yield
    threading.settrace(in_threads)  # type: ignore[arg-type]
    sys.settrace(here)


@pytest.fixture
def threads_switch_often() -> Iterator[None]:
    with frequent_switches():
        yield


def count_for_ever(started: threading.Event) -> None:
    started.set()
    for _ in itertools.repeat(None):
        pass


def cancelled_in(func: Any, *args: Any) -> OperationCancelled:
    started, operation = threading.Event(), Cancelable(register=False)
    canceller = Running(lambda: (happens(started), operation.cancel_sync("enough")))
    with pytest.raises(OperationCancelled) as caught:
        with operation:
            operation.hard_interrupt(func, started, *args)
    canceller.result()
    assert operation.status is OperationStatus.CANCELLED
    return caught.value


def test_arguments_result_and_errors_pass() -> None:
    with Cancelable(register=False) as operation:
        assert operation.hard_interrupt(divmod, 7, 3) == (2, 1)
        assert operation.hard_interrupt(dict, a=1) == {"a": 1}
        with pytest.raises(ZeroDivisionError):
            operation.hard_interrupt(divmod, 1, 0)


def test_a_loop_that_never_asks_ends() -> None:
    error = cancelled_in(count_for_ever)
    assert error.message == "enough"
    assert isinstance(error.__cause__, HardInterrupt)


def test_a_deadline_ends_it_too() -> None:
    with pytest.raises(OperationTimedOut):
        with Cancelable(timeout=0.05, register=False) as operation:
            operation.hard_interrupt(count_for_ever, threading.Event())


def test_except_exception_does_not_swallow_it() -> None:
    def careless(started: threading.Event) -> None:
        while True:
            try:
                count_for_ever(started)
            except Exception:
                pass

    cancelled_in(careless)


def test_whoever_swallows_it_was_cancelled_all_the_same() -> None:
    swallowed = []

    def stubborn(started: threading.Event) -> str:
        try:
            count_for_ever(started)
        except BaseException as error:
            swallowed.append(error)
        return "result"

    cancelled_in(stubborn)
    assert [type(error) for error in swallowed] == [HardInterrupt]


def test_an_error_that_it_led_to_is_kept_as_context() -> None:
    def fails_while_it_is_interrupted(started: threading.Event) -> None:
        try:
            count_for_ever(started)
        finally:
            raise ZeroDivisionError

    error = cancelled_in(fails_while_it_is_interrupted)
    assert isinstance(error.__cause__, HardInterrupt)
    assert isinstance(error.__cause__.__context__, ZeroDivisionError)


def test_cancelled_before_it_is_not_called() -> None:
    called: list[int] = []
    with pytest.raises(OperationCancelled):
        with Cancelable(register=False) as operation:
            operation.cancel_sync()
            operation.hard_interrupt(called.append, 1)
    assert called == []


def test_an_interrupt_that_comes_before_the_call_keeps_it_from_beginning() -> None:
    injection, called = Injection(), []
    injection.interrupt()
    with pytest.raises(HardInterrupt):
        injection.run(lambda: called.append(1))
    assert called == []


def test_an_interrupt_that_comes_after_the_call_does_nothing() -> None:
    injection = Injection()
    assert injection.run(lambda: "result") == "result"
    Running(injection.interrupt).result()
    assert sum(range(10_000)) == 49_995_000, "something to interrupt"


def test_after_the_call_a_sleep_is_only_late() -> None:
    """What it cannot do: C code is not interrupted; the exception comes after it."""

    def sleep(started: threading.Event) -> None:
        started.set()
        time.sleep(0.2)
        ended.append(time.monotonic())
        count_for_ever(started)

    ended: list[float] = []
    begun = time.monotonic()
    cancelled_in(sleep)
    assert time.monotonic() - begun >= 0.2


# --- races


def some_steps(rng: random.Random, at_most: int) -> int:
    total = 0
    for number in range(rng.randrange(at_most)):
        total += number
    return total


@pytest.mark.usefixtures("threads_switch_often")
def test_nothing_is_raised_outside_whenever_it_is_interrupted() -> None:
    """Hundreds of thousands of short calls and a thread that interrupts whichever is there: anything else would be the end of
    one of the loops below, or an error of another type."""
    current: list[Injection | None] = [None]
    over = threading.Event()

    def interrupt_whatever_is_there() -> None:
        rng = random.Random(11)
        while not over.is_set():
            injection = current[0]
            if injection is not None:
                injection.interrupt()
            time.sleep(rng.random() * 2e-4)

    def call_again_and_again() -> tuple[int, int]:
        rng, interrupted, completed = random.Random(5), 0, 0
        for _ in range(10 * REGIONS):
            injection = Injection()
            try:
                current[0] = injection
                injection.run(lambda: some_steps(rng, 40))
                completed += 1
            except HardInterrupt:
                interrupted += 1
        return interrupted, completed

    interrupter = Running(interrupt_whatever_is_there)
    try:
        interrupted, completed = call_again_and_again()
    finally:
        over.set()
        interrupter.result()
    assert interrupted + completed == 10 * REGIONS
    assert interrupted > 10
    assert completed > 10


@pytest.mark.usefixtures("threads_switch_often")
def test_random_cancels_hit_regions_only_and_pool_threads_survive() -> None:
    workers = 4
    canceller = Canceller()

    def work(seed: int) -> tuple[int, int, int]:
        rng, cancelled, completed = random.Random(seed), 0, 0
        for _ in range(REGIONS // workers):
            operation = Cancelable(register=False)
            try:
                with operation:
                    steps = rng.choices((40, 20_000, sys.maxsize), (8, 1, 1))[0]
                    if steps > 40:
                        canceller.cancel_soon(operation)
                    operation.hard_interrupt(some_steps, rng, steps)
                completed += 1
            except OperationCancelled as error:
                cancelled += error.operation_id == operation.id
        return cancelled, completed, threading.get_ident()

    with ThreadPoolExecutor(workers) as pool, canceller:
        outcomes = list(pool.map(work, range(workers)))
        assert set(pool.map(lambda _: sum(range(1000)), range(100))) == {499_500}, "the threads are of no use any more"
    assert sum(cancelled + completed for cancelled, completed, _ in outcomes) == REGIONS // workers * workers
    assert sum(cancelled for cancelled, _, _ in outcomes) > REGIONS // 20


class Canceller:
    """A thread that cancels what it is given after a random moment."""

    def __init__(self) -> None:
        self._given: list[Cancelable] = []
        self._over = threading.Event()

    def cancel_soon(self, operation: Cancelable) -> None:
        self._given.append(operation)

    def _cancel(self) -> None:
        rng = random.Random(3)
        while not self._over.is_set():
            time.sleep(rng.random() * 1e-4)
            while self._given:
                self._given.pop().cancel_sync()

    def __enter__(self) -> None:
        self._running = Running(self._cancel)

    def __exit__(self, *exc_info: object) -> None:
        self._over.set()
        self._running.result()
