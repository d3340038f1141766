"""What was seen to go wrong in libraries for the same purpose, one test for each: here it goes right.

The numbers are those of a list of defects; each name says what holds instead.
"""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from cancelable_core import (
    AnyioBridge,
    Cancelable,
    CancelationReason,
    CancelationToken,
    CancelOutcome,
    DuplicateOperation,
    OperationCancelled,
    OperationStatus,
    OperationTimedOut,
    ThreadSafeRegistry,
    cancelable,
    current_operation,
)

from .helpers import Running, becomes_true_soon, happens, happens_soon, in_thread

ROOT = Path(__file__).parents[2]

NOTHING_STARTED = """
import threading, anyio
from cancelable_core import Cancelable, CancelationToken, OperationCancelled, ThreadSafeRegistry

async def main():
    for cancel in (
        lambda operation, token: operation.cancel_sync(),
        lambda operation, token: token.cancel_sync(),
        lambda operation, token: ThreadSafeRegistry().cancel_operation(operation.id),
    ):
        token, entered = CancelationToken(), threading.Event()
        operation = Cancelable(token=token)
        canceller = threading.Thread(target=lambda: entered.wait(20) and cancel(operation, token))
        canceller.start()
        try:
            with anyio.fail_after(20):
                async with operation:
                    entered.set()
                    await anyio.sleep_forever()
        except OperationCancelled:
            print(operation.status)
        canceller.join()
        with anyio.fail_after(20):
            await operation.token.wait_for_cancel()

anyio.run(main, backend={backend!r})
print(*sorted(thread.name for thread in threading.enumerate() if "cancelable" in thread.name))
"""


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_d02_cancel_works_with_nothing_started(backend: str) -> None:
    """In a fresh process, from a thread, an idle loop wakes; nothing had to be started, nothing was."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", NOTHING_STARTED.format(backend=backend)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("cancelled\ncancelled\ncancelled\n\n", "")


async def test_d02_wait_for_cancel_wakes_and_an_unknown_id_is_told_apart(registry: ThreadSafeRegistry) -> None:
    token = CancelationToken()
    canceller = Running(lambda: token.cancel_sync())
    with anyio.fail_after(10):
        await token.wait_for_cancel()
    assert canceller.result() is True
    assert token.cancel_sync() is False
    assert registry.cancel_operation("nobody").outcome is CancelOutcome.UNKNOWN


def test_d03_plain_text_is_a_message_wherever_a_cancel_is_asked_for(registry: ThreadSafeRegistry) -> None:
    token = CancelationToken()
    assert token.cancel_sync("User clicked cancel")
    assert (token.reason, token.message) == (CancelationReason.MANUAL, "User clicked cancel")
    with pytest.raises(OperationCancelled, match="User requested cancel"):
        with Cancelable(registry=registry) as operation:
            assert registry.cancel_operation(operation.id, "User requested cancel")
            operation.check()


def test_d03_a_cancel_that_is_refused_leaves_the_token_as_it_was() -> None:
    token = CancelationToken()
    with pytest.raises(TypeError):
        token.cancel_sync(5)  # type: ignore[arg-type]
    assert not token.is_cancelled
    assert token.cancel_sync()


async def test_d06_a_timeout_leaves_as_an_error_of_its_own_type() -> None:
    for expected in (OperationTimedOut, OperationCancelled, TimeoutError):
        with pytest.raises(expected):
            async with Cancelable(timeout=0.01, register=False):
                await anyio.sleep_forever()


@pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": False})], ids=["asyncio"])
async def test_d06_a_task_group_does_not_swallow_a_timeout() -> None:
    done: list[int] = []

    async def work() -> None:
        async with Cancelable(timeout=0.01, register=False):
            await asyncio.sleep(60)
        done.append(1)

    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(work())
    assert caught.group_contains(OperationTimedOut, depth=1)
    assert done == []


@pytest.mark.parametrize("by", ["scope", "task"])
async def test_d07_a_cancel_from_outside_leaves_nothing_in_the_registry(
    registry: ThreadSafeRegistry, anyio_backend: tuple[str, dict[str, object]], by: str
) -> None:
    if by == "task" and anyio_backend[0] == "trio":
        by = "scope"  # tasks have no cancel of their own there
    entered = anyio.Event()
    seen: list[object] = []

    async def work() -> None:
        try:
            async with Cancelable("outer", registry=registry), Cancelable("inner", registry=registry):
                entered.set()
                await anyio.sleep_forever()
        finally:
            seen.append(current_operation())

    if by == "task":
        task = asyncio.ensure_future(work())
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    else:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(work)
            await entered.wait()
            tasks.cancel_scope.cancel()
    assert registry.list_operations() == []
    assert [context.status for context in registry.get_history()] == [OperationStatus.CANCELLED] * 2
    assert seen == [None]
    assert current_operation() is None


@pytest.mark.parametrize("other", ["asyncio", "trio"])
async def test_d08_a_cancel_from_another_loop_wakes_the_task_at_once(other: str) -> None:
    """Nothing else would wake it: the victim's loop is idle."""
    entered = threading.Event()
    operation = Cancelable(register=False)

    async def cancel() -> bool:
        return await operation.cancel()

    canceller = Running(lambda: entered.wait(10) and anyio.run(cancel, backend=other))
    with anyio.fail_after(10):
        with pytest.raises(OperationCancelled):
            async with operation:
                entered.set()
                await anyio.sleep_forever()
    assert canceller.result() is True


async def test_d09_a_thousand_operations_leave_nothing_on_a_shared_token_or_parent() -> None:
    token = CancelationToken()
    async with Cancelable(register=False) as parent:
        before = len(parent.token._watchers)
        for _ in range(1_000):
            async with Cancelable(token=token, register=False) as operation:
                operation.on_cancel(print)
            any_of = CancelationToken.any_of(token, parent.token)
            del any_of
        gc.collect()
        assert len(parent.token._watchers) == before
    assert len(token._watchers) == 0


@pytest.mark.parametrize("how", ["async with", "with", "decorator"])
async def test_d13_what_was_cancelled_before_it_started_never_runs(registry: ThreadSafeRegistry, how: str) -> None:
    ran: list[int] = []
    token = CancelationToken()
    token.cancel_sync("never mind")
    with pytest.raises(OperationCancelled):
        if how == "async with":
            async with Cancelable(token=token, registry=registry):
                ran.append(1)
        elif how == "with":
            with Cancelable(token=token, registry=registry):
                ran.append(1)
        else:
            with Cancelable(registry=registry) as parent:
                parent.cancel_sync()
                cancelable(ran.append)(1)
    assert ran == []
    assert registry.get_statistics().completed_operations == 0


async def test_d13_a_cancel_shows_at_once_and_is_noticed_at_the_next_checkpoint() -> None:
    reached: list[int] = []
    async with Cancelable(register=False, raise_on_cancel=False) as operation:
        await operation.cancel()
        assert operation.token.is_cancelled
        assert operation.status is OperationStatus.CANCELLING
        reached.append(1)
        await operation.checkpoint()
        reached.append(2)
    assert reached == [1]
    assert operation.status is OperationStatus.CANCELLED


async def test_d14_a_thread_sees_the_timeout_and_the_await_ends(registry: ThreadSafeRegistry) -> None:
    """On every backend, with an error of ours, and the thread stops at its next check."""
    steps: list[int] = []
    noticed = threading.Event()

    def work() -> None:
        operation = current_operation()
        assert operation is not None
        try:
            for step in operation.iterate(range(100_000)):
                steps.append(step)
                operation.sleep(0.005)
        except OperationTimedOut:
            noticed.set()
            raise

    for timeout in (0.03, 0.3, 3.0):  # on a busy machine the time may be over before the thread begins
        with pytest.raises(OperationTimedOut):
            async with Cancelable(timeout=timeout, registry=registry) as operation:
                await operation.run_in_thread(work)
        assert operation.token.reason is CancelationReason.TIMEOUT
        if steps:
            break
    await happens_soon(noticed)
    await becomes_true_soon(lambda: registry.get_statistics().abandoned_threads == 0)


@pytest.mark.parametrize("reason", CancelationReason)
def test_d15_check_tells_the_reason_that_was_given(reason: CancelationReason) -> None:
    token = CancelationToken()
    token.cancel_sync(reason)
    with pytest.raises(OperationCancelled) as caught:
        token.check()
    assert caught.value.reason is reason
    assert isinstance(caught.value, OperationTimedOut) is (reason is CancelationReason.TIMEOUT)


async def test_d16_a_slow_callback_delays_no_other_cancel() -> None:
    slow, fast = CancelationToken(), Cancelable(register=False)
    stuck, release, entered = threading.Event(), threading.Event(), threading.Event()

    def block(token: CancelationToken) -> None:
        stuck.set()
        happens(release)

    slow.on_cancel(block)
    blocked = Running(slow.cancel_sync)
    other = Running(lambda: (happens(stuck), happens(entered), fast.cancel_sync()))
    with anyio.fail_after(10):
        with pytest.raises(OperationCancelled):
            async with fast:
                entered.set()
                await anyio.sleep_forever()
    other.result()
    assert blocked.is_alive  # it still sits there
    release.set()
    assert await anyio.to_thread.run_sync(blocked.result) is True


async def test_d16_a_full_buffer_drops_no_call() -> None:
    ran: list[int] = []

    def produce() -> None:
        for number in range(100):
            bridge.call_soon_threadsafe(ran.append, number)

    async with AnyioBridge(buffer_size=10) as bridge:
        producer = Running(produce)
        await becomes_true_soon(lambda: not producer.is_alive)
    producer.result()
    assert ran == list(range(100))


def test_d17_a_second_operation_with_a_live_id_is_refused(registry: ThreadSafeRegistry) -> None:
    with Cancelable("first", operation_id="job-1", registry=registry):
        with pytest.raises(DuplicateOperation):
            with Cancelable("second", operation_id="job-1", registry=registry):
                pytest.fail("it ran")
        assert [context.name for context in registry.list_operations()] == ["first"]
        assert registry.cancel_operation("job-1")


async def test_d18_a_stalled_source_is_interrupted_and_the_operation_shows(registry: ThreadSafeRegistry) -> None:
    stalled, closed = threading.Event(), threading.Event()

    async def source() -> AsyncIterator[int]:
        try:
            yield 1
            stalled.set()
            await anyio.sleep_forever()
        finally:
            closed.set()

    def cancel() -> OperationStatus:
        happens(stalled)
        (context,) = registry.list_operations()
        assert registry.cancel_operation(context.id)
        return context.status

    canceller = Running(cancel)
    items: list[int] = []
    with anyio.fail_after(10):
        with pytest.raises(OperationCancelled):
            async with Cancelable("stream", registry=registry) as operation:
                async with operation.stream(source()) as stream:
                    async for item in stream:
                        items.append(item)
    assert canceller.result() is OperationStatus.RUNNING
    assert (items, closed.is_set()) == ([1], True)
    assert operation.status is OperationStatus.CANCELLED


Combine = Callable[[Cancelable], Cancelable]


@pytest.mark.parametrize(
    "combine",
    [lambda timed: Cancelable(register=False).combine(timed), lambda timed: timed.combine(CancelationToken())],
    ids=["as a part", "as the first"],
)
async def test_d21_a_deadline_inside_a_combination_fires(combine: Combine) -> None:
    timed = Cancelable(timeout=0.02, register=False)
    with anyio.fail_after(10):
        with pytest.raises(OperationTimedOut):
            async with combine(timed):
                await anyio.sleep_forever()


async def test_d21_composites_of_timed_operations_tokens_fire_too() -> None:
    timed = Cancelable(timeout=0.02, register=False, raise_on_cancel=False)
    any_of = CancelationToken.any_of(CancelationToken(), timed.token)
    all_of = CancelationToken.all_of(timed.token, any_of)
    with anyio.fail_after(10):
        async with timed:
            await anyio.sleep_forever()
        await all_of.wait_for_cancel()
    assert (any_of.reason, all_of.reason) == (CancelationReason.TIMEOUT, CancelationReason.TIMEOUT)


def test_d22_a_callback_registered_by_a_callback_runs() -> None:
    token, ran = CancelationToken(), []

    def register_another(token: CancelationToken) -> None:
        ran.append("first")
        token.on_cancel(lambda token: token.on_cancel(lambda token: ran.append("third")))
        ran.append("second")

    token.on_cancel(register_another)
    token.on_cancel(lambda token: ran.append("last"))
    assert in_thread(token.cancel_sync)
    assert ran == ["first", "third", "second", "last"]
