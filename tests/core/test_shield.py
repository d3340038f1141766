"""``shield``: cleanup that must not be cut short."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import AsyncIterator, Iterator

import anyio
import anyio.lowlevel
import pytest

from cancelable_core import (
    Cancelable,
    OperationCancelled,
    OperationStatus,
    ThreadSafeRegistry,
)

from .helpers import Running, happens_soon, in_thread


@pytest.mark.parametrize("form", ["with", "async with"])
async def test_inside_nothing_raises_and_nothing_is_interrupted(registry: ThreadSafeRegistry, form: str) -> None:
    cleaned: list[str] = []

    async def cleanup(operation: Cancelable) -> None:
        operation.check()
        await anyio.sleep(0.001)
        await operation.checkpoint()
        assert list(operation.iterate([1])) == [1]
        cleaned.append("done")

    with pytest.raises(OperationCancelled):
        async with Cancelable(registry=registry) as operation:
            try:
                operation.cancel_sync()
                await anyio.sleep_forever()
            finally:
                if form == "with":
                    with operation.shield():
                        await cleanup(operation)
                else:
                    async with operation.shield():
                        await cleanup(operation)
                with pytest.raises(OperationCancelled):
                    operation.check()
    assert cleaned == ["done"]
    assert operation.status is OperationStatus.CANCELLED


async def test_an_await_in_progress_is_not_interrupted_and_the_next_outside_is() -> None:
    reached: list[str] = []
    with pytest.raises(OperationCancelled):
        async with Cancelable(register=False) as operation:
            async with operation.shield():
                Running(operation.cancel_sync)
                await operation.token.wait_for_cancel()
                await anyio.sleep(0.001)
                reached.append("inside")
            await anyio.lowlevel.checkpoint()
            await anyio.sleep_forever()
    assert reached == ["inside"]


async def test_an_outer_scope_is_kept_out_as_well() -> None:
    reached: list[str] = []
    with anyio.CancelScope() as scope:
        async with Cancelable(register=False) as operation, operation.shield():
            scope.cancel()
            await anyio.sleep(0.001)
            reached.append("inside")
    assert reached == ["inside"]


async def test_operations_opened_inside_are_not_cancelled_with_it() -> None:
    with pytest.raises(OperationCancelled):
        async with Cancelable("outer", register=False) as outer:
            outer.cancel_sync()
            async with outer.shield():
                async with Cancelable("inside", register=False) as inside:
                    await anyio.sleep(0.001)
                    inside.check()
                assert inside.parent is outer
            await anyio.sleep_forever()
    assert inside.status is OperationStatus.COMPLETED


async def test_operations_opened_inside_can_be_cancelled_themselves() -> None:
    async with Cancelable(register=False) as outer:
        async with outer.shield():
            with pytest.raises(OperationCancelled):
                async with Cancelable(register=False) as inside:
                    inside.cancel_sync()
                    await anyio.sleep_forever()


async def test_a_thread_call_inside_is_made_and_waited_for() -> None:
    """A rollback in a thread is the very thing that a shield is for."""
    rolled_back = threading.Event()
    with anyio.fail_after(10):
        with pytest.raises(OperationCancelled):
            async with Cancelable(register=False) as operation:
                operation.cancel_sync()
                async with operation.shield():
                    await operation.run_in_thread(rolled_back.set)
                await anyio.sleep_forever()
    assert rolled_back.is_set()


async def test_a_stream_inside_is_not_interrupted() -> None:
    async def numbers() -> AsyncIterator[int]:
        for number in range(3):
            await anyio.sleep(0.001)
            yield number

    delivered: list[int] = []
    with pytest.raises(OperationCancelled):
        async with Cancelable(register=False) as operation:
            operation.cancel_sync()
            async with operation.shield():
                async for number in operation.stream(numbers()):
                    delivered.append(number)
            await anyio.sleep_forever()
    assert delivered == [0, 1, 2]


def test_in_threads() -> None:
    with pytest.raises(OperationCancelled):
        with Cancelable(register=False) as operation:
            operation.cancel_sync()
            with operation.shield():
                operation.check()
                operation.sleep(0.001)
                operation.sleep(-1)
                assert operation.wait(60) is True  # tells, but never raises
                with Cancelable(register=False) as inside:
                    inside.check()
            operation.sleep(60)


def test_a_deadline_waits_too() -> None:
    with pytest.raises(OperationCancelled):
        with Cancelable(timeout=0, register=False) as operation:
            with operation.shield():
                operation.check()
            operation.check()


def test_one_operations_shield_is_no_others() -> None:
    with Cancelable(register=False) as first, Cancelable(register=False, parent=None) as second:
        second.cancel_sync()
        with first.shield():
            with pytest.raises(OperationCancelled):
                second.check()


def test_shields_nest() -> None:
    with Cancelable(register=False) as operation:
        operation.cancel_sync()
        with operation.shield():
            with operation.shield():
                operation.check()
            operation.check()
        with pytest.raises(OperationCancelled):
            operation.check()


def test_shields_left_in_another_order_than_entered_leave_nothing() -> None:
    with Cancelable(register=False) as operation:
        operation.cancel_sync()
        first, second = operation.shield(), operation.shield()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        operation.check()
        second.__exit__(None, None, None)
        with pytest.raises(OperationCancelled):
            operation.check()


def test_a_shield_entered_twice_is_an_error_and_another_time_is_not() -> None:
    with Cancelable(register=False) as operation:
        operation.cancel_sync()
        shield = operation.shield()
        for _ in range(2):
            with shield:
                with pytest.raises(RuntimeError):
                    shield.__enter__()
                operation.check()
        with pytest.raises(OperationCancelled):
            operation.check()


def test_a_shield_is_its_own_contexts() -> None:
    with Cancelable(register=False) as operation:
        operation.cancel_sync()
        with operation.shield():
            with pytest.raises(OperationCancelled):
                in_thread(operation.check)


def test_a_context_copied_inside_is_shielded_only_as_long_as_the_block() -> None:
    with Cancelable(register=False) as operation:
        operation.cancel_sync()
        with operation.shield():
            inside = contextvars.copy_context()
            inside.run(operation.check)
        with pytest.raises(OperationCancelled):
            inside.run(operation.check)


def test_a_generator_that_shields_and_is_closed_elsewhere_leaves_nothing() -> None:
    with Cancelable(register=False) as operation:
        operation.cancel_sync()

        def cleaning() -> Iterator[None]:
            with operation.shield():
                yield

        source = cleaning()
        next(source)
        contextvars.copy_context().run(source.close)  # type: ignore[attr-defined]
        with pytest.raises(OperationCancelled):
            operation.check()


async def test_errors_inside_pass() -> None:
    with pytest.raises(ZeroDivisionError):
        async with Cancelable(register=False) as operation:
            async with operation.shield():
                raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError):
        with operation.shield():
            raise ZeroDivisionError


async def test_events_of_threads_arrive_inside() -> None:
    event = threading.Event()
    async with Cancelable(register=False) as operation:
        operation.cancel_sync()
        async with operation.shield():
            Running(event.set)
            await happens_soon(event)
