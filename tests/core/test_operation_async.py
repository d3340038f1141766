"""``async with``: cancelation is native and level-triggered, and leaves the block as an error that tells the truth."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable

import anyio
import anyio.lowlevel
import pytest

from cancelable_core import (
    Cancelable,
    CancelationReason,
    CancelationToken,
    DuplicateOperation,
    OperationCancelled,
    OperationStatus,
    OperationStore,
    OperationTimedOut,
    ThreadSafeRegistry,
    current_operation,
)

from .helpers import InterruptedAt, Running, at_every_line, happens_soon, in_thread

Block = Callable[[Cancelable], Awaitable[object]]


def finished(registry: ThreadSafeRegistry, operation: Cancelable) -> OperationStatus:
    """It is in the history, once, with the status that the operation itself shows."""
    (context,) = [context for context in registry.get_history() if context.id == operation.id]
    assert registry.list_operations() == []
    assert context.status is operation.status
    statistics = registry.get_statistics()
    assert statistics.running_operations == statistics.cancelling_operations == statistics.pending_operations == 0
    assert not operation.token._watchers
    return context.status


# --- cancelled from wherever


async def test_a_cancel_from_a_thread_ends_the_sleep(registry: ThreadSafeRegistry) -> None:
    operation = Cancelable("worker", registry=registry)
    entered = threading.Event()
    with anyio.fail_after(10):
        with pytest.raises(OperationCancelled) as caught:
            async with operation:
                canceller = Running(lambda: entered.wait(10) and operation.cancel_sync("from a thread", origin="test"))
                entered.set()
                await anyio.sleep_forever()
    assert canceller.result() is True
    error = caught.value
    assert (error.operation_id, error.name, error.reason) == (operation.id, "worker", CancelationReason.MANUAL)
    assert (error.message, error.origin) == ("from a thread", "test")
    assert error.lineage is operation
    assert finished(registry, operation) is OperationStatus.CANCELLED


async def test_a_cancel_by_another_loop_ends_the_sleep(registry: ThreadSafeRegistry) -> None:
    operation = Cancelable(registry=registry)

    async def elsewhere() -> bool:
        return await operation.cancel("another loop")

    with anyio.fail_after(10):
        with pytest.raises(OperationCancelled, match="another loop"):
            async with operation:
                loops = [Running(anyio.run, elsewhere), Running(lambda: anyio.run(elsewhere, backend="trio"))]
                await anyio.sleep_forever()
    assert sorted(loop.result() for loop in loops) == [False, True]


async def test_a_cancel_by_the_body_itself_strikes_at_its_next_await(registry: ThreadSafeRegistry) -> None:
    operation = Cancelable(registry=registry)
    after = []
    with pytest.raises(OperationCancelled):
        async with operation:
            assert await operation.cancel() is True
            after.append("no await yet")
            await anyio.lowlevel.checkpoint()
            await anyio.sleep_forever()
    assert after == ["no await yet"]


async def test_every_await_raises_until_the_block_is_left(registry: ThreadSafeRegistry) -> None:
    operation = Cancelable(registry=registry)
    raised = []
    with pytest.raises(OperationCancelled):
        async with operation:
            operation.cancel_sync()
            for _ in range(3):
                try:
                    await anyio.sleep_forever()
                except anyio.get_cancelled_exc_class():
                    raised.append(1)
            await anyio.sleep_forever()
    assert raised == [1, 1, 1]


async def test_child_tasks_end_with_it(registry: ThreadSafeRegistry) -> None:
    operation = Cancelable(registry=registry)
    ended = []

    async def child() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append(1)

    with anyio.fail_after(10):
        with pytest.raises(OperationCancelled):
            async with operation, anyio.create_task_group() as tasks:
                for _ in range(3):
                    tasks.start_soon(child)
                await anyio.wait_all_tasks_blocked()
                operation.cancel_sync()
    assert ended == [1, 1, 1]
    assert finished(registry, operation) is OperationStatus.CANCELLED


async def test_a_given_token_cancels_with_its_own_words(registry: ThreadSafeRegistry) -> None:
    token = CancelationToken()
    operation = Cancelable.with_token(token, "worker", registry=registry)
    with anyio.fail_after(10):
        with pytest.raises(OperationCancelled) as caught:
            async with operation as entered:
                assert entered is operation
                Running(token.cancel_sync, CancelationReason.SHUTDOWN, "deploy")
                await anyio.sleep_forever()
    assert (caught.value.reason, caught.value.message) == (CancelationReason.SHUTDOWN, "deploy")
    assert not token._watchers


async def test_cancelling_the_operation_does_not_cancel_a_given_token(registry: ThreadSafeRegistry) -> None:
    token = CancelationToken()
    with pytest.raises(OperationCancelled):
        async with Cancelable(token=token, registry=registry) as operation:
            operation.cancel_sync()
            await anyio.sleep_forever()
    assert not token.is_cancelled


# --- the end


async def test_a_body_that_finishes_before_noticing_is_completed(registry: ThreadSafeRegistry) -> None:
    async with Cancelable(registry=registry) as operation:
        assert operation.cancel_sync("too late") is True
        assert operation.status is OperationStatus.CANCELLING
    assert finished(registry, operation) is OperationStatus.COMPLETED
    context = operation.context
    assert context.cancel_requested_at is not None
    assert context.message == "too late"
    await anyio.lowlevel.checkpoint()  # nothing is left to strike here


@pytest.mark.parametrize("error", [ValueError("x"), KeyError("y"), ExceptionGroup("g", [ValueError()])])
async def test_an_error_of_the_body_passes_on_as_it_is(registry: ThreadSafeRegistry, error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        async with Cancelable(registry=registry) as operation:
            raise error
    assert caught.value is error
    assert finished(registry, operation) is OperationStatus.FAILED
    assert not operation.token.is_cancelled


async def test_an_error_in_the_cleanup_of_a_cancelled_body_is_a_failure(registry: ThreadSafeRegistry) -> None:
    with pytest.raises(ZeroDivisionError):
        async with Cancelable(registry=registry) as operation:
            operation.cancel_sync()
            try:
                await anyio.sleep_forever()
            finally:
                raise ZeroDivisionError
    assert finished(registry, operation) is OperationStatus.FAILED
    assert operation.context.reason is CancelationReason.MANUAL


@pytest.mark.parametrize("raise_on_cancel", [True, False])
async def test_an_error_beside_the_cancelation_is_not_lost(registry: ThreadSafeRegistry, raise_on_cancel: bool) -> None:
    async def fails_while_it_is_cancelled() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise ZeroDivisionError

    operation = Cancelable(registry=registry, raise_on_cancel=raise_on_cancel)
    with pytest.raises(BaseExceptionGroup) as caught:
        async with operation, anyio.create_task_group() as tasks:
            tasks.start_soon(fails_while_it_is_cancelled)
            await anyio.wait_all_tasks_blocked()
            operation.cancel_sync()
            await anyio.sleep_forever()
    assert caught.group_contains(ZeroDivisionError)
    assert finished(registry, operation) is OperationStatus.FAILED


async def test_a_body_that_swallows_the_cancelation_is_completed(registry: ThreadSafeRegistry) -> None:
    async with Cancelable(registry=registry) as operation:
        operation.cancel_sync()
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            pass
    assert finished(registry, operation) is OperationStatus.COMPLETED


ASYNCIO = [pytest.param(("asyncio", {}), id="asyncio"), pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop")]


async def _lose_the_trace() -> None:
    """What asgiref's sync_to_async does where an error is being handled: the cancelation that comes out knows no scope."""
    try:
        await anyio.sleep_forever()
    except asyncio.CancelledError:
        pass
    raise asyncio.CancelledError


@pytest.mark.parametrize("anyio_backend", ASYNCIO)
async def test_a_cancelation_that_a_library_raised_anew_is_still_its_own(registry: ThreadSafeRegistry) -> None:
    operation = Cancelable(registry=registry)
    with anyio.fail_after(10), pytest.raises(OperationCancelled):
        async with operation:
            operation.cancel_sync()
            await _lose_the_trace()
    assert finished(registry, operation) is OperationStatus.CANCELLED
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@pytest.mark.parametrize("anyio_backend", ASYNCIO)
@pytest.mark.parametrize("by_scope", [True, False])
async def test_a_cancelation_raised_anew_is_the_outsides_where_that_was_cancelled_too(
    registry: ThreadSafeRegistry, by_scope: bool
) -> None:
    operation = Cancelable(registry=registry)
    outer = anyio.CancelScope()
    ends: list[BaseException] = []

    async def work() -> None:
        try:
            with outer:
                async with operation:
                    operation.cancel_sync()
                    if by_scope:
                        outer.cancel()
                    else:
                        task.cancel()
                    await _lose_the_trace()
        except BaseException as error:
            ends.append(error)
            raise

    with anyio.fail_after(10):
        task = asyncio.ensure_future(work())
        await asyncio.wait([task])
    assert [type(error) for error in ends] == [asyncio.CancelledError]
    assert finished(registry, operation) is OperationStatus.CANCELLED


async def test_without_raising_a_cancelled_block_is_left_quietly(registry: ThreadSafeRegistry) -> None:
    operation = Cancelable(registry=registry, raise_on_cancel=False)
    after = []
    async with operation:
        operation.cancel_sync()
        await anyio.sleep_forever()
        after.append("never")
    assert after == []
    assert finished(registry, operation) is OperationStatus.CANCELLED
    await anyio.lowlevel.checkpoint()


async def test_without_raising_the_errors_of_the_body_still_pass(registry: ThreadSafeRegistry) -> None:
    with pytest.raises(ZeroDivisionError):
        async with Cancelable(registry=registry, raise_on_cancel=False):
            raise ZeroDivisionError


async def test_check_inside_raises_the_operations_own_error_once(registry: ThreadSafeRegistry) -> None:
    operation = Cancelable(registry=registry)
    raised = []
    with pytest.raises(OperationCancelled) as caught:
        async with operation:
            operation.cancel_sync()
            try:
                operation.check()
            except OperationCancelled as error:
                raised.append(error)
                raise
    assert raised == [caught.value]
    assert finished(registry, operation) is OperationStatus.CANCELLED


async def test_the_error_of_a_child_operation_becomes_the_operations_own_with_it_as_cause(
    registry: ThreadSafeRegistry,
) -> None:
    with pytest.raises(OperationCancelled) as caught:
        async with Cancelable("outer", registry=registry) as outer:
            async with Cancelable("inner", registry=registry) as inner:
                outer.cancel_sync(CancelationReason.SHUTDOWN, "deploy")
                inner.check()
    error = caught.value
    assert (error.name, error.reason, error.message) == ("outer", CancelationReason.SHUTDOWN, "deploy")
    cause = error.__cause__
    assert isinstance(cause, OperationCancelled)
    assert (cause.name, cause.reason, cause.message) == ("inner", CancelationReason.PARENT, "deploy")
    assert (inner.status, outer.status) == (OperationStatus.CANCELLED, OperationStatus.CANCELLED)


async def test_a_timeout_stays_a_timeout_through_its_children(registry: ThreadSafeRegistry) -> None:
    with anyio.fail_after(10):
        with pytest.raises(OperationTimedOut) as caught:
            async with Cancelable("outer", timeout=0.01, registry=registry) as outer:
                async with Cancelable("inner", registry=registry) as inner:
                    await anyio.sleep_forever()
    assert caught.value.name == "outer"
    assert (outer.status, inner.status) == (OperationStatus.TIMED_OUT, OperationStatus.CANCELLED)
    assert inner.context.reason is CancelationReason.PARENT


async def test_a_strangers_cancelation_error_is_a_failure(registry: ThreadSafeRegistry) -> None:
    stranger = CancelationToken()
    stranger.cancel_sync()
    with pytest.raises(OperationCancelled) as caught:
        async with Cancelable(registry=registry) as operation:
            operation.cancel_sync("mine")
            stranger.check()
    assert caught.value.operation_id is None
    assert finished(registry, operation) is OperationStatus.FAILED


async def test_a_childs_own_cancel_is_a_failure_of_an_operation_that_nobody_cancelled(registry: ThreadSafeRegistry) -> None:
    with pytest.raises(OperationCancelled) as caught:
        async with Cancelable("outer", registry=registry) as outer:
            async with Cancelable("inner", registry=registry) as inner:
                inner.cancel_sync("only the inner one")
                await anyio.sleep_forever()
    assert caught.value.name == "inner"
    assert (inner.status, outer.status) == (OperationStatus.CANCELLED, OperationStatus.FAILED)
    assert not outer.token.is_cancelled


@pytest.mark.parametrize("raise_on_cancel", [True, False])
async def test_children_that_check_do_not_turn_a_cancel_into_a_failure(
    registry: ThreadSafeRegistry, raise_on_cancel: bool
) -> None:
    """A task group hands their errors over in a group; it is the operation's cancel that came back nevertheless."""
    operation = Cancelable(registry=registry, raise_on_cancel=raise_on_cancel)

    async def child() -> None:
        operation.check()

    async def body() -> None:
        async with operation, anyio.create_task_group() as tasks:
            operation.cancel_sync("all of you")
            tasks.start_soon(child)
            tasks.start_soon(child)
            tasks.start_soon(anyio.sleep_forever)

    if raise_on_cancel:
        with pytest.raises(OperationCancelled, match="all of you") as caught:
            await body()
        assert caught.value.operation_id == operation.id
    else:
        await body()
    assert finished(registry, operation) is OperationStatus.CANCELLED


async def test_a_group_with_another_error_in_it_is_a_failure(registry: ThreadSafeRegistry) -> None:
    operation = Cancelable(registry=registry)
    with pytest.raises(ExceptionGroup) as caught:
        async with operation:
            operation.cancel_sync()
            raise ExceptionGroup("both", [operation.error(), ZeroDivisionError()])
    assert caught.group_contains(ZeroDivisionError)
    assert caught.group_contains(OperationCancelled)
    assert finished(registry, operation) is OperationStatus.FAILED


# --- cancelled before


async def test_cancelled_before_entering_the_body_never_runs(registry: ThreadSafeRegistry) -> None:
    operation = Cancelable(registry=registry)
    assert operation.cancel_sync("before") is True
    ran = []
    with pytest.raises(OperationCancelled, match="before"):
        async with operation:
            ran.append(1)
    assert ran == []
    assert finished(registry, operation) is OperationStatus.CANCELLED
    assert operation.context.started_at is None
    assert operation.context.ended_at is not None
    assert registry.get_statistics().total_operations == 1
    await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("reason", [CancelationReason.TIMEOUT, CancelationReason.DISCONNECT])
async def test_a_token_cancelled_before_entering_raises_even_without_raising(
    registry: ThreadSafeRegistry, reason: CancelationReason
) -> None:
    token = CancelationToken()
    token.cancel_sync(reason)
    operation = Cancelable.with_token(token, raise_on_cancel=False, registry=registry)
    ran = []
    with pytest.raises(OperationCancelled) as caught:
        async with operation:
            ran.append(1)
    assert ran == []
    assert caught.value.reason is reason
    expected = OperationStatus.TIMED_OUT if reason is CancelationReason.TIMEOUT else OperationStatus.CANCELLED
    assert finished(registry, operation) is expected


async def test_entering_below_a_cancelled_parent_raises(registry: ThreadSafeRegistry) -> None:
    ran = []
    with pytest.raises(OperationCancelled) as caught:
        async with Cancelable("outer", registry=registry) as outer:
            outer.cancel_sync()
            async with Cancelable("inner", registry=registry):
                ran.append(1)
    assert ran == []
    assert caught.value.name == "outer"
    assert [context.name for context in registry.get_history()] == ["inner", "outer"]


# --- the outside wins


async def test_an_outer_scope_passes_its_own_cancelation_on(registry: ThreadSafeRegistry) -> None:
    operation = Cancelable(registry=registry)
    with anyio.CancelScope() as scope:
        async with operation:
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert finished(registry, operation) is OperationStatus.CANCELLED
    context = operation.context
    assert (context.reason, context.origin) == (CancelationReason.PARENT, "outer scope")
    assert current_operation() is None


@pytest.mark.parametrize("raise_on_cancel", [True, False])
@pytest.mark.parametrize("outer_first", [True, False])
async def test_when_both_are_cancelled_the_outer_scope_wins(
    registry: ThreadSafeRegistry, raise_on_cancel: bool, outer_first: bool
) -> None:
    operation = Cancelable(registry=registry, raise_on_cancel=raise_on_cancel)
    with anyio.CancelScope() as scope:
        async with operation:
            for cancel in [scope.cancel, operation.cancel_sync] if outer_first else [operation.cancel_sync, scope.cancel]:
                cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert finished(registry, operation) is OperationStatus.CANCELLED
    assert operation.context.reason is CancelationReason.MANUAL  # the token was claimed already


async def test_an_outer_cancelation_in_a_group_with_its_own_error_is_no_failure(registry: ThreadSafeRegistry) -> None:
    operation = Cancelable(registry=registry)
    with pytest.raises(BaseExceptionGroup) as caught:
        with anyio.CancelScope() as scope:
            scope.cancel()
            async with operation:
                try:
                    await anyio.sleep_forever()
                except BaseException as native:
                    operation.cancel_sync()
                    raise BaseExceptionGroup("both", [native, operation.error()]) from None
    assert caught.group_contains(OperationCancelled)
    assert finished(registry, operation) is OperationStatus.CANCELLED


async def test_an_outer_deadline_stays_that_deadlines(registry: ThreadSafeRegistry) -> None:
    operation = Cancelable(registry=registry)
    with pytest.raises(TimeoutError) as caught:
        with anyio.fail_after(0.01):
            async with operation:
                await anyio.sleep_forever()
    assert not isinstance(caught.value, OperationCancelled)
    assert finished(registry, operation) is OperationStatus.CANCELLED


async def test_an_outer_cancel_reaches_the_operations_threads(registry: ThreadSafeRegistry) -> None:
    operation = Cancelable(registry=registry)
    seen = []
    with anyio.CancelScope() as scope:
        async with operation:
            thread = Running(lambda: seen.append(operation.token.wait(10)))
            scope.cancel()
            await anyio.sleep_forever()
    thread.result()
    assert seen == [True]


async def test_operations_in_sibling_tasks_fail_and_end_alone(registry: ThreadSafeRegistry) -> None:
    """Inside a task group's child the error is an ordinary failure of that child, which cancels its siblings."""
    operations = [Cancelable(f"{number}", registry=registry) for number in range(3)]

    async def child(operation: Cancelable) -> None:
        async with operation:
            await anyio.sleep_forever()

    with pytest.raises(ExceptionGroup) as caught:
        async with anyio.create_task_group() as tasks:
            for operation in operations:
                tasks.start_soon(child, operation)
            await anyio.wait_all_tasks_blocked()
            operations[0].cancel_sync()
    assert [error.name for error in caught.value.exceptions if isinstance(error, OperationCancelled)] == ["0"]
    assert [operation.context.reason for operation in operations] == [
        CancelationReason.MANUAL,
        CancelationReason.PARENT,
        CancelationReason.PARENT,
    ]


async def test_a_task_group_around_goes_on_after_a_quiet_end(registry: ThreadSafeRegistry) -> None:
    done = []

    async def child() -> None:
        async with Cancelable(registry=registry, raise_on_cancel=False) as operation:
            operation.cancel_sync()
            await anyio.sleep_forever()
        done.append("child")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(child)
        await anyio.wait_all_tasks_blocked()
        done.append("host")
    assert sorted(done) == ["child", "host"]


# --- used wrongly


async def test_entering_twice_is_an_error_and_changes_nothing(registry: ThreadSafeRegistry) -> None:
    operation = Cancelable(registry=registry)
    async with operation:
        with pytest.raises(RuntimeError, match="once"):
            async with operation:
                raise AssertionError("entered twice")
        assert operation.status is OperationStatus.RUNNING
        assert [context.id for context in registry.list_operations()] == [operation.id]
        assert current_operation() is operation
    assert operation.status is OperationStatus.COMPLETED
    with pytest.raises(RuntimeError, match="once"):
        async with operation:
            raise AssertionError("entered after its end")
    assert finished(registry, operation) is OperationStatus.COMPLETED


async def test_leaving_in_another_task_is_an_error_and_ends_it(registry: ThreadSafeRegistry) -> None:
    operation = Cancelable(registry=registry)
    raised = []

    async def leave() -> None:
        try:
            await operation.__aexit__(None, None, None)
        except RuntimeError as error:
            raised.append(error)

    async def enter_and_die(done: anyio.Event) -> None:
        await operation.__aenter__()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(leave)
        done.set()

    done = anyio.Event()
    with anyio.fail_after(10):
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(enter_and_die, done)
        except BaseException:  # what the loop itself thinks of a scope that was never left is its own affair
            pass
    assert raised
    assert operation.is_over
    assert registry.list_operations() == []


def test_async_with_needs_a_loop(registry: ThreadSafeRegistry) -> None:
    operation = Cancelable(registry=registry)
    entering = operation.__aenter__()
    with pytest.raises(RuntimeError, match="event loop"):
        entering.send(None)
    assert registry.list_operations() == []
    with operation:  # it was not used up
        pass


async def test_a_live_id_is_refused_at_entry(registry: ThreadSafeRegistry) -> None:
    async with Cancelable(operation_id="job-1", registry=registry) as first:
        second = Cancelable(operation_id="job-1", registry=registry)
        token = second.token
        with pytest.raises(DuplicateOperation) as caught:
            async with second:
                raise AssertionError("both live")
        assert caught.value.operation_id == "job-1"
        assert current_operation() is first
        assert not first.token._watchers.keys() & token._watchers.keys()
        assert registry.get_operation("job-1") == first.context
        assert registry.get_statistics().total_operations == 1
    async with Cancelable(operation_id="job-1", registry=registry):  # free again
        pass
    assert registry.get_statistics().total_operations == 2


# --- the scope leaves nothing


async def test_a_cancel_after_the_end_strikes_nobody(registry: ThreadSafeRegistry) -> None:
    async with Cancelable(registry=registry) as operation:
        pass
    assert operation.cancel_sync() is False
    assert await operation.cancel("again") is False
    for _ in range(5):
        await anyio.lowlevel.checkpoint()
    assert operation.status is OperationStatus.COMPLETED
    assert operation.context.cancel_requested_at is None


async def test_a_cancel_still_on_its_way_when_the_block_ends_strikes_nobody(registry: ThreadSafeRegistry) -> None:
    """The flag is up and the loop was told; the block is left before the loop gets to it."""
    for _ in range(20):
        async with Cancelable(registry=registry) as operation:
            in_thread(operation.cancel_sync)
        for _ in range(3):
            await anyio.lowlevel.checkpoint()


async def test_an_operation_nobody_holds_is_gone(registry: ThreadSafeRegistry) -> None:
    async with Cancelable(timeout=1000, registry=registry) as operation:
        await anyio.lowlevel.checkpoint()
    gone = weakref.ref(operation)
    del operation
    await anyio.lowlevel.checkpoint()
    gc.collect()
    assert gone() is None


async def test_ten_thousand_operations_leave_a_lasting_token_and_parent_clean(registry: ThreadSafeRegistry) -> None:
    token = CancelationToken()
    async with Cancelable(registry=registry) as parent:
        before = len(parent.token._watchers)
        for _ in range(10_000):
            async with Cancelable(token=token, registry=registry):
                pass
        assert len(parent.token._watchers) == before
    assert not token._watchers
    assert len(registry.get_history()) == 1_000


# --- interrupted anywhere


async def test_a_cancel_at_any_line_of_entering_is_not_lost() -> None:
    store = OperationStore()
    step = 0
    while True:
        operation = Cancelable("interrupted", timeout=1000, registry=store)
        won: list[bool] = []
        messages: list[str | None] = []
        ran = []
        try:
            with anyio.fail_after(10):
                with InterruptedAt(step, lambda op=operation, won=won: won.append(op.cancel_sync("now"))) as interruption:
                    entered = await operation.__aenter__()
                ran.append(entered)
                try:
                    if interruption.fired:
                        await anyio.sleep_forever()
                except BaseException as error:
                    if not await operation.__aexit__(type(error), error, error.__traceback__):
                        raise
                else:
                    await operation.__aexit__(None, None, None)
        except OperationCancelled as error:
            messages.append(error.message)
        assert store.statistics().total_operations == 1 + step
        assert not store._live, step
        if not interruption.fired:
            break
        assert messages == ["now"], step
        assert won == [True], step
        assert operation.status is OperationStatus.CANCELLED, step
        assert store.statistics().cancelled_operations == step + 1
        step += 1
    assert step > 20


async def test_a_cancel_at_any_line_of_leaving_is_answered_truthfully() -> None:
    store = OperationStore()
    step = 0
    while True:
        operation = Cancelable("interrupted", timeout=1000, registry=store)
        won: list[bool] = []
        await operation.__aenter__()
        with InterruptedAt(step, lambda op=operation, won=won: won.append(op.cancel_sync("now"))) as interruption:
            await operation.__aexit__(None, None, None)
        await anyio.lowlevel.checkpoint()
        assert operation.status is OperationStatus.COMPLETED, step
        assert not store._live
        context = store.finished(operation.id)
        assert context is not None
        assert context == operation.context, step
        statistics = store.statistics()
        assert statistics.completed_operations == statistics.total_operations == step + 1
        if not interruption.fired:
            break
        assert (context.cancel_requested_at is not None) == won[0], step
        step += 1
    assert step > 20


def test_a_snapshot_interrupted_anywhere_is_consistent() -> None:
    def scenario(step: int) -> bool:
        with Cancelable(register=False) as operation:
            with InterruptedAt(step, operation.cancel_sync) as interruption:
                context = operation.context
        assert (context.status is OperationStatus.CANCELLING) == (context.cancel_requested_at is not None), step
        assert (context.reason is None) == (context.cancel_requested_at is None)
        return interruption.fired

    at_every_line(scenario)


# --- generators


async def numbers(operation: Cancelable) -> AsyncIterator[int]:
    async with operation:
        number = 0
        while True:
            yield number
            number += 1
            await anyio.lowlevel.checkpoint()


async def test_a_closed_async_generator_ends_its_operation(registry: ThreadSafeRegistry) -> None:
    operation = Cancelable(registry=registry)
    source = numbers(operation)
    assert await anext(source) == 0
    await source.aclose()  # type: ignore[attr-defined]
    assert finished(registry, operation) is OperationStatus.CANCELLED
    assert (operation.context.reason, operation.context.origin) == (CancelationReason.PARENT, "closed")
    assert current_operation() is None


async def test_a_generator_closed_after_a_cancel_keeps_its_reason(registry: ThreadSafeRegistry) -> None:
    operation = Cancelable(registry=registry)
    source = numbers(operation)
    await anext(source)
    operation.cancel_sync("first")
    await source.aclose()  # type: ignore[attr-defined]
    assert finished(registry, operation) is OperationStatus.CANCELLED
    assert operation.context.message == "first"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_async_generator_closed_by_the_loop_ends_its_operation(
    registry: ThreadSafeRegistry, anyio_backend: tuple[str, dict[str, object]]
) -> None:
    """Its task is gone, and the loop closes it in another one, where the scope cannot be left properly."""
    backend, options = anyio_backend
    operation = Cancelable(registry=registry)
    problems: list[dict[str, object]] = []

    async def forget_the_generator() -> None:
        if backend == "asyncio":
            asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
        source = numbers(operation)
        await anext(source)
        del source
        gc.collect()
        for _ in range(5):
            await anyio.lowlevel.checkpoint()

    try:
        anyio.run(forget_the_generator, backend=backend, backend_options=options)
    except BaseException:  # loops complain about scopes that were left open, each in its way
        pass
    assert finished(registry, operation) is OperationStatus.CANCELLED
    assert (operation.context.reason, operation.context.origin) == (CancelationReason.PARENT, "closed")


# --- tasks that outlive


async def test_a_task_that_outlives_the_operation_no_longer_sees_it(registry: ThreadSafeRegistry) -> None:
    over, looked = anyio.Event(), []

    async def outlive() -> None:
        looked.append(current_operation())
        await over.wait()
        looked.append(current_operation())
        async with Cancelable(registry=registry) as late:
            looked.append(late.parent)

    async with anyio.create_task_group() as tasks, Cancelable("outer", registry=registry) as outer:
        async with Cancelable("inner", registry=registry) as inner:
            tasks.start_soon(outlive)
            await anyio.wait_all_tasks_blocked()
        over.set()
        await anyio.wait_all_tasks_blocked()
    assert looked == [inner, outer, outer]


async def test_the_event_of_a_thread_wakes_the_guard(registry: ThreadSafeRegistry) -> None:
    """The helpers themselves: an event set by a thread is seen by a task inside an operation."""
    event = threading.Event()
    async with Cancelable(registry=registry):
        Running(event.set)
        await happens_soon(event)


async def test_a_context_copied_inside_shows_it_only_while_it_is_open(registry: ThreadSafeRegistry) -> None:
    async with Cancelable(registry=registry) as operation:
        context = contextvars.copy_context()
        assert context.run(current_operation) is operation
    assert context.run(current_operation) is None


async def awaits_a_cancelled_future() -> None:
    """What somebody else cancelled, and nobody asked this task to stop."""
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("in_a_group", [False, True])
async def test_somebody_elses_cancelation_is_a_failure(registry: ThreadSafeRegistry, in_a_group: bool) -> None:
    operation = Cancelable(registry=registry)
    with pytest.raises((asyncio.CancelledError, BaseExceptionGroup)):
        async with operation:
            try:
                await awaits_a_cancelled_future()
            except asyncio.CancelledError as error:
                raise (BaseExceptionGroup("all of them", [error]) if in_a_group else error) from None
    assert finished(registry, operation) is OperationStatus.FAILED
    assert operation.token.reason is None
    await anyio.sleep(0)  # the task itself goes on


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_cancel_of_the_task_still_counts_as_the_outside(registry: ThreadSafeRegistry) -> None:
    operation = Cancelable(registry=registry)

    async def work() -> None:
        async with operation:
            await anyio.sleep_forever()

    task = asyncio.create_task(work())
    await anyio.wait_all_tasks_blocked()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert finished(registry, operation) is OperationStatus.CANCELLED
    assert (operation.token.reason, operation.token.origin) == (CancelationReason.PARENT, "outer scope")
