"""One owner of a deadline; the clock is looked at where it matters."""

from __future__ import annotations

import contextlib
import contextvars
import math
import threading
import time
from collections.abc import Callable
from datetime import timedelta

import anyio
import pytest

from cancelable_core import (
    Cancelable,
    CancelationReason,
    CancelationToken,
    ContextBridge,
    OperationCancelled,
    OperationStatus,
    OperationTimedOut,
    ThreadSafeRegistry,
    current_operation,
)

from .helpers import Running, happens, happens_soon, in_thread

FAR = [math.inf, 1e300, 1e12, timedelta.max, timedelta(days=365 * 300)]


@pytest.mark.parametrize("timeout", [0.01, timedelta(milliseconds=10), 0])
async def test_an_async_operation_times_out(registry: ThreadSafeRegistry, timeout: float | timedelta) -> None:
    with anyio.fail_after(10):
        with pytest.raises(OperationTimedOut) as caught:
            async with Cancelable.with_timeout(timeout, "slow", registry=registry) as operation:
                await anyio.sleep_forever()
    assert isinstance(caught.value, TimeoutError)
    assert (caught.value.reason, caught.value.name) == (CancelationReason.TIMEOUT, "slow")
    assert operation.status is OperationStatus.TIMED_OUT
    assert operation.context.origin == "deadline"
    statistics = registry.get_statistics()
    assert (statistics.timed_out_operations, statistics.cancelled_operations) == (1, 0)
    assert statistics.by_reason == {CancelationReason.TIMEOUT: 1}


@pytest.mark.parametrize("timeout", [0.01, timedelta(milliseconds=10), 0])
def test_a_sync_operation_times_out_while_it_sleeps(registry: ThreadSafeRegistry, timeout: float | timedelta) -> None:
    with pytest.raises(OperationTimedOut):
        with Cancelable(timeout=timeout, registry=registry) as operation:
            operation.sleep(3600)
    assert operation.status is OperationStatus.TIMED_OUT


def test_a_sync_operation_times_out_while_it_waits_on_its_token() -> None:
    """Nobody looks at the clock here: the timer thread has to flag it."""
    with Cancelable(timeout=0.01, register=False) as operation:
        assert operation.token.wait(10) is True
        assert operation.token.reason is CancelationReason.TIMEOUT


@pytest.mark.parametrize("timeout", FAR)
async def test_deadlines_too_far_to_count_never_come(timeout: float | timedelta) -> None:
    async with Cancelable(timeout=timeout, register=False) as operation:
        await anyio.sleep(0)
        operation.check()
        await operation.run_in_thread(operation.check)
    with Cancelable(timeout=timeout, register=False) as plain:
        plain.check()
        assert plain.remaining_seconds is not None
        assert plain.remaining_seconds > 1e9


def test_the_time_counts_from_entry() -> None:
    operation = Cancelable(timeout=0.02, register=False)
    time.sleep(0.03)
    with operation:
        operation.check()
        remaining = operation.remaining_seconds
        assert remaining is not None
        assert remaining > 0


def test_check_looks_at_the_clock_before_any_timer_has_fired() -> None:
    with pytest.raises(OperationTimedOut):
        with Cancelable(timeout=0, register=False) as operation:
            operation.check()


async def test_check_on_a_blocked_loop_looks_at_the_clock(registry: ThreadSafeRegistry) -> None:
    with pytest.raises(OperationTimedOut):
        async with Cancelable(timeout=0, registry=registry) as operation:
            operation.check()  # the loop's timer has had no turn yet
    assert operation.status is OperationStatus.TIMED_OUT


async def test_leaving_looks_at_the_clock_but_completed_stays_completed(registry: ThreadSafeRegistry) -> None:
    async with Cancelable(timeout=0, registry=registry) as operation:
        pass
    assert operation.status is OperationStatus.COMPLETED
    assert operation.context.reason is CancelationReason.TIMEOUT
    with Cancelable(timeout=0, registry=registry) as plain:
        pass
    assert plain.status is OperationStatus.COMPLETED


def test_an_ended_operation_no_longer_times_out(registry: ThreadSafeRegistry) -> None:
    with Cancelable(timeout=0.005, registry=registry) as operation:
        pass
    time.sleep(0.01)
    operation.check()
    assert operation.context.cancel_requested_at is None
    assert operation.status is OperationStatus.COMPLETED


async def test_a_blocked_loop_does_not_delay_what_its_thread_calls_see() -> None:
    """The loop's thread waits, without turning, for a thread that ends by the deadline only."""
    ended, started = threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        assert operation.token.wait(10)
        ended.set()

    with anyio.fail_after(20):
        with pytest.raises(OperationTimedOut):
            async with Cancelable(timeout=0.05, register=False) as operation, anyio.create_task_group() as tasks:
                tasks.start_soon(operation.run_in_thread, work)
                await happens_soon(started)
                happens(ended)  # blocks the loop


@pytest.mark.parametrize("method", ["sleep", "wait", "check"])
async def test_a_blocked_loop_does_not_delay_what_other_threads_see(method: str) -> None:
    started, ended, raised = threading.Event(), threading.Event(), []

    def work() -> None:
        operation = current_operation()
        assert operation is not None
        started.set()
        try:
            if method == "sleep":
                operation.sleep(30)
            elif method == "wait":
                assert operation.wait(30)
                operation.check()
            else:
                while True:
                    operation.check()
        except OperationTimedOut as error:
            raised.append(error)
        ended.set()

    with pytest.raises(OperationTimedOut):
        async with Cancelable(timeout=0.05, register=False), anyio.create_task_group() as tasks:
            tasks.start_soon(ContextBridge().run_in_thread_with_context, work)
            await happens_soon(started)
            assert ended.wait(20)
            await anyio.sleep_forever()
    assert len(raised) == 1


async def test_starting_threads_again_and_again_keeps_one_timer() -> None:
    async with Cancelable(timeout=1000, register=False) as operation:
        await operation.run_in_thread(int)
        armed = operation._disarm
        await operation.run_in_thread(int)
        assert operation._disarm is armed
    assert operation._disarm is None


async def test_a_thread_started_for_an_ended_operation_arms_nothing() -> None:
    async with Cancelable(timeout=1000, register=False) as operation:
        pass
    assert await operation.run_in_thread(lambda: 5) == 5
    assert operation._disarm is None


def test_callbacks_of_a_deadline_run_on_the_pool_and_hold_up_no_other_deadline() -> None:
    release, called = threading.Event(), threading.Event()
    threads: list[str] = []

    def slow(_: CancelationToken) -> None:
        threads.append(threading.current_thread().name)
        called.set()
        release.wait(10)

    try:
        with Cancelable(timeout=0, register=False) as operation:
            operation.on_cancel(slow)
            happens(called)
            with Cancelable(timeout=0.01, register=False, parent=None) as other:
                assert other.token.wait(10)
    finally:
        release.set()
    assert threads == ["cancelable-pool"]


async def test_the_nearer_of_two_deadlines_ends_both_and_tells_them_apart(registry: ThreadSafeRegistry) -> None:
    with anyio.fail_after(10):
        with pytest.raises(OperationTimedOut) as caught:
            async with Cancelable("outer", timeout=1000, registry=registry) as outer:
                async with Cancelable("inner", timeout=0.01, registry=registry):
                    await anyio.sleep_forever()
    assert caught.value.name == "inner"
    assert not outer.token.is_cancelled
    assert outer.status is OperationStatus.FAILED  # an error that nobody handled, as any other


async def test_a_cancel_before_the_deadline_stays_what_it_was() -> None:
    with pytest.raises(OperationCancelled) as caught:
        async with Cancelable(timeout=0.02, register=False) as operation:
            operation.cancel_sync("first")
            try:
                await anyio.sleep_forever()
            finally:
                await _outlast(operation)
    assert not isinstance(caught.value, OperationTimedOut)
    assert caught.value.message == "first"


async def _outlast(operation: Cancelable) -> None:
    with anyio.CancelScope(shield=True):
        while operation.remaining_seconds:
            await anyio.sleep(0.005)


def test_a_thousand_deadlines_strike_in_other_threads() -> None:
    operations = [Cancelable(timeout=0.01 + 0.00001 * number, register=False, parent=None) for number in range(200)]

    def work(operation: Cancelable) -> bool:
        with operation:
            return operation.token.wait(10)

    working = [Running(work, operation) for operation in operations]
    assert all(thread.result() for thread in working)


def test_a_deadline_of_a_thread_is_left_with_the_thread() -> None:
    def work() -> OperationStatus:
        operation = Cancelable(timeout=1000, register=False)
        with operation:
            pass
        return operation.status

    assert in_thread(work) is OperationStatus.COMPLETED


# --- deadlines of the operations around


def _polls(operation: Cancelable) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        operation.check()
        time.sleep(0.001)


def _waits(operation: Cancelable) -> None:
    if operation.wait(10):
        operation.check()


def _sleeps(operation: Cancelable) -> None:
    operation.sleep(10)


def _opens_a_step(operation: Cancelable) -> None:
    with Cancelable("step", register=False) as step:
        step.sleep(10)


@pytest.mark.parametrize("work", [_polls, _waits, _sleeps, _opens_a_step])
@pytest.mark.parametrize("depth", [1, 3])
async def test_a_blocked_loop_does_not_delay_what_threads_of_a_child_see(
    work: Callable[[Cancelable], None], depth: int
) -> None:
    started, seen = threading.Event(), threading.Event()
    errors: list[OperationCancelled] = []

    def in_the_thread(operation: Cancelable) -> None:
        started.set()
        try:
            work(operation)
        except OperationCancelled as error:
            errors.append(error)
        seen.set()

    with pytest.raises(OperationTimedOut):
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(Cancelable("request", timeout=0.05, register=False))
            child = Cancelable(register=False)
            for _ in range(depth):
                child = await stack.enter_async_context(Cancelable(register=False, timeout=60))
            context = contextvars.copy_context()  # as sync endpoints have it, in a plain worker thread
            thread = Running(context.run, in_the_thread, child)
            happens(started)
            happens(seen)  # blocks the loop
            await anyio.sleep(0)
            await anyio.sleep_forever()
    thread.result()
    assert [error.reason for error in errors] == [CancelationReason.PARENT]


def test_a_deadline_inside_whose_shield_it_was_opened_does_not_count() -> None:
    with Cancelable(timeout=0.01, register=False, raise_on_cancel=False) as parent:
        with parent.shield(), Cancelable(register=False) as child:
            assert child.remaining_seconds is None
            with Cancelable(timeout=60, register=False) as grandchild:
                assert grandchild.remaining_seconds is not None
                assert grandchild.remaining_seconds > 1
                assert child.wait(0.03) is False
                grandchild.check()
            assert not child.token.is_cancelled


def test_the_deadline_of_a_parent_that_is_over_is_not_waited_for() -> None:
    parent = Cancelable(timeout=0.01, register=False)
    parent.__enter__()
    with Cancelable(parent=parent, register=False) as child:
        parent._settle(OperationStatus.COMPLETED)
        started = time.monotonic()
        assert child.wait(0.05) is False
        assert time.monotonic() - started >= 0.05
        assert child.remaining_seconds is None
        child.check()


class _MovesItsDeadline(Cancelable):
    """As a request does, whose route's limit comes late and whose application's goes early."""

    __slots__ = ()

    may_get_deadline = True


def test_a_deadline_that_is_set_while_children_are_open_strikes_in_them() -> None:
    with _MovesItsDeadline(register=False, raise_on_cancel=False) as request:
        with Cancelable(register=False, raise_on_cancel=False) as child, Cancelable(timeout=60, register=False) as inner:
            request._deadline = time.monotonic() - 1  # on no timer: only the clock tells
            with pytest.raises(OperationCancelled) as caught:
                inner.check()
            assert caught.value.reason is CancelationReason.PARENT
            assert child.token.is_cancelled
    assert request.token.reason is CancelationReason.TIMEOUT


def test_a_deadline_that_is_lifted_meanwhile_does_not_shorten_a_wait() -> None:
    with _MovesItsDeadline(timeout=0.1, register=False) as request, Cancelable(register=False) as child:
        started = time.monotonic()
        waiting = Running(contextvars.copy_context().run, child.wait, 0.3)
        request._lift_deadline()
        assert waiting.result() is False
        assert time.monotonic() - started >= 0.3
        assert child.remaining_seconds is None
