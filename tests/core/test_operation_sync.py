"""``with``: cancelation is cooperative; check, sleep and iterate raise as soon as it was asked for."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import math
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import anyio
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

from .helpers import InterruptedAt, Running, at_every_line, happens, in_thread


def only_history(registry: ThreadSafeRegistry) -> OperationStatus:
    assert registry.list_operations() == []
    (context,) = registry.get_history()
    return context.status


# --- noticing


@pytest.mark.parametrize(
    "notice",
    [
        Cancelable.check,
        lambda operation: operation.sleep(60),
        lambda operation: operation.sleep(0),
        lambda operation: next(operation.iterate([1])),
        lambda operation: list(operation.iterate([])),
    ],
    ids=["check", "sleep", "sleep 0", "iterate", "iterate nothing"],
)
def test_it_raises_once_cancelled_every_time(registry: ThreadSafeRegistry, notice: Callable[[Cancelable], object]) -> None:
    with pytest.raises(OperationCancelled) as caught:
        with Cancelable("report", registry=registry) as operation:
            assert operation.cancel_sync("stop it", origin="test")
            for _ in range(3):
                with pytest.raises(OperationCancelled, match="stop it"):
                    notice(operation)
            notice(operation)
    error = caught.value
    assert (error.operation_id, error.name, error.origin) == (operation.id, "report", "test")
    assert only_history(registry) is OperationStatus.CANCELLED


def test_a_sleeping_thread_wakes(registry: ThreadSafeRegistry) -> None:
    started, operation = threading.Event(), Cancelable(registry=registry)

    def work() -> None:
        with operation:
            started.set()
            operation.sleep(3600)

    working = Running(work)
    happens(started)
    assert operation.cancel_sync()
    with pytest.raises(OperationCancelled):
        working.result()
    assert only_history(registry) is OperationStatus.CANCELLED


def test_a_waiting_thread_wakes_without_an_error(registry: ThreadSafeRegistry) -> None:
    started, operation = threading.Event(), Cancelable(registry=registry)

    def work() -> bool:
        with operation:
            started.set()
            return operation.wait(3600)

    working = Running(work)
    happens(started)
    operation.cancel_sync()
    assert working.result() is True
    assert only_history(registry) is OperationStatus.COMPLETED


@pytest.mark.parametrize("seconds", [0, -1, 0.001])
def test_an_undisturbed_wait_says_no_and_an_undisturbed_sleep_says_nothing(seconds: float) -> None:
    with Cancelable(register=False) as operation:
        assert operation.wait(seconds) is False
        operation.sleep(seconds)


@pytest.mark.parametrize("method", ["wait", "sleep"])
def test_nan_is_no_length_of_time(method: str) -> None:
    with Cancelable(register=False) as operation:
        with pytest.raises(ValueError):
            getattr(operation, method)(math.nan)


@pytest.mark.parametrize("method", ["wait", "sleep"])
async def test_blocking_is_refused_on_a_loop(method: str) -> None:
    with Cancelable(register=False) as operation:
        with pytest.raises(RuntimeError, match=r"anyio\.sleep"):
            getattr(operation, method)(0)


def test_a_finished_operation_still_sleeps_as_long_as_it_is_told() -> None:
    """A thread that outlives its operation and polls must not spin."""
    with Cancelable(register=False) as operation:
        pass
    for call, answer in ((operation.wait, False), (operation.sleep, None)):
        before = time.monotonic()
        assert call(0.05) is answer
        assert time.monotonic() - before >= 0.049


def test_iterate_delivers_what_was_fetched_and_stops_before_the_next() -> None:
    fetched: list[int] = []

    def source() -> Iterator[int]:
        for number in range(10):
            fetched.append(number)
            yield number

    delivered: list[int] = []
    with pytest.raises(OperationCancelled):
        with Cancelable(register=False) as operation:
            for number in operation.iterate(source()):
                delivered.append(number)
                if number == 3:
                    operation.cancel_sync()
    assert delivered == fetched == [0, 1, 2, 3]


def test_iterate_to_the_end() -> None:
    with Cancelable(register=False) as operation:
        assert list(operation.iterate(range(3))) == [0, 1, 2]
        with pytest.raises(TypeError):
            list(operation.iterate(5))  # type: ignore[arg-type]


async def test_checkpoint_in_a_plain_block_raises_by_check(registry: ThreadSafeRegistry) -> None:
    with pytest.raises(OperationCancelled):
        with Cancelable(registry=registry) as operation:
            await operation.checkpoint()
            operation.cancel_sync()
            await operation.checkpoint()
    assert only_history(registry) is OperationStatus.CANCELLED


async def test_a_plain_block_in_a_coroutine_does_not_interrupt_awaits(registry: ThreadSafeRegistry) -> None:
    with pytest.raises(OperationCancelled):
        with Cancelable(registry=registry) as operation:
            operation.cancel_sync()
            await anyio.sleep(0)
            operation.check()


async def test_an_outer_cancel_passes_a_plain_block(registry: ThreadSafeRegistry) -> None:
    with anyio.CancelScope() as scope:
        with Cancelable(registry=registry) as operation:
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert only_history(registry) is OperationStatus.CANCELLED
    assert operation.context.origin == "outer scope"


# --- the end


def test_a_body_that_never_looks_is_completed(registry: ThreadSafeRegistry) -> None:
    with Cancelable(registry=registry) as operation:
        assert operation.cancel_sync("too late")
    assert only_history(registry) is OperationStatus.COMPLETED
    assert operation.context.message == "too late"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, StopIteration])
def test_an_error_of_the_body_passes_on_and_is_a_failure(registry: ThreadSafeRegistry, error: type[BaseException]) -> None:
    raised = error("x")
    with pytest.raises(error) as caught:
        with Cancelable(registry=registry):
            raise raised
    assert caught.value is raised
    assert only_history(registry) is OperationStatus.FAILED
    assert current_operation() is None


def test_without_raising_a_cancelled_block_is_left_quietly(registry: ThreadSafeRegistry) -> None:
    with Cancelable(registry=registry, raise_on_cancel=False) as operation:
        operation.cancel_sync()
        operation.check()
        raise AssertionError("check raises inside")
    assert only_history(registry) is OperationStatus.CANCELLED


def test_without_raising_it_still_does_not_start_what_was_cancelled(registry: ThreadSafeRegistry) -> None:
    operation = Cancelable(registry=registry, raise_on_cancel=False)
    operation.cancel_sync()
    with pytest.raises(OperationCancelled):
        with operation:
            raise AssertionError("the body ran")
    assert only_history(registry) is OperationStatus.CANCELLED
    assert operation.context.started_at is None


def test_leaving_re_raises_a_descendants_error_as_its_own(registry: ThreadSafeRegistry) -> None:
    with pytest.raises(OperationTimedOut) as caught:
        with Cancelable("a", timeout=0.005, registry=registry) as outermost:
            with Cancelable("b", registry=registry):
                with Cancelable("c", registry=registry) as innermost:
                    innermost.sleep(60)
    names, error = [], caught.value
    while isinstance(error, OperationCancelled):
        names.append((error.name, error.reason))
        error = error.__cause__  # type: ignore[assignment]
    assert names == [
        ("a", CancelationReason.TIMEOUT),
        ("b", CancelationReason.PARENT),
        ("c", CancelationReason.PARENT),
    ]
    assert outermost.status is OperationStatus.TIMED_OUT


def test_a_kept_error_raised_again_later_is_still_its_own(registry: ThreadSafeRegistry) -> None:
    with pytest.raises(OperationCancelled) as caught:
        with Cancelable("outer", registry=registry) as outer:
            kept = None
            outer.cancel_sync("outer")
            try:
                outer.check()
            except OperationCancelled as error:
                kept = error
            assert kept is not None
            raise kept
    assert caught.value is kept


def test_a_siblings_error_is_a_failure(registry: ThreadSafeRegistry) -> None:
    with pytest.raises(OperationCancelled) as caught:
        with Cancelable("sibling", registry=registry) as sibling:
            sibling.cancel_sync()
            sibling.check()
    with pytest.raises(OperationCancelled) as again:
        with Cancelable("me", registry=registry) as me:
            me.cancel_sync()
            raise caught.value
    assert again.value.name == "sibling"
    assert me.status is OperationStatus.FAILED


# --- used wrongly


def test_entering_twice(registry: ThreadSafeRegistry) -> None:
    operation = Cancelable(registry=registry)
    with operation:
        with pytest.raises(RuntimeError, match="once"):
            operation.__enter__()
        with pytest.raises(RuntimeError, match="once"):
            in_thread(operation.__enter__)  # and the rightful owner may leave it still
        assert operation.status is OperationStatus.RUNNING
    assert only_history(registry) is OperationStatus.COMPLETED
    with pytest.raises(RuntimeError, match="once"):
        operation.__enter__()


def test_leaving_in_another_thread(registry: ThreadSafeRegistry) -> None:
    operation = Cancelable(registry=registry)
    operation.__enter__()
    with pytest.raises(RuntimeError, match="another task or thread"):
        in_thread(operation.__exit__, None, None, None)
    assert only_history(registry) is OperationStatus.COMPLETED
    assert current_operation() is None


def test_leaving_twice_changes_nothing(registry: ThreadSafeRegistry) -> None:
    operation = Cancelable(registry=registry)
    operation.__enter__()
    with pytest.raises(RuntimeError):
        in_thread(operation.__exit__, None, None, None)
    before = operation.context
    assert operation.__exit__(ValueError, ValueError(), None) is False
    assert operation.context == before


async def test_leaving_in_another_task_of_the_same_thread(registry: ThreadSafeRegistry) -> None:
    operation = Cancelable(registry=registry)
    operation.__enter__()
    raised: list[RuntimeError] = []

    async def leave() -> None:
        try:
            operation.__exit__(None, None, None)
        except RuntimeError as error:
            raised.append(error)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(leave)
    assert raised
    assert only_history(registry) is OperationStatus.COMPLETED
    assert current_operation() is None


def test_the_error_of_leaving_wrongly_keeps_the_bodys(registry: ThreadSafeRegistry) -> None:
    operation = Cancelable(registry=registry)
    operation.__enter__()

    def leave() -> None:
        try:
            raise ValueError("of the body")
        except ValueError as error:
            operation.__exit__(ValueError, error, error.__traceback__)

    with pytest.raises(RuntimeError) as caught:
        in_thread(leave)
    assert isinstance(caught.value.__context__, ValueError)
    assert only_history(registry) is OperationStatus.FAILED


def test_a_duplicate_leaves_no_trace(registry: ThreadSafeRegistry) -> None:
    token = CancelationToken()
    with Cancelable(operation_id="x", registry=registry) as first:
        with pytest.raises(DuplicateOperation):
            with Cancelable(operation_id="x", token=token, timeout=1000, registry=registry):
                raise AssertionError("entered")
        assert not token._watchers
        assert current_operation() is first
        assert registry.cancel_operation("x")
        assert first.token.is_cancelled


@pytest.mark.parametrize(
    ("timeout", "error"),
    [
        (-1, ValueError),
        (-1e-9, ValueError),
        (math.nan, ValueError),
        (-math.inf, ValueError),
        ("soon", TypeError),
        ([], TypeError),
        (1j, TypeError),
    ],
)
@pytest.mark.parametrize("make", [lambda timeout: Cancelable(timeout=timeout), Cancelable.with_timeout])
def test_timeouts_that_are_none(make: Callable[[object], Cancelable], timeout: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        make(timeout)


@pytest.mark.parametrize(
    "options",
    [
        {"name": 5},
        {"name": b"bytes"},
        {"owner": 42},
        {"owner": b"bytes"},
        {"token": "text"},
        {"parent": "text"},
        {"parent": CancelationToken()},
        {"metadata": 5},
        {"registry": 5},
    ],
    ids=str,
)
def test_arguments_of_the_wrong_type_are_refused_at_once(options: dict[str, object]) -> None:
    with pytest.raises((TypeError, ValueError, AttributeError)):
        Cancelable(**options)  # type: ignore[arg-type]


def test_the_token_of_an_operation_may_be_given_but_not_the_operation() -> None:
    with Cancelable(register=False) as first:
        with pytest.raises(TypeError, match="token"):
            Cancelable.with_token(first)  # type: ignore[arg-type]
        with pytest.raises(OperationCancelled):
            with Cancelable.with_token(first.token, register=False, parent=None) as second:
                first.cancel_sync("both")
                second.check()


# --- parents and owners


def test_a_child_is_cancelled_with_its_parent_and_inherits_the_owner(registry: ThreadSafeRegistry) -> None:
    with Cancelable(owner="ada", registry=registry) as parent:
        with Cancelable(registry=registry) as child:
            with Cancelable(registry=registry, owner=None) as nobodys, Cancelable(registry=registry, owner="bob") as bobs:
                contexts = [operation.context for operation in (child, nobodys, bobs)]
                parent.cancel_sync(CancelationReason.SHUTDOWN, "deploy", origin="server")
                told = [operation.context for operation in (child, nobodys, bobs)]
    assert [context.owner for context in contexts] == ["ada", None, "bob"]
    assert [context.parent_id for context in contexts] == [parent.id, child.id, nobodys.id]
    assert {(context.reason, context.message, context.origin) for context in told} == {
        (CancelationReason.PARENT, "deploy", "server")
    }


def test_a_child_cancelled_alone_leaves_its_parent_alone(registry: ThreadSafeRegistry) -> None:
    with Cancelable(registry=registry) as parent:
        with pytest.raises(OperationCancelled):
            with Cancelable(registry=registry) as child:
                child.cancel_sync()
                child.check()
        parent.check()
    assert parent.status is OperationStatus.COMPLETED


def test_parent_none_detaches(registry: ThreadSafeRegistry) -> None:
    with Cancelable(owner="ada", registry=registry) as outer:
        with Cancelable(parent=None, registry=registry) as detached:
            outer.cancel_sync()
            detached.check()
            assert (detached.parent, detached.context.parent_id, detached.context.owner) == (None, None, None)
            assert current_operation() is detached
        assert current_operation() is outer


def test_an_explicit_parent_in_another_thread(registry: ThreadSafeRegistry) -> None:
    opened, operations = threading.Event(), []

    def work(parent: Cancelable) -> None:
        with Cancelable(parent=parent, registry=registry) as child:
            operations.append(child)
            opened.set()
            child.sleep(3600)

    with Cancelable(owner="ada", registry=registry) as parent:
        working = Running(work, parent)
        happens(opened)
        assert operations[0].context.owner == "ada"
        parent.cancel_sync()
        with pytest.raises(OperationCancelled) as caught:
            working.result()
    assert caught.value.reason is CancelationReason.PARENT


def test_a_parent_that_ended_by_itself_cancels_nothing(registry: ThreadSafeRegistry) -> None:
    with Cancelable(registry=registry) as parent:
        pass
    with Cancelable(parent=parent, registry=registry) as child:
        child.check()
    assert child.status is OperationStatus.COMPLETED
    assert not parent.token._watchers


def test_a_parent_that_was_cancelled_and_ended_lets_no_child_begin(registry: ThreadSafeRegistry) -> None:
    with Cancelable(registry=registry) as parent:
        parent.cancel_sync()
    with pytest.raises(OperationCancelled) as caught:
        with Cancelable(parent=parent, registry=registry):
            pytest.fail("its body ran")
    assert caught.value.reason is CancelationReason.PARENT
    assert not parent.token._watchers


def test_ten_thousand_children_leave_nothing_on_a_lasting_parent(registry: ThreadSafeRegistry) -> None:
    with Cancelable(registry=registry) as parent:
        watchers = dict(parent.token._watchers)
        for _ in range(10_000):
            with Cancelable(registry=registry):
                pass
        assert parent.token._watchers == watchers


def test_operations_nested_a_thousand_deep_are_cancelled_from_the_top(store: OperationStore) -> None:
    operations = [Cancelable(registry=store) for _ in range(1_000)]
    for operation in operations:
        operation.__enter__()
    assert operations[0].cancel_sync("top")
    assert all(operation.token.is_cancelled for operation in operations)
    error: BaseException = operations[-1].error()
    for operation in reversed(operations):
        try:
            operation.__exit__(type(error), error, None)
        except OperationCancelled as own:
            error = own
    assert isinstance(error, OperationCancelled)
    assert error.operation_id == operations[0].id
    assert store.statistics().cancelled_operations == 1_000
    while error.__cause__ is not None:  # let go of a chain that is too long to be freed in one go
        error, error.__cause__ = error.__cause__, None


# --- generators


def test_a_closed_generator_ends_its_operation(registry: ThreadSafeRegistry) -> None:
    operation = Cancelable(registry=registry)

    def numbers() -> Iterator[int]:
        with operation:
            yield from range(3)

    source = numbers()
    assert next(source) == 0
    assert current_operation() is operation
    source.close()  # type: ignore[attr-defined]
    assert only_history(registry) is OperationStatus.CANCELLED
    assert (operation.context.reason, operation.context.origin) == (CancelationReason.PARENT, "closed")
    assert current_operation() is None


def test_a_generator_collected_in_another_thread_ends_its_operation(registry: ThreadSafeRegistry) -> None:
    operation = Cancelable(registry=registry)

    def numbers() -> Iterator[int]:
        with operation:
            yield 0

    source = [numbers()]
    next(source[0])
    in_thread(source.clear)
    gc.collect()
    assert only_history(registry) is OperationStatus.CANCELLED
    assert current_operation() is None  # skipped on read: its variable is another thread's


def test_generators_that_end_in_another_order_than_they_began(registry: ThreadSafeRegistry) -> None:
    def numbers(operation: Cancelable) -> Iterator[int]:
        with operation:
            yield 0

    first, second = Cancelable("first", registry=registry), Cancelable("second", registry=registry)
    sources = [numbers(first), numbers(second)]
    for source in sources:
        next(source)
    assert current_operation() is second
    sources[0].close()  # type: ignore[attr-defined]
    assert current_operation() is second
    sources[1].close()  # type: ignore[attr-defined]
    assert current_operation() is None
    assert second.parent is first


def test_a_generator_keeps_its_own_when_closed_in_another_context(registry: ThreadSafeRegistry) -> None:
    def numbers(operation: Cancelable) -> Iterator[int]:
        with operation:
            yield 0

    operation = Cancelable("inside", registry=registry)
    source = numbers(operation)
    elsewhere = contextvars.copy_context()
    elsewhere.run(next, source)
    with Cancelable("here", registry=registry) as here:
        source.close()  # type: ignore[attr-defined]
        assert current_operation() is here
    assert elsewhere.run(current_operation) is None


# --- interrupted anywhere


def test_a_cancel_at_any_line_of_entering_is_not_lost() -> None:
    store = OperationStore()

    def scenario(step: int) -> bool:
        operation = Cancelable("interrupted", timeout=1000, registry=store)
        won: list[bool] = []
        interruption = InterruptedAt(step, lambda: won.append(operation.cancel_sync("now")))
        try:
            with interruption:
                operation.__enter__()
        except OperationCancelled:
            pass
        else:
            if interruption.fired:
                with pytest.raises(OperationCancelled) as caught:
                    operation.check()
                operation.__exit__(type(caught.value), caught.value, None)
            else:
                operation.__exit__(None, None, None)
        assert not store._live, step
        assert current_operation() is None, step
        if interruption.fired:
            assert won == [True], step
            assert operation.status is OperationStatus.CANCELLED, step
        return interruption.fired

    steps = at_every_line(scenario)
    statistics = store.statistics()
    assert (statistics.cancelled_operations, statistics.completed_operations) == (steps, 1)
    assert statistics.total_operations == steps + 1


def test_a_parents_cancel_at_any_line_of_opening_a_child_is_not_lost() -> None:
    store = OperationStore()

    def scenario(step: int) -> bool:
        child = Cancelable("child", registry=store)
        with Cancelable("parent", registry=store) as parent:
            interruption = InterruptedAt(step, parent.cancel_sync)
            try:
                with interruption:
                    child.__enter__()
            except OperationCancelled:
                pass
            else:
                assert child.token.is_cancelled == interruption.fired, step
                child.__exit__(None, None, None)
        assert not store._live, step
        return interruption.fired

    at_every_line(scenario)


def test_a_cancel_at_any_line_of_leaving_is_answered_truthfully() -> None:
    store = OperationStore()

    def scenario(step: int) -> bool:
        operation = Cancelable("interrupted", timeout=1000, registry=store)
        won: list[bool] = []
        operation.__enter__()
        with InterruptedAt(step, lambda: won.append(operation.cancel_sync("now"))) as interruption:
            operation.__exit__(None, None, None)
        assert operation.status is OperationStatus.COMPLETED
        assert store.finished(operation.id) == operation.context, step
        if interruption.fired:
            assert (operation.context.cancel_requested_at is not None) == won[0], step
        return interruption.fired

    steps = at_every_line(scenario)
    assert store.statistics().completed_operations == steps + 1


# --- loops around and inside


def test_one_asyncio_loop_after_another_uses_the_same_store(registry: ThreadSafeRegistry) -> None:
    async def once() -> None:
        async with Cancelable(registry=registry):
            await asyncio.sleep(0)

    for _ in range(3):
        asyncio.run(once())
    with Cancelable(registry=registry):
        pass
    assert registry.get_statistics().completed_operations == 4


def test_a_plain_operation_around_a_whole_loop_is_the_parent_inside(registry: ThreadSafeRegistry) -> None:
    async def inside(outer: Cancelable) -> None:
        async with Cancelable(registry=registry) as inner:
            assert inner.parent is outer
            Running(outer.cancel_sync)
            await anyio.sleep_forever()

    for backend in ("asyncio", "trio"):
        with pytest.raises(OperationCancelled) as caught:
            with Cancelable("outer", registry=registry) as outer:
                anyio.run(partial(inside, outer), backend=backend)
        assert caught.value.name == "outer"


@pytest.mark.parametrize("in_a_group", [False, True])
def test_a_body_that_its_parents_cancel_ends_is_cancelled(registry: ThreadSafeRegistry, in_a_group: bool) -> None:
    inner = Cancelable("inner", registry=registry)
    with pytest.raises(OperationCancelled) as caught:
        with Cancelable("outer", registry=registry) as outer, Cancelable("between", registry=registry), inner:
            outer.cancel_sync("stop")
            try:
                outer.check()
            except OperationCancelled as error:
                raise (ExceptionGroup("all of them", [error]) if in_a_group else error) from None
    assert caught.value.operation_id == outer.id
    assert {context.status for context in registry.get_history()} == {OperationStatus.CANCELLED}
    assert (inner.token.reason, registry.get_statistics().failed_operations) == (CancelationReason.PARENT, 0)


def test_a_parents_cancel_that_is_not_ours_is_a_failure(registry: ThreadSafeRegistry) -> None:
    with pytest.raises(OperationCancelled):
        with Cancelable("outer", registry=registry) as outer:
            with outer.shield():
                shielded = Cancelable("inner", registry=registry)
                error = None
                with pytest.raises(OperationCancelled), shielded:
                    outer.cancel_sync()
                    error = outer.error()
                    raise error
            outer.check()
    assert shielded.status is OperationStatus.FAILED


@pytest.mark.parametrize("timeout", ["5", b"5"])
def test_a_timeout_that_is_text_is_refused(timeout: Any) -> None:
    with pytest.raises(TypeError, match="timeout"):
        Cancelable(timeout=timeout)


def test_a_timeout_that_no_float_holds_is_refused() -> None:
    with pytest.raises(ValueError, match="timeout"):
        Cancelable(timeout=10**400)


def test_a_sleep_inside_shield_may_be_endless(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    with Cancelable(register=False) as operation, operation.shield():
        monkeypatch.setattr("time.sleep", slept.append)
        operation.sleep(math.inf)
        monkeypatch.undo()
        assert 1e9 < slept[0] < threading.TIMEOUT_MAX * 1.01


@pytest.mark.parametrize("registry", ["x", 5, object()])
def test_a_registry_that_is_none_is_refused(registry: Any) -> None:
    with pytest.raises(TypeError, match="OperationStore"):
        Cancelable(registry=registry)


def test_another_thread_is_another_one_even_with_the_same_ident() -> None:
    """Idents are used again once a thread has ended."""
    operation = Cancelable(register=False)

    def enter() -> int:
        operation.__enter__()
        return threading.get_ident()

    def leave_as(ident: int) -> bool:
        if threading.get_ident() == ident:
            operation.__exit__(None, None, None)
        return False

    ident = in_thread(enter)
    with pytest.raises(RuntimeError, match="another task or thread"):
        if not any(in_thread(leave_as, ident) for _ in range(1_000)):
            operation.__exit__(None, None, None)  # where idents are not used again there is nothing to confuse
