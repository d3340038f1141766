"""The stream: whole, cancelled by route, and left."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from cancelable_core.testing import LeavingClient


def test_a_stream_is_written_to_its_end(site: Any, visitor: httpx.Client) -> None:
    with visitor.stream("GET", "/stream", params={"prompt": "The class", "max_pieces": 20}) as response:
        events = list(site.events(response))
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-store"
    assert events[0] == ("started", {"operation_id": response.headers["x-operation-id"]})
    assert [name for name, _ in events[1:-1]] == ["piece"] * 20
    assert events[-1] == ("finished", {"pieces": 20})


def test_a_text_that_ends_it_ends_it(site: Any, visitor: httpx.Client) -> None:
    with visitor.stream("GET", "/stream", params={"prompt": "The class", "stop": "."}) as response:
        events = list(site.events(response))
    pieces = [data["text"] for name, data in events if name == "piece"]
    assert events[-1] == ("finished", {"pieces": len(pieces)})
    assert "." in pieces[-1]
    assert not any("." in piece for piece in pieces[:-1])


@pytest.mark.parametrize("params", [{"max_pieces": 0}, {"max_pieces": 20_001}, {"prompt": "x" * 501}, {"stop": "x" * 101}])
def test_what_cannot_be_is_refused(visitor: httpx.Client, params: dict[str, Any]) -> None:
    assert visitor.get("/stream", params=params).status_code == 422


def test_a_cancelled_stream_says_so_and_ends(site: Any, visitor: httpx.Client, stranger: httpx.Client) -> None:
    """Whoever knows the id may cancel; the response ends as HTTP wants it, or httpx would raise."""
    with visitor.stream("GET", "/stream", params={"prompt": "The class"}) as response:
        events = site.events(response)
        assert next(events)[0] == "started"
        assert next(events)[0] == "piece"
        path = f"/jobs/{response.headers['x-operation-id']}"
        answer = stranger.post(f"{path}/cancel", json={"message": "enough", "wait_seconds": 10})
        *pieces, last = events
    assert (answer.status_code, answer.json()["operation"]["status"]) == (200, "cancelled")
    assert {name for name, _ in pieces} <= {"piece"}
    assert last == ("cancelled", {"reason": "manual", "message": "enough"})
    assert visitor.get(path).json()["status"] == "cancelled"
    again = visitor.post(f"{path}/cancel")
    assert (again.status_code, again.json()["type"]) == (409, "urn:cancelable:finished")


@pytest.mark.parametrize("how", ["leave", "reset"])
def test_a_stream_stops_when_its_client_leaves(site: Any, operator: httpx.Client, how: str) -> None:
    client = LeavingClient("127.0.0.1", site.port)
    client.send("GET", "/stream?prompt=The+class")
    client.read_until(b"event: piece")
    (running,) = operator.get("/jobs", params={"kind": "request", "status": "running"}).json()["operations"]
    assert running["name"] == "GET /stream"
    getattr(client, how)()
    path = f"/jobs/{running['id']}"
    site.becomes(lambda: operator.get(path).json()["ended_at"] is not None)
    ended = operator.get(path).json()
    assert (ended["status"], ended["reason"]) == ("cancelled", "disconnect")


def test_wrong_ids_are_unknown(visitor: httpx.Client) -> None:
    for operation_id in ("0" * 32, "nonsense", "x" * 300, "%2e%2e", "a b", "é"):
        answer = visitor.post(f"/jobs/{operation_id}/cancel")
        assert (answer.status_code, answer.json()["type"]) == (404, "urn:cancelable:not-found")


def test_a_finished_stream_leaves_nothing_to_cancel(site: Any, visitor: httpx.Client) -> None:
    with visitor.stream("GET", "/stream", params={"max_pieces": 1}) as response:
        assert [name for name, _ in site.events(response)][-1] == "finished"
    assert visitor.post(f"/jobs/{response.headers['x-operation-id']}/cancel").status_code == 404


def test_the_page_is_served(visitor: httpx.Client) -> None:
    answer = visitor.get("/")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "jobs/${operationId}/cancel" in answer.text
