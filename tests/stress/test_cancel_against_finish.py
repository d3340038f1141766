"""Somebody cancels at the moment the work ends. Whoever asks is told what happened, and the counters add up all the time."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable
from queue import SimpleQueue

import anyio
import anyio.lowlevel

from cancelable_core import (
    Cancelable,
    CancelOutcome,
    OperationCancelled,
    OperationStatus,
    OperationStore,
    ThreadSafeRegistry,
)

from .racing import DEADLINE_SECONDS, Racers, Snapshots, spin

ROUNDS = 10_000
BATCH = 100


class Ledger:
    """What became of one operation, as told to everybody who had to do with it."""

    def __init__(self, store: OperationStore) -> None:
        self.operation = Cancelable("raced", registry=store)
        self.registry = ThreadSafeRegistry(store)
        self.outcomes: list[CancelOutcome] = []
        self.raised = False

    def cancel(self) -> None:
        """Cancel by the handle, with the registry's words for the answer."""
        if self.operation.cancel_sync():
            self.outcomes.append(CancelOutcome.REQUESTED)
        else:
            final = self.operation.status.is_final
            self.outcomes.append(CancelOutcome.FINISHED if final else CancelOutcome.ALREADY_REQUESTED)

    def cancel_by_id(self) -> None:
        """Cancel through the registry, and hold it to its words."""
        result = self.registry.cancel_operation(self.operation.id)
        if result.outcome is CancelOutcome.FINISHED:
            assert self.operation.status.is_final
            assert result.status is self.operation.status
        if result.outcome is not CancelOutcome.UNKNOWN:  # it has not been entered
            self.outcomes.append(result.outcome)

    def check(self) -> OperationStatus:
        """All that was told is one story; returns the end of it."""
        status = self.operation.status
        winners = self.outcomes.count(CancelOutcome.REQUESTED)
        assert status in (OperationStatus.CANCELLED, OperationStatus.COMPLETED)
        assert winners <= 1
        assert winners == (self.operation.token.reason is not None)
        if status is OperationStatus.CANCELLED:
            assert winners == 1
        if not winners:
            assert set(self.outcomes) <= {CancelOutcome.FINISHED}
        assert self.raised == (status is OperationStatus.CANCELLED)
        assert not self.operation.cancel_sync()
        assert self.operation.status is status
        return status


def check_totals(store: OperationStore, ends: Counter[OperationStatus], count: int) -> None:
    """Both ends happened often enough for a race, and the store counted what was seen."""
    print(dict(ends))
    statistics = store.statistics()
    assert statistics.total_operations == sum(ends.values()) == count
    assert statistics.cancelled_operations == ends[OperationStatus.CANCELLED] > count // 100
    assert statistics.completed_operations == ends[OperationStatus.COMPLETED] > count // 100


def test_threads_that_cancel_while_a_thread_finishes(rng: random.Random) -> None:
    store = OperationStore(history_limit=ROUNDS)
    ledger = Ledger(store)

    def work() -> None:
        try:
            with ledger.operation as operation:
                spin(delays[0])
                operation.check()
        except OperationCancelled:
            ledger.raised = True

    def cancel() -> None:
        spin(delays[1])
        ledger.cancel()

    def cancel_by_id() -> None:
        spin(delays[2])
        ledger.cancel_by_id()

    ends: Counter[OperationStatus] = Counter()
    with Snapshots(store), Racers(work, cancel, cancel_by_id) as racers:
        for _ in range(ROUNDS):
            ledger = Ledger(store)
            delays = [rng.randrange(400), rng.randrange(400), rng.randrange(400)]
            racers.run()
            ends[ledger.check()] += 1
    check_totals(store, ends, ROUNDS)


async def _work(ledger: Ledger, turns: int, entered: Callable[[Ledger], object] = lambda _: None) -> None:
    try:
        async with ledger.operation:
            entered(ledger)
            for _ in range(turns):
                await anyio.lowlevel.checkpoint()
    except OperationCancelled:
        ledger.raised = True


async def _cancel(ledger: Ledger, turns: int) -> None:
    for _ in range(turns):
        await anyio.lowlevel.checkpoint()
    (ledger.cancel_by_id if turns % 2 else ledger.cancel)()


async def test_tasks_that_cancel_while_a_task_finishes(rng: random.Random) -> None:
    store = OperationStore(history_limit=ROUNDS)
    ends: Counter[OperationStatus] = Counter()
    with Snapshots(store):
        for _ in range(ROUNDS // BATCH):
            ledgers = [Ledger(store) for _ in range(BATCH)]
            async with anyio.create_task_group() as tasks:
                for ledger in ledgers:
                    tasks.start_soon(_work, ledger, rng.randrange(4))
                    tasks.start_soon(_cancel, ledger, rng.randrange(5))
                    tasks.start_soon(_cancel, ledger, rng.randrange(5))
            ends.update(ledger.check() for ledger in ledgers)
    check_totals(store, ends, ROUNDS)


async def test_threads_and_tasks_that_cancel_while_a_task_finishes(rng: random.Random) -> None:
    store = OperationStore(history_limit=ROUNDS)
    ends: Counter[OperationStatus] = Counter()
    queues: list[SimpleQueue[Ledger | None]] = [SimpleQueue(), SimpleQueue()]
    answered = [threading.Semaphore(0) for _ in queues]

    def cancel_in_thread(number: int) -> None:
        jitter = random.Random(number)
        while (ledger := queues[number].get(timeout=DEADLINE_SECONDS)) is not None:
            spin(jitter.randrange(300))
            (ledger.cancel_by_id if number else ledger.cancel)()
            answered[number].release()

    handed_out: list[Ledger] = []

    def hand_out(ledger: Ledger) -> None:
        handed_out.append(ledger)
        for queue in queues:
            queue.put(ledger)

    threads = [threading.Thread(target=cancel_in_thread, args=(number,), daemon=True) for number in range(len(queues))]
    for thread in threads:
        thread.start()
    try:
        with Snapshots(store):
            for _ in range(ROUNDS // BATCH):
                ledgers = [Ledger(store) for _ in range(BATCH)]
                async with anyio.create_task_group() as tasks:
                    for ledger in ledgers:
                        tasks.start_soon(_work, ledger, rng.randrange(8), hand_out)
                        tasks.start_soon(_cancel, ledger, rng.randrange(16))
                for semaphore in answered:
                    for _ in handed_out:  # all but those that were cancelled before they began
                        assert semaphore.acquire(timeout=DEADLINE_SECONDS)
                handed_out.clear()
                ends.update(ledger.check() for ledger in ledgers)
    finally:
        for queue in queues:
            queue.put(None)
        for thread in threads:
            thread.join(DEADLINE_SECONDS)
    check_totals(store, ends, ROUNDS)
