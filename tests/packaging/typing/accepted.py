"""Read by type checkers only: what users write has the types they expect, in strict mode, without an ignore."""

# pyright: strict

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, assert_type

from cancelable_core import (
    AnyioBridge,
    Cancelable,
    CancelationReason,
    CancelationToken,
    CancelResult,
    ContextBridge,
    Job,
    JobRunner,
    OperationCancelled,
    OperationContext,
    OperationRegistry,
    OperationStatistics,
    OperationStatus,
    OperationStore,
    ThreadSafeRegistry,
    cancelable,
    current_operation,
    escape_pattern,
)


@cancelable
def bare(path: str, *, pages: int = 1) -> bytes:
    return path.encode() * pages


@cancelable(timeout=5, name="report")
async def configured(year: int, title: str = "") -> str:
    return f"{title} {year}"


class Exporter:
    @cancelable
    async def export(self, table: str) -> int:
        return len(table)


async def numbers() -> AsyncIterator[int]:
    yield 1


def total(first: int, second: int = 0, *, scale: float = 1.0) -> float:
    return (first + second) * scale


async def fetch(url: str) -> bytes:
    return url.encode()


def decorated_functions_keep_their_signatures() -> None:
    assert_type(bare("x", pages=2), bytes)
    positional: Callable[[str], bytes] = bare
    asynchronous: Callable[[int, str], Coroutine[Any, Any, str]] = configured
    method: Callable[[Exporter, str], Coroutine[Any, Any, int]] = Exporter.export
    del positional, asynchronous, method


async def decorated_coroutines_give_their_results() -> None:
    assert_type(await configured(2026, title="x"), str)
    assert_type(await Exporter().export("t"), int)


async def an_operation_is_what_the_block_gets() -> None:
    async with Cancelable("work", timeout=3.5) as operation:
        assert_type(operation, Cancelable)
        assert_type(operation.id, str)
        assert_type(operation.name, str | None)
        assert_type(operation.status, OperationStatus)
        assert_type(operation.context, OperationContext)
        assert_type(operation.token, CancelationToken)
        assert_type(operation.cancel_sync(CancelationReason.SHUTDOWN, "deploy"), bool)
        assert_type(await operation.cancel("enough"), bool)
        assert_type(operation.remaining_seconds, float | None)
        assert_type(operation.wait(1.0), bool)
        assert_type(await operation.run_in_thread(total, 1, second=2, scale=0.5), float)
        async for number in operation.stream(numbers()):
            assert_type(number, int)
        async with operation.stream(numbers()) as items:
            async for number in items:
                assert_type(number, int)
        for letter in operation.iterate("abc"):
            assert_type(letter, str)
    with Cancelable.with_timeout(2.0, name="work") as synchronous:
        assert_type(synchronous, Cancelable)
        assert_type(synchronous.combine(Cancelable()), Cancelable)
    assert_type(current_operation(), Cancelable | None)


async def a_cancelled_token_says_why(token: CancelationToken) -> None:
    assert_type(token.cancel_sync(message="enough"), bool)
    assert_type(await token.cancel(), bool)
    assert_type(token.is_cancelled, bool)
    assert_type(token.reason, CancelationReason | None)
    assert_type(token.message, str | None)
    assert_type(token.wait(0.1), bool)
    with token.on_cancel(lambda cancelled: assert_type(cancelled, CancelationToken)) as registration:
        registration.remove()
    try:
        token.check()
    except OperationCancelled as error:
        assert_type(error.operation_id, str | None)
        assert_type(error.reason, CancelationReason | None)


async def both_faces_answer_alike(registry: ThreadSafeRegistry, face: OperationRegistry) -> None:
    assert_type(registry.cancel_operation("id", "enough", wait_seconds=1), CancelResult)
    assert_type(await face.cancel_operation("id", CancelationReason.MANUAL, "enough"), CancelResult)
    assert_type(registry.cancel_all(f"user_{escape_pattern('42')}_*"), int)
    assert_type(await face.cancel_all(), int)
    assert_type(registry.get_operation("id"), OperationContext | None)
    assert_type(await face.get_operation("id"), OperationContext | None)
    assert_type(registry.list_operations(limit=5), list[OperationContext])
    assert_type(await face.list_operations(), list[OperationContext])
    assert_type(registry.get_statistics(), OperationStatistics)
    assert_type(await face.get_statistics(), OperationStatistics)


async def a_job_gives_what_its_function_returns(store: OperationStore) -> None:
    runner = JobRunner(store, workers=2)
    synchronous = runner.submit(total, 1, 2, scale=0.5, name="sum")
    assert_type(synchronous, Job[float])
    assert_type(synchronous.id, str)
    assert_type(synchronous.status, OperationStatus)
    assert_type(synchronous.result(1.0), float)
    asynchronous = runner.submit(fetch, "url", timeout=5)
    assert_type(asynchronous, Job[bytes])
    assert_type(asynchronous.result(0), bytes)
    assert_type(await asynchronous.wait(), OperationContext)


async def bridges_return_what_they_called() -> None:
    assert_type(await ContextBridge().run_in_thread_with_context(total, 1, second=2), float)
    async with AnyioBridge(buffer_size=10) as bridge:
        assert_type(bridge, AnyioBridge)
        assert_type(await bridge.run_in_thread(total, 1, 2), float)
