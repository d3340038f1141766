"""The store and the two faces of a registry: the same questions, the same answers, from threads and from event loops."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any

import anyio
import anyio.to_thread
import pytest

from cancelable_core import (
    Cancelable,
    CancelationReason,
    CancelOutcome,
    CancelResult,
    DuplicateOperation,
    OperationCancelled,
    OperationContext,
    OperationKind,
    OperationRegistry,
    OperationStatistics,
    OperationStatus,
    OperationStore,
    ThreadSafeRegistry,
    default_store,
    escape_pattern,
    replace_default_store,
)
from cancelable_core.models import OperationQuery
from cancelable_core.transports.local import LocalTransport

from .helpers import Running, becomes_true_soon, happens, happens_soon, in_thread


class Job(Cancelable):
    __slots__ = ()
    kind = OperationKind.JOB


class Request(Cancelable):
    __slots__ = ()
    kind = OperationKind.REQUEST


OF_KIND = {OperationKind.JOB: Job, OperationKind.REQUEST: Request, OperationKind.OPERATION: Cancelable}


class FromThreads:
    """The sync face asked from worker threads, so that a test awaits both faces alike."""

    def __init__(self, store: OperationStore) -> None:
        self._registry = ThreadSafeRegistry(store)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._registry, name)

        async def ask(*args: Any, **kwargs: Any) -> Any:
            return await anyio.to_thread.run_sync(partial(method, *args, **kwargs))

        return ask


@pytest.fixture(params=[FromThreads, OperationRegistry], ids=["sync face", "async face"])
def face(request: pytest.FixtureRequest, store: OperationStore) -> Any:
    return request.param(store)


@contextlib.contextmanager
def opened(store: OperationStore, *names: str | None, kind: str = "operation", **options: Any) -> Iterator[list[Cancelable]]:
    """Independent operations, one inside the other only as far as the code goes."""
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(OF_KIND[OperationKind(kind)](name, parent=None, registry=store, **options)) for name in names
        ]


def end_as(status: OperationStatus, store: OperationStore, kind: str = "operation", **options: Any) -> Cancelable:
    """One operation that has ended like this."""
    timeout = 0 if status is OperationStatus.TIMED_OUT else None
    operation = OF_KIND[OperationKind(kind)](parent=None, registry=store, timeout=timeout, **options)
    with contextlib.suppress(OperationCancelled, ZeroDivisionError):
        with operation:
            if status is OperationStatus.CANCELLED:
                operation.cancel_sync()
            if status is OperationStatus.FAILED:
                raise ZeroDivisionError
            operation.check()
    assert operation.status is status
    return operation


def names(contexts: list[OperationContext]) -> list[str | None]:
    return [context.name for context in contexts]


def check_sum(statistics: OperationStatistics) -> None:
    counts = [getattr(statistics, f"{status}_operations") for status in OperationStatus]
    assert sum(counts) == statistics.total_operations, statistics
    assert min(counts) >= 0, statistics
    assert sum(statistics.by_kind.values()) == statistics.total_operations, statistics


# --- cancelling one


async def test_the_outcomes_of_a_cancel(face: Any, store: OperationStore) -> None:
    with contextlib.suppress(OperationCancelled), Cancelable("report", registry=store) as operation:
        first = await face.cancel_operation(operation.id)
        second = await face.cancel_operation(operation.id)
        operation.check()
    third = await face.cancel_operation(operation.id)
    unknown = await face.cancel_operation("nobody")
    assert first == CancelResult(CancelOutcome.REQUESTED, OperationStatus.CANCELLING)
    assert second == CancelResult(CancelOutcome.ALREADY_REQUESTED, OperationStatus.CANCELLING)
    assert third == CancelResult(CancelOutcome.FINISHED, OperationStatus.CANCELLED)
    assert unknown == CancelResult(CancelOutcome.UNKNOWN, None)
    assert [bool(result) for result in (first, second, third, unknown)] == [True, True, False, False]


@pytest.mark.parametrize("outcome", CancelOutcome)
def test_a_result_is_truthy_if_the_operation_will_be_told(outcome: CancelOutcome) -> None:
    accepted = outcome in {CancelOutcome.REQUESTED, CancelOutcome.ALREADY_REQUESTED, CancelOutcome.QUEUED}
    assert CancelResult(outcome).accepted is accepted
    assert bool(CancelResult(outcome)) is accepted


@pytest.mark.parametrize(
    ("args", "kwargs", "expected"),
    [
        ((), {}, (CancelationReason.MANUAL, None, None)),
        (("User requested cancel",), {}, (CancelationReason.MANUAL, "User requested cancel", None)),
        ((), {"message": "words"}, (CancelationReason.MANUAL, "words", None)),
        ((CancelationReason.SHUTDOWN,), {}, (CancelationReason.SHUTDOWN, None, None)),
        ((CancelationReason.TIMEOUT, "too slow"), {"origin": "ada"}, (CancelationReason.TIMEOUT, "too slow", "ada")),
    ],
)
async def test_reason_message_and_origin_arrive(
    face: Any, store: OperationStore, args: tuple[Any, ...], kwargs: dict[str, Any], expected: tuple[object, ...]
) -> None:
    with Cancelable(registry=store) as operation:
        assert await face.cancel_operation(operation.id, *args, **kwargs)
        assert (operation.token.reason, operation.token.message, operation.token.origin) == expected
        context = await face.get_operation(operation.id)
        assert (context.reason, context.message, context.origin) == expected


@pytest.mark.parametrize(("args", "kwargs"), [(("text",), {"message": "and more"}), ((5,), {}), ((), {"message": 5})])
async def test_a_wrong_reason_is_an_error_and_cancels_nothing(
    face: Any, store: OperationStore, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    with Cancelable(registry=store) as operation:
        with pytest.raises(TypeError):
            await face.cancel_operation(operation.id, *args, **kwargs)
        with pytest.raises(TypeError):
            await face.cancel_all(reason=args[0] if args else None, **kwargs)
        assert not operation.token.is_cancelled


BAD_IDS = ["", "nobody", "../../etc/passwd", "x" * 100_000, "stats", "a b", "\ud800", "\x00", None, 5, b"bytes", ("a",), []]


@pytest.mark.parametrize("operation_id", BAD_IDS, ids=lambda value: f"{value!r:.20}")
async def test_unknown_and_impossible_ids_are_unknown_never_an_error(
    face: Any, store: OperationStore, operation_id: Any
) -> None:
    with opened(store, "one"):
        assert await face.cancel_operation(operation_id) == CancelResult(CancelOutcome.UNKNOWN)
        assert await face.cancel_operation(operation_id, wait_seconds=60) == CancelResult(CancelOutcome.UNKNOWN)
        assert await face.get_operation(operation_id) is None
        assert await face.wait_for(operation_id, 60) is None
        assert await face.list_operations(parent_id=operation_id or "") == []


def test_a_cancel_needs_no_lock_of_the_store(store: OperationStore, registry: ThreadSafeRegistry) -> None:
    """As in a signal handler that interrupted the very thread that holds it."""
    with contextlib.suppress(OperationCancelled):
        with Cancelable(registry=store) as operation:
            with store._lock:
                assert registry.cancel_operation(operation.id).outcome is CancelOutcome.REQUESTED
                assert registry.cancel_operation(operation.id).outcome is CancelOutcome.ALREADY_REQUESTED
                assert registry.cancel_operation("nobody").outcome is CancelOutcome.UNKNOWN
            assert registry.get_statistics().cancelling_operations == 1
            with store._lock:
                operation.__exit__(None, None, None)
            assert registry.cancel_operation(operation.id).outcome is CancelOutcome.FINISHED
    check_sum(registry.get_statistics())
    assert registry.get_statistics().completed_operations == 1


def test_opening_and_ending_need_no_lock_of_the_store(store: OperationStore, registry: ThreadSafeRegistry) -> None:
    """The collector may close a generator, and open an operation in it, in the very thread that is inside."""
    with store._lock:
        with Cancelable("one", registry=store, operation_id="one"):
            assert registry.cancel_operation("one").outcome is CancelOutcome.REQUESTED
            with pytest.raises(DuplicateOperation):
                Cancelable(registry=store, operation_id="one").__enter__()
    statistics = registry.get_statistics()
    assert (statistics.total_operations, statistics.completed_operations) == (1, 1)
    check_sum(statistics)


def test_the_id_of_what_has_ended_is_free_at_once(store: OperationStore, registry: ThreadSafeRegistry) -> None:
    def again() -> None:
        with Cancelable("again", registry=store, operation_id="one"):
            assert names(registry.list_operations()) == ["again"]

    with store._lock:
        with Cancelable("before", registry=store, operation_id="one") as before:
            pass
        assert store.find("one") is before  # nobody was let in to see to its end
        running = Running(again)
    running.result()
    statistics = registry.get_statistics()
    assert (statistics.total_operations, statistics.completed_operations) == (2, 2)
    check_sum(statistics)


def test_callbacks_may_ask_the_registry(store: OperationStore, registry: ThreadSafeRegistry) -> None:
    """No user code runs under the store's lock."""
    answers: list[object] = []
    with opened(store, "a", "b") as (one, other):

        def ask(token: object) -> None:
            answers.append(registry.get_statistics().cancelling_operations)
            answers.append(len(registry.list_operations(name_pattern="*")))
            answers.append(registry.cancel_operation(other.id).outcome)
            with Cancelable("c", parent=None, registry=store):
                pass

        one.on_cancel(ask)
        assert in_thread(registry.cancel_operation, one.id)
    assert answers == [1, 2, CancelOutcome.REQUESTED]


# --- waiting


async def test_cancel_and_wait_tells_the_end(face: Any, store: OperationStore) -> None:
    operations: list[Cancelable] = []

    def work() -> None:
        with contextlib.suppress(OperationCancelled), Cancelable(registry=store) as operation:
            operations.append(operation)
            operation.sleep(60)

    working = Running(work)
    await becomes_true_soon(lambda: operations)
    result = await face.cancel_operation(operations[0].id, wait_seconds=60)
    assert result == CancelResult(CancelOutcome.REQUESTED, OperationStatus.CANCELLED)
    working.result()


async def test_cancel_and_wait_tells_that_it_came_too_late(face: Any, store: OperationStore) -> None:
    """Accepted, and completed all the same: the body never looked."""
    entered, release = threading.Event(), threading.Event()
    operation = Cancelable(registry=store)

    def work() -> None:
        with operation:
            entered.set()
            happens(release)

    working = Running(work)
    await happens_soon(entered)
    operation.on_cancel(lambda token: release.set())
    result = await face.cancel_operation(operation.id, wait_seconds=60)
    assert result == CancelResult(CancelOutcome.REQUESTED, OperationStatus.COMPLETED)
    working.result()


async def test_a_wait_that_ran_out_says_cancelling(face: Any, store: OperationStore) -> None:
    with opened(store, "deaf") as (operation,):
        result = await face.cancel_operation(operation.id, wait_seconds=0.01)
        assert result == CancelResult(CancelOutcome.REQUESTED, OperationStatus.CANCELLING)


def waiting_for(operation: Cancelable, store: OperationStore) -> int:
    end_token = store._end_tokens.get(operation.id)
    return 0 if end_token is None else len(end_token._watchers)


async def test_wait_for_returns_the_final_snapshot(face: Any, store: OperationStore) -> None:
    """Also of what no history keeps: a completed request."""
    for kind in OperationKind:
        entered, release = threading.Event(), threading.Event()
        operation = OF_KIND[kind]("waited for", registry=store)

        def work(operation: Cancelable = operation, entered: Any = entered, release: Any = release) -> None:
            with operation:
                entered.set()
                happens(release)

        working = Running(work)
        await happens_soon(entered)
        contexts: list[OperationContext] = []

        async def wait(operation: Cancelable = operation, contexts: list[OperationContext] = contexts) -> None:
            contexts.append(await face.wait_for(operation.id, 60))

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(wait)
            await becomes_true_soon(lambda operation=operation: waiting_for(operation, store) == 3)
            release.set()
        working.result()
        assert [context.status for context in contexts] == [OperationStatus.COMPLETED] * 3
        assert all(context.ended_at is not None for context in contexts)
        assert not store._end_tokens


async def test_wait_for_what_has_ended_and_for_what_does_not(face: Any, store: OperationStore) -> None:
    ended = end_as(OperationStatus.FAILED, store)
    assert (await face.wait_for(ended.id)).status is OperationStatus.FAILED
    with opened(store, "going on") as (operation,):
        for seconds in (0, 0.01):
            assert (await face.wait_for(operation.id, seconds)).status is OperationStatus.RUNNING


async def test_the_sync_face_refuses_to_block_a_loop(store: OperationStore, registry: ThreadSafeRegistry) -> None:
    with opened(store, "one") as (operation,):
        with pytest.raises(RuntimeError, match="event loop"):
            registry.wait_for(operation.id, 1)
        with pytest.raises(RuntimeError, match="event loop"):
            registry.cancel_operation(operation.id, wait_seconds=1)
        assert registry.cancel_operation(operation.id).outcome is CancelOutcome.REQUESTED  # nothing had been asked before
        assert len(registry.list_operations()) == 1  # the rest works anywhere


async def test_waiting_on_the_async_face_lets_the_loop_run(store: OperationStore) -> None:
    """The operation it waits for lives in the same loop."""
    registry = OperationRegistry(store)
    async with anyio.create_task_group() as tasks:
        operation = Cancelable(registry=store, raise_on_cancel=False)

        async def work() -> None:
            async with operation:
                await anyio.sleep_forever()

        tasks.start_soon(work)
        await anyio.wait_all_tasks_blocked()
        result = await registry.cancel_operation(operation.id, wait_seconds=60)
    assert result == CancelResult(CancelOutcome.REQUESTED, OperationStatus.CANCELLED)


# --- cancelling many


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("user_42_*", {"user_42_a", "user_42_b"}),
        ("user_*", {"user_42_a", "user_42_b", "user_421_a", "user_*_x"}),
        ("*_a", {"user_42_a", "user_421_a", "User_42_a"}),
        ("user_42_[ab]", {"user_42_a", "user_42_b"}),
        ("user_42_?", {"user_42_a", "user_42_b"}),
        ("user_42_a", {"user_42_a"}),
        ("User_42_a", {"User_42_a"}),
        ("user_42", set()),
        ("", {""}),
        ("*", {"user_42_a", "user_42_b", "user_421_a", "User_42_a", "user_*_x", ""}),
        (None, {"user_42_a", "user_42_b", "user_421_a", "User_42_a", "user_*_x", "", None}),
        (escape_pattern("user_*_x"), {"user_*_x"}),
        (f"user_{escape_pattern('*')}_*", {"user_*_x"}),
    ],
)
async def test_cancel_all_by_name(face: Any, store: OperationStore, pattern: str | None, expected: set[str | None]) -> None:
    """Unnamed operations match only None; upper and lower case differ."""
    everybody = ["user_42_a", "user_42_b", "user_421_a", "User_42_a", "user_*_x", "", None]
    with opened(store, *everybody) as operations:
        assert set(names(await face.list_operations(name_pattern=pattern))) == expected
        assert await face.cancel_all(pattern, message="all of them", origin="ada") == len(expected)
        told = [operation for operation in operations if operation.token.is_cancelled]
        assert {operation.name for operation in told} == expected
        assert {(operation.token.message, operation.token.origin) for operation in told} <= {("all of them", "ada")}
        assert await face.cancel_all(pattern) == 0  # told before


def test_escaped_text_from_outside_reaches_nobody_else(store: OperationStore, registry: ThreadSafeRegistry) -> None:
    hostile = ["*", "?", "[a-z]", "[!x]", "a*", "]", "[", "[]", "\\*", "4[2]"]
    with opened(store, "user_42_a", "user_a_b") as operations:
        for text in hostile:
            assert registry.cancel_all(f"user_{escape_pattern(text)}_*") == 0
            with opened(store, f"user_{text}_job") as (own,):
                assert registry.cancel_all(f"user_{escape_pattern(text)}_*") == 1
                assert own.token.is_cancelled
        assert not any(operation.token.is_cancelled for operation in operations)


async def test_cancel_all_leaves_requests_alone_unless_asked(face: Any, store: OperationStore) -> None:
    with opened(store, "x", kind="job") as (job,), opened(store, "x", kind="request") as (request,), opened(store, "x"):
        assert await face.cancel_all("x", kind=()) == 0
        assert await face.cancel_all() == 2
        assert (job.token.is_cancelled, request.token.is_cancelled) == (True, False)
        assert await face.cancel_all(kind="request") == 1
        assert request.token.is_cancelled


async def test_requests_are_found_by_the_name_they_have_now(face: Any, store: OperationStore) -> None:
    with opened(store, "GET (no route)", kind="request") as (request,):
        request._name = "GET /reports"
        assert names(await face.list_operations(name_pattern="GET /rep*")) == ["GET /reports"]
        assert await face.cancel_all("GET (no route)", kind=OperationKind.REQUEST) == 0
        assert await face.cancel_all("GET /rep*", kind=OperationKind.REQUEST) == 1


async def test_cancel_all_by_owner_and_status(face: Any, store: OperationStore) -> None:
    pending = Cancelable("p", owner="ada", parent=None, registry=store)
    pending.announce()
    with opened(store, "a", "b", owner="ada"), opened(store, "a", owner="bob") as (bobs,), opened(store, "a"):
        assert await face.cancel_all(owner="nobody") == 0
        assert await face.cancel_all(status="pending") == 1
        assert await face.cancel_all("a", owner="ada") == 1
        assert await face.cancel_all(owner="ada", status=["running", "cancelling"]) == 1
        assert not bobs.token.is_cancelled
    with pytest.raises(OperationCancelled), pending:
        pytest.fail("cancelled before it began")


async def test_words_that_do_not_exist_are_errors(face: Any) -> None:
    for filters in ({"status": "runing"}, {"kind": "jobs"}, {"status": ["running", "x"]}):
        with pytest.raises(ValueError):
            await face.list_operations(**filters)
        with pytest.raises(ValueError):
            await face.get_history(**filters)
        with pytest.raises(ValueError):
            await face.cancel_all(**filters)
    with pytest.raises(ValueError):
        await face.get_statistics("jobs")
    with pytest.raises(ValueError, match="limit"):
        await face.list_operations(limit=-1)


# --- lists


async def test_lists_are_newest_first(face: Any, store: OperationStore) -> None:
    with opened(store, *"abcde"):
        assert names(await face.list_operations()) == list("edcba")
        assert await face.get_history() == []
    assert await face.list_operations() == []
    assert names(await face.get_history()) == list("edcba")


async def test_lists_hold_live_operations_and_the_history_finished_ones(face: Any, store: OperationStore) -> None:
    for status in (OperationStatus.CANCELLED, OperationStatus.FAILED, OperationStatus.COMPLETED, OperationStatus.TIMED_OUT):
        end_as(status, store, name=status)
    with opened(store, "live") as (operation,):
        assert names(await face.list_operations()) == ["live"]
        assert await face.list_operations(status="failed") == []
        assert names(await face.get_history(status="failed")) == ["failed"]
        assert set(names(await face.get_history(status=["cancelled", "timed_out"]))) == {"cancelled", "timed_out"}
        assert await face.get_history(status="running") == []
        operation.cancel_sync()
        assert names(await face.list_operations(status="cancelling")) == ["live"]
        assert await face.list_operations(status="running") == []


async def test_filters_narrow_together(face: Any, store: OperationStore) -> None:
    with (
        opened(store, "a1", "a2", owner="ada", kind="job"),
        opened(store, "a1", owner="bob", kind="job"),
        opened(store, "a1", "b1", owner="ada") as (parent, _),
        Cancelable("child", parent=parent, registry=store) as child,
    ):
        ask = face.list_operations
        assert len(await ask()) == 6
        assert names(await ask(owner="ada", kind="job")) == ["a2", "a1"]
        assert names(await ask(name_pattern="a*", kind=["job"], owner="bob")) == ["a1"]
        assert [context.id for context in await ask(parent_id=parent.id)] == [child.id]
        assert [context.owner for context in await ask(parent_id=parent.id)] == ["ada"]  # inherited
        assert await ask(kind=[]) == []
        assert await ask(status=()) == []
        assert await ask(limit=0) == []
        assert len(await ask(limit=100)) == 6
        assert await ask(owner="") == []
    assert names(await face.get_history(owner="bob")) == ["a1"]
    assert names(await face.get_history(parent_id=parent.id)) == ["child"]
    assert names(await face.get_history(kind="job", name_pattern="*2")) == ["a2"]


@pytest.mark.parametrize("where", ["live", "history"])
@pytest.mark.parametrize("page_size", [1, 3, 7])
async def test_pages_cover_everything_once(face: Any, store: OperationStore, where: str, page_size: int) -> None:
    """Also where several were created at the same instant."""
    rng = random.Random(page_size)
    ask = face.list_operations if where == "live" else face.get_history
    with contextlib.ExitStack() as stack:
        operations = [Cancelable(f"n{number}", parent=None, registry=store) for number in range(20)]
        for operation in operations:
            operation._created = 1_000_000.0 + rng.randrange(4)
            stack.enter_context(operation)
        if where == "history":
            stack.close()
        seen: list[OperationContext] = []
        after = None
        while page := await ask(limit=page_size, after=after):
            assert len(page) <= page_size
            seen += page
            after = (page[-1].created_at, page[-1].id)
            with opened(store, "newcomer"):  # what arrives meanwhile is newer and moves nothing
                pass
        assert [context.id for context in seen if context.name != "newcomer"] == [
            operation.id for operation in sorted(operations, key=lambda each: (each._created, each.id), reverse=True)
        ]
        assert len(seen) == 20 or where == "history"


class Ended:
    """An entry that has ended and has not left the store yet, as for a moment every one does."""

    counted_as = None
    duration_seconds = None
    name = None
    kind = OperationKind.OPERATION
    status = OperationStatus.COMPLETED

    def __init__(self, number: int) -> None:
        self.id = f"ended-{number}"
        self.context = OperationContext(
            id=self.id,
            name=None,
            kind=self.kind,
            owner=None,
            status=self.status,
            created_at=datetime.now(UTC) + timedelta(hours=1),
        )

    def cancel_sync(self, *args: object, **kwargs: object) -> bool:
        return False


def test_what_has_ended_takes_no_room_on_a_page(store: OperationStore, registry: ThreadSafeRegistry) -> None:
    """A page that comes back short would read as the last one."""
    for number in range(5):
        store.register(Ended(number), OperationStatus.RUNNING)  # type: ignore[arg-type]
    with opened(store, "a", "b", "c"):
        assert names(registry.list_operations(limit=2)) == ["c", "b"]
    assert registry.cancel_operation("ended-1") == CancelResult(CancelOutcome.FINISHED, OperationStatus.COMPLETED)


async def test_get_operation_live_and_finished(face: Any, store: OperationStore) -> None:
    with Cancelable("one", owner="ada", metadata={"a": 1}, registry=store) as operation:
        operation.report_progress("half", current=1, total=2)
        context = await face.get_operation(operation.id)
        assert (context.id, context.status, context.owner) == (operation.id, OperationStatus.RUNNING, "ada")
        assert context.progress == {"message": "half", "current": 1, "total": 2}
        assert context.metadata == {"a": 1}
        assert context.id_is_secret
    context = await face.get_operation(operation.id)
    assert context.status is OperationStatus.COMPLETED
    assert context == operation.context


# --- the history


def test_each_kind_has_a_history_of_its_own() -> None:
    store = OperationStore(history_limit=3)
    registry = ThreadSafeRegistry(store)
    for number in range(10):
        end_as(OperationStatus.COMPLETED, store, "job", name=f"job {number}")
    for number in range(2):
        end_as(OperationStatus.FAILED, store, "request", name=f"request {number}")
    for number in range(4):
        end_as(OperationStatus.COMPLETED, store, name=f"operation {number}")
    assert names(registry.get_history(kind="job")) == ["job 9", "job 8", "job 7"]
    assert names(registry.get_history(kind="request")) == ["request 1", "request 0"]
    assert names(registry.get_history(kind="operation")) == ["operation 3", "operation 2", "operation 1"]
    assert registry.get_statistics().total_operations == 16


def test_completed_requests_are_only_counted(store: OperationStore, registry: ThreadSafeRegistry) -> None:
    completed = end_as(OperationStatus.COMPLETED, store, "request")
    others = [end_as(status, store, "request") for status in (OperationStatus.CANCELLED, OperationStatus.FAILED)]
    assert registry.get_operation(completed.id) is None
    assert registry.cancel_operation(completed.id) == CancelResult(CancelOutcome.UNKNOWN)
    assert {context.id for context in registry.get_history()} == {operation.id for operation in others}
    assert registry.get_statistics().completed_operations == 1


def test_a_thousand_are_kept_unless_told_otherwise(store: OperationStore) -> None:
    assert store.history_limit == 1_000


def test_a_history_of_none() -> None:
    store = OperationStore(history_limit=0)
    registry = ThreadSafeRegistry(store)
    ended = end_as(OperationStatus.FAILED, store)
    assert registry.get_history() == []
    assert registry.cancel_operation(ended.id).outcome is CancelOutcome.UNKNOWN
    assert registry.get_statistics().failed_operations == 1


def test_a_lower_limit_holds_from_the_next_end_on(store: OperationStore, registry: ThreadSafeRegistry) -> None:
    for number in range(5):
        end_as(OperationStatus.COMPLETED, store, name=str(number))
    store.history_limit = 2
    end_as(OperationStatus.COMPLETED, store, name="last")
    assert names(registry.get_history()) == ["last", "4"]


@pytest.mark.parametrize("limit", [-1, -1_000])
def test_a_negative_limit_is_refused(store: OperationStore, limit: int) -> None:
    with pytest.raises(ValueError, match="history_limit"):
        OperationStore(history_limit=limit)
    with pytest.raises(ValueError, match="history_limit"):
        store.history_limit = limit


def test_the_end_of_what_was_never_registered_changes_nothing(store: OperationStore, registry: ThreadSafeRegistry) -> None:
    with opened(store, "one"):
        with Cancelable("stranger", parent=None, registry=OperationStore()) as stranger:
            pass
        store.finish(stranger)
        store.note(stranger, OperationStatus.CANCELLING)
        assert names(registry.list_operations()) == ["one"]
        assert registry.get_history() == []
        assert registry.get_statistics().total_operations == 1


# --- ids


def test_a_live_id_is_refused_and_the_first_stays(store: OperationStore, registry: ThreadSafeRegistry) -> None:
    with Cancelable("first", operation_id="report-7", registry=store) as first:
        with pytest.raises(DuplicateOperation) as caught:
            with Cancelable("second", operation_id="report-7", registry=store):
                pytest.fail("its body ran")
        assert caught.value.operation_id == "report-7"
        found = registry.get_operation("report-7")
        assert found is not None
        assert (found.name, found.status) == ("first", OperationStatus.RUNNING)
        assert registry.get_statistics().total_operations == 1
        with Cancelable(operation_id="report-7", registry=OperationStore()):  # another store, another matter
            pass
        assert registry.cancel_operation("report-7")
        assert first.token.is_cancelled


def test_a_finished_id_may_be_used_again(store: OperationStore, registry: ThreadSafeRegistry) -> None:
    for name in ("first", "second"):
        with Cancelable(name, operation_id="report-7", registry=store):
            found = registry.get_operation("report-7")
            assert found is not None
            assert (found.name, found.status) == (name, OperationStatus.RUNNING)
    assert names(registry.get_history()) == ["second"]
    assert registry.get_statistics().completed_operations == 2


def test_of_many_with_one_id_exactly_one_is_let_in(store: OperationStore) -> None:
    for number in range(50):
        barrier, refused = threading.Barrier(4), threading.Semaphore(0)

        def enter(number: int = number, barrier: Any = barrier, refused: Any = refused) -> bool:
            barrier.wait(10)
            try:
                with Cancelable(operation_id=f"id-{number}", registry=store):
                    for _ in range(3):
                        assert refused.acquire(timeout=10)
            except DuplicateOperation:
                refused.release()
                return False
            return True

        running = [Running(enter) for _ in range(4)]
        assert sorted(each.result() for each in running) == [False, False, False, True]
    assert store.statistics().total_operations == 50


# --- statistics


def test_every_status_is_counted(store: OperationStore, registry: ThreadSafeRegistry) -> None:
    counts = {
        OperationStatus.COMPLETED: 4,
        OperationStatus.FAILED: 3,
        OperationStatus.CANCELLED: 2,
        OperationStatus.TIMED_OUT: 5,
    }
    for status, count in counts.items():
        for _ in range(count):
            end_as(status, store)
    announced = Cancelable(parent=None, registry=store)
    announced.announce()
    with opened(store, "a", "b", kind="job") as (first, _):
        first.cancel_sync()
        statistics = registry.get_statistics()
        check_sum(statistics)
        assert statistics.total_operations == 17
        assert (statistics.pending_operations, statistics.running_operations, statistics.cancelling_operations) == (1, 1, 1)
        for status, count in counts.items():
            assert getattr(statistics, f"{status}_operations") == count
        assert statistics.lost_operations == 0
        assert statistics.by_reason == {CancelationReason.MANUAL: 2, CancelationReason.TIMEOUT: 5}
        assert statistics.by_kind == {OperationKind.JOB: 2, OperationKind.REQUEST: 0, OperationKind.OPERATION: 15}
    with announced:
        pass
    assert registry.get_statistics().pending_operations == 0


async def test_statistics_by_kind(face: Any, store: OperationStore) -> None:
    end_as(OperationStatus.CANCELLED, store, "job")
    end_as(OperationStatus.FAILED, store, "request")
    with opened(store, "a"):
        assert (await face.get_statistics()).total_operations == 3
        jobs = await face.get_statistics("job")
        assert (jobs.total_operations, jobs.cancelled_operations, jobs.failed_operations) == (1, 1, 0)
        assert jobs.by_kind == {OperationKind.JOB: 1}
        both = await face.get_statistics([OperationKind.JOB, "request", "request"])
        assert (both.total_operations, both.by_kind) == (2, {OperationKind.JOB: 1, OperationKind.REQUEST: 1})
        assert (await face.get_statistics([])).total_operations == 0


def test_a_fresh_store_has_nothing_to_say(registry: ThreadSafeRegistry) -> None:
    statistics = registry.get_statistics()
    assert statistics.total_operations == 0
    assert statistics.average_duration_seconds is None
    assert (statistics.cancel_latency_seconds.p50, statistics.cancel_latency_seconds.p99) == (None, None)
    assert (statistics.by_reason, statistics.abandoned_threads) == ({}, 0)


def test_durations_and_latencies(store: OperationStore, registry: ThreadSafeRegistry) -> None:
    """Computed from the operations' own instants, which are set here."""
    for number in range(100):
        with contextlib.suppress(OperationCancelled), Cancelable(registry=store) as operation:
            operation.cancel_sync()
            started = operation._started
            assert started is not None
            operation._started = started - 2.0  # as if it had begun two seconds ago
            verdict = operation.token._verdicts[0]
            operation.token._verdicts[0] = verdict._replace(at=verdict.at - (number + 1) / 10)
            operation.check()
    statistics = registry.get_statistics()
    assert statistics.average_duration_seconds == pytest.approx(2.0, abs=0.5)
    assert statistics.cancel_latency_seconds.p50 == pytest.approx(5.1, abs=0.5)
    assert statistics.cancel_latency_seconds.p99 == pytest.approx(9.9, abs=0.5)
    before = Cancelable(registry=store)
    before.cancel_sync()
    with contextlib.suppress(OperationCancelled), before:
        pass
    assert registry.get_statistics().average_duration_seconds == statistics.average_duration_seconds  # it never started


def test_every_snapshot_adds_up_under_load(store: OperationStore) -> None:
    registry = ThreadSafeRegistry(store)
    stop = threading.Event()

    def work(seed: int) -> int:
        rng = random.Random(seed)
        for _ in range(400):
            operation = OF_KIND[rng.choice(list(OperationKind))](parent=None, registry=store)
            if rng.random() < 0.3:
                operation.announce()
            with contextlib.suppress(OperationCancelled, ZeroDivisionError), operation:
                if rng.random() < 0.4:
                    registry.cancel_operation(operation.id)
                if rng.random() < 0.3:
                    raise ZeroDivisionError
                if rng.random() < 0.5:
                    operation.check()
        return 400

    def watch() -> int:
        total = snapshots = 0
        while not stop.is_set():
            statistics = registry.get_statistics()
            check_sum(statistics)
            assert statistics.total_operations >= total
            total = statistics.total_operations
            snapshots += 1
        return snapshots

    watching = Running(watch)
    working = [Running(work, seed) for seed in range(3)]
    assert [each.result() for each in working] == [400] * 3
    stop.set()
    assert watching.result() > 0
    statistics = registry.get_statistics()
    assert statistics.total_operations == 1_200
    assert statistics.pending_operations + statistics.running_operations + statistics.cancelling_operations == 0
    assert not store._live
    assert not store._names._buckets


# --- which store


@pytest.mark.parametrize("given", ["store", "sync face", "async face"])
def test_an_operation_takes_a_store_or_a_face(store: OperationStore, given: str) -> None:
    registry: Any = {"store": store, "sync face": ThreadSafeRegistry(store), "async face": OperationRegistry(store)}[given]
    with Cancelable("here", registry=registry):
        assert names(ThreadSafeRegistry(store).list_operations()) == ["here"]
        assert ThreadSafeRegistry().list_operations() == []


def test_without_argument_the_faces_show_the_default_store() -> None:
    before = default_store()
    own = OperationStore()
    assert replace_default_store(own) is before
    try:
        assert default_store() is own
        with Cancelable("here"):
            assert names(ThreadSafeRegistry().list_operations()) == ["here"]
            assert OperationRegistry().store is own
            assert ThreadSafeRegistry(before).list_operations() == []
    finally:
        assert replace_default_store(before) is own


def test_replacing_the_default_store_moves_no_open_operation() -> None:
    before, own = default_store(), OperationStore()
    with Cancelable("old") as old:
        replace_default_store(own)
        try:
            with Cancelable("new", parent=None):
                pass
        finally:
            replace_default_store(before)
        assert before.find(old.id) is old
    assert before.find(old.id) is None
    assert own.statistics().total_operations == 1


def test_unregistered_operations_are_nowhere(store: OperationStore, registry: ThreadSafeRegistry) -> None:
    with Cancelable("hidden", register=False, registry=store) as operation:
        assert registry.list_operations() == []
        assert registry.cancel_operation(operation.id).outcome is CancelOutcome.UNKNOWN
    assert registry.get_statistics().total_operations == 0


class OtherProcess(LocalTransport):
    """A transport that may wait: the async face must ask it in threads."""

    may_block = True

    def __init__(self, store: OperationStore) -> None:
        super().__init__(store)
        self.asked_in: set[int] = set()

    def statistics(self, kinds: Any = None) -> OperationStatistics:
        self.asked_in.add(threading.get_ident())
        return super().statistics(kinds)

    def list_live(self, query: OperationQuery) -> list[OperationContext]:
        self.asked_in.add(threading.get_ident())
        return super().list_live(query)

    def cancel(self, operation_id: str, request: Any) -> CancelResult:
        self.asked_in.add(threading.get_ident())
        return super().cancel(operation_id, request)


async def test_the_async_face_asks_what_may_wait_in_threads(store: OperationStore) -> None:
    transport = OtherProcess(store)
    registry = OperationRegistry(transport)
    assert registry.transport is transport
    assert registry.store is store
    with opened(store, "a") as (operation,):
        assert await registry.cancel_operation(operation.id)
        assert len(await registry.list_operations()) == 1
        assert (await registry.get_statistics()).cancelling_operations == 1
    assert transport.asked_in
    assert threading.get_ident() not in transport.asked_in


async def test_the_async_face_asks_this_process_without_a_thread(store: OperationStore) -> None:
    class Local(OtherProcess):
        may_block = False

    transport = Local(store)
    await OperationRegistry(transport).get_statistics()
    assert transport.asked_in == {threading.get_ident()}


# --- waits that are none


@pytest.mark.parametrize("wait_seconds", [float("nan"), -1])
async def test_a_wait_that_is_none_cancels_nothing(store: OperationStore, wait_seconds: float) -> None:
    async with Cancelable(operation_id="it", registry=store) as operation:
        with pytest.raises(ValueError, match="wait_seconds"):
            ThreadSafeRegistry(store).cancel_operation("it", wait_seconds=wait_seconds)
        with pytest.raises(ValueError, match="wait_seconds"):
            await OperationRegistry(store).cancel_operation("it", wait_seconds=wait_seconds)
        assert not operation.token.is_cancelled


async def test_to_wait_on_a_loop_is_refused_before_anything_is_cancelled(store: OperationStore) -> None:
    async with Cancelable(operation_id="it", registry=store) as operation:
        with pytest.raises(RuntimeError, match="block"):
            ThreadSafeRegistry(store).cancel_operation("it", wait_seconds=1)
        assert not operation.token.is_cancelled


@pytest.mark.parametrize("face", [ThreadSafeRegistry, OperationRegistry])
@pytest.mark.parametrize("store", ["x", 5, Cancelable])
def test_a_registry_of_something_else_is_refused(face: Callable[[Any], object], store: Any) -> None:
    with pytest.raises(TypeError, match="OperationStore"):
        face(store)


def test_an_id_that_ends_again_moves_to_the_newest_end_of_the_history() -> None:
    store = OperationStore(history_limit=2)
    for operation_id in ("a", "b", "a", "c"):
        with Cancelable(operation_id=operation_id, registry=store):
            pass
    assert {context.id for context in ThreadSafeRegistry(store).get_history()} == {"a", "c"}


def test_ends_pause_for_whoever_is_not_given_his_turn_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registering takes no lock that could hold anybody up, and what has ended must not pile up without bounds."""
    paused: list[float] = []
    monkeypatch.setattr("cancelable_core.store.time", SimpleNamespace(sleep=paused.append))
    store = OperationStore()
    with store._lock:
        for _ in range(1_000):
            with Cancelable(registry=store):
                pass
    assert len(paused) == 500  # every end found two more notes than the one before
    assert all(0 < seconds < 0.005 for seconds in paused)
    assert store.statistics().completed_operations == 1_000
    assert not store._live
