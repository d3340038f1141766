"""`AnyioBridge`: calls from threads reach the loop in order, producers wait for room, and nothing is dropped silently."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import random
import threading
import time
from collections.abc import Callable
from functools import partial

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from cancelable_core import (
    AnyioBridge,
    BridgeClosed,
    BridgeFull,
    BridgeStatistics,
    Cancelable,
    OperationCancelled,
    OperationTimedOut,
    ThreadSafeRegistry,
    current_operation,
)

from .helpers import Running, becomes_true, becomes_true_soon, happens, happens_soon, start_a_loop

flavour: contextvars.ContextVar[str] = contextvars.ContextVar("flavour", default="none")


class Gate:
    """Coroutines that wait until the test lets them go on."""

    def __init__(self) -> None:
        self.opened = anyio.Event()
        self.waiting = 0
        self.cancelled = 0
        self.ended = 0

    async def wait(self) -> str:
        self.waiting += 1
        try:
            await self.opened.wait()
        except BaseException:
            self.cancelled += 1
            raise
        self.ended += 1
        return "passed"

    def open(self) -> None:
        self.opened.set()


@pytest.fixture
async def gate() -> Gate:
    return Gate()


def fill(bridge: AnyioBridge, gate: Gate, calls: int) -> None:
    for _ in range(calls):
        bridge.call_soon_threadsafe(gate.wait, block=False)


async def producers_wait(bridge: AnyioBridge, count: int) -> None:
    await becomes_true_soon(lambda: len(bridge._producers) == count)


def check_sum(statistics: BridgeStatistics) -> None:
    parts = (statistics.completed, statistics.failed, statistics.cancelled, statistics.unfinished)
    assert statistics.accepted == sum(parts), statistics
    assert min(parts) >= 0, statistics


# --- entering and leaving


@pytest.mark.parametrize("options", [{"buffer_size": 0}, {"buffer_size": -1}, {"max_workers": 0}, {"max_workers": -3}])
def test_sizes_below_one_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="1 or more"):
        AnyioBridge(**options)


async def test_it_is_entered_once() -> None:
    bridge = AnyioBridge()
    async with bridge as entered:
        assert entered is bridge
        with pytest.raises(RuntimeError, match="entered once"):
            async with bridge:
                pytest.fail("entered while it was open")
        await anyio.to_thread.run_sync(bridge.call, int)  # it is none the worse for it
    with pytest.raises(RuntimeError, match="entered once"):
        async with bridge:
            pytest.fail("entered again")


async def test_calls_are_refused_before_and_after() -> None:
    bridge = AnyioBridge()

    async def refused() -> None:
        for attempt in (bridge.call_soon_threadsafe, bridge.call, partial(bridge.call_soon_threadsafe, block=False)):
            with pytest.raises(BridgeClosed):
                attempt(int)  # type: ignore[operator]
            with pytest.raises(BridgeClosed):
                await anyio.to_thread.run_sync(attempt, int)  # type: ignore[arg-type]
        with pytest.raises(BridgeClosed):
            await bridge.run_in_thread(int)

    await refused()
    async with bridge:
        pass
    await refused()
    assert bridge.statistics == BridgeStatistics(accepted=0, completed=0, failed=0, cancelled=0, unfinished=0)


# --- calls


class AsyncCallable:
    async def __call__(self, seen: list[int]) -> None:
        await anyio.lowlevel.checkpoint()
        seen.append(threading.get_ident())


async def on_the_loop(seen: list[int]) -> None:
    await AsyncCallable()(seen)


def plainly(seen: list[int]) -> None:
    seen.append(threading.get_ident())


@pytest.mark.parametrize(
    "func",
    [plainly, on_the_loop, partial(plainly), partial(on_the_loop), AsyncCallable(), lambda seen: on_the_loop(seen)],
    ids=["plain", "async", "partial plain", "partial async", "async __call__", "plain that returns a coroutine"],
)
async def test_plain_and_async_functions_run_on_the_loop(func: Callable[[list[int]], object]) -> None:
    seen: list[int] = []
    async with AnyioBridge() as bridge:
        Running(bridge.call_soon_threadsafe, func, seen).result()
        bridge.call_soon_threadsafe(func, seen)  # from the loop's own thread as well
    assert seen == [threading.get_ident()] * 2
    assert bridge.statistics == BridgeStatistics(accepted=2, completed=2, failed=0, cancelled=0, unfinished=0)


async def test_an_idle_loop_wakes() -> None:
    """Nothing else runs in the loop: the call itself has to wake it."""
    async with AnyioBridge() as bridge:
        for _ in range(100):
            arrived = anyio.Event()
            producer = Running(bridge.call_soon_threadsafe, arrived.set)
            with anyio.fail_after(10):
                await arrived.wait()
            producer.result()


async def test_calls_of_each_producer_start_in_order() -> None:
    """Plain ones, async ones, and plain ones that return a coroutine, mixed; the buffer is small, so producers block too."""
    producers, calls = 4, 250
    started: list[list[int]] = [[] for _ in range(producers)]

    def plain(producer: int, number: int) -> None:
        started[producer].append(number)

    async def later(producer: int, number: int) -> None:
        started[producer].append(number)
        for _ in range(number % 3):
            await anyio.lowlevel.checkpoint()

    def produce(producer: int) -> None:
        rng = random.Random(producer)
        for number in range(calls):
            bridge.call_soon_threadsafe(rng.choice([plain, later]), producer, number)

    async with AnyioBridge(buffer_size=7) as bridge:
        running = [Running(produce, producer) for producer in range(producers)]
        await becomes_true_soon(lambda: not any(producer.is_alive for producer in running))
    assert started == [list(range(calls))] * producers
    assert bridge.statistics.completed == producers * calls


async def test_a_plain_call_waits_until_the_coroutine_before_it_has_begun() -> None:
    order: list[str] = []

    async def first() -> None:
        order.append("coroutine")

    async with AnyioBridge() as bridge:
        for _ in range(20):
            bridge.call_soon_threadsafe(first)
            bridge.call_soon_threadsafe(order.append, "plain")
    assert order == ["coroutine", "plain"] * 20


async def test_one_slow_coroutine_does_not_hold_up_the_next(gate: Gate) -> None:
    """The slow one is let go only by a call behind it."""
    async with AnyioBridge() as bridge:
        bridge.call_soon_threadsafe(gate.wait)
        bridge.call_soon_threadsafe(gate.wait)
        bridge.call_soon_threadsafe(gate.open)
    assert gate.ended == 2


async def test_other_tasks_get_their_turns_during_a_flood() -> None:
    calls, turns = 10_000, 0
    turns_seen: list[int] = []
    async with AnyioBridge(buffer_size=calls) as bridge, anyio.create_task_group() as tasks:

        async def tick() -> None:
            nonlocal turns
            while True:
                await anyio.lowlevel.checkpoint()
                turns += 1

        tasks.start_soon(tick)
        for _ in range(calls):
            bridge.call_soon_threadsafe(lambda: turns_seen.append(turns), block=False)
        await becomes_true_soon(lambda: len(turns_seen) == calls)
        tasks.cancel_scope.cancel()
    assert turns_seen[-1] > turns_seen[0]


# --- room


async def test_the_buffer_counts_what_was_accepted_and_has_not_finished(gate: Gate) -> None:
    """Running coroutines take room: without that, the loop would fill up instead of the producers slowing down."""
    async with AnyioBridge(buffer_size=2) as bridge:
        fill(bridge, gate, 2)
        await becomes_true_soon(lambda: gate.waiting == 2)
        assert bridge.statistics.unfinished == 2
        producer = Running(bridge.call_soon_threadsafe, gate.open)
        await producers_wait(bridge, 1)
        assert producer.is_alive
        assert bridge.statistics.accepted == 2
        gate.open()
        await becomes_true_soon(lambda: not producer.is_alive)
        producer.result()
    assert bridge.statistics.completed == 3


@pytest.mark.parametrize("where", ["thread", "loop"])
async def test_without_blocking_a_full_buffer_is_an_error(gate: Gate, where: str) -> None:
    async with AnyioBridge(buffer_size=1) as bridge:
        submit = partial(bridge.call_soon_threadsafe, gate.wait, block=False)
        fill(bridge, gate, 1)
        with pytest.raises(BridgeFull, match="1 unfinished"):
            if where == "thread":
                await anyio.to_thread.run_sync(submit)
            else:
                submit()
        gate.open()
        await becomes_true_soon(lambda: not bridge.statistics.unfinished)
        submit()  # there is room again
    assert bridge.statistics.completed == 2


async def test_the_loops_own_thread_never_waits_for_itself(gate: Gate) -> None:
    async with AnyioBridge(buffer_size=1) as bridge:
        bridge.call_soon_threadsafe(gate.wait)
        with pytest.raises(BridgeFull):
            bridge.call_soon_threadsafe(gate.wait)
        gate.open()
    assert bridge.statistics.accepted == 1


async def test_a_call_from_inside_a_call_gets_an_error_rather_than_a_deadlock(caplog: pytest.LogCaptureFixture) -> None:
    async with AnyioBridge(buffer_size=1) as bridge:
        bridge.call_soon_threadsafe(bridge.call_soon_threadsafe, int)
        await becomes_true_soon(lambda: bridge.statistics.failed)
    assert [type(record.exc_info[1]) for record in caplog.records if record.exc_info] == [BridgeFull]


async def test_closing_wakes_waiting_producers(gate: Gate) -> None:
    async with anyio.create_task_group() as tasks:
        async with AnyioBridge(buffer_size=1) as bridge:
            fill(bridge, gate, 1)
            producers = [Running(bridge.call_soon_threadsafe, int) for _ in range(5)]
            producers += [Running(bridge.call, int) for _ in range(2)]
            await producers_wait(bridge, 7)

            async def open_when_they_have_left() -> None:
                await becomes_true_soon(lambda: not any(producer.is_alive for producer in producers))
                gate.open()

            tasks.start_soon(open_when_they_have_left)
    for producer in producers:
        with pytest.raises(BridgeClosed):
            producer.result()
    assert (gate.ended, bridge.statistics.accepted) == (1, 1)


@pytest.mark.parametrize("by", ["cancel", "deadline"])
async def test_a_waiting_producer_is_woken_by_its_own_operations_cancel(gate: Gate, by: str) -> None:
    """Nobody else is: neither a producer without an operation, nor one of another."""
    operations: list[Cancelable] = []

    def produce(timeout: float | None) -> None:
        with Cancelable(timeout=timeout, register=False) as operation:
            operations.append(operation)
            bridge.call_soon_threadsafe(gate.wait)

    async with AnyioBridge(buffer_size=1) as bridge:
        fill(bridge, gate, 1)
        others = [Running(bridge.call_soon_threadsafe, gate.wait), Running(produce, 60)]
        await producers_wait(bridge, 2)
        producer = Running(produce, 0.02 if by == "deadline" else None)
        await becomes_true_soon(lambda: len(operations) == 2)
        if by == "cancel":
            await producers_wait(bridge, 3)
            operations[1].cancel_sync("enough")
        await becomes_true_soon(lambda: not producer.is_alive)
        with pytest.raises(OperationTimedOut if by == "deadline" else OperationCancelled) as caught:
            producer.result()
        assert caught.value.operation_id == operations[1].id
        await producers_wait(bridge, 2)
        gate.open()
        await becomes_true_soon(lambda: not any(other.is_alive for other in others))
        for other in others:
            other.result()
    assert bridge.statistics.completed == 3
    assert not operations[0].token._watchers


class TakesTheRoomAlong(Cancelable):
    """Notices its cancel in the very moment in which there was room for its producer."""

    __slots__ = ()
    meanwhile: Callable[[], None]

    def check(self) -> None:
        if self.token.is_cancelled:
            type(self).meanwhile()
        super().check()


async def test_room_offered_to_a_producer_that_was_cancelled_goes_to_the_next(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered: list[Cancelable] = []

    def produce() -> None:
        with TakesTheRoomAlong(register=False) as operation:
            entered.append(operation)
            bridge.call_soon_threadsafe(int)

    async with AnyioBridge(buffer_size=1) as bridge:

        def make_room() -> None:
            bridge._port.post(gate.open)
            becomes_true(lambda: not bridge.statistics.unfinished)

        monkeypatch.setattr(TakesTheRoomAlong, "meanwhile", make_room, raising=False)
        fill(bridge, gate, 1)
        cancelled = Running(produce)
        await producers_wait(bridge, 1)
        patient = Running(bridge.call_soon_threadsafe, int)
        await producers_wait(bridge, 2)
        entered[0].cancel_sync()
        await becomes_true_soon(lambda: not cancelled.is_alive)
        with pytest.raises(OperationCancelled):
            cancelled.result()
        await becomes_true_soon(lambda: not patient.is_alive)
        patient.result()
    assert bridge.statistics.completed == 2


class CountsChecks(Cancelable):
    __slots__ = ("checks",)

    def check(self) -> None:
        self.checks = getattr(self, "checks", 0) + 1
        super().check()


async def stays_calm(operation: CountsChecks) -> None:
    """There is no event for a thread that does nothing: give one that spins the time to show it."""
    before = operation.checks
    for _ in range(50):
        await anyio.sleep(0.001)
    assert operation.checks - before < 10


async def test_a_shielded_producer_waits_on_and_does_not_spin(gate: Gate) -> None:
    operations: list[CountsChecks] = []

    def produce() -> None:
        with CountsChecks(timeout=60, register=False, raise_on_cancel=False) as operation:
            operations.append(operation)
            with operation.shield():
                bridge.call_soon_threadsafe(int)

    async with AnyioBridge(buffer_size=1) as bridge:
        fill(bridge, gate, 1)
        producer = Running(produce)
        await producers_wait(bridge, 1)
        operations[0].cancel_sync()
        await stays_calm(operations[0])
        assert producer.is_alive
        gate.open()
        await becomes_true_soon(lambda: not producer.is_alive)
        producer.result()
    assert bridge.statistics.completed == 2


async def test_a_producer_inside_its_parents_shield_does_not_spin_after_the_parents_deadline(gate: Gate) -> None:
    operations: list[CountsChecks] = []

    def produce() -> None:
        with Cancelable(timeout=0.01, register=False, raise_on_cancel=False) as parent, parent.shield():
            with CountsChecks(register=False) as operation:
                parent.wait(10)
                operations.append(operation)
                bridge.call_soon_threadsafe(int)

    async with AnyioBridge(buffer_size=1) as bridge:
        fill(bridge, gate, 1)
        producer = Running(produce)
        await producers_wait(bridge, 1)
        await stays_calm(operations[0])
        gate.open()
        await becomes_true_soon(lambda: not producer.is_alive)
        producer.result()
    assert bridge.statistics.completed == 2


async def test_a_producer_that_outlives_its_operation_does_not_spin_after_its_deadline(gate: Gate) -> None:
    async with AnyioBridge(buffer_size=1) as bridge:
        fill(bridge, gate, 1)
        with CountsChecks(timeout=1, register=False) as operation:  # which is time enough for the producer to come to wait
            context = contextvars.copy_context()
            producer = Running(context.run, bridge.call_soon_threadsafe, int)
            with anyio.move_on_after(5):
                await becomes_true_soon(lambda: getattr(operation, "checks", 0))
        deadline = operation._deadline
        assert deadline is not None
        await becomes_true_soon(lambda: time.monotonic() > deadline)
        await stays_calm(operation)
        gate.open()
        await becomes_true_soon(lambda: not producer.is_alive)
        producer.result()


# --- the end of the block


async def test_a_normal_exit_waits_for_every_accepted_call(gate: Gate) -> None:
    ran: list[int] = []
    async with anyio.create_task_group() as tasks:
        async with AnyioBridge() as bridge:
            fill(bridge, gate, 3)
            for number in range(100):
                bridge.call_soon_threadsafe(ran.append, number)

            async def open_during_the_exit() -> None:
                await becomes_true_soon(lambda: not bridge._open)
                assert bridge.statistics.unfinished >= 3
                gate.open()

            tasks.start_soon(open_during_the_exit)
        assert (ran, gate.ended) == (list(range(100)), 3)
        assert bridge.statistics == BridgeStatistics(accepted=103, completed=103, failed=0, cancelled=0, unfinished=0)


async def test_what_a_thread_sent_before_the_exit_is_never_lost() -> None:
    """The exit begins while calls are on their way."""
    for _ in range(200):
        ran: list[int] = []
        accepted = 0

        def produce(ran: list[int] = ran) -> int:
            accepted = 0
            try:
                for number in range(50):
                    bridge.call_soon_threadsafe(ran.append, number)
                    accepted += 1
            except BridgeClosed:
                pass
            return accepted

        async with AnyioBridge(buffer_size=10) as bridge:
            producer = Running(produce)
            await anyio.lowlevel.checkpoint()
        accepted = await anyio.to_thread.run_sync(producer.result)
        assert ran == list(range(accepted))
        assert bridge.statistics.completed == accepted


class Leaving:
    """Three ways out of a block that are no normal exit."""

    def __init__(self, how: str) -> None:
        self.how = how
        self.operation = Cancelable(register=False)
        self.scope = anyio.CancelScope()

    async def leave(self) -> None:
        if self.how == "error":
            raise ZeroDivisionError("the body's own")
        if self.how == "operation":
            self.operation.cancel_sync()
        else:
            self.scope.cancel()
        await anyio.sleep_forever()


@pytest.mark.parametrize("how", ["error", "operation", "scope"])
async def test_leaving_early_runs_the_plain_calls_and_cancels_the_coroutines(
    gate: Gate, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    leaving = Leaving(how)
    ran: list[str] = []
    bridge = AnyioBridge()
    expected = {"error": ZeroDivisionError, "operation": OperationCancelled, "scope": None}[how]

    async def body() -> None:
        with leaving.scope:
            async with leaving.operation:
                async with bridge:
                    fill(bridge, gate, 2)
                    caller = Running(bridge.call, gate.wait)
                    callers.append(caller)
                    await becomes_true_soon(lambda: gate.waiting == 3)
                    if how == "error":  # accepted, and not begun
                        bridge.call_soon_threadsafe(gate.wait)
                        bridge.call_soon_threadsafe(lambda: gate.wait())
                        bridge.call_soon_threadsafe(ran.append, "plain")
                        bridge.call_soon_threadsafe(ran.append, "another")
                    await leaving.leave()

    callers: list[Running[str]] = []
    if expected is None:
        await body()
        assert leaving.scope.cancelled_caught
    else:
        with pytest.raises(expected):  # as itself, not in a group
            await body()
    with pytest.raises(BridgeClosed, match="before the call could finish"):
        callers[0].result()
    coroutines, plain = (5, 2) if how == "error" else (3, 0)
    assert len(ran) == plain
    assert (gate.cancelled, gate.ended) == (gate.waiting, 0)
    assert bridge.statistics == BridgeStatistics(
        accepted=coroutines + plain, completed=plain, failed=0, cancelled=coroutines, unfinished=0
    )
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * coroutines
    assert "was cancelled" in caplog.text


async def test_plain_calls_that_arrived_during_the_cancel_still_run(gate: Gate) -> None:
    """The bridge's own tasks are gone by then."""
    ran: list[str] = []
    bridge = AnyioBridge()
    with anyio.CancelScope() as scope:
        async with bridge:
            scope.cancel()
            try:
                await anyio.sleep_forever()
            finally:
                bridge.call_soon_threadsafe(ran.append, "late")
                bridge.call_soon_threadsafe(gate.wait)
    assert ran == ["late"]
    assert (bridge.statistics.completed, bridge.statistics.cancelled) == (1, 1)


async def test_a_cancel_during_the_exit_ends_the_waiting(gate: Gate) -> None:
    bridge = AnyioBridge()
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:

            async def cancel_during_the_exit() -> None:
                await becomes_true_soon(lambda: bridge._entered and not bridge._open)
                scope.cancel()

            async with bridge:
                fill(bridge, gate, 2)
                await becomes_true_soon(lambda: gate.waiting == 2)
                tasks.start_soon(cancel_during_the_exit)
    assert scope.cancelled_caught
    assert (gate.cancelled, bridge.statistics.cancelled, bridge.statistics.unfinished) == (2, 2, 0)


async def test_after_the_close_calls_from_inside_calls_are_refused(caplog: pytest.LogCaptureFixture) -> None:
    refused: list[BaseException] = []

    async def ask_again() -> None:
        await becomes_true_soon(lambda: not bridge._open)
        bridge.call_soon_threadsafe(int)

    async with AnyioBridge(on_error=refused.append) as bridge:
        bridge.call_soon_threadsafe(ask_again)
    assert [type(error) for error in refused] == [BridgeClosed]
    assert "a call through the bridge raised" in caplog.text


# --- errors


async def fail_later() -> None:
    await anyio.lowlevel.checkpoint()
    raise KeyError("later")


def fail_now() -> None:
    raise ZeroDivisionError("now")


async def test_errors_are_logged_counted_and_given_to_on_error(caplog: pytest.LogCaptureFixture) -> None:
    """They end nothing: not the bridge, not its body, not the other calls."""
    errors: list[BaseException] = []
    ran: list[int] = []
    async with AnyioBridge(on_error=errors.append) as bridge:
        for number, func in enumerate([fail_now, fail_later, fail_now]):
            bridge.call_soon_threadsafe(func)
            bridge.call_soon_threadsafe(ran.append, number)
        await becomes_true_soon(lambda: bridge.statistics.unfinished == 0)
    assert ran == [0, 1, 2]
    assert sorted(str(error) for error in errors) == ["'later'", "now", "now"]
    assert bridge.statistics == BridgeStatistics(accepted=6, completed=3, failed=3, cancelled=0, unfinished=0)
    logged = [record.exc_info[1] for record in caplog.records if record.exc_info]
    assert set(map(id, logged)) == set(map(id, errors))
    assert {record.levelno for record in caplog.records} == {logging.ERROR}


async def test_an_on_error_that_raises_is_logged_and_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def on_error(error: BaseException) -> None:
        raise RuntimeError("on_error itself")

    async with AnyioBridge(on_error=on_error) as bridge:
        bridge.call_soon_threadsafe(fail_now)
        bridge.call_soon_threadsafe(fail_later)
        assert await anyio.to_thread.run_sync(bridge.call, int) == 0
    assert bridge.statistics.failed == 2
    assert caplog.text.count("the bridge's on_error raised") == 2


async def test_without_on_error_the_log_tells(caplog: pytest.LogCaptureFixture) -> None:
    async with AnyioBridge() as bridge:
        bridge.call_soon_threadsafe(fail_now)
    assert "ZeroDivisionError" in caplog.text


class Interrupt(BaseException):
    """What no handler of errors stops."""


async def test_an_interrupt_at_the_exit_does_not_cost_the_other_calls() -> None:
    ran: list[int] = []

    def interrupt() -> None:
        raise Interrupt

    bridge = AnyioBridge()
    with pytest.raises(Interrupt):
        async with bridge:
            for number in range(3):
                bridge.call_soon_threadsafe(ran.append, number)
                bridge.call_soon_threadsafe(interrupt)
            raise ZeroDivisionError
    assert ran == [0, 1, 2]
    assert bridge.statistics == BridgeStatistics(accepted=6, completed=3, failed=3, cancelled=0, unfinished=0)


@pytest.mark.parametrize("func", ["plain", "async"])
async def test_an_interrupt_passes_and_its_caller_does_not_hang(func: str) -> None:
    def plain() -> None:
        raise Interrupt

    async def later() -> None:
        raise Interrupt

    caller: list[Running[None]] = []
    with pytest.raises(BaseExceptionGroup) as caught:
        async with AnyioBridge() as bridge:
            caller.append(Running(bridge.call, plain if func == "plain" else later))
            await anyio.sleep_forever()
    assert caught.group_contains(Interrupt)
    with pytest.raises((Interrupt, BridgeClosed)):
        caller[0].result()
    check_sum(bridge.statistics)
    assert bridge.statistics.unfinished == 0


# --- call()


async def test_call_waits_for_the_result() -> None:
    async def double(number: int) -> int:
        await anyio.lowlevel.checkpoint()
        return 2 * number

    async with AnyioBridge() as bridge:
        call = partial(anyio.to_thread.run_sync, bridge.call)
        assert await call(pow, 2, 5) == 32
        assert await call(double, 21) == 42
        assert await call(lambda: double(4)) == 8


@pytest.mark.parametrize(("func", "error"), [(fail_now, ZeroDivisionError), (fail_later, KeyError)])
async def test_call_raises_what_the_function_raised(
    caplog: pytest.LogCaptureFixture, func: Callable[[], object], error: type[Exception]
) -> None:
    """It is counted and given to on_error like any other; whoever waits for it needs no log."""
    errors: list[BaseException] = []
    async with AnyioBridge(on_error=errors.append) as bridge:
        with pytest.raises(error) as caught:
            await anyio.to_thread.run_sync(bridge.call, func)
        await becomes_true_soon(lambda: bridge.statistics.failed == 1)
    assert [id(error) for error in errors] == [id(caught.value)]
    assert not caplog.records


async def test_call_on_the_loops_own_thread_is_refused() -> None:
    async with AnyioBridge() as bridge:
        with pytest.raises(RuntimeError, match="await the function"):
            bridge.call(int)
    assert bridge.statistics.accepted == 0


async def test_call_ends_with_its_own_operations_cancel_and_the_call_goes_on(gate: Gate) -> None:
    operations: list[Cancelable] = []

    def ask() -> str:
        with Cancelable(register=False) as operation:
            operations.append(operation)
            return bridge.call(gate.wait)

    async with AnyioBridge() as bridge:
        asking = Running(ask)
        await becomes_true_soon(lambda: gate.waiting)
        operations[0].cancel_sync()
        await becomes_true_soon(lambda: not asking.is_alive)
        with pytest.raises(OperationCancelled):
            asking.result()
        assert bridge.statistics.unfinished == 1
        gate.open()
    assert (gate.ended, bridge.statistics.completed) == (1, 1)


async def test_call_waits_through_a_normal_exit(gate: Gate) -> None:
    async with anyio.create_task_group() as tasks:
        async with AnyioBridge() as bridge:
            asking = Running(bridge.call, gate.wait)
            await becomes_true_soon(lambda: gate.waiting)

            async def open_during_the_exit() -> None:
                await becomes_true_soon(lambda: not bridge._open)
                gate.open()

            tasks.start_soon(open_during_the_exit)
    assert asking.result() == "passed"


async def test_two_loops_may_call_each_other(anyio_backend: tuple[str, dict[str, object]]) -> None:
    """From another loop's thread a bridge is used without waiting."""
    backend, options = anyio_backend
    arrived: list[int] = []

    async def elsewhere() -> int:
        for number in range(100):
            bridge.call_soon_threadsafe(arrived.append, number, block=False)
            await anyio.lowlevel.checkpoint()
        return threading.get_ident()

    async with AnyioBridge() as bridge:
        other = await anyio.to_thread.run_sync(partial(anyio.run, elsewhere, backend=backend, backend_options=options))
    assert other != threading.get_ident()
    assert arrived == list(range(100))


# --- run_in_thread


async def test_run_in_thread_gives_results_errors_and_context() -> None:
    flavour.set("vanilla")

    def work(*args: object, **kwargs: object) -> tuple[object, ...]:
        return args, kwargs, flavour.get(), current_operation()

    async with Cancelable(register=False) as operation, AnyioBridge() as bridge:
        assert await bridge.run_in_thread(work, 1, func=2, self=3) == ((1,), {"func": 2, "self": 3}, "vanilla", operation)
        with pytest.raises(ZeroDivisionError):
            await bridge.run_in_thread(fail_now)
        assert await bridge.run_in_thread(threading.get_ident) != threading.get_ident()


async def test_the_thread_may_start_a_loop_of_its_own() -> None:
    async with AnyioBridge() as bridge:
        assert await bridge.run_in_thread(start_a_loop) == "it works"


async def test_run_in_thread_uses_max_workers_threads_at_once() -> None:
    release, lock = threading.Event(), threading.Lock()
    running, most = 0, 0

    def work() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        happens(release)
        with lock:
            running -= 1

    async with AnyioBridge(max_workers=3) as bridge, anyio.create_task_group() as tasks:
        for _ in range(9):
            tasks.start_soon(bridge.run_in_thread, work)
        await becomes_true_soon(lambda: running == 3)
        await anyio.wait_all_tasks_blocked()
        release.set()
    assert (most, running) == (3, 0)


@pytest.mark.parametrize("inside", [True, False], ids=["in an operation", "outside of any"])
async def test_a_cancelled_run_in_thread_ends_at_once_and_its_thread_is_counted(inside: bool) -> None:
    registry = ThreadSafeRegistry()
    before = registry.get_statistics().abandoned_threads
    started, release = threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        happens(release)

    async def run() -> None:
        if inside:
            async with Cancelable("bridged"):
                await bridge.run_in_thread(work)
        else:
            await bridge.run_in_thread(work)

    async with AnyioBridge(max_workers=1) as bridge:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            await happens_soon(started)
            tasks.cancel_scope.cancel()
        assert registry.get_statistics().abandoned_threads == before + 1
        release.set()
        await becomes_true_soon(lambda: registry.get_statistics().abandoned_threads == before)
        assert await bridge.run_in_thread(int) == 0  # the worker is free again


# --- statistics


async def test_statistics_add_up_at_every_moment() -> None:
    async def maybe(number: int) -> None:
        await anyio.sleep(0)
        if number % 5 == 0:
            raise ValueError(number)

    def produce() -> None:
        for number in range(300):
            bridge.call_soon_threadsafe(maybe, number)
            bridge.call_soon_threadsafe(int)

    def watch() -> int:
        snapshots = 0
        while any(producer.is_alive for producer in producers):
            statistics = bridge.statistics
            check_sum(statistics)
            assert statistics.unfinished <= 20
            snapshots += 1
        return snapshots

    logging.getLogger("cancelable_core").setLevel(logging.CRITICAL)
    try:
        async with AnyioBridge(buffer_size=20) as bridge:
            producers = [Running(produce) for _ in range(3)]
            assert await anyio.to_thread.run_sync(watch) > 0
    finally:
        logging.getLogger("cancelable_core").setLevel(logging.NOTSET)
    for producer in producers:
        producer.result()
    assert bridge.statistics == BridgeStatistics(accepted=1_800, completed=1_620, failed=180, cancelled=0, unfinished=0)


# --- cancelations that are nobody's business here


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_somebody_elses_cancelation_is_a_failed_call_and_the_bridge_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    errors: list[BaseException] = []
    done: list[int] = []

    async def awaits_a_cancelled_future() -> None:
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    async with AnyioBridge(on_error=errors.append) as bridge:
        bridge.call_soon_threadsafe(awaits_a_cancelled_future)
        await becomes_true_soon(lambda: bridge.statistics.failed == 1)
        bridge.call_soon_threadsafe(done.append, 1)
        caller = Running(bridge.call, awaits_a_cancelled_future)
        await becomes_true_soon(lambda: not caller.is_alive)
        with pytest.raises(asyncio.CancelledError):
            caller.result()
        await becomes_true_soon(lambda: bridge.statistics.completed == 1)
    assert done == [1]
    assert [type(error) for error in errors] == [asyncio.CancelledError] * 2
    assert bridge.statistics == BridgeStatistics(accepted=3, completed=1, failed=2, cancelled=0, unfinished=0)
    assert "a call through the bridge raised" in caplog.text


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_cancel_of_the_task_around_the_bridge_still_ends_it(gate: Gate) -> None:
    entered = anyio.Event()
    bridge = AnyioBridge()

    async def serve() -> None:
        async with bridge:
            bridge.call_soon_threadsafe(gate.wait)
            entered.set()
            await anyio.sleep_forever()

    task = asyncio.create_task(serve())
    await entered.wait()
    await becomes_true_soon(lambda: gate.waiting == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert bridge.statistics == BridgeStatistics(accepted=1, completed=0, failed=0, cancelled=1, unfinished=0)


async def test_as_many_producers_come_in_as_calls_finished_at_once(gate: Gate) -> None:
    """Plain calls are counted by the turn: the producers that wait get all of the room, not a place each turn."""
    let_in: list[int] = []
    async with AnyioBridge(buffer_size=3) as bridge:
        producers: list[Running[None]] = []
        for _ in range(3):
            bridge.call_soon_threadsafe(int)
        for _ in range(3):
            producers.append(Running(bridge.call_soon_threadsafe, int))
        becomes_true(lambda: len(bridge._producers) == 3)  # the loop stands still meanwhile
        count = bridge._count

        def counting(**counts: int) -> None:
            before = len(bridge._producers)
            count(**counts)
            let_in.append(before - len(bridge._producers))

        bridge._count = counting  # type: ignore[method-assign]
        await becomes_true_soon(lambda: not any(producer.is_alive for producer in producers))
    assert max(let_in) == 3
    assert bridge.statistics.completed == 6
