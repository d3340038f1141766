"""A cancel reaches a task that sleeps in an otherwise idle loop: always, and at once."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any

import anyio
import pytest

from cancelable_core import Cancelable, OperationCancelled, OperationStore

from .racing import DEADLINE_SECONDS, run_script, spin

ROUNDS = 2_000
LATEST_SECONDS = 1.0
"""A guard against cancels that wait for something else to wake the loop, not a measure of speed."""

Parked = tuple[Cancelable, list[float]]


async def sleep_and_be_cancelled(rounds: int, parked: SimpleQueue[Parked | None]) -> list[float]:
    """Enter an operation, hand it out, sleep; returns how long each cancel took."""
    store = OperationStore(history_limit=0)
    latencies: list[float] = []
    try:
        for _ in range(rounds):
            cancelled_at: list[float] = []
            with suppress(OperationCancelled):
                async with Cancelable(registry=store) as operation:
                    parked.put((operation, cancelled_at))
                    await anyio.sleep(DEADLINE_SECONDS)
            latencies.append(time.monotonic() - cancelled_at[0])
    finally:
        parked.put(None)
    return latencies


def cancel_all(parked: SimpleQueue[Parked | None], rng: random.Random) -> None:
    while (item := parked.get(timeout=DEADLINE_SECONDS)) is not None:
        operation, cancelled_at = item
        spin(rng.randrange(20_000))  # up to some hundred microseconds: the loop is on its way to sleep, or asleep
        cancelled_at.append(time.monotonic())
        assert operation.cancel_sync()


def check_latencies(latencies: list[float]) -> None:
    assert len(latencies) == ROUNDS
    latencies.sort()
    print(f"median {latencies[ROUNDS // 2] * 1e6:.0f} µs, worst {latencies[-1] * 1e3:.1f} ms")
    assert latencies[-1] < LATEST_SECONDS


async def test_a_cancel_from_a_thread_wakes_an_idle_loop(rng: random.Random) -> None:
    parked: SimpleQueue[Parked | None] = SimpleQueue()
    canceller = threading.Thread(target=cancel_all, args=(parked, rng), daemon=True)
    canceller.start()
    check_latencies(await sleep_and_be_cancelled(ROUNDS, parked))
    canceller.join(DEADLINE_SECONDS)


@pytest.mark.parametrize("other_backend", ["asyncio", "trio"])
async def test_a_cancel_from_another_loop_wakes_an_idle_loop(rng: random.Random, other_backend: str) -> None:
    parked: SimpleQueue[Parked | None] = SimpleQueue()

    async def cancel_from_here() -> None:
        cancel_all(parked, rng)

    canceller = threading.Thread(target=lambda: anyio.run(cancel_from_here, backend=other_backend), daemon=True)
    canceller.start()
    check_latencies(await sleep_and_be_cancelled(ROUNDS, parked))
    canceller.join(DEADLINE_SECONDS)


@pytest.mark.parametrize("backend", ["asyncio", "uvloop", "trio"])
def test_a_cancel_from_a_signal_handler_wakes_an_idle_loop(backend: str) -> None:
    figures = run_script("signal_wakeups.py", backend, ROUNDS)
    assert figures["cancelled"] == ROUNDS
    assert figures["worst"] < LATEST_SECONDS


@pytest.mark.parametrize("canceller", ["thread", "asyncio", "trio", "signal"])
@pytest.mark.parametrize("backend", ["asyncio", "uvloop", "trio"])
def test_nothing_needs_to_be_started_before_a_cancel(backend: str, canceller: str) -> None:
    figures = run_script("first_cancel.py", backend, canceller)
    assert figures["cancelled"]
    assert figures["answers"] == [True]
    assert figures["threads"] == ["MainThread"] + ["canceller"] * (canceller != "signal")
    assert figures["seconds"] < LATEST_SECONDS


def _waiting_thread(wait: Callable[[], Any]) -> threading.Thread:
    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def test_threads_that_wait_on_one_operation_all_wake() -> None:
    """Also those that begin to wait while it is being cancelled."""
    for _ in range(200):
        woke: list[bool] = []
        with suppress(OperationCancelled), Cancelable(registry=OperationStore()) as operation:

            def wait(token=operation.token, woke=woke) -> None:
                woke.append(token.wait(DEADLINE_SECONDS))

            threads = [_waiting_thread(wait) for _ in range(4)]
            operation.cancel_sync()
            threads += [_waiting_thread(wait) for _ in range(2)]
            for thread in threads:
                thread.join(DEADLINE_SECONDS)
            operation.check()
        assert woke == [True] * 6
