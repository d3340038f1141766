"""Files that are alike: the answer, and the query that ends with its request."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import httpx

from cancelable_core import OperationContext, OperationStatus, ThreadSafeRegistry
from cancelable_core.testing import LeavingClient


def test_pairs_come_with_the_number_of_lines_they_share(sources: Path, visitor: httpx.Client) -> None:
    (sources / "third.py").write_text("pears = 2  # Apples and pears\ndef aples():\n    return None\n")
    assert visitor.get("/alike").json() == {
        "pairs": [
            {"files": ["second.py", "third.py"], "shared_lines": 2},
            {"files": ["first.py", "third.py"], "shared_lines": 1},
        ]
    }


def make_it_long(sources: Path) -> None:
    """All files have the same lines: every two of them are compared line by line."""
    lines = "\n".join(f"value_{number} = {number}" for number in range(1_000))
    for number in range(300):
        (sources / f"same_{number}.py").write_text(lines)


def comparing(site: Any) -> list[OperationContext]:
    """The requests whose query runs."""
    found = ThreadSafeRegistry(site.store).list_operations(kind="request", name_pattern="GET /alike")
    return [one for one in found if (one.progress or {}).get("message") == "comparing"]


def test_a_cancel_ends_the_query_and_its_thread(
    site: Any, sources: Path, visitor: httpx.Client, operator: httpx.Client
) -> None:
    make_it_long(sources)
    answers: list[httpx.Response] = []
    asking = threading.Thread(target=lambda: answers.append(visitor.get("/alike")))
    asking.start()
    site.becomes(lambda: comparing(site))
    assert operator.post(f"/jobs/{comparing(site)[0].id}/cancel", json={}).status_code == 202
    asking.join(20)
    assert answers[0].status_code == 499
    site.becomes(lambda: operator.get("/jobs/stats").json()["abandoned_threads"] == 0)


def test_a_client_that_leaves_ends_the_query_too(site: Any, sources: Path, operator: httpx.Client) -> None:
    make_it_long(sources)
    client = LeavingClient("127.0.0.1", site.port)
    client.send("GET", "/alike")
    site.becomes(lambda: comparing(site))
    (request,) = comparing(site)
    client.leave()
    ended = ThreadSafeRegistry(site.store).wait_for(request.id, 20)
    assert ended is not None
    assert (ended.status, ended.reason) == (OperationStatus.CANCELLED, "disconnect")
    site.becomes(lambda: operator.get("/jobs/stats").json()["abandoned_threads"] == 0)
