"""Ten thousand deep: tokens linked to tokens, operations inside operations. A cancel reaches all of them, without recursion."""

from __future__ import annotations

import random
import sys
import threading
from contextlib import suppress
from functools import partial
from queue import SimpleQueue

import anyio
import pytest

from cancelable_core import (
    Cancelable,
    CancelationReason,
    CancelationToken,
    OperationCancelled,
    OperationStatus,
    OperationStore,
    current_operation,
)

from .racing import DEADLINE_SECONDS, check_conservation, spin

DEPTH = 10_000
ROUNDS = 2_000


@pytest.fixture(autouse=True)
def usual_recursion_limit() -> None:
    """What is deep for the interpreter: were the limit raised somewhere, the tests would prove nothing."""
    assert sys.getrecursionlimit() * 5 < DEPTH


@pytest.mark.parametrize("compose", [CancelationToken.any_of, CancelationToken.all_of])
def test_tokens_composed_of_tokens(compose) -> None:
    root = CancelationToken()
    chain = [root]
    woke: list[bool] = []
    for _ in range(DEPTH):
        chain.append(compose(chain[-1]))
    waiting = threading.Thread(target=lambda: woke.append(chain[-1].wait(DEADLINE_SECONDS)))
    called: list[CancelationToken] = []
    chain[-1].on_cancel(called.append)
    waiting.start()
    assert root.cancel_sync("from the root") is True
    waiting.join()
    assert woke == [True]
    assert called == [chain[-1]]
    assert all(token.message == "from the root" for token in chain)
    assert not any(token.cancel_sync() for token in chain)


def test_operations_that_are_given_the_token_of_the_one_before() -> None:
    store = OperationStore(history_limit=DEPTH)
    root = CancelationToken()
    operations = []
    given = root
    for _ in range(DEPTH):
        operations.append(Cancelable(token=given, parent=None, registry=store))
        given = operations[-1].token
        operations[-1].__enter__()
    assert root.cancel_sync(CancelationReason.SHUTDOWN, "all of you") is True
    for operation in operations:
        assert operation.status is OperationStatus.CANCELLING
        assert (operation.token.reason, operation.token.message) == (CancelationReason.SHUTDOWN, "all of you")
        with pytest.raises(OperationCancelled):
            operation.check()
    assert store.statistics().cancelling_operations == DEPTH
    for operation in reversed(operations):
        operation.__exit__(None, None, None)
    assert store.statistics().completed_operations == DEPTH
    assert not root._watchers


def check_chain(operations: list[Cancelable], store: OperationStore) -> None:
    """All ended by the one cancel of the outermost, and were counted so."""
    assert {operation.status for operation in operations} == {OperationStatus.CANCELLED}
    assert {operation.token.message for operation in operations} == {"the outermost"}
    statistics = store.statistics()
    check_conservation(statistics)
    assert statistics.cancelled_operations == len(operations)
    assert statistics.by_reason == {CancelationReason.MANUAL: 1, CancelationReason.PARENT: len(operations) - 1}


def leave(operation: Cancelable, error: BaseException) -> BaseException:
    """What comes out of the block when ``error`` comes out of its body."""
    try:
        assert not operation.__exit__(type(error), error, error.__traceback__)
    except OperationCancelled as own:
        return own
    return error


def test_nested_with_blocks_end_one_by_one_each_by_its_own_error() -> None:
    store = OperationStore(history_limit=DEPTH)
    operations = []
    for _ in range(DEPTH):
        operations.append(Cancelable(registry=store))
        operations[-1].__enter__()
    assert current_operation() is operations[-1]
    assert operations[0].cancel_sync("the outermost") is True
    with pytest.raises(OperationCancelled) as raised:
        operations[-1].sleep(DEADLINE_SECONDS)
    error: BaseException = raised.value
    for operation in reversed(operations):
        came, error = error, leave(operation, error)
        assert isinstance(error, OperationCancelled)
        assert error.operation_id == operation.id
        assert error is came or error.__cause__ is came
    assert current_operation() is None
    check_chain(operations, store)


async def aleave(operation: Cancelable, error: BaseException) -> BaseException:
    """The same for ``async with``."""
    try:
        assert not await operation.__aexit__(type(error), error, error.__traceback__)
    except OperationCancelled as own:
        return own
    return error


async def test_nested_async_with_blocks_end_one_by_one() -> None:
    """anyio on asyncio hands a cancel down to the scopes inside by recursion; ours were cancelled by then."""
    store = OperationStore(history_limit=DEPTH)
    operations = []
    for _ in range(DEPTH):
        operations.append(Cancelable(registry=store))
        await operations[-1].__aenter__()
    canceller = threading.Thread(target=partial(operations[0].cancel_sync, "the outermost"))
    canceller.start()
    error: BaseException | None = None
    try:
        await anyio.sleep(DEADLINE_SECONDS)
    except BaseException as native:
        error = native
    for operation in reversed(operations):
        assert error is not None
        error = await aleave(operation, error)
    canceller.join()
    assert isinstance(error, OperationCancelled)
    assert error.operation_id == operations[0].id
    check_chain(operations, store)


async def test_operations_in_tasks_of_tasks_all_end() -> None:
    """Fewer: each level is a task, a task group and an operation, and their errors come out in groups."""
    depth = 2_000
    store = OperationStore(history_limit=depth)
    operations: list[Cancelable] = []

    async def descend(left: int) -> None:
        async with Cancelable(registry=store, raise_on_cancel=False) as operation:
            operations.append(operation)
            if left == 1:
                operations[0].cancel_sync("the outermost")
                await anyio.sleep(DEADLINE_SECONDS)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(descend, left - 1)

    await descend(depth)
    assert len(operations) == depth
    check_chain(operations, store)


async def test_what_is_around_a_cancelled_block_wins(rng: random.Random) -> None:
    """A cancel of the outer operation never lets the inner block end alone, with the outer one going on behind it."""
    store = OperationStore(history_limit=0)
    open_now: SimpleQueue[Cancelable | None] = SimpleQueue()

    def cancel_all() -> None:
        while (operation := open_now.get(timeout=DEADLINE_SECONDS)) is not None:
            spin(rng.randrange(2_000))
            operation.cancel_sync()

    went_on = 0
    canceller = threading.Thread(target=cancel_all, daemon=True)
    canceller.start()
    for number in range(ROUNDS):
        with suppress(OperationCancelled):
            async with Cancelable("outer", registry=store) as outer:
                with suppress(OperationCancelled):
                    async with Cancelable("inner", registry=store, raise_on_cancel=bool(number % 2)):
                        open_now.put(outer)
                        await anyio.sleep(DEADLINE_SECONDS)
                went_on += 1
    open_now.put(None)
    canceller.join(DEADLINE_SECONDS)
    assert went_on == 0
    statistics = store.statistics()
    check_conservation(statistics)
    assert statistics.cancelled_operations == 2 * ROUNDS
