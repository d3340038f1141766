"""``POST /<id>/cancel`` and ``POST /cancel-all``, without waiting."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from cancelable_core.http_api import EndpointRequest, HttpApi, Principal
from cancelable_core.models import CancelationReason, CancelOutcome, CancelResult, OperationKind, OperationStatus
from cancelable_core.registry import ThreadSafeRegistry

from .world import ALICE, BOB, NOBODY, STAFF, Answer, World

FINISHED = [OperationStatus.COMPLETED, OperationStatus.FAILED, OperationStatus.CANCELLED, OperationStatus.TIMED_OUT]


class TestOne:
    def test_the_first_cancel_is_requested_the_second_already_was(self, world: World) -> None:
        operation = world.pending("report")
        answers = [world.post(f"/{operation.id}/cancel", {"message": text}) for text in ("first", "second")]
        assert [answer.status for answer in answers] == [202, 202]
        assert [answer.json["outcome"] for answer in answers] == ["requested", "already_requested"]
        assert list(answers[0].json) == ["outcome", "operation"]
        assert answers[1].json["operation"] == world.get(f"/{operation.id}").json
        assert answers[1].json["operation"]["message"] == "first"

    @pytest.mark.parametrize(("asker", "origin"), [(ALICE, "http:alice"), (STAFF, "http:root"), (NOBODY, "http")])
    def test_the_operation_learns_who_and_why(self, world: World, asker: Principal, origin: str) -> None:
        operation = world.pending(owner="alice" if asker.id else None)
        assert world.post(f"/{operation.id}/cancel", form={"message": "no longer needed"}, principal=asker).status == 202
        token = operation.token
        assert (token.reason, token.message, token.origin) == (CancelationReason.MANUAL, "no longer needed", origin)

    @pytest.mark.parametrize("status", FINISHED)
    @pytest.mark.parametrize("body", [{}, {"wait_seconds": 30}])
    def test_a_finished_operation_is_a_conflict_and_stays_as_it_was(
        self, world: World, status: OperationStatus, body: dict[str, Any]
    ) -> None:
        operation = world.finished(status)
        before = world.get(f"/{operation.id}").json
        answer = world.post(f"/{operation.id}/cancel", {"message": "too late", **body})
        assert (answer.status, answer.json["type"]) == (409, "urn:cancelable:finished")
        assert answer.json["operation"] == before == world.get(f"/{operation.id}").json

    @pytest.mark.parametrize(
        ("outcome", "status", "code"),
        [
            (CancelOutcome.LOST, 410, "urn:cancelable:lost"),
            (CancelOutcome.FINISHED, 409, "urn:cancelable:finished"),
            (CancelOutcome.UNKNOWN, 404, "urn:cancelable:not-found"),
        ],
    )
    def test_what_other_processes_may_say(self, outcome: CancelOutcome, status: int, code: str) -> None:
        answer = answered(outcome)
        assert (answer.status, answer.json["type"]) == (status, code)
        assert ("operation" in answer.json) == (status != 404)

    @pytest.mark.parametrize("outcome", [CancelOutcome.REQUESTED, CancelOutcome.ALREADY_REQUESTED, CancelOutcome.QUEUED])
    def test_what_was_accepted_is_202(self, outcome: CancelOutcome) -> None:
        answer = answered(outcome)
        assert (answer.status, answer.json["outcome"]) == (202, outcome)

    def test_requests_can_be_cancelled_by_their_id(self, world: World) -> None:
        operation = world.pending(kind=OperationKind.REQUEST)
        assert world.post(f"/{operation.id}/cancel", principal=NOBODY).status == 202
        assert operation.token.is_cancelled

    def test_nothing_from_outside_breaks_a_log_line(self, world: World, caplog: pytest.LogCaptureFixture) -> None:
        operation = world.pending(owner="eve\nCRITICAL \u202e")
        with caplog.at_level(logging.DEBUG, "cancelable_core"):
            world.post(f"/{operation.id}/cancel", principal=Principal("eve\nCRITICAL \u202e"))
            world.post("/cancel-all", {"name": "a\nb\u202e"})
        messages = [record.getMessage() for record in caplog.records if record.levelno == logging.INFO]
        assert len(messages) == 2
        assert all(message.isascii() and message.isprintable() for message in messages)


class OtherProcess(ThreadSafeRegistry):
    """A registry whose cancels end as one decides."""

    outcome = CancelOutcome.UNKNOWN

    def cancel_operation(self, *_: Any, **__: Any) -> CancelResult:
        return CancelResult(self.outcome)


def answered(outcome: CancelOutcome) -> Answer:
    """The answer to a cancel with this outcome."""
    world = World()
    world.pending(operation_id="mine")
    registry = OtherProcess(world.store)
    registry.outcome = outcome
    api = HttpApi(registry, world.settings, default_max_waiting=1)
    return Answer(api.respond(EndpointRequest(method="POST", path="/mine/cancel", principal=STAFF)))


class TestAll:
    @pytest.mark.parametrize(
        "body",
        [
            {},
            {"name": "*"},
            {"name": "**"},
            {"name": "?*"},
            {"kind": "job"},
            {"status": "running"},
            {"all": False},
            {"all": None},
        ],
    )
    def test_everything_must_be_meant(self, world: World, body: dict[str, Any]) -> None:
        operation = world.pending("export")
        assert world.post("/cancel-all", body).fields == ["all"]
        assert not operation.token.is_cancelled

    @pytest.mark.parametrize(
        ("body", "reached"),
        [
            ({"all": True}, {"export-1", "export-2", "import-1", None}),
            ({"all": True, "name": "*"}, {"export-1", "export-2", "import-1"}),
            ({"name": "export-*"}, {"export-1", "export-2"}),
            ({"name": "export-?", "all": True}, {"export-1", "export-2"}),
            ({"name": "EXPORT-*"}, set()),
            ({"owner": "alice"}, {"export-1", "import-1"}),
            ({"owner": "alice", "name": "*"}, {"export-1", "import-1"}),
            ({"owner": "alice", "name": "export-*"}, {"export-1"}),
            ({"owner": "nobody-of-that-name"}, set()),
            ({"all": True, "status": "running"}, set()),
            ({"all": True, "status": ["pending", "running"]}, {"export-1", "export-2", "import-1", None}),
            ({"all": True, "kind": "job"}, {"export-2"}),
            ({"all": True, "kind": ["job", "request"]}, {"export-2", "GET /"}),
        ],
    )
    def test_reaches_what_was_named(self, world: World, body: dict[str, Any], reached: set[str | None]) -> None:
        operations = [
            world.pending("export-1", owner="alice"),
            world.pending("export-2", owner="bob", kind=OperationKind.JOB),
            world.pending("import-1", owner="alice"),
            world.pending(),
            world.pending("GET /", kind=OperationKind.REQUEST),
        ]
        answer = world.post("/cancel-all", body)
        assert (answer.status, answer.json) == (202, {"requested": len(reached)})
        assert {operation.name for operation in operations if operation.token.is_cancelled} == reached

    def test_counts_only_what_was_newly_told(self, world: World) -> None:
        for _ in range(3):
            world.pending("export")
        assert world.post("/cancel-all", {"name": "export"}).json == {"requested": 3}
        assert world.post("/cancel-all", {"name": "export"}).json == {"requested": 0}

    def test_forms_repeat_what_json_lists(self, world: World) -> None:
        world.pending(kind=OperationKind.REQUEST)
        world.pending(kind=OperationKind.JOB)
        world.pending()
        assert world.post("/cancel-all", form={"all": "true", "kind": ["job", "request"]}).json == {"requested": 2}

    def test_operations_learn_who_cancelled(self, world: World) -> None:
        operation = world.pending(owner="bob")
        world.post("/cancel-all", {"all": True}, principal=BOB)
        assert (operation.token.reason, operation.token.origin) == (CancelationReason.MANUAL, "http:bob")

    @pytest.mark.parametrize(
        ("body", "fields"),
        [
            ({"all": 1}, ["all"]),
            ({"all": "yes"}, ["all"]),
            ({"name": ""}, ["name"]),
            ({"name": 5, "all": True}, ["name"]),
            ({"name": "x" * 501}, ["name"]),
            ({"owner": "", "all": True}, ["owner"]),
            ({"owner": ["alice"], "all": True}, ["owner"]),
            ({"kind": "task", "all": True}, ["kind"]),
            ({"kind": [], "all": True}, ["kind"]),
            ({"kind": [["job"]], "all": True}, ["kind"]),
            ({"kind": {"job": 1}, "all": True}, ["kind"]),
            ({"status": "completed", "all": True}, ["status"]),
            ({"status": 1, "all": True}, ["status"]),
            ({"message": "x", "all": True}, ["message"]),
        ],
    )
    def test_bad_fields(self, world: World, body: dict[str, Any], fields: list[str]) -> None:
        operation = world.pending("export")
        assert set(world.post("/cancel-all", body).fields) >= set(fields)
        assert not operation.token.is_cancelled
