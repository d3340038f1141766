"""``current_operation()``: the innermost open one of this context, never a finished one."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
from collections.abc import AsyncIterator

import anyio
import pytest

from cancelable_core import Cancelable, OperationCancelled, current_operation

from .helpers import happens, happens_soon, in_thread


def test_nothing_is_open() -> None:
    assert current_operation() is None


def test_the_innermost_one() -> None:
    with Cancelable(register=False) as outer:
        assert current_operation() is outer
        with Cancelable(register=False) as inner:
            assert current_operation() is inner
        assert current_operation() is outer
    assert current_operation() is None


async def test_in_tasks_started_inside_and_in_none_started_outside() -> None:
    seen: dict[str, Cancelable | None] = {}

    async def look(where: str) -> None:
        seen[where] = current_operation()

    async with anyio.create_task_group() as outside:
        async with Cancelable(register=False) as operation, anyio.create_task_group() as inside:
            inside.start_soon(look, "inside")
            outside.start_soon(look, "outside group, started inside")
        outside.start_soon(look, "outside")
    assert seen == {"inside": operation, "outside group, started inside": operation, "outside": None} or (
        seen["outside group, started inside"] is None  # it came to run after the operation had ended
        and seen["inside"] is operation
        and seen["outside"] is None
    )


def test_a_plain_thread_has_none() -> None:
    with Cancelable(register=False):
        assert in_thread(current_operation) is None


def test_leaving_in_a_foreign_context_does_not_disturb_it() -> None:
    operation = Cancelable(register=False)
    inside = contextvars.copy_context()
    inside.run(operation.__enter__)
    with Cancelable(register=False) as here:
        operation.__exit__(None, None, None)
        assert current_operation() is here
    assert current_operation() is None
    assert inside.run(current_operation) is None


def test_operations_left_in_the_wrong_order() -> None:
    operations = [Cancelable(register=False) for _ in range(4)]
    for operation in operations:
        operation.__enter__()
    first, second, third, fourth = operations
    second.__exit__(None, None, None)
    assert current_operation() is fourth
    fourth.__exit__(None, None, None)
    assert current_operation() is third
    third.__exit__(None, None, None)
    assert current_operation() is first
    first.__exit__(None, None, None)
    assert current_operation() is None


def test_a_new_one_below_finished_ones_finds_the_nearest_open_parent() -> None:
    with Cancelable("outer", owner="ada", register=False) as outer:
        middle = Cancelable("middle", owner="bob", register=False)
        middle.__enter__()
        inside = contextvars.copy_context()
        middle.__exit__(None, None, None)

        def open_one() -> tuple[Cancelable | None, str | None]:
            with Cancelable(register=False) as late:
                return late.parent, late.context.owner

        assert inside.run(open_one) == (outer, "ada")


async def test_the_thread_of_a_cancelled_operation_keeps_seeing_it_and_nobody_else_does() -> None:
    release, left, seen = threading.Event(), threading.Event(), []

    def work() -> None:
        seen.append(current_operation())
        left.wait(10)
        operation = current_operation()
        seen.append(operation)
        assert operation is not None
        with pytest.raises(OperationCancelled):
            operation.check()
        with pytest.raises(OperationCancelled):
            with Cancelable(register=False):
                raise AssertionError("a child of a cancelled operation ran")
        release.set()

    with anyio.fail_after(10):
        with pytest.raises(OperationCancelled):
            async with Cancelable(register=False) as operation, anyio.create_task_group() as tasks:
                tasks.start_soon(operation.run_in_thread, work)
                while not seen:
                    await anyio.sleep(0)
                operation.cancel_sync()
        assert current_operation() is None
        left.set()
        await happens_soon(release)
    assert seen == [operation, operation]


async def test_the_thread_of_a_completed_operation_no_longer_sees_it() -> None:
    go, done, seen = threading.Event(), threading.Event(), []

    def work() -> None:
        happens(go)
        seen.append(current_operation())
        done.set()

    async with anyio.create_task_group() as tasks:
        operation = Cancelable(register=False)
        async with operation:
            tasks.start_soon(operation.run_in_thread, work)
            await anyio.wait_all_tasks_blocked()
        go.set()
        await happens_soon(done)
    assert seen == [None]


async def test_async_generators_in_one_task_do_not_mix_theirs_up() -> None:
    async def numbers(operation: Cancelable) -> AsyncIterator[Cancelable | None]:
        with operation:
            while True:
                yield current_operation()
                await anyio.sleep(0)

    first, second = Cancelable(register=False), Cancelable(register=False)
    one, other = numbers(first), numbers(second)
    assert await anext(one) is first
    assert await anext(other) is second
    await one.aclose()  # type: ignore[attr-defined]
    assert current_operation() is second
    await other.aclose()  # type: ignore[attr-defined]
    assert current_operation() is None
    gc.collect()


def test_callbacks_of_the_loop_see_the_operation_that_scheduled_them() -> None:
    seen: list[Cancelable | None] = []

    async def main() -> Cancelable:
        async with Cancelable(register=False) as operation:
            asyncio.get_running_loop().call_soon(lambda: seen.append(current_operation()))
            await asyncio.sleep(0)
        return operation

    operation = asyncio.run(main())
    assert seen == [operation]
