"""`ContextBridge`: context variables follow a call into a thread and do not leak."""

from __future__ import annotations

import contextvars

import anyio
import pytest

from cancelable_core import Cancelable, ContextBridge, current_operation

from .helpers import in_thread, start_a_loop

colour: contextvars.ContextVar[str] = contextvars.ContextVar("colour")
shape: contextvars.ContextVar[str] = contextvars.ContextVar("shape", default="round")


@pytest.fixture
def bridge() -> ContextBridge:
    return ContextBridge()


async def test_the_operation_and_variables_are_seen_in_the_thread(bridge: ContextBridge) -> None:
    colour.set("red")

    def work(*args: object, **kwargs: object) -> tuple[object, ...]:
        operation = current_operation()
        return operation and operation.context.name, colour.get(), args, kwargs

    async with Cancelable.with_timeout(30.0, name="parent", register=False):
        assert await bridge.run_in_thread_with_context(work, 1, func=2, self=3) == (
            "parent",
            "red",
            (1,),
            {"func": 2, "self": 3},
        )


async def test_what_the_thread_sets_stays_there(bridge: ContextBridge) -> None:
    def look_and_set() -> str:
        before = shape.get()
        shape.set("square")
        return before

    assert [await bridge.run_in_thread_with_context(look_and_set) for _ in range(5)] == ["round"] * 5
    assert shape.get() == "round"


async def test_errors_pass(bridge: ContextBridge) -> None:
    with pytest.raises(ZeroDivisionError):
        await bridge.run_in_thread_with_context(lambda: 1 / 0)
    with pytest.raises(RuntimeError):
        await bridge.run_in_thread_with_context(next, iter(()))


async def test_the_thread_may_start_a_loop_of_its_own(bridge: ContextBridge) -> None:
    """That this one runs in another thread is nothing it may inherit, nor be given with a saved context."""
    saved = bridge.copy_context()

    def restore_and_start() -> tuple[str, str]:
        with bridge.restored(saved):
            first = start_a_loop()
        bridge.restore_context(saved)
        return first, start_a_loop()

    assert await bridge.run_in_thread_with_context(start_a_loop) == "it works"
    assert in_thread(restore_and_start) == ("it works", "it works")


async def test_two_calls_at_once_do_not_share_a_context(bridge: ContextBridge) -> None:
    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(bridge.run_in_thread_with_context, shape.get)


def test_restoring_lays_the_saved_values_over(bridge: ContextBridge) -> None:
    def save() -> contextvars.Context:
        colour.set("blue")
        return bridge.copy_context()

    saved = in_thread(save)

    def restore() -> tuple[str, str]:
        shape.set("square")
        bridge.restore_context(saved)
        return colour.get(), shape.get()

    assert in_thread(restore) == ("blue", "square")  # what was not saved keeps its value
    with pytest.raises(LookupError):
        colour.get()


def test_restored_undoes_itself_even_after_an_error(bridge: ContextBridge) -> None:
    context = contextvars.copy_context()
    context.run(colour.set, "blue")
    context.run(shape.set, "square")

    def work() -> None:
        shape.set("oval")
        with bridge.restored(context):
            assert (colour.get(), shape.get()) == ("blue", "square")
            with pytest.raises(ZeroDivisionError):
                with bridge.restored(contextvars.copy_context()):
                    raise ZeroDivisionError
        assert shape.get() == "oval"
        with pytest.raises(LookupError):
            colour.get()
        with pytest.raises(ZeroDivisionError), bridge.restored(context):
            raise ZeroDivisionError
        assert shape.get() == "oval"

    in_thread(work)


def test_restoring_the_context_of_an_operation_shows_it_while_it_is_open(bridge: ContextBridge) -> None:
    with Cancelable(register=False) as operation:
        saved = bridge.copy_context()

        def look() -> Cancelable | None:
            with bridge.restored(saved):
                return current_operation()

        assert in_thread(look) is operation
    assert in_thread(look) is None
