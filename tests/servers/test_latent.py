"""Requests that are made operations when somebody looks: until then they cost nothing, and nobody can tell."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from cancelable_core import (
    Cancelable,
    OperationCancelled,
    OperationStatus,
    OperationStore,
    ThreadSafeRegistry,
    current_operation,
)
from cancelable_core.models import OperationKind
from cancelable_core.operation import current_variable
from cancelable_core.servers import LatentRequest
from cancelable_core.store import UNSEEN

from .latent import Request, begun, made

DEADLINE_SECONDS = 10.0


@pytest.fixture(autouse=True)
def nothing_is_current() -> None:
    """Not even what another thread ended."""
    current_variable.set(None)


@pytest.fixture
def store() -> OperationStore:
    return OperationStore()


def test_an_end_that_nobody_saw_is_counted_and_leaves_nothing(store: OperationStore) -> None:
    request = begun(store)
    request.end()
    assert request.made is None
    assert not store.latent
    statistics = store.statistics()
    assert (statistics.total_operations, statistics.completed_operations) == (1, 1)
    assert statistics.average_duration_seconds is not None
    assert request.made is None


def test_ending_twice_counts_once(store: OperationStore) -> None:
    request = begun(store)
    request.end()
    request.end()
    assert store.statistics().total_operations == 1
    request.end(ZeroDivisionError())
    assert store.statistics().completed_operations == 1


LOOKS: dict[str, Callable[[OperationStore], object]] = {
    "statistics": lambda store: store.statistics(),
    "list": lambda store: ThreadSafeRegistry(store).list_operations(),
    "list by name": lambda store: ThreadSafeRegistry(store).list_operations(name_pattern="x*"),
    "current": lambda store: current_operation(),
    "child": lambda store: Cancelable(registry=store).__enter__().__exit__(None, None, None),
    "cancel all": lambda store: ThreadSafeRegistry(store).cancel_all("nobody has this name"),
}


@pytest.mark.parametrize("look", LOOKS)
def test_whoever_looks_finds_it_running(store: OperationStore, look: str) -> None:
    request = begun(store)
    LOOKS[look](store)
    operation = request.made
    assert operation is not None
    assert not store.latent
    assert operation.status is OperationStatus.RUNNING
    assert store.find(operation.id) is operation
    assert store.statistics([OperationKind.REQUEST]).running_operations == 1
    request.end()
    assert operation.status is OperationStatus.COMPLETED
    assert store.find(operation.id) is None
    assert store.statistics([OperationKind.REQUEST]).completed_operations == 1
    assert current_operation() is None


def test_it_has_been_running_since_it_began(store: OperationStore) -> None:
    request = begun(store)
    began = request._began
    context = made(request).context
    assert context.started_at is not None
    assert context.started_at.timestamp() == context.created_at.timestamp() == pytest.approx(began, abs=1e-5)
    request.end()


def test_there_is_nothing_to_see_of_one_that_ended_unseen(store: OperationStore) -> None:
    request = begun(store)
    request.end()
    assert request.make() is None
    assert request.native is None
    assert store.statistics().total_operations == 1


def test_a_cancel_reaches_it_unseen(store: OperationStore) -> None:
    request = begun(store)
    assert ThreadSafeRegistry(store).cancel_all(kind=OperationKind.REQUEST) == 1
    with pytest.raises(OperationCancelled):
        made(request).check()
    request.end()
    assert made(request).cancel_sync() is False


def test_ids_are_unique_and_secret(store: OperationStore) -> None:
    requests = [begun(store) for _ in range(100)]
    assert len({made(request).id for request in requests}) == 100
    assert all(made(request).id_is_secret for request in requests)
    for request in requests:
        request.end()


def test_it_is_nobody_s(store: OperationStore) -> None:
    request = begun(store)
    assert made(request).context.owner is None
    request.end()


@pytest.mark.parametrize(
    "settings", [{"request_timeout_seconds": 5}, {"cancel_on_disconnect": "all"}, {"response_header": "all"}]
)
def test_limits_clients_and_headers_wait_for_nobody(store: OperationStore, settings: dict[str, Any]) -> None:
    request = begun(store, **settings)
    assert request.made is not None
    assert current_operation() is request.made
    request.end()
    assert request.native is None
    assert current_operation() is None
    assert store.statistics().completed_operations == 1


def test_it_is_an_operation_from_the_beginning_where_that_is_asked_for(store: OperationStore) -> None:
    request = Request(store)
    request.begin(request.web, at_once=True)
    assert request.made is request.make() is current_operation()
    request.end()
    assert store.statistics().completed_operations == 1


def test_it_is_there_when_somebody_sees_it(store: OperationStore) -> None:
    """Whoever finds it in the registry finds all of it."""
    request = begun(store)
    seen: list[object] = []
    register = store.register

    def look(entry: Any, *args: Any) -> None:
        seen.append((entry.status, entry.is_over, entry.token.is_cancelled))
        register(entry, *args)

    store.register = look  # type: ignore[method-assign]
    request.make()
    assert seen == [(OperationStatus.RUNNING, False, False)]
    request.end()


def test_a_look_in_the_middle_of_another_changes_nothing_that_was_done_since(store: OperationStore) -> None:
    """As by a signal handler or a finaliser: in the same thread, so that no lock holds it up."""
    request = begun(store)
    register = store.register
    told: list[str] = []

    def handler(*args: Any) -> None:
        store.register = register  # type: ignore[method-assign]
        operation = made(request)
        operation.owner = "somebody"
        operation.on_cancel(lambda _: told.append("cancelled"))
        operation.report_progress("half")
        store.statistics()
        assert operation.cancel_sync("by a handler")
        register(*args)

    store.register = handler  # type: ignore[method-assign]
    operation = made(request)
    assert told == ["cancelled"]
    assert operation.status is OperationStatus.CANCELLING
    assert operation.owner == "somebody"
    assert operation.context.progress == {"message": "half", "current": None, "total": None}
    statistics = store.statistics()
    assert (statistics.total_operations, statistics.cancelling_operations) == (1, 1)
    request.end()
    statistics = store.statistics()
    assert (statistics.total_operations, statistics.completed_operations) == (1, 1)


def test_an_end_in_the_middle_of_its_registration_is_counted_once(store: OperationStore) -> None:
    request = begun(store)
    register = store.register

    def handler(*args: Any) -> None:
        store.register = register  # type: ignore[method-assign]
        store.statistics()
        request.end()
        assert store.statistics().completed_operations == 1
        register(*args)

    store.register = handler  # type: ignore[method-assign]
    operation = made(request)
    statistics = store.statistics()
    assert (statistics.total_operations, statistics.completed_operations, statistics.running_operations) == (1, 1, 0)
    assert store.find(operation.id) is None
    assert not store.latent


def test_an_end_while_its_operation_is_created_is_unseen(store: OperationStore) -> None:
    class EndsMeanwhile(Request):
        __slots__ = ()

        def _create(self, native: Any) -> Any:
            operation = super()._create(native)
            self.end()
            return operation

    request = EndsMeanwhile(store)
    request.begin(request.web)
    assert request.make() is None
    assert not store.latent
    assert not store._live
    assert store.statistics().completed_operations == 1


def test_statistics_never_miss_one_that_is_ending(store: OperationStore) -> None:
    """It has begun, so it is counted: as running or as completed."""
    seen: list[int] = []

    class Noting(OperationStore):
        def count_unseen(self, *args: Any) -> None:
            seen.append(self.statistics().total_operations)
            super().count_unseen(*args)
            seen.append(self.statistics().total_operations)

    store = Noting()
    request = begun(store)
    request.end()
    assert seen == [1, 1]
    assert request.made is not None  # it was seen just before its end
    assert store.statistics().completed_operations == 1

    class Late(OperationStore):
        def count_unseen(self, *args: Any) -> None:
            super().count_unseen(*args)
            finish_another(self)
            seen.append(self.statistics().total_operations)

    def finish_another(store: OperationStore) -> None:
        other = Cancelable(registry=store, parent=None)  # whose end tidies up, and counts what is ending
        other._open(None)
        other._settle(OperationStatus.COMPLETED)

    store = Late()
    request = begun(store)
    request.end()
    assert not store.latent
    statistics = store.statistics()
    assert (statistics.total_operations, statistics.completed_operations) == (2, 2)
    assert seen == [1, 1, 2]


def test_statistics_between_the_claim_and_the_end_count_it(store: OperationStore) -> None:
    class Claims(list[object]):
        def append(self, claim: object) -> None:
            super().append(claim)
            if len(self) == 1:
                totals.append(store.statistics().total_operations)

    totals: list[int] = []
    request = begun(store)
    request._claims = Claims()
    request.end()
    assert totals == [1]
    assert store.statistics().total_operations == 1


def test_an_end_given_up_in_the_middle_is_made_up_for(store: OperationStore) -> None:
    """A signal handler may raise anywhere."""

    class Claims(list[object]):
        is_interrupted = True

        def append(self, claim: object) -> None:
            if self.is_interrupted:
                self.is_interrupted = False
                raise KeyboardInterrupt
            super().append(claim)

    request = begun(store)
    request._claims = Claims()
    with pytest.raises(KeyboardInterrupt):
        request.end()
    assert store.statistics().running_operations == 1
    request.end()
    assert not store.latent
    statistics = store.statistics()
    assert (statistics.total_operations, statistics.completed_operations) == (1, 1)


def test_an_end_that_was_counted_and_given_up_is_no_place_for_an_operation(store: OperationStore) -> None:
    request = begun(store)
    store.count_unseen(request._claims, 0.0)  # as far as it came
    request._claims.append(UNSEEN)
    assert store.statistics().completed_operations == 1
    assert not store.latent
    assert request.make() is None
    request.end()
    assert store.statistics().total_operations == 1


def test_counts_do_not_pile_up_where_nobody_ever_looks(store: OperationStore) -> None:
    for _ in range(3_456):
        begun(store).end()
    assert len(store._unseen) < 1_000
    assert store.statistics().completed_operations == 3_456


def test_counts_left_while_somebody_is_inside_are_seen_to_on_the_way_out(store: OperationStore) -> None:
    with store._lock:
        for _ in range(1_500):
            begun(store).end()
        assert len(store._unseen) == 1_500
    assert not store._unseen


@pytest.mark.parametrize("looks", [False, True])
def test_it_is_freed_by_its_last_reference(store: OperationStore, looks: bool) -> None:
    gc.collect()
    gc.disable()
    try:
        request = begun(store)
        if looks:
            request.make()
        alive = weakref.ref(request)
        request.end()
        del request
        assert alive() is None
    finally:
        gc.enable()


def test_an_end_in_another_thread_is_seen_here(store: OperationStore) -> None:
    request = begun(store)
    thread = threading.Thread(target=request.end)
    thread.start()
    thread.join(DEADLINE_SECONDS)
    assert current_operation() is None
    with Cancelable(registry=store) as operation:
        assert operation.parent is None
        assert operation.enclosing is None
    assert store.statistics([OperationKind.REQUEST]).total_operations == 1


@pytest.mark.parametrize("looks", [False, True])
def test_the_next_one_may_be_latent_where_another_thread_ended_the_last(store: OperationStore, looks: bool) -> None:
    request = begun(store)
    if looks:
        request.make()
    thread = threading.Thread(target=request.end)
    thread.start()
    thread.join(DEADLINE_SECONDS)
    following = begun(store)
    assert following.made is None
    assert current_operation() is following.make()
    following.end()
    assert current_operation() is None


def test_an_end_waits_for_the_look_that_it_lost_to(store: OperationStore) -> None:
    """It must not leave before it was registered: nobody would take it from the list again."""
    request = begun(store)
    register, reached, goes_on = store.register, threading.Event(), threading.Event()

    def slow(*args: Any) -> None:
        reached.set()
        assert goes_on.wait(DEADLINE_SECONDS)
        register(*args)

    store.register = slow  # type: ignore[method-assign]
    looker = threading.Thread(target=request.make)
    looker.start()
    assert reached.wait(DEADLINE_SECONDS)
    ender = threading.Thread(target=request.end)
    ender.start()
    ender.join(0.05)
    assert ender.is_alive()
    goes_on.set()
    looker.join(DEADLINE_SECONDS)
    ender.join(DEADLINE_SECONDS)
    assert not store._live
    statistics = store.statistics()
    assert (statistics.total_operations, statistics.completed_operations) == (1, 1)
    current_operation()


def test_a_look_that_is_interrupted_is_made_up_for_by_the_next(store: OperationStore) -> None:
    request = begun(store)
    register = store.register
    entries: list[Any] = []

    def interrupted(entry: Any, *args: Any) -> None:
        entries.append(entry)
        store.register = register  # type: ignore[method-assign]
        raise KeyboardInterrupt

    store.register = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        request.make()
    assert store.statistics().running_operations == 1
    assert entries == [request.made]
    request.end()
    assert store.statistics().completed_operations == 1
    assert not store.latent


def test_what_it_is_made_of_is_for_each_kind_of_server_to_say(store: OperationStore) -> None:
    request = LatentRequest()
    request.native = None
    request.begin(Request(store).web)
    request.native = object()
    with pytest.raises(NotImplementedError):
        request.make()
    request.end()
    assert store.statistics().completed_operations == 1
