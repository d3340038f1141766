"""``stream``: a stalled source is interrupted, and closed on every way out."""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncIterator

import anyio
import pytest

from cancelable_core import (
    Cancelable,
    CancelationReason,
    OperationCancelled,
    OperationStatus,
    OperationTimedOut,
    ThreadSafeRegistry,
    current_operation,
    streams,
)
from cancelable_core.streams import OperationStream

from .helpers import Running


class Source:
    """Counts up, then ends, raises or stalls; knows whether it was closed."""

    def __init__(self, items: int = 3, then: str = "end") -> None:
        self.items = items
        self.then = then
        self.given = 0
        self.closed = 0
        self.stalling = threading.Event()

    def __aiter__(self) -> Source:
        return self

    async def __anext__(self) -> int:
        await anyio.sleep(0)
        if self.given < self.items:
            self.given += 1
            return self.given
        if self.then == "raise":
            raise ZeroDivisionError
        if self.then == "stall":
            self.stalling.set()
            await anyio.sleep_forever()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        await anyio.sleep(0)
        self.closed += 1


async def take(stream: OperationStream[int]) -> list[int]:
    return [item async for item in stream]


async def test_all_items_and_then_the_end() -> None:
    source = Source()
    async with Cancelable(register=False) as operation:
        stream = operation.stream(source)
        assert await take(stream) == [1, 2, 3]
        assert stream.delivered == 3
        assert source.closed == 1
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        assert await take(stream) == []
    assert source.closed == 1


async def test_its_error_passes_and_closes_it() -> None:
    source = Source(then="raise")
    async with Cancelable(register=False) as operation:
        stream = operation.stream(source)
        with pytest.raises(ZeroDivisionError):
            await take(stream)
        assert (stream.delivered, source.closed) == (3, 1)
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


@pytest.mark.parametrize("kind", ["async with", "with"])
async def test_a_cancel_from_a_thread_interrupts_a_stalled_source(registry: ThreadSafeRegistry, kind: str) -> None:
    source, operation = Source(then="stall"), Cancelable("streaming", registry=registry)

    def cancel() -> bool:
        return source.stalling.wait(10) and operation.cancel_sync("enough")

    async def body() -> None:
        stream = operation.stream(source)
        try:
            await take(stream)
        finally:
            assert (stream.delivered, source.closed) == (3, 1)

    canceller = Running(cancel)
    with anyio.fail_after(10):
        with pytest.raises(OperationCancelled, match="enough") as caught:
            if kind == "async with":
                async with operation:
                    await body()
            else:
                with operation:
                    await body()
    assert canceller.result() is True
    assert caught.value.operation_id == operation.id
    assert operation.status is OperationStatus.CANCELLED


async def test_a_deadline_interrupts_a_stalled_source() -> None:
    source = Source(then="stall")
    with anyio.fail_after(10):
        with pytest.raises(OperationTimedOut):
            with Cancelable(timeout=0.02, register=False) as operation:
                await take(operation.stream(source))
    assert source.closed == 1


async def test_an_outer_cancel_passes_and_closes_it(registry: ThreadSafeRegistry) -> None:
    source = Source(then="stall")
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks, Cancelable(registry=registry) as operation:

            async def cancel() -> None:
                while not source.stalling.is_set():
                    await anyio.sleep(0)
                scope.cancel()

            tasks.start_soon(cancel)
            await take(operation.stream(source))
    assert scope.cancelled_caught
    assert source.closed == 1
    assert operation.context.reason is CancelationReason.PARENT


async def test_cancelled_before_the_first_item_fetches_none() -> None:
    source = Source()
    with pytest.raises(OperationCancelled):
        async with Cancelable(register=False) as operation:
            operation.cancel_sync()
            await take(operation.stream(source))
    assert (source.given, source.closed) == (0, 1)


async def test_what_was_fetched_is_delivered() -> None:
    delivered: list[int] = []
    source = Source(10)
    with pytest.raises(OperationCancelled):
        async with Cancelable(register=False) as operation:
            async for item in operation.stream(source):
                delivered.append(item)
                if item == 4:
                    operation.cancel_sync()
    assert (delivered, source.given) == ([1, 2, 3, 4], 4)


async def test_after_a_break_it_is_closed_by_async_with() -> None:
    source = Source()
    async with Cancelable(register=False) as operation:
        async with operation.stream(source) as items:
            async for _ in items:
                break
            assert source.closed == 0
        assert source.closed == 1
        await items.aclose()
        assert source.closed == 1


async def test_a_generators_cleanup_runs_where_it_was_cancelled() -> None:
    cleaned: list[str] = []

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.001)
            cleaned.append("done")

    with anyio.fail_after(10):
        with pytest.raises(OperationCancelled):
            async with Cancelable(register=False) as operation:
                async for _ in operation.stream(numbers()):
                    Running(operation.cancel_sync)
    assert cleaned == ["done"]


async def test_a_generator_sees_no_scope_across_its_yields() -> None:
    """The consumer may move on to other scopes between two items, and leave them in any order."""

    async def numbers() -> AsyncIterator[int]:
        for number in range(3):
            yield number

    async with Cancelable(register=False) as operation:
        stream = operation.stream(numbers())
        with anyio.CancelScope():
            assert await anext(stream) == 0
        with anyio.CancelScope():
            assert await anext(stream) == 1
        assert current_operation() is operation
        await stream.aclose()


async def test_a_source_that_fails_to_close_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Source):
        async def aclose(self) -> None:
            raise ZeroDivisionError

    async with Cancelable(register=False) as operation:
        assert await take(operation.stream(Broken())) == [1, 2, 3]
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


async def test_a_source_that_does_not_close_is_given_up(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stuck(Source):
        async def aclose(self) -> None:
            await anyio.sleep_forever()

    monkeypatch.setattr(streams, "_CLOSE_SECONDS", 0.01)
    with anyio.fail_after(10):
        async with Cancelable(register=False) as operation:
            assert await take(operation.stream(Stuck())) == [1, 2, 3]
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


async def test_a_source_without_aclose_needs_none() -> None:
    class Bare:
        def __aiter__(self) -> AsyncIterator[int]:
            return self  # type: ignore[return-value]

        async def __anext__(self) -> int:
            raise StopAsyncIteration

    async with Cancelable(register=False) as operation:
        assert await take(operation.stream(Bare())) == []


async def test_a_step_that_is_thrown_away_closes_without_a_complaint() -> None:
    """A coroutine that is closed may not await any more."""
    source = Source(then="stall", items=0)
    operation = Cancelable(register=False)
    with operation:
        step = operation.stream(source).__anext__()
        step.send(None)
        step.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("source", [[1, 2], range(3), None, 5, "text"])
def test_plain_iterables_are_for_iterate(source: object) -> None:
    with pytest.raises(TypeError, match="iterate"):
        Cancelable().stream(source)  # type: ignore[arg-type]


async def test_it_works_with_the_operation_of_another_task() -> None:
    """A child task streams with its parent's operation: the scope is the stream's own."""
    source = Source(then="stall")
    errors: list[BaseException] = []

    async def child(operation: Cancelable) -> None:
        try:
            await take(operation.stream(source))
        except OperationCancelled as error:
            errors.append(error)

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            with Cancelable(register=False) as operation:
                tasks.start_soon(child, operation)
                while not source.stalling.is_set():
                    await anyio.sleep(0)
                operation.cancel_sync()
                await anyio.wait_all_tasks_blocked()
    assert len(errors) == 1
    assert source.closed == 1
