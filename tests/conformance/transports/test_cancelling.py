"""A cancel reaches the owner of an operation, who decides; the transport says what was decided."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from cancelable_core import CancelationReason, CancelOutcome, OperationCancelled, OperationKind, OperationStatus
from cancelable_core.models import CancelRequest, OperationQuery

from .engines import DEADLINE_SECONDS, becomes_true
from .world import ENDINGS, EVERYTHING, MANUAL, World

NOT_IDS = ["", "unknown", "a b", "a/b", "\x00", "\n", "é", "\ud800", "*", "stats", "x" * 5_000]


@pytest.mark.parametrize("operation_id", NOT_IDS, ids=ascii)
def test_an_id_that_nobody_has_is_unknown(world: World, operation_id: str) -> None:
    world.running("other")
    result = world.transport.cancel(operation_id, MANUAL)
    assert (result.outcome, result.status, result.accepted) == (CancelOutcome.UNKNOWN, None, False)
    assert not result
    assert world.transport.get(operation_id) is None
    assert world.transport.ended(operation_id) is None


def test_the_first_cancel_is_requested_and_the_others_change_nothing(world: World) -> None:
    operation = world.running("mine")
    first = CancelRequest(reason=CancelationReason.SHUTDOWN, message="for lunch", origin="the cook")
    assert world.transport.cancel("mine", first).outcome is CancelOutcome.REQUESTED
    for _ in range(2):
        result = world.transport.cancel("mine", CancelRequest(reason=CancelationReason.MANUAL, message="me too"))
        assert (result.outcome, bool(result)) == (CancelOutcome.ALREADY_REQUESTED, True)
    token = operation.token
    assert (token.reason, token.message, token.origin) == (CancelationReason.SHUTDOWN, "for lunch", "the cook")
    seen = world.transport.get("mine")
    assert seen is not None
    assert (seen.status, seen.reason, seen.message) == (OperationStatus.CANCELLING, CancelationReason.SHUTDOWN, "for lunch")


@pytest.mark.parametrize("reason", CancelationReason)
def test_every_reason_arrives(world: World, reason: CancelationReason) -> None:
    operation = world.running()
    assert world.transport.cancel(operation.id, CancelRequest(reason=reason))
    assert operation.token.wait(DEADLINE_SECONDS)
    assert (operation.token.reason, operation.token.message, operation.token.origin) == (reason, None, None)


@pytest.mark.parametrize("text", ["", "café", "\U0001f600", "a\nb", "\u202e", "x" * 10_000], ids=ascii)
def test_every_text_arrives(world: World, text: str) -> None:
    operation = world.running()
    assert world.transport.cancel(operation.id, CancelRequest(reason=CancelationReason.MANUAL, message=text, origin=text))
    assert operation.token.wait(DEADLINE_SECONDS)
    assert (operation.token.message, operation.token.origin) == (text, text)


def test_what_is_pending_never_runs(world: World) -> None:
    operation = world.pending("mine")
    assert world.transport.cancel("mine", MANUAL).outcome is CancelOutcome.REQUESTED
    assert operation.token.wait(DEADLINE_SECONDS)
    with pytest.raises(OperationCancelled), operation:
        pytest.fail("its body ran")
    becomes_true(lambda: world.history() == ["mine"])
    (context,) = world.transport.list_finished(EVERYTHING)
    assert (context.status, context.started_at) == (OperationStatus.CANCELLED, None)


@pytest.mark.parametrize("status", ENDINGS)
def test_what_has_ended_stays_as_it_is(world: World, status: OperationStatus) -> None:
    before = world.finished(status, "mine")
    becomes_true(lambda: world.transport.get("mine") == before)
    result = world.transport.cancel("mine", MANUAL)
    assert (result.outcome, result.status, bool(result)) == (CancelOutcome.FINISHED, status, False)
    assert world.transport.get("mine") == before


def test_a_completed_request_leaves_no_trace_but_the_counters(world: World) -> None:
    context = world.finished(OperationStatus.COMPLETED, kind=OperationKind.REQUEST)
    assert world.transport.cancel(context.id, MANUAL).outcome is CancelOutcome.UNKNOWN
    assert world.transport.get(context.id) is None
    assert world.transport.statistics([OperationKind.REQUEST]).completed_operations == 1


def test_a_cancel_waits_for_nobody(world: World) -> None:
    operation = world.running("mine")
    result = world.transport.cancel("mine", MANUAL)
    assert result.status in (OperationStatus.RUNNING, OperationStatus.CANCELLING)
    assert not operation.status.is_final


def test_of_many_cancels_at_once_one_is_the_first(world: World) -> None:
    askers = 8
    with ThreadPoolExecutor(askers) as pool:
        for _ in range(50):
            operation = world.running()
            together = threading.Barrier(askers)

            def ask(operation_id: str = operation.id, together: threading.Barrier = together) -> CancelOutcome:
                together.wait(DEADLINE_SECONDS)
                return world.transport.cancel(operation_id, MANUAL).outcome

            outcomes = [asked.result(DEADLINE_SECONDS) for asked in [pool.submit(ask) for _ in range(askers)]]
            assert sorted(outcomes) == [CancelOutcome.ALREADY_REQUESTED] * (askers - 1) + [CancelOutcome.REQUESTED]


def test_a_cancel_and_a_finish_at_once_agree_on_who_was_first(world: World) -> None:
    outcomes = set()
    with ThreadPoolExecutor(1) as pool:
        for _ in range(500):
            operation = world.make()
            together = threading.Barrier(2)

            def ask(operation_id: str = operation.id, together: threading.Barrier = together) -> CancelOutcome:
                together.wait(DEADLINE_SECONDS)
                return world.transport.cancel(operation_id, MANUAL).outcome

            with suppress(OperationCancelled), operation:
                asked = pool.submit(ask)
                together.wait(DEADLINE_SECONDS)
            outcome = asked.result(DEADLINE_SECONDS)
            outcomes.add(outcome)
            context = operation.context
            assert context.status is OperationStatus.COMPLETED  # it looked nowhere whether it was cancelled
            assert (context.cancel_requested_at is not None) == (outcome is CancelOutcome.REQUESTED)
    assert outcomes <= {CancelOutcome.REQUESTED, CancelOutcome.FINISHED}


# --- many


@pytest.mark.parametrize(
    ("query", "reached"),
    [
        (EVERYTHING, {"export-1", "export-2", "import", "request", "unnamed"}),
        (OperationQuery(name_pattern="export-*"), {"export-1", "export-2"}),
        (OperationQuery(name_pattern="*"), {"export-1", "export-2", "import", "request"}),
        (OperationQuery(name_pattern="EXPORT-*"), set()),
        (OperationQuery(name_pattern=""), set()),
        (OperationQuery(kinds=[OperationKind.JOB, OperationKind.REQUEST]), {"export-2", "request"}),
        (OperationQuery(kinds=[]), set()),
        (OperationQuery(owner="alice"), {"export-1", "import"}),
        (OperationQuery(owner="Alice"), set()),
        (OperationQuery(statuses=[OperationStatus.PENDING]), {"import"}),
        (OperationQuery(statuses=[OperationStatus.COMPLETED]), set()),
        (OperationQuery(statuses=[]), set()),
        (OperationQuery(owner="alice", name_pattern="export-*", kinds=[OperationKind.OPERATION]), {"export-1"}),
        (OperationQuery(parent_id="export-1"), set()),
        (OperationQuery(limit=0), set()),
        (OperationQuery(limit=1), {"unnamed"}),
    ],
    ids=str,
)
def test_cancel_all_reaches_what_matches_and_says_how_many(world: World, query: OperationQuery, reached: set[str]) -> None:
    world.finished(OperationStatus.COMPLETED, "ended", name="export-0", owner="alice")
    operations = {
        "export-1": world.running("export-1", name="export-1", owner="alice"),
        "export-2": world.running("export-2", name="export-2", owner="bob", kind=OperationKind.JOB),
        "import": world.pending("import", name="import", owner="alice"),
        "request": world.running("request", name="GET /", kind=OperationKind.REQUEST),
        "unnamed": world.running("unnamed"),
    }
    request = CancelRequest(reason=CancelationReason.MANUAL, message="all of you", origin="the cook")
    assert world.transport.cancel_all(query, request) == len(reached)
    becomes_true(lambda: {each for each, operation in operations.items() if operation.token.is_cancelled} == reached)
    for each in reached:
        assert (operations[each].token.message, operations[each].token.origin) == ("all of you", "the cook")


def test_cancel_all_does_not_count_what_was_told_before(world: World) -> None:
    for number in range(3):
        world.running(f"op-{number}")
    assert world.transport.cancel("op-1", MANUAL)
    assert world.transport.cancel_all(EVERYTHING, MANUAL) == 2
    assert world.transport.cancel_all(EVERYTHING, MANUAL) == 0
