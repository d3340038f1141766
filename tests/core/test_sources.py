"""Signals and conditions as reasons to cancel."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

import anyio
import pytest

from cancelable_core import (
    Cancelable,
    CancelationReason,
    CancelationToken,
    OperationCancelled,
    OperationStatus,
    ThreadSafeRegistry,
)
from cancelable_core.sources import ConditionSource
from cancelable_core.timer_thread import shared_timer

from .helpers import Running, becomes_true, blocked_in, happens, happens_soon, in_thread


@pytest.fixture(autouse=True)
def handlers_are_put_back() -> Iterator[None]:
    numbers = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    yield
    after = [signal.getsignal(number) for number in numbers]
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)
    assert after == before


# --- signals


async def test_a_signal_ends_the_sleep(registry: ThreadSafeRegistry) -> None:
    with anyio.fail_after(10):
        with pytest.raises(OperationCancelled) as caught:
            async with Cancelable.with_signal(signal.SIGUSR1, signal.SIGUSR2, name="worker", registry=registry):
                os.kill(os.getpid(), signal.SIGUSR2)
                await anyio.sleep_forever()
    error = caught.value
    assert (error.reason, error.origin, error.name) == (CancelationReason.SIGNAL, "SIGUSR2", "worker")


def test_a_signal_ends_a_blocking_sleep() -> None:
    with pytest.raises(OperationCancelled) as caught:
        with Cancelable.with_signal(signal.SIGUSR1, register=False) as operation:
            Running(os.kill, os.getpid(), signal.SIGUSR1)
            operation.sleep(30)
    assert caught.value.reason is CancelationReason.SIGNAL


def test_handlers_found_at_entry_are_called_too_and_put_back() -> None:
    seen: list[int] = []

    def mine(number: int, frame: FrameType | None) -> None:
        seen.append(number)

    before = signal.signal(signal.SIGUSR1, mine)
    try:
        with Cancelable.with_signal(signal.SIGUSR1, register=False) as operation:
            assert signal.getsignal(signal.SIGUSR1) is not mine
            signal.raise_signal(signal.SIGUSR1)
            assert operation.token.is_cancelled
        assert signal.getsignal(signal.SIGUSR1) is mine
        assert seen == [signal.SIGUSR1]
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.SIG_DFL])
def test_default_and_ignored_signals_cancel_and_are_put_back(handler: signal.Handlers) -> None:
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with Cancelable.with_signal(signal.SIGUSR1, register=False) as operation:
            signal.raise_signal(signal.SIGUSR1)
            assert operation.token.is_cancelled
        assert signal.getsignal(signal.SIGUSR1) is handler
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_operations_nested_on_one_signal_are_both_told_and_unwound() -> None:
    with Cancelable.with_signal(signal.SIGUSR1, register=False) as outer:
        with Cancelable.with_signal(signal.SIGUSR1, register=False, parent=None) as inner:
            signal.raise_signal(signal.SIGUSR1)
            assert inner.token.is_cancelled
            assert outer.token.is_cancelled


def test_a_handler_installed_over_ours_is_left_in_place_and_ours_only_passes_on() -> None:
    seen: list[str] = []
    before = signal.signal(signal.SIGUSR1, lambda *_: seen.append("first"))
    try:
        with Cancelable.with_signal(signal.SIGUSR1, register=False) as operation:
            ours = signal.getsignal(signal.SIGUSR1)
            assert callable(ours)

            def over(number: int, frame: FrameType | None) -> None:
                seen.append("over")
                ours(number, frame)  # type: ignore[operator]

            signal.signal(signal.SIGUSR1, over)
        assert signal.getsignal(signal.SIGUSR1) is over
        signal.raise_signal(signal.SIGUSR1)
        assert seen == ["over", "first"]
        assert not operation.token.is_cancelled
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_ctrl_c_cancels_instead_of_raising_keyboard_interrupt() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(OperationCancelled):
            with Cancelable.with_signal(signal.SIGINT, register=False) as operation:
                signal.raise_signal(signal.SIGINT)
                operation.check()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_ctrl_c_cancels_only_the_operation_in_a_program_run_by_a_loop(
    anyio_backend: tuple[str, dict[str, object]],
) -> None:
    """asyncio.run and trio.run have handlers of their own, which would end the whole program."""
    backend, options = anyio_backend
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    async def main() -> str:
        with pytest.raises(OperationCancelled) as caught:
            async with Cancelable.with_signal(signal.SIGINT, register=False):
                signal.raise_signal(signal.SIGINT)
                await anyio.sleep_forever()
        assert caught.value.reason is CancelationReason.SIGNAL
        await anyio.sleep(0.01)  # the program goes on
        return "goes on"

    try:
        assert anyio.run(main, backend=backend, backend_options=options) == "goes on"
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    except KeyboardInterrupt:
        pytest.fail("the whole program was interrupted")
    finally:
        signal.signal(signal.SIGINT, before)


def test_ctrl_c_after_the_operation_is_the_loops_again(anyio_backend: tuple[str, dict[str, object]]) -> None:
    backend, options = anyio_backend
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    async def main() -> None:
        async with Cancelable.with_signal(signal.SIGINT, register=False):
            await anyio.sleep(0)
        signal.raise_signal(signal.SIGINT)
        await anyio.sleep_forever()

    try:
        with pytest.raises(KeyboardInterrupt):
            anyio.run(main, backend=backend, backend_options=options)
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_handler_of_the_applications_loop_is_called_too() -> None:
    told: list[str] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, told.append, "application")
        try:
            async with Cancelable.with_signal(signal.SIGUSR1, register=False, raise_on_cancel=False):
                signal.raise_signal(signal.SIGUSR1)
                await asyncio.sleep(30)
            while not told:
                await asyncio.sleep(0)
        finally:
            loop.remove_signal_handler(signal.SIGUSR1)

    before = signal.getsignal(signal.SIGUSR1)
    asyncio.run(main())
    signal.signal(signal.SIGUSR1, before)
    assert told == ["application"]


def test_signals_are_for_the_main_thread_only(registry: ThreadSafeRegistry) -> None:
    operation = Cancelable.with_signal(signal.SIGUSR1, registry=registry)
    with pytest.raises(RuntimeError, match="main thread"):
        in_thread(operation.__enter__)
    assert registry.list_operations() == []
    assert operation.status is OperationStatus.FAILED


@pytest.mark.parametrize("numbers", [(), (0,), (9999,), (-1,), ("SIGUSR1",), (None,)])
def test_signals_that_are_none(numbers: tuple[object, ...]) -> None:
    with pytest.raises((ValueError, TypeError)):
        Cancelable.with_signal(*numbers)  # type: ignore[arg-type]


def test_a_signal_that_cannot_be_caught_leaves_the_others_as_they_were(registry: ThreadSafeRegistry) -> None:
    before = signal.getsignal(signal.SIGUSR1)
    with pytest.raises((OSError, ValueError)):
        with Cancelable.with_signal(signal.SIGUSR1, signal.SIGKILL, registry=registry):
            raise AssertionError("entered")
    assert signal.getsignal(signal.SIGUSR1) is before
    assert registry.list_operations() == []


# --- conditions


async def test_a_condition_that_comes_true_cancels(registry: ThreadSafeRegistry) -> None:
    holds = threading.Event()

    def disk_is_full() -> bool:
        return holds.is_set()

    with anyio.fail_after(10):
        with pytest.raises(OperationCancelled) as caught:
            async with Cancelable.with_condition(disk_is_full, 0.001, "export", registry=registry):
                holds.set()
                await anyio.sleep_forever()
    error = caught.value
    assert (error.reason, error.origin, error.name) == (CancelationReason.CONDITION, "disk_is_full", "export")


@pytest.mark.parametrize("truth", [True, 1, "yes", [0]])
def test_what_is_true_at_entry_cancels_whatever_its_type(truth: object) -> None:
    with pytest.raises(OperationCancelled):
        with Cancelable.with_condition(lambda: truth, 60, register=False) as operation:
            operation.sleep(30)


def test_a_condition_may_block_without_holding_up_other_deadlines() -> None:
    asked, release = threading.Event(), threading.Event()

    def slow() -> bool:
        asked.set()
        return not release.wait(10)

    try:
        with Cancelable.with_condition(slow, 60, register=False):
            happens(asked)
            with Cancelable(timeout=0.01, register=False, parent=None) as other:
                assert other.token.wait(10)
    finally:
        release.set()


def test_a_condition_that_raises_is_logged_once_and_asked_no_more(caplog: pytest.LogCaptureFixture) -> None:
    asked: list[int] = []

    def broken() -> bool:
        asked.append(1)
        raise ZeroDivisionError

    with Cancelable.with_condition(broken, 0.001, register=False) as operation:
        becomes_true(lambda: caplog.records)
        with Cancelable.with_condition(lambda: len(asked) > 1, 0.001, timeout=0.05, register=False, parent=None) as watching:
            assert watching.token.wait(10)
            assert watching.token.reason is CancelationReason.TIMEOUT
        operation.check()
    assert len(asked) == 1
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_a_condition_that_wants_to_exit_costs_no_thread(error: type[BaseException], caplog: pytest.LogCaptureFixture) -> None:
    asked = threading.Semaphore(0)

    def exits() -> bool:
        asked.release()
        raise error

    for _ in range(20):  # more than the pool has threads
        with Cancelable.with_condition(exits, 60, register=False):
            assert asked.acquire(timeout=10)
    with Cancelable.with_condition(lambda: True, 60, register=False) as operation:
        assert operation.token.wait(10)


def test_a_condition_is_not_asked_after_the_end() -> None:
    asked: list[int] = []
    with Cancelable.with_condition(lambda: asked.append(1), 0.001, register=False):
        becomes_true(lambda: len(asked) >= 3)
    becomes_true(lambda: True)
    seen = len(asked)
    with Cancelable.with_condition(lambda: False, 0.001, timeout=0.02, register=False) as operation:
        assert operation.token.wait(10)
    assert len(asked) <= seen + 1  # one question may have been on its way


def test_a_condition_true_too_late_changes_nothing(registry: ThreadSafeRegistry) -> None:
    asked, release, answered = threading.Event(), threading.Event(), threading.Event()

    def slow() -> bool:
        asked.set()
        release.wait(10)
        answered.set()
        return True

    with Cancelable.with_condition(slow, 60, registry=registry) as operation:
        happens(asked)
    release.set()
    happens(answered)
    assert operation.status is OperationStatus.COMPLETED
    assert operation.context.cancel_requested_at is None


def test_a_condition_of_an_operation_cancelled_otherwise_is_not_asked_again() -> None:
    asked: list[int] = []
    with Cancelable.with_condition(lambda: asked.append(1), 0.001, register=False) as operation:
        becomes_true(lambda: asked)
        operation.cancel_sync()
        becomes_true(lambda: True)


@pytest.mark.parametrize("interval", [0, -1, math.nan, -math.inf])
def test_intervals_that_are_none(interval: float) -> None:
    with pytest.raises(ValueError):
        Cancelable.with_condition(lambda: False, interval)


async def a_coroutine_function() -> bool:
    return True


@pytest.mark.parametrize("predicate", [a_coroutine_function, None, 5])
def test_predicates_that_are_none(predicate: object) -> None:
    with pytest.raises(TypeError):
        Cancelable.with_condition(predicate)  # type: ignore[arg-type]


def test_a_token_and_a_timeout_may_be_added() -> None:
    token = CancelationToken()
    for operation in (
        Cancelable.with_condition(lambda: False, 60, "c", token=token, timeout=50, register=False),
        Cancelable.with_signal(signal.SIGUSR1, name="s", token=token, timeout=50, register=False),
    ):
        with pytest.raises(OperationCancelled, match="by token"):
            with operation:
                assert operation.remaining_seconds is not None
                token.cancel_sync("by token")
                operation.check()
        token = CancelationToken() if operation.name == "c" else token
        break


async def test_a_condition_event_is_seen_by_tasks() -> None:
    seen = threading.Event()
    async with Cancelable.with_condition(lambda: seen.set(), 60, register=False):
        await happens_soon(seen)


def test_one_signal_named_twice_is_watched_once() -> None:
    calls: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: calls.append(number))
    applications = signal.getsignal(signal.SIGUSR1)
    try:
        with pytest.raises(OperationCancelled) as caught:
            with Cancelable.with_signal(signal.SIGUSR1, signal.SIGUSR1, register=False) as operation:
                signal.raise_signal(signal.SIGUSR1)
                operation.check()
        assert caught.value.reason is CancelationReason.SIGNAL
        assert calls == [signal.SIGUSR1]
        assert signal.getsignal(signal.SIGUSR1) is applications
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_condition_that_comes_true_after_the_end_leaves_the_token_alone() -> None:
    """The token may be somebody else's by then, or be read by whoever held on to it."""
    asked, answer, answered = threading.Event(), threading.Event(), threading.Event()

    def holds() -> bool:
        asked.set()
        happens(answer)
        return True

    source, token = ConditionSource(holds, 60), CancelationToken()
    source.start(token)
    happens(asked)
    source.stop()
    answer.set()
    shared_timer().dispatch(answered.set)
    happens(answered)
    becomes_true(lambda: not blocked_in("cancelable-pool", "holds") and not blocked_in("cancelable-pool", "_ask"))
    assert not token.is_cancelled
