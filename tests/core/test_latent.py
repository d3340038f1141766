"""Operations that are made when somebody looks: until then they cost nothing, and nobody can tell."""

from __future__ import annotations

import copy
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
from cancelable_core.latent import LatentOperation
from cancelable_core.models import OperationKind
from cancelable_core.operation import current_variable

DEADLINE_SECONDS = 10.0


class Task(LatentOperation):
    """Ended by whoever knows it, as requests are."""

    __slots__ = ()

    kind = OperationKind.REQUEST

    def end(self) -> None:
        if not self.end_latent():
            self._settle(OperationStatus.COMPLETED)


@pytest.fixture(autouse=True)
def nothing_is_current() -> None:
    """Not even what another thread ended, which counts as being inside of something: the next one would be made at once."""
    current_variable.set(None)


@pytest.fixture
def store() -> OperationStore:
    return OperationStore()


def begun(store: OperationStore) -> Task:
    task = Task(store)
    task.begin_latent()
    return task


def test_an_end_that_nobody_saw_is_counted_and_leaves_nothing(store: OperationStore) -> None:
    task = begun(store)
    task.end()
    assert not task.is_made
    assert not store.latent
    statistics = store.statistics()
    assert (statistics.total_operations, statistics.completed_operations) == (1, 1)
    assert statistics.average_duration_seconds is not None
    assert not task.is_made


def test_ending_twice_counts_once(store: OperationStore) -> None:
    task = begun(store)
    task.end()
    task.end()
    assert store.statistics().total_operations == 1
    task.end()
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
    task = begun(store)
    LOOKS[look](store)
    assert task.is_made
    assert not store.latent
    assert task.status is OperationStatus.RUNNING
    assert store.find(task.id) is task
    assert store.statistics([OperationKind.REQUEST]).running_operations == 1
    task.end()
    assert store.find(task.id) is None
    assert store.statistics([OperationKind.REQUEST]).completed_operations == 1
    assert current_operation() is None


def test_looking_at_one_that_ended_unseen_shows_it_finished_and_counts_it_once(store: OperationStore) -> None:
    task = begun(store)
    task.end()
    context = task.context
    assert context.status is OperationStatus.COMPLETED
    assert context.ended_at is not None
    assert context.started_at is not None
    assert context.ended_at >= context.started_at
    assert task.is_over
    assert store.find(task.id) is None
    assert store.statistics().total_operations == 1


def test_one_that_ended_unseen_is_sealed(store: OperationStore) -> None:
    task = begun(store)
    task.end()
    called: list[object] = []
    task.on_cancel(called.append)
    assert not task.cancel_sync("too late")
    assert task.token.is_sealed
    assert not called
    assert task.status is OperationStatus.COMPLETED
    task.check()


def test_a_cancel_reaches_it_unseen(store: OperationStore) -> None:
    task = begun(store)
    assert ThreadSafeRegistry(store).cancel_all(kind=OperationKind.REQUEST) == 1
    with pytest.raises(OperationCancelled):
        task.check()
    task.end()
    assert task.cancel_sync() is False


def test_ids_are_unique_and_secret(store: OperationStore) -> None:
    tasks = [Task(store) for _ in range(100)]
    assert len({task.id for task in tasks}) == 100
    assert all(task.id_is_secret for task in tasks)


def test_its_owner_can_be_given_before_anybody_looks(store: OperationStore) -> None:
    task = begun(store)
    task.owner = "7"
    assert not task.is_made
    assert [each.owner for each in ThreadSafeRegistry(store).list_operations(owner="7")] == ["7"]
    task.end()
    other = begun(store)
    assert other.context.owner is None
    other.end()


def test_it_has_the_attributes_of_any_operation_and_no_others(store: OperationStore) -> None:
    task = begun(store)
    assert repr(task).startswith("<Task ")
    assert not hasattr(task, "no_such_thing")
    with pytest.raises(AttributeError, match="'Task' object has no attribute 'no_such_thing'"):
        _ = task.no_such_thing  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    assert weakref.ref(task)() is task
    assert copy.copy(task).id == task.id
    task.end()


def test_asking_for_what_the_language_asks_for_is_no_look(store: OperationStore) -> None:
    task = begun(store)
    assert not hasattr(task, "__fspath__")
    assert hash(task)
    assert task != Task(store)
    assert not task.is_made
    task.end()


def test_an_empty_one_is_no_endless_recursion() -> None:
    empty = Task.__new__(Task)
    with pytest.raises(AttributeError):
        _ = empty.id


def test_it_is_made_in_one_step(store: OperationStore) -> None:
    """Somebody who sees the first of its attributes sees the others."""
    task = begun(store)
    seen: list[object] = []
    register = store.register

    def look(*args: Any) -> None:
        seen.append((task.status, task.is_over, task.token.is_cancelled))
        register(*args)

    store.register = look  # type: ignore[method-assign]
    task.make()
    assert seen == [(OperationStatus.RUNNING, False, False)]
    task.end()


def test_a_maker_in_the_middle_of_another_changes_nothing_that_was_done_since(store: OperationStore) -> None:
    """As a signal handler or a finaliser can be: in the same thread, so that no lock holds it up."""
    task = begun(store)
    register = store.register
    told: list[str] = []

    def handler(*args: Any) -> None:
        store.register = register  # type: ignore[method-assign]
        task.owner = "somebody"
        task.on_cancel(lambda _: told.append("cancelled"))
        task.report_progress("half")
        store.statistics()
        assert task.cancel_sync("by a handler")
        register(*args)

    store.register = handler  # type: ignore[method-assign]
    task.make()
    assert told == ["cancelled"]
    assert task.status is OperationStatus.CANCELLING
    assert task.owner == "somebody"
    assert task.context.progress == {"message": "half", "current": None, "total": None}
    statistics = store.statistics()
    assert (statistics.total_operations, statistics.cancelling_operations) == (1, 1)
    task.end()
    statistics = store.statistics()
    assert (statistics.total_operations, statistics.completed_operations) == (1, 1)


def test_an_end_in_the_middle_of_its_registration_is_counted_once(store: OperationStore) -> None:
    task = begun(store)
    register = store.register

    def handler(*args: Any) -> None:
        store.register = register  # type: ignore[method-assign]
        store.statistics()
        task.end()
        assert store.statistics().completed_operations == 1
        register(*args)

    store.register = handler  # type: ignore[method-assign]
    task.make()
    statistics = store.statistics()
    assert (statistics.total_operations, statistics.completed_operations, statistics.running_operations) == (1, 1, 0)
    assert store.find(task.id) is None
    assert not store.latent


def test_statistics_never_miss_one_that_is_ending(store: OperationStore) -> None:
    """It has begun, so it is counted: as running or as completed."""
    seen: list[int] = []

    class Noting(OperationStore):
        def count_unseen(self, *args: Any) -> None:
            seen.append(self.statistics().total_operations)
            super().count_unseen(*args)
            seen.append(self.statistics().total_operations)

    store = Noting()
    task = begun(store)
    task.end()
    assert seen == [1, 1]
    assert task.is_made  # it was seen just before its end
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
    task = begun(store)
    task.end()
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
    task = begun(store)
    task._claims = Claims()
    task.end()
    assert totals == [1]
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


def test_it_is_freed_by_its_last_reference(store: OperationStore) -> None:
    gc.collect()
    gc.disable()
    try:
        for look in (lambda task: None, lambda task: task.make()):
            task = begun(store)
            look(task)
            alive = weakref.ref(task)
            task.end()
            del task
            assert alive() is None
            task = begun(store)
            task.end()
            look(task)
            alive = weakref.ref(task)
            del task
            assert alive() is None
    finally:
        gc.enable()


def test_looked_at_before_it_begins_it_cannot_be_latent_any_more(store: OperationStore) -> None:
    task = Task(store)
    assert task._may_be_latent
    assert task.id
    assert not task._may_be_latent
    assert store.statistics().total_operations == 0
    with task:
        assert store.find(task.id) is task
    assert store.statistics().completed_operations == 1


def test_a_given_id_or_a_deadline_waits_for_nobody(store: OperationStore) -> None:
    assert not Task(store, operation_id="given")._may_be_latent
    assert not Task(store, timeout=5)._may_be_latent


def test_it_is_used_once(store: OperationStore) -> None:
    task = begun(store)
    with pytest.raises(RuntimeError, match="used once"):
        task._open(None)
    task.end()
    assert not task._may_be_latent
    with pytest.raises(RuntimeError, match="used once"):
        task._open(None)
    assert store.statistics().total_operations == 1


def test_an_end_in_another_thread_is_seen_here(store: OperationStore) -> None:
    task = begun(store)
    thread = threading.Thread(target=task.end)
    thread.start()
    thread.join(DEADLINE_SECONDS)
    assert current_operation() is None
    with Cancelable(registry=store) as operation:
        assert operation.parent is None
        assert operation.enclosing is None
    # the variable held it till now
    assert store.statistics([OperationKind.REQUEST]).total_operations == 1


def test_an_end_waits_for_the_look_that_it_lost_to(store: OperationStore) -> None:
    """It must not leave before it was registered: nobody would take it from the list again."""
    task = begun(store)
    register, reached, goes_on = store.register, threading.Event(), threading.Event()

    def slow(*args: Any) -> None:
        reached.set()
        assert goes_on.wait(DEADLINE_SECONDS)
        register(*args)

    store.register = slow  # type: ignore[method-assign]
    looker = threading.Thread(target=task.make)
    looker.start()
    assert reached.wait(DEADLINE_SECONDS)
    ender = threading.Thread(target=task.end)
    ender.start()
    ender.join(0.05)
    assert ender.is_alive()
    goes_on.set()
    looker.join(DEADLINE_SECONDS)
    ender.join(DEADLINE_SECONDS)
    assert store.find(task.id) is None
    statistics = store.statistics()
    assert (statistics.total_operations, statistics.completed_operations) == (1, 1)
    current_operation()


def test_a_look_that_is_interrupted_is_made_up_for_by_the_next(store: OperationStore) -> None:
    task = begun(store)
    register = store.register

    def interrupted(*args: Any) -> None:
        store.register = register  # type: ignore[method-assign]
        raise KeyboardInterrupt

    store.register = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        task.make()
    token = task.token
    assert store.statistics().running_operations == 1
    assert task.token is token
    task.end()
    assert store.statistics().completed_operations == 1
    assert not store.latent
