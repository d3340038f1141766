"""Cancel, register, enter, leave: each interrupted at every one of its bytecodes, as by a signal handler or another thread."""

from __future__ import annotations

import asyncio
import time
import weakref
from contextlib import suppress
from functools import partial
from typing import Any

import anyio
import pytest

from cancelable_core import (
    Cancelable,
    CancelationReason,
    CancelationToken,
    CancelOutcome,
    CancelResult,
    JobRunner,
    OperationCancelled,
    OperationStatus,
    OperationStore,
    ThreadSafeRegistry,
)

from .interruptions import Meanwhile, Scenario, interrupt_everywhere
from .racing import DEADLINE_SECONDS, check_conservation


def test_two_cancels_have_one_winner_and_its_words() -> None:
    def make() -> Scenario:
        token = CancelationToken()
        told: dict[str, bool] = {}
        called: list[str | None] = []
        token.on_cancel(lambda token: called.append(token.message))

        def cancel(message: str) -> None:
            told[message] = token.cancel_sync(message)
            assert token.is_cancelled

        def check() -> None:
            winner = [message for message, won in told.items() if won]
            assert len(told) == 2
            assert winner == [token.message] == called

        return Scenario(partial(cancel, "first"), partial(cancel, "second"), check)

    assert interrupt_everywhere(make) > 50


def test_a_callback_registered_while_cancelling_runs_once() -> None:
    def make(swapped: bool) -> Scenario:
        token = CancelationToken()
        called: list[CancelationToken] = []
        register, cancel = partial(token.on_cancel, called.append), token.cancel_sync

        def check() -> None:
            assert called == [token]

        return Scenario(cancel, register, check) if swapped else Scenario(register, cancel, check)

    interrupt_everywhere(partial(make, False))
    interrupt_everywhere(partial(make, True))


def test_a_callback_removed_before_the_cancel_never_runs_and_never_twice_otherwise() -> None:
    def make(swapped: bool) -> Scenario:
        token = CancelationToken()
        called: list[CancelationToken] = []
        registration = token.on_cancel(called.append)

        def remove() -> None:
            cancelled_before = token.is_cancelled
            registration.remove()
            if not swapped and not cancelled_before and not token.is_cancelled:
                token.cancel_sync()
                assert not called

        def check() -> None:
            assert len(called) <= 1
            before = len(called)
            token.cancel_sync()
            assert len(called) == before

        return Scenario(token.cancel_sync, remove, check) if swapped else Scenario(remove, token.cancel_sync, check)

    interrupt_everywhere(partial(make, False))
    interrupt_everywhere(partial(make, True))


def test_a_thread_that_begins_to_wait_while_another_cancels_wakes() -> None:
    def make() -> Scenario:
        token = CancelationToken()
        waiting = Meanwhile(lambda: token.wait(DEADLINE_SECONDS))

        def check() -> None:
            assert waiting.end() is True

        return Scenario(token.cancel_sync, waiting, check)

    interrupt_everywhere(make)


def test_a_cancel_from_a_signal_handler_wakes_the_thread_it_interrupted_on_its_way_to_sleep() -> None:
    patience_seconds = 0.05

    def make() -> Scenario:
        token = CancelationToken()
        woke: list[bool] = []
        started = time.monotonic()
        cancelled_after: list[float] = []

        def cancel() -> None:
            cancelled_after.append(time.monotonic() - started)
            token.cancel_sync()

        def check() -> None:
            assert woke == [True] or cancelled_after[0] >= patience_seconds

        return Scenario(lambda: woke.append(token.wait(patience_seconds)), cancel, check)

    interrupt_everywhere(make)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_task_that_begins_to_wait_while_a_thread_cancels_wakes(backend: str) -> None:
    async def wait(token: CancelationToken) -> bool:
        with anyio.move_on_after(DEADLINE_SECONDS):
            await token.wait_for_cancel()
            return True
        return False

    def make() -> Scenario:
        token = CancelationToken()
        waiting = Meanwhile(lambda: anyio.run(wait, token, backend=backend))
        return Scenario(token.cancel_sync, waiting, lambda: None if waiting.end() else pytest.fail("never woke"))

    interrupt_everywhere(make)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_block_entered_while_a_thread_cancels_its_token_is_interrupted(backend: str) -> None:
    async def work(token: CancelationToken, store: OperationStore) -> OperationStatus:
        operation = Cancelable(token=token, registry=store)
        with suppress(OperationCancelled):
            async with operation:
                await anyio.sleep(DEADLINE_SECONDS)
        return operation.status

    def make() -> Scenario:
        token, store = CancelationToken(), OperationStore()
        working = Meanwhile(lambda: anyio.run(work, token, store, backend=backend))

        def check() -> None:
            assert working.end() is OperationStatus.CANCELLED

        return Scenario(token.cancel_sync, working, check)

    interrupt_everywhere(make)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_block_interrupted_anywhere_by_a_cancel_ends_truthfully(backend: str) -> None:
    def make() -> Scenario:
        store = OperationStore()
        operation = Cancelable(registry=store)
        told: list[CancelResult] = []
        raised: list[OperationCancelled] = []

        async def work() -> None:
            try:
                async with operation:
                    await anyio.lowlevel.checkpoint()
            except OperationCancelled as error:
                raised.append(error)

        # the interruption is asked for inside the loop, since the tracing is of this thread
        return Scenario(
            lambda: anyio.run(work, backend=backend),
            lambda: told.append(ThreadSafeRegistry(store).cancel_operation(operation.id)),
            lambda: check_end(store, operation, told, raised),
        )

    interrupt_everywhere(make)


def test_a_with_block_interrupted_anywhere_by_a_cancel_ends_truthfully() -> None:
    def make() -> Scenario:
        store = OperationStore()
        operation = Cancelable(registry=store)
        told: list[CancelResult] = []
        raised: list[OperationCancelled] = []

        def work() -> None:
            try:
                with operation:
                    operation.check()
            except OperationCancelled as error:
                raised.append(error)

        return Scenario(
            work,
            lambda: told.append(ThreadSafeRegistry(store).cancel_operation(operation.id)),
            lambda: check_end(store, operation, told, raised),
        )

    assert interrupt_everywhere(make) > 200


def check_end(store: OperationStore, operation: Cancelable, told: list[CancelResult], raised: list[OperationCancelled]) -> None:
    """What was told, what was raised, what the status says and what was counted are one story."""
    (result,) = told
    status = operation.status
    assert status in (OperationStatus.CANCELLED, OperationStatus.COMPLETED)
    assert (status is OperationStatus.CANCELLED) == bool(raised)
    if status is OperationStatus.CANCELLED:
        assert result.outcome is CancelOutcome.REQUESTED
    if result.outcome is CancelOutcome.FINISHED:
        assert result.status is status is OperationStatus.COMPLETED
    assert result.outcome is not CancelOutcome.ALREADY_REQUESTED
    assert (operation.token.verdict is not None) == (result.outcome is CancelOutcome.REQUESTED)
    assert not operation.cancel_sync()
    statistics = store.statistics()
    check_conservation(statistics)
    assert (statistics.completed_operations, statistics.cancelled_operations) == (
        (1, 0) if status is OperationStatus.COMPLETED else (0, 1)
    )
    assert store.find(operation.id) is None


def test_callbacks_of_an_accepted_cancel_run_even_if_the_block_is_left_meanwhile() -> None:
    def make() -> Scenario:
        operation = Cancelable(registry=OperationStore())
        called: list[CancelationToken] = []
        other = CancelationToken.any_of(operation.token, CancelationToken())
        told: list[bool] = []
        operation.__enter__()
        operation.on_cancel(called.append)

        def check() -> None:
            assert called == [operation.token] * told[0]
            assert other.is_cancelled is told[0]

        return Scenario(lambda: told.append(operation.cancel_sync()), lambda: operation.__exit__(None, None, None), check)

    interrupt_everywhere(make)


def test_a_child_is_cancelled_even_if_its_parent_is_left_meanwhile() -> None:
    def make() -> Scenario:
        store = OperationStore()
        parent = Cancelable("parent", registry=store)
        parent.__enter__()
        child = Cancelable("child", registry=store)
        child.__enter__()
        told: list[bool] = []

        def check() -> None:
            assert child.token.is_cancelled is told[0]
            assert child.token.reason is (CancelationReason.PARENT if told[0] else None)
            child.__exit__(None, None, None)
            check_conservation(store.statistics())

        return Scenario(lambda: told.append(parent.cancel_sync()), lambda: parent.__exit__(None, None, None), check)

    interrupt_everywhere(make)


def test_an_any_of_being_made_hears_of_a_part_that_is_cancelled_meanwhile() -> None:
    def make(swapped: bool) -> Scenario:
        part = CancelationToken()
        made: list[CancelationToken] = []

        def combine() -> None:
            inner = CancelationToken.any_of(CancelationToken(), part)
            made.append(CancelationToken.any_of(inner, CancelationToken()))

        def check() -> None:
            assert made[0].is_cancelled

        return Scenario(part.cancel_sync, combine, check) if swapped else Scenario(combine, part.cancel_sync, check)

    interrupt_everywhere(partial(make, False))
    interrupt_everywhere(partial(make, True))


def test_an_all_of_whose_parts_are_cancelled_at_once_is_cancelled() -> None:
    def make_cancels() -> Scenario:
        first, second = CancelationToken(), CancelationToken()
        both = CancelationToken.all_of(first, second)

        def check() -> None:
            assert both.is_cancelled

        return Scenario(first.cancel_sync, second.cancel_sync, check)

    def make_making() -> Scenario:
        first, second = CancelationToken(), CancelationToken()
        made: list[CancelationToken] = []

        def check() -> None:
            assert made[0].is_cancelled

        def cancel() -> None:
            second.cancel_sync()
            first.cancel_sync()

        return Scenario(lambda: made.append(CancelationToken.all_of(first, second)), cancel, check)

    interrupt_everywhere(make_cancels)
    interrupt_everywhere(make_making)


def _one_waits_one_leaves(swapped: bool) -> tuple[Scenario, list[Any]]:
    """Somebody begins to depend on a chain of composites while somebody else stops depending on it."""
    part = CancelationToken()
    composite = CancelationToken.any_of(CancelationToken.any_of(part), CancelationToken())
    leaving = composite.on_cancel(lambda _: None)
    called: list[None] = []
    alive = weakref.ref(composite)
    state = [part, alive, called]

    def come(composite: CancelationToken = composite) -> None:
        state.append(composite.on_cancel(lambda _: called.append(None)))

    del composite
    moves = (leaving.remove, come) if swapped else (come, leaving.remove)
    return Scenario(*moves, lambda: None), state


@pytest.mark.parametrize("swapped", [False, True])
def test_a_composite_lives_exactly_as_long_as_somebody_depends_on_it(swapped: bool) -> None:
    def make(*, goes_again: bool) -> Scenario:
        scenario, state = _one_waits_one_leaves(swapped)
        part, alive, called = state[:3]

        def check() -> None:
            registration = state.pop()
            if goes_again:
                registration.remove()
            del registration
            moves.clear()
            assert (alive() is None) is goes_again
            part.cancel_sync()
            assert len(called) == (not goes_again)

        moves = [scenario.interrupted, scenario.interrupter]

        return Scenario(lambda: moves[0](), lambda: moves[1](), check)

    interrupt_everywhere(partial(make, goes_again=True))
    interrupt_everywhere(partial(make, goes_again=False))


def test_statistics_interrupted_by_the_end_of_an_operation_neither_hang_nor_lie() -> None:
    """As when the collector closes a generator, and so an operation, in the thread that is counting."""

    def make(method: str) -> Scenario:
        store = OperationStore()
        operation = Cancelable("x", registry=store)
        operation.__enter__()
        other = Cancelable("y", registry=store)
        inside = {
            "statistics": lambda: check_conservation(store.statistics()),
            "register": other.__enter__,
            "list": lambda: ThreadSafeRegistry(store).list_operations(name_pattern="*"),
            "history": lambda: ThreadSafeRegistry(store).get_history(),
            "end_token": lambda: store.end_token(operation.id),
        }[method]

        def check() -> None:
            statistics = store.statistics()
            check_conservation(statistics)
            assert statistics.completed_operations == 1
            assert store.find(operation.id) is None
            if method == "register":
                other.__exit__(None, None, None)

        return Scenario(inside, lambda: operation.__exit__(None, None, None), check)

    for method in ("statistics", "register", "list", "history", "end_token"):
        interrupt_everywhere(partial(make, method))


def test_a_waiter_for_an_end_is_never_left_behind() -> None:
    def make() -> Scenario:
        store = OperationStore()
        operation = Cancelable(registry=store)
        operation.__enter__()
        waiting = Meanwhile(lambda: ThreadSafeRegistry(store).wait_for(operation.id, DEADLINE_SECONDS))

        def check() -> None:
            assert waiting.end().status is OperationStatus.COMPLETED

        return Scenario(lambda: operation.__exit__(None, None, None), waiting, check)

    interrupt_everywhere(make)


def test_a_job_cancelled_anywhere_in_its_submission_either_runs_or_does_not() -> None:
    runners: list[JobRunner] = []

    def make() -> Scenario:
        store = OperationStore()
        runner = JobRunner(store, workers=1)
        runners.append(runner)
        told: list[CancelResult] = []
        ran: list[None] = []
        jobs: list[Any] = []

        def check() -> None:
            with suppress(OperationCancelled):
                jobs[0].result(DEADLINE_SECONDS)
            context = jobs[0].context
            assert bool(ran) == (context.started_at is not None)
            assert ran or context.status is OperationStatus.CANCELLED
            assert ran or told[0].outcome is CancelOutcome.REQUESTED
            check_conservation(store.statistics())
            runner.close()

        return Scenario(
            lambda: jobs.append(runner.submit(lambda: ran.append(None), job_id="job")),
            lambda: told.append(ThreadSafeRegistry(store).cancel_operation("job")),
            check,
        )

    interrupt_everywhere(make)


def test_a_job_whose_loop_gives_it_up_before_its_first_step_is_settled() -> None:
    store = OperationStore()
    runner = JobRunner(store)

    async def job() -> None:
        raise AssertionError("never runs")

    async def main() -> None:
        handle = runner.submit(job)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        context = await handle.wait()
        assert context.status is OperationStatus.CANCELLED
        assert context.started_at is None
        with pytest.raises(OperationCancelled):
            handle.result(0)

    asyncio.run(main())
    assert store.statistics().pending_operations == 0
