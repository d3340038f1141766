"""What an operation shows of itself while it lives, and what stays."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cancelable_core import (
    Cancelable,
    CancelationReason,
    CancelationToken,
    InvalidOperationId,
    OperationCancelled,
    OperationKind,
    OperationStatus,
    OperationStore,
    ThreadSafeRegistry,
)
from cancelable_core.operation import CURRENT, INHERIT

IDS_OF_GOOD_FORM = ["a", "0", "A-b_c.d:e", "a" * 200, "statistics", "cancel-all-of-it", "stats.", "9" * 32]
IDS_OF_BAD_FORM = [
    "",
    " ",
    "-a",
    ".a",
    "_a",
    ":a",
    "a b",
    "a\n",
    "a\x00",
    "a/b",
    "a%2Fb",
    "../etc",
    "a" * 201,
    "ä",
    "١",
    "a\u202eb",
    "\ud800",
    "stats",
    "STATS",
    "Cancel-All",
    "events",
    "dashboard",
    "Health",
    "metrics",
]


@pytest.mark.parametrize("operation_id", IDS_OF_GOOD_FORM)
def test_ids_of_ones_own(operation_id: str) -> None:
    operation = Cancelable(operation_id=operation_id)
    assert operation.id == operation.context.id == operation_id
    assert operation.id_is_secret is operation.context.id_is_secret is False


@pytest.mark.parametrize("operation_id", [*IDS_OF_BAD_FORM, 5, b"bytes", ["a"], 1.5, True, object()])
def test_bad_ids_are_refused_by_the_constructor(operation_id: object) -> None:
    with pytest.raises(InvalidOperationId) as caught:
        Cancelable(operation_id=operation_id)  # type: ignore[arg-type]
    assert isinstance(caught.value, ValueError)
    str(caught.value).encode("utf-8")  # whatever was given, the message can be printed


@pytest.mark.parametrize("operation_id", [*IDS_OF_BAD_FORM, 5, b"bytes", None, ["unhashable"], {}, 1.5])
def test_looking_for_a_bad_id_finds_nothing_and_raises_nothing(registry: ThreadSafeRegistry, operation_id: object) -> None:
    assert registry.get_operation(operation_id) is None  # type: ignore[arg-type]
    assert registry.cancel_operation(operation_id).outcome == "unknown"  # type: ignore[arg-type]
    assert registry.wait_for(operation_id, 0) is None  # type: ignore[arg-type]


def test_generated_ids_are_128_random_bits_in_hex() -> None:
    ids = {Cancelable().id for _ in range(1_000)}
    assert len(ids) == 1_000
    assert all(len(operation_id) == 32 and int(operation_id, 16) >= 0 for operation_id in ids)
    assert Cancelable().id_is_secret is Cancelable().context.id_is_secret is True


def test_a_life_step_by_step(registry: ThreadSafeRegistry) -> None:
    before = datetime.now(UTC)
    operation = Cancelable("report", owner="ada", metadata={"year": 2026}, registry=registry)
    pending = operation.context
    assert (pending.status, pending.started_at, pending.ended_at) == (OperationStatus.PENDING, None, None)
    assert (pending.name, pending.owner, pending.kind) == ("report", "ada", OperationKind.OPERATION)
    assert pending.metadata == {"year": 2026}
    assert registry.get_operation(operation.id) is None  # not before it is entered
    with pytest.raises(OperationCancelled):
        with operation:
            running = operation.context
            assert registry.get_operation(operation.id) == running
            operation.cancel_sync(CancelationReason.DISCONNECT, "gone", origin="socket")
            cancelling = operation.context
            assert registry.list_operations() == [cancelling]
            operation.check()
    ended = operation.context
    assert registry.get_operation(operation.id) == ended
    assert [context.status for context in (running, cancelling, ended)] == ["running", "cancelling", "cancelled"]
    assert ended.started_at is not None
    assert ended.cancel_requested_at is not None
    assert ended.ended_at is not None
    assert before <= ended.created_at <= ended.started_at <= ended.cancel_requested_at <= ended.ended_at
    assert (ended.reason, ended.message, ended.origin) == (CancelationReason.DISCONNECT, "gone", "socket")
    assert ended.duration_seconds == (ended.ended_at - ended.started_at).total_seconds()
    assert running.duration_seconds is cancelling.duration_seconds is None
    assert operation.duration_seconds == pytest.approx(ended.duration_seconds, abs=0.001)
    assert Cancelable().duration_seconds is None


def test_snapshots_are_frozen_and_of_their_moment() -> None:
    given = {"list": [1]}
    with Cancelable(metadata=given, register=False) as operation:
        context = operation.context
        with pytest.raises(dataclasses.FrozenInstanceError):
            context.status = OperationStatus.LOST  # type: ignore[misc]
        given["more"] = [2]
        context.metadata["mine"] = 1  # type: ignore[index]
        assert operation.context.metadata == {"list": [1]}
    assert context.status is OperationStatus.RUNNING


@pytest.mark.parametrize(
    ("status", "is_final"),
    [(status, status not in ("pending", "running", "cancelling")) for status in OperationStatus],
)
def test_final_statuses(status: OperationStatus, is_final: bool) -> None:
    assert status.is_final is is_final


def test_repr_names_it_and_its_status() -> None:
    assert repr(Cancelable("report")) == "<Cancelable 'report' pending>"
    operation = Cancelable()
    assert operation.id in repr(operation)
    assert (repr(INHERIT), repr(CURRENT)) == ("INHERIT", "CURRENT")


def test_an_operation_nobody_cancelled_has_no_error() -> None:
    with pytest.raises(RuntimeError, match="not cancelled"):
        Cancelable().error()


def test_unregistered_operations_are_seen_by_nobody(registry: ThreadSafeRegistry) -> None:
    with Cancelable(register=False, registry=registry) as operation:
        assert registry.get_operation(operation.id) is None
        assert registry.get_statistics().total_operations == 0
        assert operation.cancel_sync()
    assert registry.get_history() == []


@pytest.mark.parametrize("give", ["store", "face"])
def test_a_registry_of_ones_own(store: OperationStore, give: str) -> None:
    registry = ThreadSafeRegistry(store)
    with Cancelable(registry=store if give == "store" else registry) as operation:
        assert [context.id for context in registry.list_operations()] == [operation.id]
        assert ThreadSafeRegistry().get_operation(operation.id) is None


def test_the_default_registry_is_the_processs() -> None:
    with Cancelable() as operation:
        assert ThreadSafeRegistry().get_operation(operation.id) == operation.context


@pytest.mark.parametrize("timeout", [5, 5.0, timedelta(seconds=5)])
def test_remaining_seconds_before_and_during(timeout: float | timedelta) -> None:
    operation = Cancelable(timeout=timeout, register=False)
    assert operation.remaining_seconds == 5.0
    with operation:
        remaining = operation.remaining_seconds
        assert remaining is not None
        assert 0 < remaining <= 5.0


def test_remaining_seconds_are_the_nearest_ancestors() -> None:
    with Cancelable(timeout=50, register=False):
        with Cancelable(register=False) as middle, Cancelable(timeout=500, register=False) as inner:
            assert middle.remaining_seconds is not None
            assert inner.remaining_seconds is not None
            assert middle.remaining_seconds <= 50
            assert inner.remaining_seconds <= 50
        with Cancelable(timeout=0, register=False) as none_left:
            assert none_left.remaining_seconds == 0
        with Cancelable(parent=None, register=False) as detached:
            assert detached.remaining_seconds is None


class Life(RuleBasedStateMachine):
    """One operation, any order of events, against a model of two decision points."""

    @initialize(given=st.booleans(), raise_on_cancel=st.booleans(), timeout=st.sampled_from([None, 1_000.0]))
    def make(self, given: bool, raise_on_cancel: bool, timeout: float | None) -> None:
        self.store = OperationStore()
        self.given = CancelationToken() if given else None
        self.operation = Cancelable(
            "life", token=self.given, raise_on_cancel=raise_on_cancel, timeout=timeout, registry=self.store
        )
        self.raise_on_cancel = raise_on_cancel
        self.state = "new"
        self.words: str | None = None
        self.ending: str | None = None
        self.called = 0
        self.registered = 0

    def _told(self, words: str) -> bool:
        if self.words is None and self.state != "over":
            self.words = words
            return True
        return False

    @rule(words=st.sampled_from("abc"))
    def cancel(self, words: str) -> None:
        assert self.operation.cancel_sync(words) is self._told(words)

    @rule(words=st.sampled_from("xyz"))
    def cancel_the_given_token(self, words: str) -> None:
        if self.given is not None and self.given.cancel_sync(words) and self.state == "open":
            self._told(words)

    @rule()
    def watch(self) -> None:
        def called(_: CancelationToken) -> None:
            self.called += 1

        self.operation.on_cancel(called)
        if self.words is not None or self.state != "over":
            self.registered += 1

    @precondition(lambda self: self.state == "new")
    @rule()
    def enter(self) -> None:
        if self.given is not None and self.given.is_cancelled:
            self._told(self.given.message or "")
        if self.words is not None:
            with pytest.raises(OperationCancelled):
                self.operation.__enter__()
            self.state, self.ending = "over", "cancelled"
        else:
            self.operation.__enter__()
            self.state = "open"

    @precondition(lambda self: self.state != "new")
    @rule()
    def enter_again(self) -> None:
        with pytest.raises(RuntimeError):
            self.operation.__enter__()

    @precondition(lambda self: self.state == "open")
    @rule(how=st.sampled_from(["normally", "error", "check", "closed"]))
    def leave(self, how: str) -> None:
        error: BaseException | None = None
        if how == "check" and self.words is not None:
            with pytest.raises(OperationCancelled) as caught:
                self.operation.check()
            error = caught.value
            assert self.operation.__exit__(type(error), error, None) is not self.raise_on_cancel
            self.ending = "cancelled"
        elif how == "error":
            error = ValueError()
            assert self.operation.__exit__(ValueError, error, None) is False
            self.ending = "failed"
        elif how == "closed":
            error = GeneratorExit()
            assert self.operation.__exit__(GeneratorExit, error, None) is False
            self.ending = "cancelled"
            if self.words is None:
                self.words = "(closed)"
        else:
            assert self.operation.__exit__(None, None, None) is False
            self.ending = "completed"
        self.state = "over"

    @rule()
    def look(self) -> None:
        if self.words is None:
            self.operation.check()
        else:
            with pytest.raises(OperationCancelled):
                self.operation.check()

    @invariant()
    def the_status_is_the_models(self) -> None:
        if not hasattr(self, "state"):
            return
        expected = self.ending or ("cancelling" if self.words else {"new": "pending", "open": "running"}[self.state])
        context = self.operation.context
        assert context.status == self.operation.status == expected
        assert (context.cancel_requested_at is not None) == (self.words is not None)
        assert context.message == (None if self.words == "(closed)" else self.words)
        assert self.operation.is_over is (self.state == "over")
        assert self.called == (self.registered if self.words is not None else 0)
        live, finished = self.store.find(self.operation.id), self.store.finished(self.operation.id)
        assert (live is not None, finished is not None) == (self.state == "open", self.state == "over")
        statistics = self.store.statistics()
        assert statistics.total_operations == (0 if self.state == "new" else 1)
        if self.state != "new":
            assert getattr(statistics, f"{expected}_operations") == 1
        if self.state == "over":
            assert not self.operation.token._watchers
            assert self.given is None or not self.given._watchers

    def teardown(self) -> None:
        if getattr(self, "state", None) == "open":
            self.operation.__exit__(None, None, None)


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=60, stateful_step_count=15, deadline=None)
