"""One flag, one reason, first caller wins."""

from __future__ import annotations

import gc
import logging
import math
import signal
import threading
import weakref
from datetime import UTC, datetime
from functools import partial

import anyio
import pytest

from cancelable_core import CancelationReason, CancelationToken, OperationCancelled, OperationTimedOut
from cancelable_core.flags import CALL, LINK, WAKE, Watcher
from cancelable_core.verdicts import Verdict, reason_and_message

from .helpers import InterruptedAt, Running, at_every_line, happens_soon, in_thread

ANYIO = anyio.fail_after


def record(*said: object) -> tuple[object, ...]:
    return said


def state_of(token: CancelationToken) -> tuple[object, ...]:
    return (token.is_cancelled, token.reason, token.message, token.origin, token.cancelled_at)


# --- what a cancel says


@pytest.mark.parametrize(
    ("args", "kwargs", "reason", "message"),
    [
        ((), {}, CancelationReason.MANUAL, None),
        (("User clicked cancel",), {}, CancelationReason.MANUAL, "User clicked cancel"),
        ((), {"message": "Cancelled from thread"}, CancelationReason.MANUAL, "Cancelled from thread"),
        ((CancelationReason.TIMEOUT, "too slow"), {}, CancelationReason.TIMEOUT, "too slow"),
        ((CancelationReason.SHUTDOWN,), {"message": "deploy"}, CancelationReason.SHUTDOWN, "deploy"),
        ((None, "why not"), {}, CancelationReason.MANUAL, "why not"),
        (("manual",), {}, CancelationReason.MANUAL, "manual"),
        (("timeout",), {}, CancelationReason.MANUAL, "timeout"),
        (("",), {}, CancelationReason.MANUAL, ""),
    ],
)
def test_every_documented_way_to_say_why(args: tuple, kwargs: dict, reason: CancelationReason, message: str | None) -> None:
    token = CancelationToken()
    assert token.cancel_sync(*args, **kwargs) is True
    assert (token.is_cancelled, token.reason, token.message) == (True, reason, message)


@pytest.mark.parametrize("method", ["cancel_sync", "cancel"])
@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        (("text", "and message"), {}),
        (("text",), {"message": ""}),
        ((5,), {}),
        ((b"bytes",), {}),
        ((TimeoutError("x"),), {}),
        ((None, 5), {}),
        ((CancelationReason.MANUAL, b"x"), {}),
    ],
)
def test_a_call_that_makes_no_sense_raises_and_cancels_nothing(method: str, args: tuple, kwargs: dict) -> None:
    token = CancelationToken()
    with pytest.raises(TypeError):
        getattr(token, method)(*args, **kwargs)
    assert state_of(token) == (False, None, None, None, None)
    assert token.cancel_sync()  # it can be cancelled still


@pytest.mark.parametrize("reason", list(CancelationReason))
def test_the_reason_may_be_any_of_the_closed_list(reason: CancelationReason) -> None:
    assert reason_and_message(reason, None) == (reason, None)


def test_origin_and_instant_are_kept() -> None:
    token = CancelationToken()
    before = datetime.now(UTC)
    token.cancel_sync(origin="GET /x")
    assert token.origin == "GET /x"
    assert token.cancelled_at is not None
    assert before <= token.cancelled_at <= datetime.now(UTC)
    assert token.cancelled_at.tzinfo is UTC


def test_the_first_caller_wins_and_the_others_change_nothing() -> None:
    token = CancelationToken()
    assert token.cancel_sync(CancelationReason.DISCONNECT, "first", origin="a") is True
    said = state_of(token)
    for late in (CancelationReason.MANUAL, CancelationReason.TIMEOUT, "text", None):
        assert token.cancel_sync(late, origin="b") is False
    assert state_of(token) == said


async def test_the_awaitable_cancel_acts_before_it_is_awaited() -> None:
    token = CancelationToken()
    answer = token.cancel("now")
    assert token.is_cancelled
    assert await answer is True
    assert await token.cancel("later") is False
    assert token.message == "now"


def test_repr_says_what_it_was_told() -> None:
    token = CancelationToken()
    assert "not cancelled" in repr(token)
    token.cancel_sync(CancelationReason.SHUTDOWN)
    assert "shutdown" in repr(token)


# --- check


@pytest.mark.parametrize("reason", list(CancelationReason))
def test_check_raises_the_truth_every_time(reason: CancelationReason) -> None:
    token = CancelationToken()
    token.check()
    token.cancel_sync(reason, "because", origin="somebody")
    for _ in range(3):
        with pytest.raises(OperationCancelled) as caught:
            token.check()
        error = caught.value
        assert (error.reason, error.message, error.origin, error.operation_id) == (reason, "because", "somebody", None)
        assert isinstance(error, TimeoutError) == isinstance(error, OperationTimedOut) == (reason is CancelationReason.TIMEOUT)
        assert "because" in str(error)


# --- threads wait


def test_a_waiting_thread_wakes() -> None:
    token = CancelationToken()
    waiting = Running(token.wait)
    while not token._watchers:
        assert waiting.is_alive
    token.cancel_sync()
    assert waiting.result() is True


def test_a_hundred_waiting_threads_wake() -> None:
    token = CancelationToken()
    waiting = [Running(token.wait, 30) for _ in range(100)]
    while len(token._watchers) < 100:
        assert all(thread.is_alive for thread in waiting)
    token.cancel_sync()
    assert [thread.result() for thread in waiting] == [True] * 100
    assert not token._watchers


@pytest.mark.parametrize("timeout_seconds", [0, -1, -math.inf, 0.001])
def test_a_wait_that_runs_out_says_so_and_leaves_nothing(timeout_seconds: float) -> None:
    token = CancelationToken()
    assert in_thread(token.wait, timeout_seconds) is False
    assert not token._watchers


@pytest.mark.parametrize("timeout_seconds", [None, math.inf, 1e300, 1e10, threading.TIMEOUT_MAX, 0])
def test_any_time_will_do_when_it_is_cancelled_already(timeout_seconds: float | None) -> None:
    token = CancelationToken()
    token.cancel_sync()
    assert in_thread(token.wait, timeout_seconds) is True


@pytest.mark.parametrize("timeout_seconds", [math.inf, 1e300, 1e10, threading.TIMEOUT_MAX])
def test_a_wait_beyond_what_locks_can_count_is_for_ever(timeout_seconds: float) -> None:
    token = CancelationToken()
    waiting = Running(token.wait, timeout_seconds)
    while not token._watchers:
        assert waiting.is_alive
    token.cancel_sync()
    assert waiting.result() is True


def test_nan_is_no_time_to_wait() -> None:
    token = CancelationToken()
    with pytest.raises(ValueError, match="NaN"):
        token.wait(math.nan)
    assert not token._watchers


async def test_wait_refuses_to_block_a_loop() -> None:
    token = CancelationToken()
    with pytest.raises(RuntimeError, match="wait_for_cancel"):
        token.wait(0)


# --- tasks wait


async def test_a_waiting_task_of_an_idle_loop_wakes_by_a_thread() -> None:
    token = CancelationToken()
    with ANYIO(10):
        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(token.wait_for_cancel)
            await anyio.wait_all_tasks_blocked()
            assert Running(token.cancel_sync).result() is True
    assert not token._watchers


async def test_tasks_of_other_loops_wake(anyio_backend_name: str) -> None:
    token = CancelationToken()
    loops = [Running(anyio.run, token.wait_for_cancel) for _ in range(2)]
    loops.append(Running(partial(anyio.run, backend="trio"), token.wait_for_cancel))
    with ANYIO(10):
        while len(token._watchers) < 3:
            await anyio.sleep(0)
        token.cancel_sync()
        await token.wait_for_cancel()
    for loop in loops:
        loop.result()


async def test_waiting_on_a_cancelled_token_returns_after_a_checkpoint() -> None:
    token = CancelationToken()
    token.cancel_sync()
    with ANYIO(10):
        await token.wait_for_cancel()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await token.wait_for_cancel()
    assert scope.cancelled_caught


async def test_a_wait_given_up_leaves_nothing() -> None:
    token = CancelationToken()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(token.wait_for_cancel)
        await anyio.wait_all_tasks_blocked()
        assert len(token._watchers) == 1
        tasks.cancel_scope.cancel()
    assert not token._watchers
    assert token.cancel_sync()


def test_a_waiter_whose_loop_is_gone_does_no_harm() -> None:
    token = CancelationToken()
    kept = []

    async def leave_a_watcher() -> None:
        from cancelable_core.waiters import TaskWaiter

        waiter = TaskWaiter()
        kept.append(waiter)
        token.watch(waiter, WAKE)

    anyio.run(leave_a_watcher)
    anyio.run(leave_a_watcher, backend="trio")
    called = []
    token.on_cancel(called.append)
    assert token.cancel_sync()
    assert called == [token]


# --- callbacks


def test_callbacks_run_once_in_order_in_the_cancelling_thread() -> None:
    token = CancelationToken()
    called: list[tuple[int, int, CancelationToken]] = []
    for number in range(5):
        token.on_cancel(lambda told, number=number: called.append((number, threading.get_ident(), told)))
    canceller = in_thread(lambda: token.cancel_sync() and threading.get_ident())
    assert called == [(number, canceller, token) for number in range(5)]
    token.cancel_sync()
    assert len(called) == 5


def test_the_same_callback_twice_is_two_registrations() -> None:
    token = CancelationToken()
    called: list[CancelationToken] = []
    first = token.on_cancel(called.append)
    token.on_cancel(called.append)
    first.remove()
    first.remove()
    token.cancel_sync()
    assert called == [token]
    first.remove()


def test_a_registration_is_a_context_manager() -> None:
    token = CancelationToken()
    called: list[CancelationToken] = []
    with token.on_cancel(called.append) as registration:
        assert token._watchers == {registration: CALL}
    assert not token._watchers
    token.cancel_sync()
    assert called == []


def test_a_callback_on_a_cancelled_token_runs_at_once_and_here() -> None:
    token = CancelationToken()
    token.cancel_sync()
    called: list[int] = []
    with token.on_cancel(lambda _: called.append(threading.get_ident())):
        assert called == [threading.get_ident()]
    assert called == [threading.get_ident()]


def test_a_callback_may_register_callbacks_without_end() -> None:
    token = CancelationToken()
    depths: list[int] = []

    def again(told: CancelationToken) -> None:
        depths.append(len(depths))
        if len(depths) < 20:
            told.on_cancel(again)

    token.on_cancel(again)
    token.cancel_sync()
    assert depths == list(range(20))


def test_a_callback_may_cancel_remove_and_wait() -> None:
    token, other = CancelationToken(), CancelationToken()
    said: list[object] = []
    second = None

    def meddle(told: CancelationToken) -> None:
        said.extend([told.cancel_sync(), told.wait(0), other.cancel_sync("from a callback")])
        assert second is not None
        second.remove()  # claimed already: a cancel runs what it found

    token.on_cancel(meddle)
    second = token.on_cancel(lambda _: said.append("second"))
    token.cancel_sync()
    assert said == [False, True, True, "second"]
    assert other.message == "from a callback"


def test_what_a_callback_raises_is_logged_and_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    token = CancelationToken()
    called: list[int] = []

    def bad(_: CancelationToken) -> None:
        raise ZeroDivisionError("inside a callback")

    token.on_cancel(bad)
    token.on_cancel(lambda _: called.append(1))
    assert token.cancel_sync() is True
    assert called == [1]
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "ZeroDivisionError" in caplog.text
    token.on_cancel(bad)  # at once: logged as well
    assert len(caplog.records) == 2


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_interrupt_in_a_callback_passes_on_after_the_others_were_called(error: type[BaseException]) -> None:
    token = CancelationToken()
    called: list[int] = []

    def interrupted(_: CancelationToken) -> None:
        raise error

    token.on_cancel(lambda _: called.append(1))
    token.on_cancel(interrupted)
    token.on_cancel(interrupted)
    token.on_cancel(lambda _: called.append(2))
    with pytest.raises(error):
        token.cancel_sync()
    assert called == [1, 2]
    assert token.is_cancelled


async def a_coroutine_function(_: object) -> None:
    raise AssertionError("never called")


class AsyncCallable:
    async def __call__(self, _: object) -> None:
        raise AssertionError("never called")


@pytest.mark.parametrize("callback", [a_coroutine_function, partial(a_coroutine_function), AsyncCallable()])
def test_coroutine_functions_are_refused(callback: object) -> None:
    token = CancelationToken()
    with pytest.raises(TypeError, match="wait_for_cancel"):
        token.on_cancel(callback)  # type: ignore[arg-type]
    assert not token._watchers


@pytest.mark.parametrize("callback", [None, 5, "text"])
def test_what_cannot_be_called_is_refused(callback: object) -> None:
    token = CancelationToken()
    with pytest.raises(TypeError, match="callable"):
        token.on_cancel(callback)  # type: ignore[arg-type]
    assert not token._watchers


def test_everybody_is_awake_before_the_first_callback_runs() -> None:
    token = CancelationToken()
    waiting = Running(token.wait)
    while not token._watchers:
        assert waiting.is_alive
    seen: list[bool] = []
    token._watchers = dict(token._watchers)
    registration = token.on_cancel(lambda _: seen.append(waiting.result()))
    token._watchers = {registration: CALL, **token._watchers}  # even where the callback came first
    token.cancel_sync()
    assert seen == [True]


async def test_a_task_is_woken_although_the_callbacks_never_end_in_time() -> None:
    token = CancelationToken()
    release = threading.Event()
    token.on_cancel(lambda _: release.wait(10))
    canceller = None
    with ANYIO(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(token.wait_for_cancel)
            await anyio.wait_all_tasks_blocked()
            canceller = Running(token.cancel_sync)
        assert canceller.is_alive  # the task has ended, the callback still sits there
    release.set()
    assert canceller.result() is True


# --- seals


def test_a_sealed_token_is_never_cancelled() -> None:
    token = CancelationToken()
    called: list[object] = []
    token.on_cancel(called.append)
    assert token.seal() is True
    assert token.cancel_sync() is False
    assert state_of(token) == (False, None, None, None, None)
    assert token.is_sealed
    token.on_cancel(called.append)
    assert called == []
    assert not token._watchers
    assert token.wait() is False  # the main thread has no loop; it would wait for ever otherwise


def test_sealing_wakes_waiting_threads() -> None:
    token = CancelationToken()
    waiting = Running(token.wait)
    while not token._watchers:
        assert waiting.is_alive
    token.seal()
    assert waiting.result() is False


def test_sealing_a_cancelled_token_says_who_was_first() -> None:
    token = CancelationToken()
    token.cancel_sync("first")
    assert token.seal() is False
    assert not token.is_sealed
    assert token.message == "first"


def test_sealing_in_the_middle_of_a_cancel_loses_nobody() -> None:
    """The operation notices the flag and ends while the canceller is still collecting whom to tell."""

    def scenario(step: int) -> bool:
        token, child = CancelationToken(), CancelationToken()
        waiter, called = CountingWatcher(), []
        from cancelable_core.flags import StrongLink

        token.watch(StrongLink(child), LINK)
        token.watch(waiter, WAKE)
        token.on_cancel(called.append)
        sealed: list[bool] = []
        with InterruptedAt(step, lambda: sealed.append(token.seal())) as interruption:
            won = token.cancel_sync()
        if interruption.fired:
            served = (child.is_cancelled, waiter.woken, len(called))
            assert served == ((True, 1, 1) if won else (False, 0, 0)), step
            assert won is not sealed[0]
        return interruption.fired

    at_every_line(scenario)


# --- signal handlers


class CountingWatcher(Watcher):
    def __init__(self) -> None:
        self.woken = 0

    def wake(self) -> None:
        self.woken += 1


def test_a_cancel_interrupted_by_a_cancel_has_one_winner_whose_words_stand() -> None:
    def scenario(step: int) -> bool:
        token = CancelationToken()
        waiter, called, inner = CountingWatcher(), [], []
        token.watch(waiter, WAKE)
        token.on_cancel(called.append)

        def handler() -> None:
            inner.append(token.cancel_sync("inner"))
            assert token.is_cancelled

        with InterruptedAt(step, handler) as interruption:
            outer = token.cancel_sync("outer")
        if interruption.fired:
            assert [outer, *inner].count(True) == 1, step
            assert token.message == ("outer" if outer else "inner")
        assert (waiter.woken, len(called)) == (1, 1)
        return interruption.fired

    at_every_line(scenario)


def test_whoever_comes_in_the_middle_of_a_cancel_is_served_once() -> None:
    def scenario(step: int) -> bool:
        token = CancelationToken()
        called, waits = [], []

        def handler() -> None:
            decided = token.verdict is not None
            token.on_cancel(called.append)
            if decided:
                waits.append(token.wait(0))

        with InterruptedAt(step, handler) as interruption:
            token.cancel_sync()
        if interruption.fired:
            assert called == [token], step
            assert waits in ([], [True]), step
        return interruption.fired

    at_every_line(scenario)


def test_a_cancel_in_the_middle_of_a_registration_calls_back_once() -> None:
    def scenario(step: int) -> bool:
        token = CancelationToken()
        called: list[object] = []
        with InterruptedAt(step, token.cancel_sync) as interruption:
            token.on_cancel(called.append)
        assert called == ([token] if interruption.fired else [])
        return interruption.fired

    at_every_line(scenario)


def test_a_cancel_in_the_middle_of_a_removal_calls_back_at_most_once() -> None:
    def scenario(step: int) -> bool:
        token = CancelationToken()
        called: list[object] = []
        registration = token.on_cancel(called.append)
        with InterruptedAt(step, token.cancel_sync) as interruption:
            registration.remove()
            token.cancel_sync()
            token.wait(0)
        assert len(called) <= 1
        return interruption.fired

    at_every_line(scenario)


def test_a_cancel_in_the_middle_of_going_to_wait_wakes_the_thread() -> None:
    def scenario(step: int) -> bool:
        token = CancelationToken()
        with InterruptedAt(step, token.cancel_sync) as interruption:
            token.wait(0)
        if interruption.fired:
            assert token.is_cancelled
        assert not token._watchers
        return interruption.fired

    at_every_line(scenario)


async def test_a_task_that_goes_to_wait_in_the_middle_of_a_cancel_wakes() -> None:
    """Another thread has written the verdict but not yet raised the flag when the task looks at both."""
    token = CancelationToken()
    verdict = Verdict(CancelationReason.MANUAL, "half done", None, 1.0)
    token._verdicts.append(verdict)
    with ANYIO(10):
        await token.wait_for_cancel()
    assert token.is_cancelled


def test_a_real_signal_handler_cancels_what_its_own_thread_waits_for() -> None:
    token = CancelationToken()
    before = signal.signal(signal.SIGUSR1, lambda *_: token.cancel_sync("signalled"))
    try:
        waiting_thread = threading.main_thread().ident
        assert waiting_thread is not None

        def send_when_waiting() -> None:
            while not token._watchers:
                pass
            signal.pthread_kill(waiting_thread, signal.SIGUSR1)

        sender = Running(send_when_waiting)
        assert token.wait(10) is True
        sender.result()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert token.message == "signalled"


async def test_a_real_signal_handler_wakes_an_idle_loop() -> None:
    token = CancelationToken()
    before = signal.signal(signal.SIGUSR1, lambda *_: token.cancel_sync("signalled"))
    try:
        with ANYIO(10):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(token.wait_for_cancel)
                await anyio.wait_all_tasks_blocked()
                done = threading.Event()
                Running(lambda: (signal.raise_signal(signal.SIGUSR1), done.set()))
                await happens_soon(done)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert token.message == "signalled"


# --- memory


def test_a_token_nobody_holds_goes_with_its_callbacks() -> None:
    token = CancelationToken()
    token.on_cancel(lambda told: None)
    gone = weakref.ref(token)
    del token
    gc.collect()
    assert gone() is None


def test_a_million_registrations_come_and_go() -> None:
    token = CancelationToken()
    for _ in range(100_000):
        with token.on_cancel(print):
            pass
    assert not token._watchers


def test_an_answer_that_nobody_awaits_is_true_or_false_all_the_same() -> None:
    token = CancelationToken()
    assert token.cancel()
    assert not token.cancel()
