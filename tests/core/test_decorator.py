"""``@cancelable``: an operation around every call."""

from __future__ import annotations

import inspect
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial

import anyio
import pytest

from cancelable_core import (
    Cancelable,
    CancelationReason,
    OperationCancelled,
    OperationStatus,
    OperationTimedOut,
    ThreadSafeRegistry,
    cancelable,
    current_operation,
)

from .helpers import Running, happens


@cancelable
def describe(year: int, *, title: str = "x") -> tuple[int, str, Cancelable | None]:
    """Docs stay."""
    return year, title, current_operation()


@cancelable(name="fetching", owner="ada", metadata={"a": 1})
async def fetch(url: str) -> tuple[str, Cancelable | None]:
    await anyio.sleep(0)
    return url, current_operation()


def test_bare_around_a_plain_function() -> None:
    year, title, operation = describe(2026, title="report")
    assert (year, title) == (2026, "report")
    assert operation is not None
    assert (operation.name, operation.status) == ("describe", OperationStatus.COMPLETED)
    assert current_operation() is None
    assert ThreadSafeRegistry().get_operation(operation.id) == operation.context


async def test_with_options_around_an_async_function() -> None:
    url, operation = await fetch("/x")
    assert url == "/x"
    assert operation is not None
    context = operation.context
    assert (context.name, context.owner, context.metadata) == ("fetching", "ada", {"a": 1})


async def test_each_call_is_an_operation_of_its_own() -> None:
    first, second = (await fetch("/1"))[1], (await fetch("/2"))[1]
    assert first is not second
    assert describe(1)[2] is not describe(1)[2]


def test_signatures_names_and_kinds_stay() -> None:
    assert str(inspect.signature(describe)) == "(year: 'int', *, title: 'str' = 'x') -> 'tuple[int, str, Cancelable | None]'"
    assert (describe.__name__, describe.__doc__) == ("describe", "Docs stay.")
    assert inspect.iscoroutinefunction(fetch)
    assert not inspect.iscoroutinefunction(describe)


def test_parentheses_without_options_are_the_same() -> None:
    @cancelable()
    def plain() -> str | None:
        operation = current_operation()
        return operation and operation.name

    assert plain() == "plain"


def test_methods_of_every_kind() -> None:
    class Exporter:
        @cancelable
        def method(self) -> object:
            return type(self), current_operation() is not None

        @classmethod
        @cancelable
        def of_class(cls) -> object:
            return cls, current_operation() is not None

        @staticmethod
        @cancelable
        def static() -> object:
            return None, current_operation() is not None

    assert [Exporter().method(), Exporter.of_class(), Exporter.static()] == [(Exporter, True), (Exporter, True), (None, True)]


def test_a_cancel_stops_a_sync_call() -> None:
    operations: list[Cancelable] = []
    started = threading.Event()

    @cancelable
    def work() -> None:
        operation = current_operation()
        assert operation is not None
        operations.append(operation)
        started.set()
        operation.sleep(60)

    working = Running(work)
    happens(started)
    operations[0].cancel_sync("enough")
    with pytest.raises(OperationCancelled, match="enough"):
        working.result()


async def test_a_timeout_stops_an_async_call() -> None:
    @cancelable(timeout=0.01, register=False)
    async def work() -> None:
        await anyio.sleep_forever()

    with anyio.fail_after(10):
        with pytest.raises(OperationTimedOut) as caught:
            await work()
    assert caught.value.name == "work"


async def test_what_was_cancelled_before_is_skipped() -> None:
    ran: list[str] = []

    @cancelable
    def sync_work() -> None:
        ran.append("sync")

    @cancelable
    async def async_work() -> None:
        ran.append("async")

    with pytest.raises(OperationCancelled):
        with Cancelable(register=False) as outer:
            outer.cancel_sync()
            with pytest.raises(OperationCancelled) as caught:
                sync_work()
            assert caught.value.reason is CancelationReason.PARENT
            await async_work()
    assert ran == []


def test_errors_pass() -> None:
    @cancelable(register=False)
    def broken() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken()


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize("func", [generator, async_generator, partial(generator)])
@pytest.mark.parametrize("decorate", [cancelable, cancelable(timeout=5), cancelable()])
def test_generators_are_refused_with_advice(
    decorate: Callable[[Callable[..., object]], object], func: Callable[..., object]
) -> None:
    with pytest.raises(TypeError, match=r"operation\.stream"):
        decorate(func)


@pytest.mark.parametrize("func", ["a name", 5, Cancelable()])
def test_what_cannot_be_called_is_refused_where_it_is_decorated(func: object) -> None:
    with pytest.raises(TypeError, match="name="):
        cancelable(func)  # type: ignore[arg-type]


@pytest.mark.parametrize("timeout", [-1, float("nan")])
def test_a_timeout_that_is_none_is_refused_where_it_is_decorated(timeout: float) -> None:
    with pytest.raises(ValueError):
        cancelable(timeout=timeout)(lambda: None)


async def test_callables_without_a_name_go_nameless() -> None:
    class Plain:
        def __call__(self) -> str | None:
            operation = current_operation()
            return operation and operation.context.name

    class Async:
        async def __call__(self) -> str | None:
            operation = current_operation()
            return operation and operation.context.name

    assert cancelable(Plain())() is None
    assert await cancelable(Async())() is None
    assert cancelable(partial(describe.__wrapped__, 1))()[2] is not None  # type: ignore[attr-defined]


def test_options_that_do_not_exist() -> None:
    with pytest.raises(TypeError):
        cancelable(timeout_seconds=5)  # type: ignore[call-overload]


class _GeneratorObject:
    def __call__(self) -> Iterator[int]:
        yield 1


class _AsyncGeneratorObject:
    async def __call__(self) -> AsyncIterator[int]:
        yield 1


@pytest.mark.parametrize("func", [_GeneratorObject(), _AsyncGeneratorObject(), partial(_GeneratorObject())])
def test_objects_whose_call_makes_a_generator_are_refused(func: Callable[[], object]) -> None:
    with pytest.raises(TypeError, match="stream"):
        cancelable(func)
