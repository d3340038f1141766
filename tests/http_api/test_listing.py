"""``GET /``, ``GET /<id>`` and ``GET /stats``."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cancelable_core.http_api import STATISTICS_FIELDS, HttpApi
from cancelable_core.http_api.cursors import cursor_after, read_cursor
from cancelable_core.models import CancelationReason, OperationContext, OperationKind, OperationStatus
from cancelable_core.registry import ThreadSafeRegistry

from .world import ALICE, NOBODY, STAFF, Answer, World, finish

STATUSES = [status for status in OperationStatus if status is not OperationStatus.LOST]
PENDING, RUNNING, CANCELLING = OperationStatus.PENDING, OperationStatus.RUNNING, OperationStatus.CANCELLING
FINISHED = [OperationStatus.COMPLETED, OperationStatus.FAILED, OperationStatus.CANCELLED, OperationStatus.TIMED_OUT]


def one_of_each_status(world: World) -> dict[str, str]:
    """Ids by status, of every status but running."""
    ids = {status.value: world.finished(status).id for status in FINISHED}
    ids["pending"] = world.pending().id
    cancelling = world.pending()
    cancelling.cancel_sync()
    ids["cancelling"] = cancelling.id
    return ids


def all_pages(world: World, query: str = "", *, principal: object = STAFF) -> list[list[str]]:
    """The ids of every page, following ``next``."""
    pages: list[list[str]] = []
    after = ""
    while True:
        answer = world.get("/", query=f"{query}{after}", principal=principal)
        pages.append(answer.ids)
        if answer.json["next"] is None:
            return pages
        after = f"&after={answer.json['next']}"


class TestList:
    def test_empty(self, world: World) -> None:
        assert world.get("/").body == b'{"operations":[],"next":null}'

    def test_live_and_finished_ones_together_newest_first(self, world: World) -> None:
        ids = [world.finished(FINISHED[number % 4]).id if number % 2 else world.pending().id for number in range(10)]
        listed = world.get("/").json["operations"]
        assert {operation["id"] for operation in listed} == set(ids)
        keys = [(operation["created_at"], operation["id"]) for operation in listed]
        assert keys == sorted(keys, reverse=True)

    @pytest.mark.parametrize("status", [*FINISHED, PENDING, CANCELLING])
    def test_one_status(self, world: World, status: OperationStatus) -> None:
        ids = one_of_each_status(world)
        assert world.get("/", query=f"status={status}").ids == [ids[status]]

    def test_running_ones(self, world: World) -> None:
        with world.make() as operation:
            assert world.get("/", query="status=running").ids == [operation.id]
        assert world.get("/", query="status=running").ids == []

    def test_several_statuses_across_live_and_finished(self, world: World) -> None:
        ids = one_of_each_status(world)
        listed = world.get("/", query="status=pending&status=failed&status=failed").ids
        assert set(listed) == {ids["pending"], ids["failed"]}

    def test_lost_is_a_status_too(self, world: World) -> None:
        one_of_each_status(world)
        assert world.get("/", query="status=lost").ids == []

    def test_requests_are_left_out_unless_asked_for(self, world: World) -> None:
        ids = {kind.value: world.pending(kind=kind).id for kind in OperationKind}
        assert set(world.get("/").ids) == {ids["job"], ids["operation"]}
        assert world.get("/", query="kind=request").ids == [ids["request"]]
        assert set(world.get("/", query="kind=request&kind=job").ids) == {ids["request"], ids["job"]}

    def test_a_completed_request_is_only_counted(self, world: World) -> None:
        gone = world.finished(OperationStatus.COMPLETED, kind=OperationKind.REQUEST)
        kept = world.finished(OperationStatus.CANCELLED, kind=OperationKind.REQUEST)
        assert world.get("/", query="kind=request").ids == [kept.id]
        assert world.get(f"/{gone.id}").status == 404
        assert world.post(f"/{gone.id}/cancel").status == 404

    def test_names_by_pattern(self, world: World) -> None:
        ids = [world.pending("export-1").id, world.finished(OperationStatus.COMPLETED, "export-2").id]
        world.pending("import-1")
        world.pending()
        assert set(world.get("/", query="name=export-*").ids) == set(ids)
        assert world.get("/", query="name=export-[1]").ids == [ids[0]]
        assert len(world.get("/", query="name=*").ids) == 3

    def test_an_operation_that_ends_between_the_two_looks_is_listed_once_as_ended(self, world: World) -> None:
        operation = world.pending()

        class Late(ThreadSafeRegistry):
            def get_history(self, **filters: Any) -> list[OperationContext]:
                finish(operation, OperationStatus.COMPLETED)
                return super().get_history(**filters)

        api = HttpApi(Late(world.store), world.settings, default_max_waiting=1)
        answer = Answer(api.respond(world.request("GET", "/")))
        assert [item["status"] for item in answer.json["operations"]] == ["completed"]


class TestPages:
    @pytest.mark.parametrize("limit", [1, 2, 3, 7, 8, 500])
    def test_pages_have_every_operation_once(self, world: World, limit: int) -> None:
        ids = [world.finished(OperationStatus.COMPLETED).id if number % 3 else world.pending().id for number in range(7)]
        pages = all_pages(world, f"limit={limit}")
        paged = [operation_id for page in pages for operation_id in page]
        assert Counter(paged) == Counter(ids)
        assert paged == world.get("/").ids
        assert all(len(page) == limit for page, _ in pairwise(pages))

    def test_filters_hold_on_every_page(self, world: World) -> None:
        for number in range(6):
            world.pending(f"export-{number}", owner="alice" if number % 2 else "bob")
        pages = all_pages(world, "limit=1&name=export-*", principal=ALICE)
        assert [len(page) for page in pages] == [1, 1, 1]

    def test_fifty_unless_asked(self, world: World) -> None:
        for _ in range(60):
            world.pending()
        assert [len(page) for page in all_pages(world)] == [50, 10]
        assert len(world.get("/", query="limit=500").ids) == 60

    def test_what_is_new_does_not_disturb_later_pages(self, world: World) -> None:
        old = [world.pending().id for _ in range(4)]
        first = world.get("/", query="limit=2")
        world.pending()
        second = world.get("/", query=f"limit=2&after={first.json['next']}")
        assert set(first.ids + second.ids) == set(old)

    @given(
        moment=st.datetimes(datetime(1970, 1, 1), datetime(5000, 1, 1), timezones=st.just(UTC)),
        operation_id=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,199}", fullmatch=True),
    )
    def test_a_cursor_reads_back_exactly(self, moment: datetime, operation_id: str) -> None:
        context = OperationContext(
            id=operation_id, name=None, kind=OperationKind.JOB, owner=None, status=PENDING, created_at=moment
        )
        text = cursor_after(context)
        assert read_cursor(text) == (moment, operation_id)
        assert text.replace("-", "").replace("_", "").isalnum()

    @given(st.text(max_size=80) | st.from_regex(r"[A-Za-z0-9_-]{1,60}", fullmatch=True))
    def test_any_other_text_is_refused_or_read(self, text: str) -> None:
        try:
            moment, operation_id = read_cursor(text)
        except ValueError:
            return
        assert moment.tzinfo is UTC
        assert operation_id


class TestQueryFields:
    @pytest.mark.parametrize(
        ("query", "fields"),
        [
            ("limit=0", ["limit"]),
            ("limit=501", ["limit"]),
            ("limit=-1", ["limit"]),
            ("limit=1.0", ["limit"]),
            ("limit=", ["limit"]),
            ("limit=%D9%A3", ["limit"]),
            ("limit=" + "9" * 5000, ["limit"]),
            ("limit=1&limit=1", ["limit"]),
            ("status=done", ["status"]),
            ("status=", ["status"]),
            ("status=running,pending", ["status"]),
            ("status=RUNNING", ["status"]),
            ("kind=task", ["kind"]),
            ("kind=job&kind=task", ["kind"]),
            ("name=", ["name"]),
            ("name=" + "x" * 501, ["name"]),
            ("name=a&name=b", ["name"]),
            ("owner=", ["owner"]),
            ("owner=a&owner=b", ["owner"]),
            ("after=", ["after"]),
            ("after=x", ["after"]),
            ("after=!!!!", ["after"]),
            ("after=" + "A" * 401, ["after"]),
            ("offset=1", ["offset"]),
            ("Limit=1", ["Limit"]),
            ("x=1&limit=0&status=y", ["status", "limit", "x"]),
        ],
    )
    def test_of_the_list(self, world: World, query: str, fields: list[str]) -> None:
        assert world.get("/", query=query).fields == fields

    @pytest.mark.parametrize(
        ("query", "fields"), [("kind=x", ["kind"]), ("kind=", ["kind"]), ("status=running", ["status"]), ("x", ["x"])]
    )
    def test_of_the_statistics(self, world: World, query: str, fields: list[str]) -> None:
        assert world.get("/stats", query=query).fields == fields

    def test_one_operation_takes_none(self, world: World) -> None:
        world.pending(operation_id="mine")
        assert world.get("/mine", query="verbose=1").fields == ["verbose"]
        assert world.get("/unknown", query="verbose=1").fields == ["verbose"]


class TestStatistics:
    def test_all_fields_in_order(self, world: World) -> None:
        answer = world.get("/stats")
        assert tuple(answer.json) == STATISTICS_FIELDS
        assert answer.json == {
            "total": 0,
            "pending": 0,
            "running": 0,
            "cancelling": 0,
            "cancelled": 0,
            "timed_out": 0,
            "completed": 0,
            "failed": 0,
            "lost": 0,
            "by_reason": dict.fromkeys(CancelationReason, 0),
            "by_kind": dict.fromkeys(OperationKind, 0),
            "average_duration_seconds": None,
            "cancel_latency_seconds": {"p50": None, "p99": None},
            "abandoned_threads": 0,
        }

    def test_counts(self, world: World) -> None:
        one_of_each_status(world)
        with world.make():
            counted = world.get("/stats").json
        assert {status: counted[status] for status in STATUSES} == dict.fromkeys(STATUSES, 1)
        assert counted["total"] == len(STATUSES) == counted["by_kind"]["operation"]
        assert counted["by_reason"]["manual"] == counted["by_reason"]["timeout"] == 1

    def test_of_some_kinds(self, world: World) -> None:
        for kind in OperationKind:
            world.pending(kind=kind)
        assert world.get("/stats").json["total"] == 3
        assert world.get("/stats", query="kind=job").json["total"] == 1
        assert world.get("/stats", query="kind=job&kind=request").json["by_kind"] == {"job": 1, "request": 1, "operation": 0}

    def test_of_nobody(self, world: World) -> None:
        assert world.get("/stats", principal=NOBODY).status == 403
