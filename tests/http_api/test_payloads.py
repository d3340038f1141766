"""The JSON of one operation."""

from __future__ import annotations

import json
import math
import os
import re
from datetime import UTC, datetime, timedelta, timezone
from types import MappingProxyType
from typing import Any

import pytest

from cancelable_core.http_api import OPERATION_FIELDS, STAFF_FIELDS, AllowAll
from cancelable_core.http_api.payloads import instant, to_json
from cancelable_core.models import OperationStatus

from .world import ALICE, STAFF, World

INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


def test_every_field_is_there_in_order_null_when_unknown(world: World) -> None:
    operation = world.pending()
    answer = world.get(f"/{operation.id}", principal=ALICE)
    assert tuple(answer.json) == OPERATION_FIELDS
    created_at = answer.json["created_at"]
    assert answer.json == {
        **dict.fromkeys(OPERATION_FIELDS),
        "id": operation.id,
        "kind": "operation",
        "status": "pending",
        "created_at": created_at,
    }
    assert INSTANT.fullmatch(created_at)


def test_a_finished_operation(world: World) -> None:
    parent = world.pending(operation_id="parent", owner="alice")
    with world.make("import", owner="alice", parent=parent) as operation:
        operation.report_progress("half", current=1, total=2)
    found = world.get(f"/{operation.id}", principal=ALICE).json
    assert (found["name"], found["owner"], found["parent_id"]) == ("import", "alice", "parent")
    assert found["status"] == "completed"
    assert (found["progress"]["message"], found["progress"]["current"], found["progress"]["total"]) == ("half", 1, 2)
    assert found["created_at"] <= found["started_at"] <= found["ended_at"]
    assert found["duration_seconds"] >= 0


def test_a_running_operation_has_no_duration_yet(world: World) -> None:
    with world.make() as operation:
        found = world.get(f"/{operation.id}").json
    assert (found["status"], found["ended_at"], found["duration_seconds"]) == ("running", None, None)


def test_a_cancelled_operation_says_why(world: World) -> None:
    operation = world.finished(OperationStatus.TIMED_OUT)
    found = world.get(f"/{operation.id}").json
    assert (found["status"], found["reason"], found["message"]) == ("timed_out", "timeout", "enough")
    assert (found["started_at"], found["duration_seconds"]) == (None, None)


def test_staff_sees_where_it_runs_and_who_cancelled() -> None:
    world = World(policy=AllowAll())
    operation = world.pending()
    world.post(f"/{operation.id}/cancel", principal=ALICE)
    seen = world.get(f"/{operation.id}", principal=STAFF).json
    assert tuple(seen) == OPERATION_FIELDS + STAFF_FIELDS
    assert (seen["pid"], seen["role"], seen["origin"]) == (os.getpid(), None, "http:alice")
    assert tuple(world.get(f"/{operation.id}", principal=ALICE).json) == OPERATION_FIELDS


class TestMetadata:
    @pytest.mark.parametrize("asker", [ALICE, STAFF])
    def test_is_hidden_by_default(self, world: World, asker: Any) -> None:
        operation = world.pending(owner="alice", metadata={"secret": 1})
        assert b"secret" not in world.get(f"/{operation.id}", principal=asker).body

    def test_is_shown_where_the_setting_says_so(self) -> None:
        world = World(expose_metadata=True)
        operation = world.pending(owner="alice", metadata={"rows": [1, 2], "by": None})
        found = world.get(f"/{operation.id}", principal=ALICE).json
        assert tuple(found) == (*OPERATION_FIELDS, "metadata")
        assert found["metadata"] == {"rows": [1, 2], "by": None}
        assert world.get("/", principal=ALICE).json["operations"][0]["metadata"] == {"rows": [1, 2], "by": None}

    @pytest.mark.parametrize(
        ("value", "shown"),
        [
            (math.nan, "nan"),
            ({1, 2}, "{1, 2}"),
            (b"x", "b'x'"),
            ([math.inf], "[inf]"),
            (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00.000000Z"),
            (MappingProxyType({"a": 1}), {"a": 1}),
            ("\ud800", "\ud800"),
            ({"a": "x"}, {"a": "x"}),
        ],
    )
    def test_what_json_cannot_carry_is_shown_as_text(self, value: object, shown: object) -> None:
        world = World(expose_metadata=True)
        world.pending(operation_id="mine", metadata={"value": value, "other": 1})
        assert world.get("/mine").json["metadata"] == {"value": shown, "other": 1}

    def test_a_value_that_contains_itself(self) -> None:
        world = World(expose_metadata=True)
        loop: list[object] = []
        loop.append(loop)
        world.pending(operation_id="mine", metadata={"loop": loop})
        assert world.get("/mine").json["metadata"] == {"loop": "[[...]]"}


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (datetime(2026, 11, 22, 10, 41, 18, 123456, UTC), "2026-11-22T10:41:18.123456Z"),
        (datetime(2026, 11, 22, tzinfo=UTC), "2026-11-22T00:00:00.000000Z"),
        (datetime(2026, 11, 22, 2, tzinfo=timezone(timedelta(hours=2))), "2026-11-22T00:00:00.000000Z"),
    ],
)
def test_instants(moment: datetime, text: str) -> None:
    assert instant(moment) == text


@pytest.mark.parametrize("value", [math.nan, math.inf, [-math.inf]])
def test_no_answer_has_a_number_that_is_none(value: object) -> None:
    with pytest.raises(ValueError):
        to_json({"value": value})


def test_the_exact_bytes() -> None:
    value = {"a": [1, 2.5, None, True], "é": "\u202e\ud800<"}
    assert to_json(value) == b'{"a":[1,2.5,null,true],"\\u00e9":"\\u202e\\ud800<"}'
    assert json.loads(to_json(value)) == value
