"""Many requests at once and one after another: nobody is starved, nobody's history is pushed out."""

from __future__ import annotations

import json
import os
import select
from contextlib import ExitStack
from pathlib import Path

import pytest

from cancelable_core import OperationKind
from tests.conformance.servers.launching import SERVERS, serving, soon

from .conftest import Connect

ANONYMOUS_REQUESTS = int(os.environ.get("CANCELABLE_ANONYMOUS_REQUESTS", "400"))
"""10,000 is what a stranger sends in a minute; far fewer show the same against a shorter history."""


def test_strangers_push_no_finished_job_out_of_the_history(connect: Connect) -> None:
    client = connect()
    client.store.history_limit = max(ANONYMOUS_REQUESTS // 10, 4)
    job_id = client.submit("quick", "any", user="alice")
    client.ended(job_id)
    strange = [("GET", "/sync/hello"), ("GET", "/sync/fails"), ("GET", "/nowhere"), ("POST", f"/jobs/{job_id}/cancel")]
    for number in range(ANONYMOUS_REQUESTS):
        method, path = strange[number % len(strange)]
        assert client.open(method, path).answer().status in (200, 404, 500)
    assert client.get(f"/jobs/{job_id}", user="alice").json["status"] == "completed"
    assert client.get("/jobs/", user="alice").ids == [job_id]
    kept = client.registry.get_history(kind=OperationKind.REQUEST, limit=ANONYMOUS_REQUESTS)
    assert 0 < len(kept) <= client.store.history_limit


WAITING = 200

CROWDED = [
    ("gunicorn-gthread", "flask", 4),
    ("gunicorn-gthread", "django_wsgi", 4),
    ("uvicorn-httptools", "django_asgi", 100),
    ("uvicorn-httptools", "fastapi", 100),
]


@pytest.mark.parametrize(("server", "application", "places"), CROWDED, ids=[application for _, application, _ in CROWDED])
def test_two_hundred_who_wait_starve_nobody(server: str, application: str, places: int, tmp_path: Path) -> None:
    app = f"tests.conformance.adapters.apps.served:{application}"
    alice = {"X-Test-User": "alice"}
    with ExitStack() as stack:
        running = stack.enter_context(serving(SERVERS[server], app, tmp_path / "log"))
        client = stack.enter_context(running.client(headers=alice))
        # it heeds no cancel, so that whoever waits for its end waits
        job_id = client.post("/submit/stubborn/any").text
        body = json.dumps({"wait_seconds": 30}).encode()
        headers = {**alice, "Content-Type": "application/json"}
        crowd = [stack.enter_context(running.leaving()) for _ in range(WAITING)]
        for each in crowd:
            each.send("POST", f"/jobs/{job_id}/cancel", headers=headers, body=body)
        sockets = [each._socket for each in crowd]

        def answered() -> int:
            return len(select.select(sockets, [], [], 0)[0])

        soon(lambda: answered() >= WAITING - places)
        shown = client.get(f"/jobs/{job_id}")  # they wait for 30 seconds: it would come too late behind them
        assert (shown.status_code, shown.json()["status"]) == (200, "cancelling")
        assert answered() == WAITING - places
        first = next(each for each in crowd if each._socket in select.select(sockets, [], [], 0)[0])
        assert b" 202 " in first.read_until(b"\r\n")
