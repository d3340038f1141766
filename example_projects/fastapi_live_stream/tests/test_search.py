"""The search: what it finds, and how it is cancelled while its thread stands still."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import httpx
import pytest


def test_every_line_is_looked_at(sources: Path, visitor: httpx.Client) -> None:
    found = visitor.get("/search", params={"q": "APPLES"}).json()
    assert found["matches"] == [
        {"file": "first.py", "line": 1, "text": "apples = 1"},
        {"file": "first.py", "line": 2, "text": "pears = 2  # Apples and pears"},
    ]
    assert (found["files"], found["lines"]) == (2, 4)


def test_a_fuzzy_search_finds_words_that_look_alike(sources: Path, visitor: httpx.Client) -> None:
    found = visitor.get("/search", params={"q": "apples", "fuzzy": True}).json()
    assert [match["line"] for match in found["matches"]] == [1, 2, 1]
    assert found["matches"][-1]["text"] == "def aples():"


def test_the_limit_ends_the_search(sources: Path, visitor: httpx.Client) -> None:
    found = visitor.get("/search", params={"q": "apples", "limit": 1}).json()
    assert (len(found["matches"]), found["files"], found["lines"]) == (1, 0, 1)


@pytest.mark.parametrize("params", [{}, {"q": "x"}, {"q": "x" * 101}, {"q": "apples", "limit": 0}, {"q": "apples", "fuzzy": 7}])
def test_what_cannot_be_is_refused(visitor: httpx.Client, params: dict[str, Any]) -> None:
    assert visitor.get("/search", params=params).status_code == 422


def test_a_search_is_cancelled_while_its_thread_stands_still(
    site: Any, gate: Path, visitor: httpx.Client, operator: httpx.Client
) -> None:
    """The client gets its answer at once; the thread is counted until it has noticed."""
    answers: list[httpx.Response] = []
    searching = threading.Thread(target=lambda: answers.append(visitor.get("/search", params={"q": "apples"})))
    searching.start()

    def at_the_gate() -> list[dict[str, Any]]:
        found = operator.get("/jobs", params={"kind": "request", "status": "running", "name": "GET /search"})
        return [one for one in found.json()["operations"] if one["progress"] is not None]

    site.becomes(at_the_gate)
    (running,) = at_the_gate()
    assert running["progress"] == {"message": None, "current": 1, "total": 3, "matches": 2}
    cancelled = operator.post("/jobs/cancel-all", json={"kind": ["request"], "name": "GET /search"})
    assert (cancelled.status_code, cancelled.json()) == (202, {"requested": 1})
    searching.join(20)
    assert (answers[0].status_code, answers[0].json()["operation_id"]) == (499, running["id"])
    assert operator.get("/jobs/stats").json()["abandoned_threads"] == 1
    with gate.open("wb"):  # it opens because the thread still reads there
        pass
    site.becomes(lambda: operator.get("/jobs/stats").json()["abandoned_threads"] == 0)
    assert operator.get(f"/jobs/{running['id']}").json()["status"] == "cancelled"


def test_the_standard_library_is_searched(visitor: httpx.Client) -> None:
    (match,) = visitor.get("/search", params={"q": "class JSONDecodeError", "limit": 1}).json()["matches"]
    assert match["file"] == "decoder.py"
