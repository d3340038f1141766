"""Somebody looks, or cancels, at the moment an operation that nobody had seen ends."""

from __future__ import annotations

import random
from collections import Counter
from contextlib import suppress
from functools import partial

import pytest

from cancelable_core import OperationCancelled, OperationStatus, OperationStore, ThreadSafeRegistry
from cancelable_core.models import OperationKind
from cancelable_core.operation import current_variable
from cancelable_core.servers import LatentRequest
from tests.servers.latent import begun as newly_begun
from tests.servers.latent import made
from tests.servers.test_following_the_client import Client

from .interruptions import Meanwhile, Scenario, interrupt_everywhere
from .racing import Racers, Snapshots, check_conservation, spin

ROUNDS = 5_000


def begun(store: OperationStore) -> LatentRequest:
    current_variable.set(None)  # another thread may have ended the last
    return newly_begun(store, client=Client())


def test_threads_that_look_and_cancel_while_a_request_ends(rng: random.Random) -> None:
    store = OperationStore()
    registry = ThreadSafeRegistry(store)
    error: BaseException | None = None
    cancelled: list[int] = []

    def work() -> None:
        nonlocal ended_by
        request = begun(store)
        spin(delays[0])
        if error is None:
            request.end()
        else:
            request.end(error)
        ended_by = request

    def look() -> None:
        spin(delays[1])
        check_conservation(store.statistics())

    def cancel() -> None:
        spin(delays[2])
        if error is None:
            return
        cancelled.append(registry.cancel_all(kind=OperationKind.REQUEST))

    ended_by: LatentRequest | None = None
    unseen = 0
    ends: Counter[OperationStatus] = Counter()
    with Snapshots(store), Racers(work, look, cancel) as racers:
        for number in range(ROUNDS):
            error = ZeroDivisionError() if number % 4 == 0 else None
            delays = [rng.randrange(300), rng.randrange(300), rng.randrange(300)]
            cancelled.clear()
            racers.run()
            assert ended_by is not None
            told = sum(cancelled)
            assert told <= 1
            operation = ended_by.made
            if operation is None:
                unseen += 1
                assert error is None
                assert not told
                ends[OperationStatus.COMPLETED] += 1
                continue
            assert (operation.token.verdict is not None) == bool(told)  # no request was lost, none was made up
            assert not operation.cancel_sync()
            assert operation.status is (OperationStatus.COMPLETED if error is None else OperationStatus.FAILED)
            ends[operation.status] += 1
    print(dict(ends), unseen)
    assert ROUNDS // 100 < unseen < ROUNDS - ROUNDS // 100
    statistics = store.statistics()
    assert statistics.total_operations == ROUNDS
    assert statistics.completed_operations == ends[OperationStatus.COMPLETED]
    assert statistics.failed_operations == ends[OperationStatus.FAILED]
    assert not store._live
    assert not store.latent


def test_threads_that_end_and_look_at_one_request_at_once(rng: random.Random) -> None:
    store = OperationStore()
    request = begun(store)
    seen = 0

    def end(lane: int) -> None:
        spin(delays[lane])
        request.end()

    def look(lane: int) -> None:
        spin(delays[lane])
        found.append(request.make())

    found: list[object] = []
    with Snapshots(store), Racers(partial(end, 0), partial(end, 1), partial(look, 2), partial(look, 3)) as racers:
        for number in range(ROUNDS // 2):
            delays = [rng.randrange(200) for _ in range(4)]
            found.clear()
            racers.run()
            assert len({id(each) for each in found}) == 1  # all of them the same one, or none
            seen += found[0] is not None
            assert store.statistics().completed_operations == number + 1
            assert not store._live
            assert not store.latent
            request = begun(store)
    request.end()
    assert store.statistics().total_operations == ROUNDS // 2 + 1
    assert 0 < seen < ROUNDS // 2


@pytest.mark.parametrize("interrupted", ["make", "end", "fail", "name", "statistics"])
@pytest.mark.parametrize("interrupter", ["make", "end", "cancel"])
def test_a_look_or_an_end_interrupted_anywhere_in_its_own_thread(interrupted: str, interrupter: str) -> None:
    """As by a signal handler, or a finaliser, which no lock holds up."""
    if interrupter == "cancel" and interrupted == "fail":
        pytest.skip("which of the two errors it ends by is told in test_every_interruption")

    def make() -> Scenario:
        store = OperationStore()
        request = begun(store)
        told: list[bool] = []
        moves = {
            "make": request.make,
            "end": request.end,
            "fail": lambda: request.end(ZeroDivisionError()),
            "name": lambda: (operation := request.make()) and operation.name,
            "statistics": lambda: check_conservation(store.statistics()),
            "cancel": lambda: told.append((operation := request.make()) is not None and operation.cancel_sync()),
        }

        def check() -> None:
            request.end()
            check_end(store, request, told, can_fail=interrupted == "fail")

        return Scenario(moves[interrupted], moves[interrupter], check)

    interrupt_everywhere(make)


@pytest.mark.parametrize("interrupted", ["make", "end"])
def test_an_end_or_a_look_at_any_moment_of_another_thread(interrupted: str) -> None:
    def make() -> Scenario:
        store = OperationStore()
        request = begun(store)
        other = Meanwhile(request.end if interrupted == "make" else lambda: check_conservation(store.statistics(), at_least=1))

        def check() -> None:
            other.end()
            request.end()
            check_end(store, request, [])

        return Scenario(request.make if interrupted == "make" else request.end, other, check)

    interrupt_everywhere(make)


def test_a_look_given_up_anywhere_is_made_up_for() -> None:
    """A signal handler may raise, as Python's own does for SIGINT."""

    def make() -> Scenario:
        store = OperationStore()
        request = begun(store)

        def look() -> None:
            with suppress(KeyboardInterrupt):
                request.make()

        def interrupt() -> None:
            raise KeyboardInterrupt

        def check() -> None:
            assert store.statistics().running_operations == 1
            assert made(request).cancel_sync()
            with pytest.raises(OperationCancelled):
                made(request).check()
            request.end()
            check_end(store, request, [True])

        return Scenario(look, lambda: None if request.made else interrupt(), check)

    interrupt_everywhere(make)


def check_end(store: OperationStore, request: LatentRequest, told: list[bool], *, can_fail: bool = False) -> None:
    """It ended once, was counted once, and is nowhere any more."""
    statuses = (OperationStatus.COMPLETED, OperationStatus.FAILED) if can_fail else (OperationStatus.COMPLETED,)
    statistics = store.statistics()
    check_conservation(statistics)
    assert statistics.total_operations == 1
    assert statistics.completed_operations + statistics.failed_operations == 1
    operation = request.made
    if operation is None:
        assert not any(told)
    else:
        assert operation.status in statuses
        assert (operation.token.verdict is not None) is any(told)
        assert not operation.cancel_sync()
        assert operation._client is None  # which knows the environ, which knows the request
    assert request.native is None
    assert not store.latent
    assert not store._live
    assert sum(tally.durations for tally in store._tallies.values()) == 1
