"""What cancels do: of one operation and of many, waited for or not."""

from __future__ import annotations

from typing import Any

import pytest

from cancelable_core import Cancelable

from .apps.work import DEADLINE_SECONDS, gate
from .clients import AdapterClient
from .everywhere import same_everywhere

LONGER_THAN_A_TEST = {"wait_seconds": DEADLINE_SECONDS + 5}
"""Whoever waits for it gets no answer in time."""


@pytest.mark.parametrize("work", ["stubborn", "async-stubborn"])
@pytest.mark.parametrize("submit", ["submit", "asubmit"])
@same_everywhere
def test_the_second_cancel_reports_already_requested(client: AdapterClient, submit: str, work: str) -> None:
    client.start(work, "mine", user="alice", submit=submit)
    answers = [client.post("/jobs/mine/cancel", {"message": text}, user="alice") for text in ("first", "second")]
    assert [answer.status for answer in answers] == [202, 202]
    assert [answer.json["outcome"] for answer in answers] == ["requested", "already_requested"]
    for answer in answers:
        operation = answer.json["operation"]
        assert (operation["status"], operation["reason"], operation["message"]) == ("cancelling", "manual", "first")
    gate("mine").open()
    assert client.ended("mine").status == "cancelled"
    assert client.get("/jobs/mine", user="alice").json["status"] == "cancelled"


@pytest.mark.parametrize("work", ["obedient", "async-obedient"])
@pytest.mark.parametrize("submit", ["submit", "asubmit"])
@same_everywhere
def test_a_cancel_stops_the_work_at_once(client: AdapterClient, submit: str, work: str) -> None:
    client.start(work, "mine", user="alice", submit=submit)
    answer = client.post("/jobs/mine/cancel", {"wait_seconds": 20}, user="alice")
    assert (answer.status, answer.json["operation"]["status"]) == (200, "cancelled")


@same_everywhere
def test_a_form_cancels_too(client: AdapterClient) -> None:
    client.start("stubborn", "mine", user="alice")
    body = b"message=no+longer+needed%3B+caf%C3%A9&wait_seconds=0"
    headers = [("Content-Type", "application/x-www-form-urlencoded")]
    answer = client.post("/jobs/mine/cancel", body=body, headers=headers, user="alice")
    assert (answer.status, answer.json["operation"]["message"]) == (202, "no longer needed; café")


@pytest.mark.parametrize("body", [None, {}, {"wait_seconds": 20}])
@pytest.mark.parametrize(("work", "status"), [("quick", "completed"), ("failing", "failed"), ("async-quick", "completed")])
@same_everywhere
def test_a_finished_operation_is_a_conflict(client: AdapterClient, work: str, status: str, body: Any) -> None:
    client.submit(work, "mine", user="alice")
    client.ended("mine")
    answer = client.post("/jobs/mine/cancel", body, user="alice")
    assert (answer.status, answer.code) == (409, "finished")
    assert answer.json["operation"]["status"] == status


@pytest.mark.parametrize("work", ["obedient", "async-obedient"])
@same_everywhere
def test_what_timed_out_cannot_be_cancelled_any_more(client: AdapterClient, work: str) -> None:
    client.submit(work, "mine", user="alice", query="timeout=0.01")
    client.ended("mine")
    answer = client.post("/jobs/mine/cancel", user="alice")
    assert (answer.status, answer.code) == (409, "finished")
    operation = answer.json["operation"]
    assert (operation["status"], operation["reason"]) == ("timed_out", "timeout")


@same_everywhere(job_workers=1, job_queue_limit=1)
def test_a_pending_job_never_runs_and_a_full_queue_is_unavailable(client: AdapterClient) -> None:
    client.start("stubborn", "running", user="alice")
    client.submit("quick", "pending", user="alice")
    assert client.get("/jobs/pending", user="alice").json["status"] == "pending"
    for submit in ("submit", "asubmit"):
        full = client.post(f"/{submit}/quick/too-many", user="alice")
        assert (full.status, full.code, full["retry-after"]) == (503, "queue-full", "5")
    assert client.get("/jobs/too-many", user="alice").status == 404
    answer = client.post("/jobs/pending/cancel", {"wait_seconds": 20}, user="alice")
    assert answer.status == 200
    operation = answer.json["operation"]
    assert (operation["status"], operation["started_at"], operation["duration_seconds"]) == ("cancelled", None, None)
    client.submit("quick", "next", user="alice")
    gate("running").open()
    assert client.ended("next").status == "completed"


@pytest.mark.parametrize("work", ["stubborn", "async-stubborn"])
@same_everywhere
def test_a_wait_ends_with_the_operation(client: AdapterClient, work: str) -> None:
    client.start(work, "mine", user="alice")
    exchange = client.open("POST", "/jobs/mine/cancel", json={"wait_seconds": 20}, user="alice")
    client.cancel_arrived("mine")
    gate("mine").open()
    answer = client.take(exchange)
    assert (answer.status, answer.json["outcome"]) == (200, "requested")
    assert answer.json["operation"]["status"] == "cancelled"


@same_everywhere
def test_a_wait_that_runs_out(client: AdapterClient) -> None:
    client.start("stubborn", "mine", user="alice")
    answer = client.post("/jobs/mine/cancel", {"wait_seconds": 0.01}, user="alice")
    assert (answer.status, answer.json["operation"]["status"]) == (202, "cancelling")


@same_everywhere(max_wait_seconds=2)
def test_a_wait_for_longer_than_the_setting_allows(client: AdapterClient) -> None:
    client.start("obedient", "mine", user="alice")
    assert client.post("/jobs/mine/cancel", {"wait_seconds": 2.001}, user="alice").fields == ["wait_seconds"]
    answer = client.post("/jobs/mine/cancel", {"wait_seconds": 2}, user="alice")
    assert (answer.status, answer.json["operation"]["status"]) == (200, "cancelled")


@same_everywhere(max_waiting=1)
def test_more_than_may_wait_are_answered_at_once(client: AdapterClient) -> None:
    client.start("stubborn", "mine", user="alice")
    waiting = [client.open("POST", "/jobs/mine/cancel", json={"wait_seconds": 20}, user="alice") for _ in range(3)]
    at_once = client.first_answered(waiting, 2)
    for exchange in at_once:
        assert client.take(exchange).status == 202
        waiting.remove(exchange)
    gate("mine").open()
    (last,) = waiting
    assert last.answer().json["operation"]["status"] == "cancelled"


@same_everywhere(max_waiting=0)
def test_where_nobody_may_wait_all_are_answered_at_once(client: AdapterClient) -> None:
    client.start("stubborn", "mine", user="alice")
    answer = client.post("/jobs/mine/cancel", LONGER_THAN_A_TEST, user="alice")
    assert (answer.status, answer.json["operation"]["status"]) == (202, "cancelling")


def test_how_many_may_wait_unless_told(client: AdapterClient) -> None:
    """A wait holds a thread of the server under WSGI, and a task under ASGI."""
    client.start("stubborn", "mine", user="alice")
    places = 100 if client.is_asgi else 4
    waiting = [client.open("POST", "/jobs/mine/cancel", json={"wait_seconds": 20}, user="alice") for _ in range(places + 1)]
    (at_once,) = client.first_answered(waiting, 1)
    assert at_once.answer().status == 202
    gate("mine").open()
    waiting.remove(at_once)
    assert {exchange.answer().status for exchange in waiting} == {200}


@same_everywhere
def test_a_place_is_free_again_after_the_wait(client: AdapterClient) -> None:
    for number in range(6):
        client.start("obedient", f"job-{number}", user="alice")
        answer = client.post(f"/jobs/job-{number}/cancel", {"wait_seconds": 20}, user="alice")
        assert (answer.status, answer.json["operation"]["status"]) == (200, "cancelled")


@same_everywhere
def test_nobody_waits_for_an_operation_that_he_is_part_of(client: AdapterClient) -> None:
    """It could not end before he has his answer."""
    with Cancelable(operation_id="mine", owner="alice", registry=client.store, parent=None) as mine:
        with Cancelable(operation_id="inner", registry=client.store) as inner:
            for operation in (inner, mine):
                answer = client.post(f"/jobs/{operation.id}/cancel", LONGER_THAN_A_TEST, user="alice")
                assert (answer.status, answer.json["operation"]["status"]) == (202, "cancelling")


@pytest.mark.parametrize(
    ("body", "reached"),
    [
        ({"name": "export-*"}, {"export-1", "export-2"}),
        ({"name": "export-1"}, {"export-1"}),
        ({"name": "nothing"}, set()),
        ({"owner": "alice"}, {"export-1", "export-2", "import-1"}),
        ({"owner": "bob"}, set()),
        ({"owner": "bob", "name": "*"}, set()),
        ({"all": True}, {"export-1", "export-2", "import-1"}),
        ({"all": True, "kind": ["operation"]}, set()),
        ({"all": True, "status": "running"}, {"export-1", "export-2", "import-1"}),
    ],
)
@same_everywhere
def test_cancel_all_of_ones_own(client: AdapterClient, body: dict[str, Any], reached: set[str]) -> None:
    _submit_exports(client)
    answer = client.post("/jobs/cancel-all", body, user="alice")
    assert (answer.status, answer.json) == (202, {"requested": len(reached)})
    assert _cancelling(client) == reached
    assert client.post("/jobs/cancel-all", body, user="alice").json == {"requested": 0}


@pytest.mark.parametrize(
    ("body", "reached"),
    [
        ({"all": True}, {"export-1", "export-2", "import-1", "export-3"}),
        ({"owner": "bob"}, {"export-3"}),
        ({"name": "export-*"}, {"export-1", "export-2", "export-3"}),
    ],
)
@same_everywhere
def test_cancel_all_by_staff(client: AdapterClient, body: dict[str, Any], reached: set[str]) -> None:
    _submit_exports(client)
    assert client.post("/jobs/cancel-all", body, user="root").json == {"requested": len(reached)}
    assert _cancelling(client) == reached


@pytest.mark.parametrize("body", [None, {}, {"name": "*"}, {"name": "**"}, {"kind": "job"}, {"all": False}])
@pytest.mark.parametrize("user", ["alice", "root"])
@same_everywhere
def test_everything_must_be_meant(client: AdapterClient, body: dict[str, Any] | None, user: str) -> None:
    client.seed("mine", owner="alice")
    assert client.post("/jobs/cancel-all", body, user=user).fields == ["all"]
    assert not _cancelling(client)


@same_everywhere
def test_cancel_all_leaves_requests_alone(client: AdapterClient) -> None:
    client.start("stubborn", "mine", user="alice")
    exchange = client.open("GET", "/sync/wait-and-finish")
    gate("view").wait_until_reached()
    assert client.post("/jobs/cancel-all", {"all": True}, user="root").json == {"requested": 1}
    gate("view").open()
    assert exchange.answer().text == "finished"  # the framework's own answer, which is not compared


def _submit_exports(client: AdapterClient) -> None:
    for name, user in {"export-1": "alice", "export-2": "alice", "import-1": "alice", "export-3": "bob"}.items():
        client.start("stubborn", name, user=user, query=f"name={name}")


def _cancelling(client: AdapterClient) -> set[str]:
    return {operation.id for operation in client.registry.list_operations() if operation.status == "cancelling"}
