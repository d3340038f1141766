"""From a body's bytes to its fields: what is refused, in which order, and that nothing breaks it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cancelable_core.http_api import BODY_LIMIT, StaffOnly, query_pairs

from .world import ALICE, FORM, JSON, STAFF, World

UNKNOWN = "/0123456789abcdef0123456789abcdef/cancel"
TEXT = {"content-type": "text/plain"}
LONG = b"x" * (BODY_LIMIT + 1)


def status(body: bytes, headers: dict[str, str] = JSON, **options: Any) -> int:
    """What an existing operation's cancel answers."""
    world = World()
    world.pending(operation_id="mine")
    return world.post("/mine/cancel", body, headers=headers, **options).status


class TestSize:
    def test_the_limit_itself_is_read(self) -> None:
        assert status(b'{"message":"m"}'.ljust(BODY_LIMIT)) == 202

    @pytest.mark.parametrize("headers", [JSON, FORM, TEXT, {}])
    def test_one_byte_more_is_refused_whatever_it_is(self, headers: dict[str, str]) -> None:
        assert status(LONG, headers) == 413

    def test_an_announced_length_is_enough(self) -> None:
        assert status(b"{}", {**JSON, "content-length": str(BODY_LIMIT + 1)}) == 413
        assert status(b"{}", {**JSON, "content-length": "9" * 5000}) == 413

    @pytest.mark.parametrize("length", ["", "abc", "-1", "1e9", "+70000", "\u0667" * 6])
    def test_an_announced_length_that_is_no_number_says_nothing(self, length: str) -> None:
        assert status(b"{}", {**JSON, "content-length": length}) == 202

    def test_a_body_that_the_server_kept_needs_a_length(self) -> None:
        assert status(b"", {"transfer-encoding": "chunked"}, body_lost=True) == 411


class TestType:
    @pytest.mark.parametrize(
        "content_type",
        [
            "application/json",
            "Application/JSON",
            "application/json; charset=utf-8",
            'application/json;charset="UTF-8"',
            "application/json; profile=x; charset=utf8",
        ],
    )
    def test_json(self, content_type: str) -> None:
        assert status(b'{"message":"caf\xc3\xa9"}', {"content-type": content_type}) == 202

    @pytest.mark.parametrize(
        "content_type", ["application/x-www-form-urlencoded", "application/x-www-form-urlencoded; charset=UTF-8"]
    )
    def test_form(self, content_type: str) -> None:
        assert status(b"message=caf%C3%A9+noir", {"content-type": content_type}) == 202

    @pytest.mark.parametrize(
        "headers",
        [
            {},
            TEXT,
            {"content-type": ""},
            {"content-type": "multipart/form-data; boundary=x"},
            {"content-type": "application/jsonp"},
            {"content-type": "application/problem+json"},
            {"content-type": "application/json; charset=latin-1"},
            {"content-type": "application/x-www-form-urlencoded; charset=utf-16"},
            {**JSON, "content-encoding": "gzip"},
        ],
    )
    def test_others_are_refused(self, headers: dict[str, str]) -> None:
        assert status(b"{}", headers) == 415

    @pytest.mark.parametrize("headers", [{}, JSON, FORM, TEXT])
    def test_no_body_needs_no_type(self, headers: dict[str, str]) -> None:
        assert status(b"", headers) == 202


class TestSyntax:
    @pytest.mark.parametrize(
        "body",
        [
            b"{",
            b"{}{}",
            b"\xff",
            b"\xef\xbb\xbf{}",
            '{"message":"x"}'.encode("utf-16"),
            b"[]",
            b"null",
            b'"text"',
            b"1",
            b"NaN",
            b'{"wait_seconds":NaN}',
            b'{"wait_seconds":Infinity}',
            b'{"wait_seconds":-Infinity}',
            b'{"message":"a","message":"b"}',
            b'{"message":{"a":1,"a":2}}',
            b'{"message":"\\ud800"}',
            b'{"\\udfff":1}',
            b'{"message":["\\udc00\\ud800"]}',
            b'{"message":"a\nb"}',
            b"{'message':'a'}",
            b'{"wait_seconds":01}',
            b'{"wait_seconds":' + b"1" * 5000 + b"}",
            b"[" * 60_000,
            b"[" * 30_000 + b"]" * 30_000,
            b'{"message":' * 5_000 + b"1" + b"}" * 5_000,
            b'{"message":' + b"[" * 40 + b"]" * 40 + b"}",
            b'"\\"' * 20_000,
        ],
    )
    def test_what_is_no_json_object(self, body: bytes) -> None:
        assert status(body) == 400

    @pytest.mark.parametrize(
        "body",
        [b"message", b"message=a&", b"&message=a", b"a=%FF", b"a=%ED%A0%80", b"\xff=a", b"a=1&" * 200 + b"a=1"],
    )
    def test_what_is_no_form(self, body: bytes) -> None:
        assert status(body, FORM) == 400

    def test_brackets_inside_of_strings_do_not_nest(self) -> None:
        assert status(json.dumps({"message": '[{"\\' * 100}).encode()) == 202

    def test_whole_surrogate_pairs_are_text(self) -> None:
        assert status(b'{"message":"\\ud83d\\ude00"}') == 202


class TestFields:
    @pytest.mark.parametrize("message", ["", "x", "x" * 500, "é" * 500, "\N{GRINNING FACE}", "شكرا", "a\u200db"])
    def test_good_messages(self, world: World, message: str) -> None:
        operation = world.pending(operation_id="mine")
        assert world.post("/mine/cancel", {"message": message}).status == 202
        assert operation.token.message == (message or None)

    @pytest.mark.parametrize(
        "message",
        ["x" * 501, 1, 1.5, True, [], ["x"], {}, "a\nb", "a\x00b", "\x1b[31m", "\x7f", "\x85", "a\u2028b", "a\u2029b"]
        + [f"a{char}b" for char in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c"],
    )
    def test_bad_messages(self, world: World, message: object) -> None:
        operation = world.pending(operation_id="mine")
        assert world.post("/mine/cancel", {"message": message}).fields == ["message"]
        assert not operation.token.is_cancelled

    @pytest.mark.parametrize("seconds", [0, 0.0, -0.0, None])
    def test_no_wait(self, world: World, seconds: float | None) -> None:
        world.pending(operation_id="mine")
        assert world.post("/mine/cancel", {"wait_seconds": seconds}).status == 202

    @pytest.mark.parametrize("seconds", [-1, -0.001, 30.001, 31, 10**90, 1e999, True, "5", "", [], [5], {}])
    def test_bad_waits(self, world: World, seconds: object) -> None:
        world.pending(operation_id="mine")
        body = b'{"wait_seconds":1e999}' if seconds == 1e999 else json.dumps({"wait_seconds": seconds}).encode()
        assert world.post("/mine/cancel", body, headers=JSON).fields == ["wait_seconds"]

    @pytest.mark.parametrize("seconds", ["-1", "31", "", " 1", "1e1", "nan", "inf", "1_0", "0x1", "٣", "1.", ".5", "9" * 5000])
    def test_bad_waits_in_forms(self, world: World, seconds: str) -> None:
        world.pending(operation_id="mine")
        assert world.post("/mine/cancel", form={"wait_seconds": seconds}).fields == ["wait_seconds"]

    def test_forms_say_numbers_and_flags_in_text(self, world: World) -> None:
        world.pending(operation_id="mine")
        assert world.post("/mine/cancel", form={"message": "from a form", "wait_seconds": "0.0"}).status == 202
        assert world.post("/cancel-all", form={"all": "true"}).status == 202
        assert world.post("/cancel-all", form={"all": "on"}).fields == ["all"]
        assert world.post("/cancel-all", {"all": "true"}).fields == ["all"]

    def test_the_limit_of_a_wait_is_a_setting(self) -> None:
        world = World(max_wait_seconds=2)
        world.pending(operation_id="mine")
        assert world.post("/mine/cancel", {"wait_seconds": 3}).fields == ["wait_seconds"]

    def test_every_bad_field_is_named(self, world: World) -> None:
        answer = world.post("/mine/cancel", {"message": 1, "wait_seconds": -1, "reason": "x"}, query="force=1&x=2")
        assert answer.fields == ["force", "x", "message", "wait_seconds", "reason"]
        assert all(error["message"] for error in answer.json["errors"])
        assert answer.json["type"] == "urn:cancelable:invalid"
        assert answer.json["detail"].startswith("5 fields")

    @pytest.mark.parametrize("path", ["/mine/cancel", "/cancel-all"])
    @pytest.mark.parametrize("body", [{"Message": "x"}, {"": 1}, {"force": None}, {"operation_id": "x"}])
    def test_unknown_fields(self, world: World, path: str, body: dict[str, object]) -> None:
        world.pending(operation_id="mine")
        assert set(body) <= set(world.post(path, body).fields)

    def test_a_form_may_not_repeat_what_is_not_repeatable(self, world: World) -> None:
        world.pending(operation_id="mine")
        assert world.post("/mine/cancel", form={"message": ["a", "a"]}).fields == ["message"]

    def test_a_query_belongs_to_reading_requests(self, world: World) -> None:
        operation = world.pending(operation_id="mine")
        assert world.post("/mine/cancel", {"message": "x"}, query="message=x").fields == ["message"]
        assert world.post("/mine/cancel", query="wait_seconds=1&wait_seconds=2").fields == ["wait_seconds"]
        assert not operation.token.is_cancelled

    def test_null_is_as_if_not_given(self, world: World) -> None:
        world.pending(operation_id="mine")
        assert world.post("/mine/cancel", {"message": None, "wait_seconds": None}).status == 202

    def test_a_flood_of_bad_fields_gets_a_short_answer(self, world: World) -> None:
        answer = world.post("/mine/cancel", {f"{number:04}" + "x" * 200: 1 for number in range(300)})
        assert len(answer.fields) == 20
        assert answer.json["detail"].startswith("300 fields")
        assert len(answer.body) < 10_000


ORDER: list[tuple[int, dict[str, Any]]] = [
    (404, {"path": "/a/b/c"}),
    (405, {"method": "PUT"}),
    (403, {"headers": {"sec-fetch-site": "cross-site"}}),
    (403, {"principal": ALICE}),
    (413, {"body": LONG}),
    (411, {"body_lost": True, "body": b""}),
    (415, {"content_type": "text/plain"}),
    (400, {"body": b"{"}),
    (422, {"query": "x=1"}),
]
"""Each fault with its answer, from the first check to the last; the policy's turn comes at the route that it guards."""


@pytest.mark.parametrize("first", range(len(ORDER)))
def test_faults_are_answered_in_a_fixed_order(first: int) -> None:
    world = World(policy=StaffOnly())
    faults: dict[str, Any] = {"method": "POST", "path": "/cancel-all", "body": b"", "content_type": "application/json"}
    for _, fault in reversed(ORDER[first:]):
        faults |= fault
    content_type = faults.pop("content_type")
    faults["headers"] = {"content-type": content_type, **faults.pop("headers", {})}
    faults.setdefault("principal", STAFF)
    answer = world.ask(faults.pop("method"), faults.pop("path"), **faults)
    assert answer.status == ORDER[first][0]


def test_existence_is_the_last_question(world: World) -> None:
    assert world.post(UNKNOWN, b"{", headers=JSON).status == 400
    assert world.post(UNKNOWN, {"x": 1}).status == 422
    assert world.post(UNKNOWN).status == 404


class TestAnything:
    EXPECTED = frozenset({202, 400, 404, 411, 413, 415, 422})

    @given(body=st.binary(max_size=300), content_type=st.sampled_from([*JSON.values(), *FORM.values()]) | st.text(max_size=60))
    def test_bytes(self, body: bytes, content_type: str) -> None:
        assert status(body, {"content-type": content_type}) in self.EXPECTED

    @given(text=st.text(alphabet='{}[]":,\\u0d8/n1e.- \n', max_size=80))
    def test_nearly_json(self, text: str) -> None:
        assert status(text.encode()) in self.EXPECTED

    @given(text=st.text(alphabet="a=&%+;0FfD8C\u00e9", max_size=60))
    def test_nearly_a_form(self, text: str) -> None:
        assert status(text.encode(), FORM) in self.EXPECTED

    @given(
        body=st.dictionaries(
            st.sampled_from(["message", "name", "owner", "kind", "status", "all"]) | st.text(max_size=10),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
                lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
                max_leaves=8,
            ),
            max_size=5,
        )
    )
    def test_objects(self, body: dict[str, object]) -> None:
        world = World()
        world.pending("mine", operation_id="mine")
        for path in ("/mine/cancel", "/cancel-all"):
            assert world.post(path, json.dumps(body).encode(), headers=JSON).status in self.EXPECTED

    @given(query=st.binary(max_size=100), path=st.text(max_size=40))
    def test_queries_and_paths(self, query: bytes, path: str) -> None:
        world = World()
        for where in ("/", "/stats", "/mine", path):
            assert world.get(where, query=query).status in {200, 404, 405, 422}

    @given(st.binary(max_size=100))
    def test_a_query_decodes_the_same_from_bytes_and_from_wsgi_text(self, query: bytes) -> None:
        pairs = query_pairs(query)
        assert pairs == query_pairs(query.decode("latin-1"))
        assert all(text.encode("utf-8") is not None for pair in pairs for text in pair)
