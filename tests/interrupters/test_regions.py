"""The region: what is armed, when it fires, what comes out, and that nothing after it is hit."""

from __future__ import annotations

import logging
import os
import random
import threading
import time

import anyio
import pytest

from cancelable_core import (
    Cancelable,
    Interrupter,
    JobRunner,
    OperationCancelled,
    OperationStatus,
    OperationStore,
    OperationTimedOut,
    ThreadSafeRegistry,
    current_operation,
    interrupting,
)
from tests.core.helpers import DEADLINE_SECONDS, Running, becomes_true, becomes_true_soon, happens, happens_soon

ROUNDS = int(os.environ.get("CANCELABLE_RACE_ROUNDS", "400"))


class Interrupted(Exception):
    """What the blocking call raises when it is interrupted."""


class Call(Interrupter):
    """A blocking call, and what interrupts it."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self.stop = threading.Event()
        self.release = threading.Event()
        self.threads: list[threading.Thread] = []

    def interrupt(self) -> None:
        self.threads.append(threading.current_thread())
        self.stop.set()

    def is_interruption(self, error: Exception) -> bool:
        return isinstance(error, Interrupted)

    def __call__(self) -> str:
        self.started.set()
        if self.stop.wait(DEADLINE_SECONDS):
            raise Interrupted
        raise AssertionError("nobody interrupted it")


def run_interruptible(operation: Cancelable, call: Call) -> str:
    with operation, operation.interruptible(call):
        return call()


@pytest.fixture
def operation(store: OperationStore) -> Cancelable:
    return Cancelable("blocked", registry=store)


@pytest.fixture
def store() -> OperationStore:
    return OperationStore()


def test_a_cancel_interrupts_the_call_from_the_pool_and_is_what_the_caller_sees(operation: Cancelable) -> None:
    call = Call()
    running = Running(run_interruptible, operation, call)
    happens(call.started)
    assert operation.cancel_sync("enough")
    with pytest.raises(OperationCancelled, match="enough") as caught:
        running.result()
    assert isinstance(caught.value.__cause__, Interrupted)
    assert (caught.value.operation_id, operation.status) == (operation.id, OperationStatus.CANCELLED)
    (thread,) = call.threads
    assert thread is not threading.current_thread()
    assert thread.name == "cancelable-pool"


def test_a_deadline_interrupts_the_call(store: OperationStore) -> None:
    operation = Cancelable(timeout=0.05, registry=store)
    with pytest.raises(OperationTimedOut) as caught:
        run_interruptible(operation, Call())
    assert isinstance(caught.value.__cause__, Interrupted)
    assert operation.status is OperationStatus.TIMED_OUT


async def test_the_deadline_of_a_loop_that_is_blocked_interrupts_too(store: OperationStore) -> None:
    call = Call()
    with pytest.raises(OperationTimedOut):
        async with Cancelable(timeout=0.05, registry=store):
            with Cancelable(registry=store) as inner, inner.interruptible(call):
                call()  # on the loop's own thread: its timers do not run
    assert len(call.threads) == 1


async def test_leaving_run_in_thread_starts_the_interrupter_and_the_thread_ends(store: OperationStore) -> None:
    call = Call()

    def in_the_thread() -> str:
        with operation.interruptible(call):
            return call()

    with pytest.raises(OperationCancelled):
        async with Cancelable(registry=store) as operation:
            async with anyio.create_task_group() as group:
                group.start_soon(operation.run_in_thread, in_the_thread)
                await happens_soon(call.started)
                operation.cancel_sync()
    await becomes_true_soon(lambda: call.threads and store.statistics().abandoned_threads == 0)


def test_a_job_is_interrupted(store: OperationStore) -> None:
    call = Call()

    def work() -> str:
        operation = current_operation()
        assert operation is not None
        with operation.interruptible(call):
            return call()

    runner = JobRunner(store)
    try:
        job = runner.submit(work, name="work")
        happens(call.started)
        assert ThreadSafeRegistry(store).cancel_operation(job.id, wait_seconds=DEADLINE_SECONDS)
        assert job.status is OperationStatus.CANCELLED
    finally:
        runner.close()


def test_entering_when_cancelled_already_raises_before_the_call(operation: Cancelable) -> None:
    call = Call()
    with pytest.raises(OperationCancelled):
        with operation:
            operation.cancel_sync()
            with operation.interruptible(call):
                call.started.set()
    assert not call.started.is_set()
    assert not call.threads


def test_an_error_that_is_no_interruption_passes_untouched(operation: Cancelable) -> None:
    call = Call()
    with pytest.raises(ZeroDivisionError) as caught:
        with operation, operation.interruptible(call):
            operation.cancel_sync()
            happens(call.stop)
            raise ZeroDivisionError
    assert caught.value.__cause__ is None
    assert operation.status is OperationStatus.FAILED


def test_the_drivers_error_without_a_cancel_passes_untouched(operation: Cancelable) -> None:
    with pytest.raises(Interrupted):
        with operation, operation.interruptible(Call()):
            raise Interrupted  # a statement timeout looks the same
    assert operation.status is OperationStatus.FAILED


def test_a_call_that_completes_in_spite_of_the_cancel_returns(operation: Cancelable) -> None:
    call = Call()
    with operation:
        with operation.interruptible(call):
            operation.cancel_sync()
            happens(call.stop)
        answer = "kept"
    assert (answer, operation.status) == ("kept", OperationStatus.COMPLETED)


def test_a_shield_keeps_the_interrupter_out(operation: Cancelable) -> None:
    call = Call()
    with pytest.raises(OperationCancelled):
        with operation:
            with operation.shield():
                operation.cancel_sync()
                with operation.interruptible(call):
                    pass
            operation.check()
    assert not call.threads


def test_a_cancel_after_the_region_hits_nothing(operation: Cancelable) -> None:
    call, marker = Call(), Call()
    with pytest.raises(OperationCancelled):
        with operation:
            with operation.interruptible(call):
                pass
            with operation.interruptible(marker):
                operation.cancel_sync()
                marker()
    assert not call.threads
    assert len(marker.threads) == 1


def test_nested_regions_of_parent_and_child_both_fire_and_each_ends_as_its_own(store: OperationStore) -> None:
    outer_call, inner_call = Call(), Call()

    def work() -> None:
        with outer, outer.interruptible(outer_call):
            with Cancelable("inner", registry=store) as inner, inner.interruptible(inner_call):
                inner_call()

    outer = Cancelable("outer", registry=store)
    running = Running(work)
    happens(inner_call.started)
    outer.cancel_sync()
    with pytest.raises(OperationCancelled) as caught:
        running.result()
    assert caught.value.name == "outer"
    becomes_true(lambda: len(inner_call.threads) == 1)
    assert len(outer_call.threads) <= 1  # not at all, where the inner one was through before


def test_leaving_waits_for_a_firing_in_progress(operation: Cancelable) -> None:
    events: list[str] = []
    firing, go_on, leaving = threading.Event(), threading.Event(), threading.Event()

    class Slow(Call):
        def interrupt(self) -> None:
            firing.set()
            happens(go_on)
            events.append("fired")

    def work() -> None:
        with operation:
            with operation.interruptible(Slow()):
                happens(firing)
                leaving.set()
            events.append("left")

    running = Running(work)
    becomes_true(lambda: operation.status is OperationStatus.RUNNING)
    operation.cancel_sync()
    happens(leaving)
    assert events == []
    go_on.set()
    running.result()
    assert events == ["fired", "left"]


def test_an_interrupter_that_fails_is_logged_and_counted_and_hides_nothing(
    operation: Cancelable, store: OperationStore, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Call):
        def interrupt(self) -> None:
            super().interrupt()
            raise OSError("no way")

    with caplog.at_level(logging.ERROR), pytest.raises(OperationCancelled):
        with operation, operation.interruptible(Broken()):
            operation.cancel_sync()
            becomes_true(lambda: store.statistics().failed_interruptions == 1)
            operation.check()
    assert "no way" in caplog.text
    assert operation.status is OperationStatus.CANCELLED


def test_one_that_repeats_is_called_until_the_region_is_left_and_no_longer(operation: Cancelable) -> None:
    class Repeating(Call):
        repeats = True

    call = Repeating()
    with operation:
        with operation.interruptible(call):
            operation.cancel_sync()
            becomes_true(lambda: len(call.threads) >= 3)
        fired = len(call.threads)
        time.sleep(0.3)  # the next one would have been due
    assert len(call.threads) == fired


def test_random_cancels_around_the_end_never_fire_outside_the_region() -> None:
    rng = random.Random(20261122)
    inside = [False]
    outside: list[int] = []

    class Watching(Call):
        def interrupt(self) -> None:
            if not inside[0]:
                outside.append(1)
            time.sleep(0)
            if not inside[0]:
                outside.append(1)

    for _ in range(ROUNDS):
        operation = Cancelable(register=False)
        with operation:
            canceller = Running(_cancel_after, operation, rng.random() * 0.0004)
            try:
                region = operation.interruptible(Watching())
                inside[0] = True
                with region:
                    spin(rng.random() * 0.0003)
                inside[0] = False
            except OperationCancelled:
                inside[0] = False
            canceller.result()
    assert not outside


def _cancel_after(operation: Cancelable, seconds: float) -> None:
    spin(seconds)
    operation.cancel_sync()


def spin(seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


def test_what_nothing_is_known_for_is_refused() -> None:
    with pytest.raises(TypeError, match="derive from Interrupter"):
        interrupting(object())
