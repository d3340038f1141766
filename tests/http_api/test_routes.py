"""Which paths and methods exist, and what every answer has."""

from __future__ import annotations

import json

import pytest

from cancelable_core.http_api import Route, match_route

from .world import ALICE, NOBODY, World

READING = "GET, HEAD, OPTIONS"
WRITING = "POST, OPTIONS"


@pytest.mark.parametrize(
    ("path", "route", "operation_id"),
    [
        ("", Route.LIST, ""),
        ("/", Route.LIST, ""),
        ("/stats", Route.STATISTICS, ""),
        ("stats", Route.STATISTICS, ""),
        ("/cancel-all", Route.CANCEL_ALL, ""),
        ("/42", Route.OPERATION, "42"),
        ("/42/cancel", Route.CANCEL, "42"),
        ("42/cancel", Route.CANCEL, "42"),
        ("/cancel", Route.OPERATION, "cancel"),
        ("/Stats", Route.OPERATION, "Stats"),
    ],
)
def test_paths_below_the_prefix(path: str, route: Route, operation_id: str) -> None:
    found = match_route(path)
    assert found is not None
    assert (found.route, found.operation_id) == (route, operation_id)


@pytest.mark.parametrize("path", ["//", "/stats/", "/42/", "/42/cancel/", "//cancel", "/42/kill", "/a/b/cancel", "/42//cancel"])
def test_other_paths_are_not_there(world: World, path: str) -> None:
    assert match_route(path) is None
    answer = world.get(path)
    assert answer.status == 404
    assert answer.json["type"] == "urn:cancelable:not-found"


@pytest.mark.parametrize(
    ("path", "allow"),
    [("/", READING), ("/stats", READING), ("/42", READING), ("/42/cancel", WRITING), ("/cancel-all", WRITING)],
)
class TestMethods:
    def test_options_names_the_methods(self, world: World, path: str, allow: str) -> None:
        answer = world.ask("OPTIONS", path, principal=NOBODY)
        assert (answer.status, answer.headers["Allow"], answer.body) == (204, allow, b"")
        assert "Content-Length" not in answer.headers

    @pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "TRACE", "get", "post", ""])
    def test_other_methods_are_refused_and_told_which(self, world: World, path: str, allow: str, method: str) -> None:
        answer = world.ask(method, path, principal=NOBODY)
        assert (answer.status, answer.headers["Allow"]) == (405, allow)

    def test_reading_and_writing_do_not_mix(self, world: World, path: str, allow: str) -> None:
        answer = world.ask("POST" if allow == READING else "GET", path)
        assert (answer.status, answer.headers["Allow"]) == (405, allow)


@pytest.mark.parametrize("path", ["/", "/stats", "/mine", "/unknown"])
def test_head_is_get_without_the_body(world: World, path: str) -> None:
    world.pending("report", operation_id="mine")
    by_get, by_head = world.get(path), world.ask("HEAD", path)
    assert by_head.body == b""
    assert by_head.status == by_get.status
    assert by_head.headers == by_get.headers
    assert by_head.headers["Content-Length"] == str(len(by_get.body)) != "0"


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/"), ("GET", "/nobody"), ("OPTIONS", "/"), ("PUT", "/"), ("GET", "/a/b"), ("POST", "/cancel-all")],
)
def test_no_answer_may_be_stored_or_sniffed(world: World, method: str, path: str) -> None:
    headers = world.ask(method, path).headers
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("operation_id", ["nö", "a b", "%00", "\x00", "x" * 10_000, "..", "events", "\ud800", "a\nb", "stats"])
def test_an_impossible_id_is_unknown(world: World, operation_id: str) -> None:
    unknown = world.get("/0123456789abcdef")
    assert unknown.status == 404
    assert world.post(f"/{operation_id}/cancel").response == unknown.response
    if operation_id != "stats":  # which is a route of its own
        assert world.get(f"/{operation_id}").response == unknown.response


def test_bodies_are_compact_ascii(world: World) -> None:
    world.pending("Übersicht \u202e", operation_id="mine")
    answer = world.get("/mine")
    assert answer.body.isascii()
    assert answer.body == json.dumps(answer.json, ensure_ascii=True, separators=(",", ":")).encode()
    assert answer.json["name"] == "Übersicht \u202e"
    assert answer.headers["Content-Type"] == "application/json"


def test_a_body_on_a_reading_request_is_not_looked_at(world: World) -> None:
    assert world.get("/", body=b"\xff" * 70_000, principal=ALICE).status == 200
