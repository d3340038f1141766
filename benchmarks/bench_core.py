"""What tokens and operations cost over the cheapest thing of anyio and the standard library that could stand in their place.

One store without a history takes the operations, so that what is measured does not change while it is measured. On asyncio and
trio both sides of a comparison run in one task of one loop.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import anyio
import trio
from _harness import compare, print_header

from cancelable_core import Cancelable, CancelationToken, OperationStore, ThreadSafeRegistry

AsyncWork = Callable[[int], Coroutine[Any, Any, object]]

DAY_SECONDS = 86_400.0
"""A deadline that never comes."""


def repeated(func: Callable[[], object]) -> Callable[[int], None]:
    """The function in a loop of its own."""

    def work(times: int) -> None:
        for _ in range(times):
            func()

    return work


def tokens() -> None:
    """Creating, checking, cancelling, registering."""
    compare("token: create / threading.Event()", repeated(CancelationToken), repeated(threading.Event))
    token, event = CancelationToken(), threading.Event()

    def attribute(times: int) -> None:
        for _ in range(times):
            token.is_cancelled  # noqa: B018  # reading it is what is measured

    compare("token: is_cancelled / Event.is_set()", attribute, repeated(event.is_set))
    compare("token: check() / Event.is_set()", repeated(token.check), repeated(event.is_set))
    compare(
        "token: create, cancel_sync() / Event(), set()",
        repeated(lambda: CancelationToken().cancel_sync()),
        repeated(lambda: threading.Event().set()),
    )
    registered: list[Callable[..., object]] = []

    def append_and_pop() -> None:
        registered.append(print)
        registered.pop()

    compare(
        "token: on_cancel(), remove() / list.append(), pop()",
        repeated(lambda: token.on_cancel(print).remove()),
        repeated(append_and_pop),
    )


def plain_operations(store: OperationStore) -> None:
    """``with Cancelable()`` over the smallest context manager there is: a lock."""
    lock = threading.Lock()

    def locked() -> None:
        with lock:
            pass

    def operation(**options: Any) -> None:
        with Cancelable(registry=store, **options):
            pass

    shared = CancelationToken()
    compare("with: not registered / with Lock()", repeated(partial(operation, register=False)), repeated(locked))
    compare("with: registered / with Lock()", repeated(operation), repeated(locked))
    compare("with: on a shared token / with Lock()", repeated(partial(operation, token=shared)), repeated(locked))
    compare("with: with a deadline / with Lock()", repeated(partial(operation, timeout=DAY_SECONDS)), repeated(locked))


def store_of(count: int) -> None:
    """What the registry answers among so many live operations, over a dictionary with a lock."""
    store = OperationStore()
    operations = [Cancelable(f"name-{number % 100}", registry=store) for number in range(count)]
    for operation in operations:
        operation.announce()
    registry, some_id = ThreadSafeRegistry(store), operations[count // 2].id
    lock, entries = threading.Lock(), {operation.id: operation for operation in operations}

    def look_up() -> None:
        with lock:
            entries.get(some_id)

    def scan() -> None:
        with lock:
            [entry for entry in entries.values() if entry.name == "name-7"]

    compare(f"registry of {count:,}: statistics / dict and Lock", repeated(registry.get_statistics), repeated(look_up))
    compare(
        f"registry of {count:,}: get_operation / dict and Lock",
        repeated(partial(registry.get_operation, some_id)),
        repeated(look_up),
    )
    compare(
        f"registry of {count:,}: one of 100 names / scan",
        repeated(partial(registry.list_operations, name_pattern="name-7")),
        repeated(scan),
    )


def driven(work: AsyncWork) -> Callable[[int], object]:
    """A coroutine function as plain work, inside the running task: entering and leaving an operation never suspends."""

    def drive(times: int) -> None:
        try:
            work(times).send(None)
        except StopIteration:
            return
        raise AssertionError("it waited for something")

    return drive


async def async_operations(backend: str, store: OperationStore) -> None:
    """``async with Cancelable()`` over a bare cancel scope of anyio."""
    shared = CancelationToken()

    async def scope(times: int) -> None:
        for _ in range(times):
            with anyio.CancelScope():
                pass

    async def timed_scope(times: int) -> None:
        for _ in range(times):
            with anyio.move_on_after(DAY_SECONDS):
                pass

    async def operation(options: dict[str, Any], times: int) -> None:
        for _ in range(times):
            async with Cancelable(registry=store, **options):
                pass

    def against(floor: AsyncWork, name: str, **options: Any) -> None:
        compare(f"{backend}: {name}", driven(partial(operation, options)), driven(floor))

    against(scope, "not registered / CancelScope()", register=False)
    against(scope, "registered / CancelScope()")
    against(scope, "on a shared token / CancelScope()", token=shared)
    against(timed_scope, "with a deadline / move_on_after()", timeout=DAY_SECONDS)


def trio_timer() -> None:
    """Why deadlines live on the timer thread on trio: its only timer for plain callbacks is a task that sleeps."""

    async def sleep(scope: trio.CancelScope) -> None:
        with scope:
            await trio.sleep(DAY_SECONDS)

    async def sleeping_tasks(times: int) -> None:
        for _ in range(times):
            scope = trio.CancelScope()
            trio.lowlevel.spawn_system_task(sleep, scope)
            await trio.lowlevel.checkpoint()
            scope.cancel()
            await trio.lowlevel.checkpoint()

    async def operations(times: int) -> None:
        for _ in range(times):
            async with Cancelable(register=False):
                await trio.lowlevel.checkpoint()
                await trio.lowlevel.checkpoint()

    compare("trio: a task that sleeps / a whole operation", partial(trio.run, sleeping_tasks), partial(trio.run, operations))


def main() -> None:
    """Print the ratios."""
    print_header("tokens, operations, registry", "trio")
    store = OperationStore(history_limit=0)
    tokens()
    plain_operations(store)
    for count in (1_000, 100_000):
        store_of(count)
    for backend in ("asyncio", "trio"):
        anyio.run(async_operations, backend, store, backend=backend)
    trio_timer()


if __name__ == "__main__":
    main()
