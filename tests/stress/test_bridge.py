"""Several threads push through one bridge as fast as they can: everything runs, in order, and nothing is dropped."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from cancelable_core import AnyioBridge, BridgeClosed, BridgeFull, Cancelable, OperationCancelled, OperationStore

from .racing import DEADLINE_SECONDS

PRODUCERS = 4
BUFFER = 1_000


class Arrivals:
    """What was started, by producer, in the order of starting."""

    def __init__(self, items: int) -> None:
        self.items = items
        self.numbers: list[list[int]] = [[] for _ in range(PRODUCERS)]
        self.finished = 0
        self.unfinished = self.most_unfinished = 0

    def plain(self, producer: int, number: int) -> None:
        self.numbers[producer].append(number)
        self.finished += 1

    async def coroutine(self, producer: int, number: int) -> None:
        self.numbers[producer].append(number)
        self.unfinished += 1
        self.most_unfinished = max(self.most_unfinished, self.unfinished)
        if number % 7 == 0:
            await anyio.lowlevel.checkpoint()
        self.unfinished -= 1
        self.finished += 1

    def check(self) -> None:
        for numbers in self.numbers:
            assert numbers == list(range(self.items))
        assert self.finished == PRODUCERS * self.items


def plain(arrivals: Arrivals, number: int) -> Callable[..., object]:
    return arrivals.plain


def coroutine(arrivals: Arrivals, number: int) -> Callable[..., object]:
    return arrivals.coroutine


def mixed(arrivals: Arrivals, number: int) -> Callable[..., object]:
    return arrivals.coroutine if number % 5 == 0 else arrivals.plain


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Without uvloop, which differs from asyncio in nothing that the bridge uses but the speed."""
    return request.param


@pytest.mark.slow
@pytest.mark.parametrize(
    ("choose", "items"),
    [(plain, 50_000), (mixed, 50_000), (coroutine, 5_000)],  # a task for each takes a while
    ids=["plain", "mixed", "coroutines"],
)
async def test_everything_that_was_accepted_runs_in_its_producers_order(
    choose: Callable[[Arrivals, int], Callable[..., object]], items: int
) -> None:
    arrivals = Arrivals(items)
    errors: list[BaseException] = []

    def produce(producer: int) -> None:
        try:
            for number in range(items):
                bridge.call_soon_threadsafe(choose(arrivals, number), producer, number)
        except BaseException as error:
            errors.append(error)

    async with AnyioBridge(BUFFER, on_error=errors.append) as bridge:
        threads = [threading.Thread(target=produce, args=(number,), daemon=True) for number in range(PRODUCERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            await anyio.to_thread.run_sync(thread.join)
    assert not errors
    arrivals.check()
    assert arrivals.most_unfinished <= BUFFER
    statistics = bridge.statistics
    assert (statistics.accepted, statistics.completed) == (PRODUCERS * items, PRODUCERS * items)
    assert statistics.failed == statistics.cancelled == statistics.unfinished == 0


class Producer(threading.Thread):
    """Pushes until it is told that the bridge is closed, or its operation is cancelled; counts what was taken from it."""

    def __init__(self, bridge: AnyioBridge, operation: Cancelable, func: Callable[[], object], *, block: bool) -> None:
        super().__init__(daemon=True)
        self.accepted = 0
        self.told: BaseException | None = None
        self._bridge, self._operation, self._func, self._block = bridge, operation, func, block

    def run(self) -> None:
        try:
            with self._operation:
                while True:
                    with suppress(BridgeFull):
                        self._bridge.call_soon_threadsafe(self._func, block=self._block)
                        self.accepted += 1
        except BaseException as error:
            self.told = error


@pytest.mark.parametrize("leave", ["normally", "by a cancel"])
async def test_a_bridge_that_closes_while_it_is_pushed_answers_for_all_that_it_took(rng: random.Random, leave: str) -> None:
    store = OperationStore(history_limit=0)
    for _ in range(150):
        ran: Counter[str] = Counter()
        pushed = anyio.Event()

        def call(ran: Counter[str] = ran, pushed: anyio.Event = pushed) -> None:
            ran["plain"] += 1
            if ran["plain"] == 20:
                pushed.set()

        async def acall(ran: Counter[str] = ran) -> None:
            await anyio.lowlevel.checkpoint()
            ran["coroutine"] += 1

        operations = [Cancelable(registry=store) for _ in range(PRODUCERS)]
        with anyio.CancelScope() as scope:
            async with AnyioBridge(rng.randrange(1, 8)) as bridge:
                producers = [
                    Producer(bridge, operation, (call, acall)[number % 2], block=number != 2)
                    for number, operation in enumerate(operations)
                ]
                for producer in producers:
                    producer.start()
                await pushed.wait()
                operations[1].cancel_sync()
                if rng.random() < 0.5:
                    operations[0].cancel_sync()
                if leave == "by a cancel":
                    scope.cancel()
                    await anyio.lowlevel.checkpoint()
        for producer in producers:
            producer.join(DEADLINE_SECONDS)
            assert not producer.is_alive(), "it was never let go"
            assert isinstance(producer.told, (BridgeClosed, OperationCancelled))
        assert isinstance(producers[3].told, BridgeClosed)
        statistics = bridge.statistics
        assert statistics.accepted == sum(producer.accepted for producer in producers)
        assert statistics.completed == ran.total()
        assert statistics.accepted == statistics.completed + statistics.cancelled
        assert statistics.failed == statistics.unfinished == 0
        assert ran["plain"] == producers[0].accepted + producers[2].accepted
        if leave == "normally":
            assert statistics.cancelled == 0
