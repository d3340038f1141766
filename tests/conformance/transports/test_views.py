"""What a transport shows of operations: each of them, lists, counters, and their end."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import pytest

from cancelable_core import (
    CancelationReason,
    OperationKind,
    OperationRegistry,
    OperationStatus,
    OperationStore,
    ThreadSafeRegistry,
)
from cancelable_core.models import OperationQuery
from cancelable_core.transports import Transport

from .engines import DEADLINE_SECONDS, becomes_true
from .world import ENDINGS, EVERYTHING, MANUAL, World


def test_what_it_says_of_itself(world: World) -> None:
    assert isinstance(world.transport, Transport)
    assert isinstance(world.transport.store, OperationStore)
    assert isinstance(world.transport.may_block, bool)
    assert isinstance(world.transport.spans_processes, bool)
    assert not world.transport.spans_processes or world.transport.may_block, "another process may not answer"


def test_an_operation_through_its_life(world: World) -> None:
    operation = world.pending("mine", name="export", owner="alice", metadata={"table": "orders"})
    assert _status(world) == (OperationStatus.PENDING, ["mine"], [])
    with operation:
        becomes_true(lambda: _status(world) == (OperationStatus.RUNNING, ["mine"], []))
        operation.report_progress("half", current=1, total=2)
        becomes_true(lambda: _progress(world) == {"message": "half", "current": 1, "total": 2})
        operation.cancel_sync()
        becomes_true(lambda: _status(world) == (OperationStatus.CANCELLING, ["mine"], []))
    becomes_true(lambda: _status(world) == (OperationStatus.COMPLETED, [], ["mine"]))
    assert world.transport.get("mine") == operation.context


def _status(world: World) -> tuple[OperationStatus | None, list[str], list[str]]:
    context = world.transport.get("mine")
    return None if context is None else context.status, world.live(), world.history()


def _progress(world: World) -> dict[str, Any] | None:
    context = world.transport.get("mine")
    return None if context is None or context.progress is None else dict(context.progress)


@pytest.mark.parametrize("status", ENDINGS)
def test_every_ending_is_remembered(world: World, status: OperationStatus) -> None:
    context = world.finished(status, "mine", name="export", owner="alice", metadata={"table": "orders"})
    becomes_true(lambda: world.transport.list_finished(EVERYTHING) == [context])
    assert world.live() == []


def test_an_id_may_be_used_again(world: World) -> None:
    world.finished(OperationStatus.COMPLETED, "mine", name="first")
    world.running("mine", name="second")
    becomes_true(lambda: getattr(world.transport.get("mine"), "name", None) == "second")
    assert world.live() == ["mine"]
    assert world.transport.cancel("mine", MANUAL)


FILTERS = [
    (OperationQuery(), ["d", "c", "b", "a"]),
    (OperationQuery(kinds=[OperationKind.JOB]), ["b"]),
    (OperationQuery(kinds=[OperationKind.JOB, OperationKind.OPERATION]), ["d", "c", "b", "a"]),
    (OperationQuery(kinds=[]), []),
    (OperationQuery(statuses=[]), []),
    (OperationQuery(owner="alice"), ["c", "a"]),
    (OperationQuery(owner=""), []),
    (OperationQuery(name_pattern="export-[12]"), ["b", "a"]),
    (OperationQuery(name_pattern="export-?"), ["b", "a"]),
    (OperationQuery(name_pattern="*"), ["c", "b", "a"]),
    (OperationQuery(name_pattern="export"), []),
    (OperationQuery(name_pattern="["), []),
    (OperationQuery(name_pattern="export-*", owner="alice"), ["a"]),
    (OperationQuery(parent_id="elsewhere"), []),
    (OperationQuery(limit=2), ["d", "c"]),
    (OperationQuery(limit=0), []),
    (OperationQuery(limit=9), ["d", "c", "b", "a"]),
    (OperationQuery(limit=1, owner="alice"), ["c"]),
]


def _four(world: World, make: Any) -> None:
    make("a", name="export-1", owner="alice")
    make("b", name="export-2", owner="bob", kind=OperationKind.JOB)
    make("c", name="import", owner="alice")
    make("d")


@pytest.mark.parametrize(("query", "ids"), FILTERS, ids=str)
def test_lists_of_live_ones_are_filtered_and_newest_first(world: World, query: OperationQuery, ids: list[str]) -> None:
    _four(world, world.running)
    becomes_true(lambda: world.live(query) == ids)
    assert world.history(query) == []


@pytest.mark.parametrize(("query", "ids"), FILTERS, ids=str)
@pytest.mark.parametrize("status", ENDINGS)
def test_lists_of_finished_ones_too(world: World, query: OperationQuery, ids: list[str], status: OperationStatus) -> None:
    _four(world, lambda operation_id, **options: world.finished(status, operation_id, **options))
    becomes_true(lambda: world.history(query) == ids)
    assert world.live(query) == []


def test_statuses_are_filtered_in_both(world: World) -> None:
    world.pending("pending")
    world.running("running")
    world.running("cancelling")
    world.transport.cancel("cancelling", MANUAL)
    for status in ENDINGS:
        world.finished(status, status.value.replace("_", "-"))
    for status in OperationStatus:
        query = OperationQuery(statuses=[status])
        expected = [] if status is OperationStatus.LOST else [status.value.replace("_", "-")]
        becomes_true(lambda query=query, expected=expected: world.live(query) + world.history(query) == expected)


def test_children_by_their_parent(world: World) -> None:
    parent = world.running("parent")
    world.running("child", parent=parent)
    becomes_true(lambda: world.live(OperationQuery(parent_id="parent")) == ["child"])


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_pages_show_each_operation_once(world: World, size: int) -> None:
    for number in range(20):
        world.running(f"live-{number:02}")
        world.finished(OperationStatus.COMPLETED, f"ended-{number:02}")
    becomes_true(lambda: len(world.history()) == 20)
    for prefix, select in (("live", world.transport.list_live), ("ended", world.transport.list_finished)):
        found: list[str] = []
        after = None
        while page := select(OperationQuery(limit=size, after=after)):
            found += [context.id for context in page]
            after = (page[-1].created_at, page[-1].id)
        assert found == [f"{prefix}-{number:02}" for number in reversed(range(20))]


def test_a_page_goes_on_where_its_last_one_has_gone(world: World) -> None:
    for number in range(4):
        world.finished(OperationStatus.COMPLETED, f"before-{number}")
    middle = world.finished(OperationStatus.COMPLETED, "unlisted", kind=OperationKind.REQUEST)
    world.running("newest")
    becomes_true(lambda: len(world.history()) == 4)
    query = OperationQuery(after=(middle.created_at, middle.id))
    assert world.live(query) == []
    assert world.history(query) == [f"before-{number}" for number in (3, 2, 1, 0)]


# --- counting


def test_statistics_count_everything_once(world: World) -> None:
    world.pending(kind=OperationKind.JOB)
    world.running(kind=OperationKind.JOB)
    told = world.running(kind=OperationKind.OPERATION)
    world.transport.cancel(told.id, MANUAL)
    for status in ENDINGS:
        world.finished(status, kind=OperationKind.REQUEST)
    becomes_true(lambda: world.transport.statistics().total_operations == 7)
    statistics = world.transport.statistics()
    assert {
        status: count for status in OperationStatus if (count := getattr(statistics, f"{status}_operations"))
    } == dict.fromkeys((OperationStatus.PENDING, OperationStatus.RUNNING, OperationStatus.CANCELLING, *ENDINGS), 1)
    assert statistics.by_kind == {OperationKind.JOB: 2, OperationKind.OPERATION: 1, OperationKind.REQUEST: 4}
    assert statistics.by_reason == {CancelationReason.MANUAL: 1, CancelationReason.TIMEOUT: 1}


@pytest.mark.parametrize(
    ("kinds", "total"), [(None, 3), ([], 0), ([OperationKind.JOB], 2), ([OperationKind.JOB, OperationKind.JOB], 2)]
)
def test_statistics_of_some_kinds(world: World, kinds: list[OperationKind] | None, total: int) -> None:
    for kind in (OperationKind.JOB, OperationKind.JOB, OperationKind.OPERATION):
        world.finished(OperationStatus.COMPLETED, kind=kind)
    becomes_true(lambda: world.transport.statistics(kinds).total_operations == total)
    statistics = world.transport.statistics(kinds)
    assert statistics.completed_operations == total
    assert sum(statistics.by_kind.values()) == total


def test_every_snapshot_adds_up_whatever_happens_meanwhile(world: World) -> None:
    over = threading.Event()

    def work(number: int) -> None:
        for _ in range(100):
            world.finished(ENDINGS[number % len(ENDINGS)], kind=list(OperationKind)[number % 3])

    def look() -> int:
        snapshots = 0
        while not over.is_set() or not snapshots:
            statistics = world.transport.statistics()
            parts = sum(getattr(statistics, f"{status}_operations") for status in OperationStatus)
            assert (parts, sum(statistics.by_kind.values())) == (statistics.total_operations, statistics.total_operations)
            snapshots += 1
        return snapshots

    with ThreadPoolExecutor(9) as pool:
        looking = pool.submit(look)
        try:
            for working in [pool.submit(work, number) for number in range(8)]:
                working.result(DEADLINE_SECONDS)
        finally:
            over.set()
        assert looking.result(DEADLINE_SECONDS) > 0
    becomes_true(lambda: world.transport.statistics().total_operations == 800)


# --- the end


@pytest.mark.parametrize("status", ENDINGS)
def test_what_has_ended_has_no_end_to_come(world: World, status: OperationStatus) -> None:
    world.finished(status, "mine")
    assert world.transport.ended("mine") is None


def test_the_end_is_told_with_the_final_view(world: World) -> None:
    operation = world.pending("mine")
    ended = world.transport.ended("mine")
    assert ended is not None
    with operation:
        operation.cancel_sync()
        again = world.transport.ended("mine")
        assert again is not None
        assert not ended.is_cancelled
        assert not again.is_cancelled
    for token in (ended, again):
        assert token.wait(DEADLINE_SECONDS)
        assert token.context == operation.context


async def test_tasks_hear_of_the_end_too(world: World) -> None:
    with anyio.fail_after(DEADLINE_SECONDS):
        async with anyio.create_task_group() as group:
            with world.make("mine") as operation:
                ended = world.transport.ended(operation.id)
                assert ended is not None
                group.start_soon(ended.wait_for_cancel)
                await anyio.wait_all_tasks_blocked()
    assert ended.context == operation.context


# --- both faces ask it


async def test_both_faces_show_what_the_transport_shows(world: World) -> None:
    world.finished(OperationStatus.FAILED, "ended")
    sync, face = ThreadSafeRegistry(world.transport), OperationRegistry(world.transport)
    with world.make("mine", name="export"):
        becomes_true(lambda: (world.live(), world.history()) == (["mine"], ["ended"]))
        assert sync.list_operations() == await face.list_operations() == world.transport.list_live(EVERYTHING)
        assert sync.get_history() == await face.get_history() == world.transport.list_finished(EVERYTHING)
        assert sync.get_operation("mine") == await face.get_operation("mine") == world.transport.get("mine")
        assert sync.get_statistics() == await face.get_statistics() == world.transport.statistics()
        assert (await face.cancel_operation("mine")).outcome == "requested"
        assert sync.cancel_operation("mine").outcome == "already_requested"
