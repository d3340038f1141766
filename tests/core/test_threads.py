"""``run_in_thread``: the await ends with the cancel, the thread is counted until it ends."""

from __future__ import annotations

import contextvars
import functools
import logging
import threading
from collections.abc import Callable, Iterator

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest

from cancelable_core import (
    AnyioBridge,
    Cancelable,
    CancelationReason,
    OperationCancelled,
    OperationStatus,
    OperationStore,
    OperationTimedOut,
    ThreadSafeRegistry,
    current_operation,
)
from cancelable_core.threads import ThreadCall

from .helpers import Running, becomes_true_soon, happens, happens_soon, start_a_loop

flavour: contextvars.ContextVar[str] = contextvars.ContextVar("flavour", default="none")


class Blocking:
    """A call that sits there until it is released."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self.release = threading.Event()
        self.ended = threading.Event()

    def __call__(self) -> str:
        self.started.set()
        try:
            assert self.release.wait(20)
            return "result"
        finally:
            self.ended.set()


async def test_arguments_result_and_context() -> None:
    flavour.set("vanilla")

    def work(*args: object, **kwargs: object) -> tuple[object, ...]:
        return args, kwargs, current_operation(), flavour.get(), threading.current_thread()

    async with Cancelable(register=False) as operation:
        args, kwargs, seen, flavoured, thread = await operation.run_in_thread(work, 1, 2, a=3, func=4, self=5)
    assert (args, kwargs, seen, flavoured) == ((1, 2), {"a": 3, "func": 4, "self": 5}, operation, "vanilla")
    assert thread is not threading.current_thread()


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyError, StopIteration, TimeoutError])
async def test_errors_pass(error: type[Exception], registry: ThreadSafeRegistry) -> None:
    def broken() -> None:
        raise error("inside")

    with pytest.raises(RuntimeError if error is StopIteration else error):
        async with Cancelable(registry=registry) as operation:
            await operation.run_in_thread(broken)
    assert operation.status is OperationStatus.FAILED
    assert registry.get_statistics().abandoned_threads == 0


async def test_variables_set_in_the_thread_do_not_leak() -> None:
    def set_and_look() -> str:
        before = flavour.get()
        flavour.set("leaked")
        return before

    async with Cancelable(register=False) as operation:
        assert [await operation.run_in_thread(set_and_look) for _ in range(5)] == ["none"] * 5
        assert await anyio.to_thread.run_sync(set_and_look) == "none"
        assert flavour.get() == "none"


async def test_the_thread_may_start_a_loop_of_its_own() -> None:
    """That this one runs in another thread is nothing it may inherit."""
    async with Cancelable(register=False) as operation:
        assert await operation.run_in_thread(start_a_loop) == "it works"


@pytest.mark.parametrize("reason", [CancelationReason.MANUAL, CancelationReason.TIMEOUT])
async def test_respects_cancelation_even_while_running_in_a_thread(
    registry: ThreadSafeRegistry, reason: CancelationReason
) -> None:
    """The await ends while the call provably still sits there; the thread is counted until it ends."""
    blocking, operation = Blocking(), Cancelable("query", registry=registry)
    canceller = Running(lambda: blocking.started.wait(10) and operation.cancel_sync(reason))
    try:
        with anyio.fail_after(10):
            with pytest.raises(OperationTimedOut if reason is CancelationReason.TIMEOUT else OperationCancelled):
                async with operation:
                    await operation.run_in_thread(blocking)
        assert not blocking.release.is_set()
        assert not blocking.ended.is_set()
        assert operation.status.is_final
        assert registry.get_statistics().abandoned_threads == 1
    finally:
        blocking.release.set()
    assert canceller.result() is True
    await becomes_true_soon(lambda: registry.get_statistics().abandoned_threads == 0)
    assert blocking.ended.is_set()


async def test_a_deadline_ends_the_await_too(registry: ThreadSafeRegistry) -> None:
    blocking = Blocking()
    try:
        with anyio.fail_after(10):
            with pytest.raises(OperationTimedOut):
                async with Cancelable(timeout=0.02, registry=registry) as operation:
                    await operation.run_in_thread(blocking)
        assert not blocking.ended.is_set()
        assert registry.get_statistics().abandoned_threads == (1 if blocking.started.is_set() else 0)
    finally:
        blocking.release.set()
    await becomes_true_soon(lambda: registry.get_statistics().abandoned_threads == 0)


async def test_the_abandoned_thread_is_told(registry: ThreadSafeRegistry) -> None:
    """Its check raises, its sleep wakes, its error is nobody's business but the log's."""
    started, told = threading.Event(), []

    def work() -> None:
        operation = current_operation()
        assert operation is not None
        started.set()
        try:
            operation.sleep(60)
        except OperationCancelled as error:
            told.append(error)
        with pytest.raises(OperationCancelled):
            operation.check()

    operation = Cancelable(registry=registry)
    canceller = Running(lambda: started.wait(10) and operation.cancel_sync("stop"))
    with anyio.fail_after(10):
        with pytest.raises(OperationCancelled):
            async with operation:
                await operation.run_in_thread(work)
    canceller.result()
    await becomes_true_soon(lambda: told)
    assert told[0].message == "stop"
    await becomes_true_soon(lambda: registry.get_statistics().abandoned_threads == 0)


@pytest.mark.parametrize("quietly", [True, False])
async def test_an_error_of_an_abandoned_thread_is_logged_unless_it_is_the_cancel(
    registry: ThreadSafeRegistry, caplog: pytest.LogCaptureFixture, quietly: bool
) -> None:
    started, release = threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        happens(release)
        if quietly:
            operation.check()
        raise ZeroDivisionError

    operation = Cancelable(registry=registry)
    Running(lambda: started.wait(10) and operation.cancel_sync())
    with pytest.raises(OperationCancelled):
        async with operation:
            await operation.run_in_thread(work)
    assert registry.get_statistics().abandoned_threads == 1
    release.set()
    await becomes_true_soon(lambda: registry.get_statistics().abandoned_threads == 0)
    assert [record.levelno for record in caplog.records] == ([] if quietly else [logging.WARNING])


async def test_without_abandoning_the_await_waits_and_gives_the_result(registry: ThreadSafeRegistry) -> None:
    blocking, results = Blocking(), []

    async def cancel_then_release() -> None:
        await happens_soon(blocking.started)
        operation.cancel_sync()
        await anyio.wait_all_tasks_blocked()
        assert results == []
        blocking.release.set()

    operation = Cancelable(registry=registry)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cancel_then_release)
            with pytest.raises(OperationCancelled):
                async with operation:
                    results.append(await operation.run_in_thread(blocking, abandon_on_cancel=False))
                    await anyio.sleep_forever()
    assert results == ["result"]
    assert registry.get_statistics().abandoned_threads == 0


@pytest.mark.parametrize("abandon_on_cancel", [True, False, None])
async def test_cancelled_before_the_call_is_not_begun(registry: ThreadSafeRegistry, abandon_on_cancel: bool | None) -> None:
    called: list[int] = []
    with pytest.raises(OperationCancelled):
        async with Cancelable(registry=registry) as operation:
            operation.cancel_sync()
            await operation.run_in_thread(lambda: called.append(1), abandon_on_cancel=abandon_on_cancel)
    assert called == []
    assert registry.get_statistics().abandoned_threads == 0


async def test_from_a_child_task(registry: ThreadSafeRegistry) -> None:
    blockings = [Blocking() for _ in range(3)]
    operation = Cancelable(registry=registry)

    def cancel() -> None:
        for blocking in blockings:
            happens(blocking.started)
        operation.cancel_sync()

    canceller = Running(cancel)
    try:
        with anyio.fail_after(10):
            with pytest.raises(OperationCancelled):
                async with operation, anyio.create_task_group() as tasks:
                    for blocking in blockings:
                        tasks.start_soon(operation.run_in_thread, blocking)
        assert registry.get_statistics().abandoned_threads == 3
    finally:
        for blocking in blockings:
            blocking.release.set()
    canceller.result()
    assert operation.status is OperationStatus.CANCELLED
    await becomes_true_soon(lambda: registry.get_statistics().abandoned_threads == 0)


async def test_from_a_task_outside_the_operations_scope() -> None:
    """Its own scope ends the await, where the operation's cannot reach."""
    blocking, errors = Blocking(), []

    async def outside() -> None:
        try:
            await operation.run_in_thread(blocking)
        except OperationCancelled as error:
            errors.append(error)

    operation = Cancelable(register=False)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            with operation:
                tasks.start_soon(outside)
                await happens_soon(blocking.started)
                operation.cancel_sync("stop")
                await becomes_true_soon(lambda: errors)
                blocking.release.set()
    assert [error.operation_id for error in errors] == [operation.id]


async def test_an_outer_cancel_abandons_the_thread_and_tells_it(registry: ThreadSafeRegistry) -> None:
    blocking = Blocking()
    operation = Cancelable(registry=registry)
    with anyio.fail_after(10):
        with anyio.CancelScope() as scope:
            async with operation, anyio.create_task_group() as tasks:
                tasks.start_soon(operation.run_in_thread, blocking)
                await happens_soon(blocking.started)
                scope.cancel()
        assert scope.cancelled_caught
        assert operation.token.is_cancelled
        assert registry.get_statistics().abandoned_threads == 1
        blocking.release.set()
        await becomes_true_soon(lambda: registry.get_statistics().abandoned_threads == 0)


def own(abandon_on_cancel: str) -> str:
    return abandon_on_cancel


async def test_a_keyword_that_both_have_is_refused_with_advice() -> None:
    async with Cancelable(register=False) as operation:
        with pytest.raises(TypeError, match=r"functools\.partial") as caught:
            await operation.run_in_thread(own, abandon_on_cancel="x")
        assert "abandon_on_cancel" in str(caught.value)
        assert await operation.run_in_thread(functools.partial(own, abandon_on_cancel="x")) == "x"


@pytest.mark.parametrize("func", [dict, lambda **kwargs: kwargs, int, print])
async def test_a_keyword_of_ours_alone_is_ours(func: Callable[..., object]) -> None:
    """It does not reach the function, which would show it, or refuse it."""
    async with Cancelable(register=False) as operation:
        assert not await operation.run_in_thread(func, abandon_on_cancel=False)


async def test_threads_may_call_back_into_the_loop() -> None:
    async def on_the_loop() -> str:
        return flavour.get()

    async with Cancelable(register=False) as operation:
        flavour.set("vanilla")
        assert await operation.run_in_thread(anyio.from_thread.run, on_the_loop) == "vanilla"


async def test_a_nested_operation_in_the_thread_is_a_child(registry: ThreadSafeRegistry) -> None:
    started = threading.Event()

    def work() -> None:
        with Cancelable("inside", registry=registry) as inside:
            started.set()
            inside.sleep(60)

    operation = Cancelable("outside", registry=registry)
    canceller = Running(lambda: started.wait(10) and operation.cancel_sync())
    with anyio.fail_after(10):
        with pytest.raises(OperationCancelled):
            async with operation:
                await operation.run_in_thread(work)
    canceller.result()
    await becomes_true_soon(lambda: not registry.list_operations())
    statuses = {context.name: (context.status, context.reason, context.parent_id) for context in registry.get_history()}
    assert statuses["inside"] == (OperationStatus.CANCELLED, CancelationReason.PARENT, operation.id)


# --- the call itself


def make_call(func: Callable[[], object], counted: list[int]) -> ThreadCall[object]:
    return ThreadCall(func, contextvars.copy_context(), counted.append)


def test_a_call_left_before_a_thread_was_free_is_not_begun() -> None:
    counted: list[int] = []
    called: list[int] = []
    call = make_call(lambda: called.append(1), counted)
    call._abandon()
    with pytest.raises(OperationCancelled, match="before it began"):
        call._run()
    assert (called, counted) == ([], [])


def test_a_call_left_after_its_end_is_not_counted() -> None:
    counted: list[int] = []
    call = make_call(lambda: 5, counted)
    assert call._run() == 5
    call._abandon()
    assert counted == []


def test_an_abandoned_call_is_counted_up_before_down() -> None:
    counted: list[int] = []
    blocking = Blocking()
    call = make_call(blocking, counted)
    running = Running(call._run)
    happens(blocking.started)
    call._abandon()
    assert counted == [+1]
    blocking.release.set()
    running.result()
    assert counted == [+1, -1]


async def test_a_hundred_abandoned_threads_are_counted_exactly(store: OperationStore) -> None:
    release, started = threading.Event(), threading.Semaphore(0)

    def work() -> None:
        started.release()
        release.wait(20)

    def all_started() -> None:
        for _ in range(30):
            assert started.acquire(timeout=10)

    operation = Cancelable(registry=store)
    with anyio.fail_after(20):
        with pytest.raises(OperationCancelled):
            async with operation, anyio.create_task_group() as tasks:
                for _ in range(30):
                    tasks.start_soon(operation.run_in_thread, work)
                await anyio.to_thread.run_sync(all_started)
                operation.cancel_sync()
        assert store.statistics().abandoned_threads == 30
        release.set()
        await becomes_true_soon(lambda: store.statistics().abandoned_threads == 0)


def _generator() -> Iterator[int]:
    yield 1


@pytest.mark.parametrize("where", ["operation", "bridge"])
@pytest.mark.parametrize("func", [_generator, functools.partial(_generator), anyio.sleep_forever])
async def test_what_would_not_run_is_refused(where: str, func: Callable[[], object]) -> None:
    async with AnyioBridge() as bridge, Cancelable(register=False) as operation:
        run_in_thread = operation.run_in_thread if where == "operation" else bridge.run_in_thread
        with pytest.raises(TypeError, match="function"):
            await run_in_thread(func)


@pytest.mark.parametrize("where", ["operation", "bridge"])
async def test_a_thread_left_behind_still_sees_its_operation(where: str) -> None:
    started, left, ended = threading.Event(), threading.Event(), threading.Event()
    seen: list[object] = []

    def work() -> None:
        started.set()
        happens(left)
        operation = current_operation()
        seen.append(operation)
        try:
            if operation is not None:
                operation.check()
        except OperationCancelled as error:
            seen.append(error.reason)
        ended.set()

    async with AnyioBridge() as bridge:
        with pytest.raises(OperationCancelled):
            async with Cancelable(register=False) as operation:
                run_in_thread = operation.run_in_thread if where == "operation" else bridge.run_in_thread
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(run_in_thread, work)
                    await becomes_true_soon(started.is_set)
                    operation.cancel_sync()
        left.set()
        await happens_soon(ended)
    assert seen == [operation, CancelationReason.MANUAL]
