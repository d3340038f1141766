"""Every ASGI server, in a process of its own, with FastAPI, Django and a bare application: clients leave, time runs out.

The counts are kept small for everyday runs; ``CANCELABLE_FULL_COUNTS=1`` raises them to what the project promises.
"""

from __future__ import annotations

import hashlib
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from cancelable_core.testing import LeavingClient

from .apps.events import EVENTS_FILE, Events
from .launching import ASGI_SERVERS, DEADLINE_SECONDS, RunningServer, ServerKind, serving, soon

pytestmark = pytest.mark.slow

FULL = bool(os.environ.get("CANCELABLE_FULL_COUNTS"))
TRIALS = 50 if FULL else 2

LEAVE = [LeavingClient.leave, LeavingClient.reset]
VIEWS = ["fastapi/async", "fastapi/sync", "django/async", "django/sync", "bare"]
LAST_CHUNK = b"0\r\n\r\n"
"""The end of a chunked body (RFC 9112 §7.1)."""
ENDS_CUT_STREAMS_IN_ORDER = frozenset({"daphne"})
"""Its client would wait for ever, so that we end them."""


class Served:
    """A server that runs the applications, and what they tell."""

    def __init__(self, running: RunningServer, events: Events) -> None:
        self.running = running
        self.events = events

    def event(self, event: str, **details: Any) -> dict[str, Any]:
        """The one event, as soon as it is there."""
        found: list[dict[str, Any]] = soon(lambda: self.events.all(event, **details))
        assert len(found) == 1, found
        return found[0]

    def ended(self, key: str) -> tuple[str, str | None]:
        """Status and reason of the operation that began under ``key``, or of its request, once it has ended."""
        path = f"/jobs/{self.event('begun', key=key)['id']}"

        def look() -> dict[str, Any] | None:
            with self.running.client() as client:
                found: dict[str, Any] = client.get(path).json()
            return found if found["ended_at"] else None

        found: dict[str, Any] = soon(look)
        return found["status"], found["reason"]

    def leaving(self, path: str) -> tuple[LeavingClient, str]:
        """A client whose request has begun to work under the returned key."""
        key = uuid4().hex
        client = self.running.leaving()
        client.send("GET", f"/{path}/{key}")
        self.event("begun", key=key)
        return client, key


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[ServerKind], Served]]:
    """Starts each server once, and ends them all."""
    servers: dict[str, Served] = {}
    with ExitStack() as stack:

        def start(kind: ServerKind) -> Served:
            if kind.name not in servers:
                folder = tmp_path_factory.mktemp(kind.name)
                events = Events(folder / "events")
                app = "tests.conformance.servers.apps.asgi_work:app"
                environment = {EVENTS_FILE: str(events.file), "PYTHONUNBUFFERED": "1"}
                running = stack.enter_context(serving(kind, app, folder / "log", **environment))
                servers[kind.name] = Served(running, events)
            return servers[kind.name]

        yield start


@pytest.fixture(params=ASGI_SERVERS, ids=lambda kind: kind.name)
def server(request: pytest.FixtureRequest, start: Callable[[ServerKind], Served]) -> Served:
    return start(request.param)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("leave", LEAVE)
def test_client_that_leaves_a_working_view_cancels_it(
    server: Served, view: str, leave: Callable[[LeavingClient], None]
) -> None:
    if view.startswith("django") and server.running.kind.name == "hypercorn-trio":
        pytest.skip("Django's ASGI handler needs asyncio")
    delays: list[float] = []
    for _ in range(TRIALS):
        client, key = server.leaving(view)
        time.sleep(0.4 if FULL else 0.01)  # into the view's work, past the time in which nobody is watched
        left_at = time.monotonic()
        leave(client)
        delays.append(server.event("finally", key=key)["at"] - left_at)
        status, reason = server.ended(key)
        assert (status, reason) in {("cancelled", "disconnect"), ("cancelled", "parent")}
        assert (reason == "disconnect") or view == "bare"  # there it is the operation inside the request
    if FULL:
        p95 = statistics.quantiles(delays, n=20)[-1]
        print(f"\n{server.running.kind.name} {view} {leave.__name__}: p95 {p95 * 1e3:.1f} ms, worst {max(delays) * 1e3:.1f} ms")
    assert max(delays) < DEADLINE_SECONDS


@pytest.mark.parametrize("leave", LEAVE)
def test_client_that_leaves_a_stalled_stream_closes_its_source(server: Served, leave: Callable[[LeavingClient], None]) -> None:
    client, key = server.leaving("fastapi/stream")
    client.read_until(b"first,")
    leave(client)
    server.event("closed", key=key)
    assert server.ended(key) == ("cancelled", "disconnect")


def test_stalled_stream_is_cut_at_its_route_s_limit(server: Served) -> None:
    client, key = server.leaving("fastapi/limited")
    with client:
        if server.running.kind.name in ENDS_CUT_STREAMS_IN_ORDER:
            client.read_until(LAST_CHUNK)
        else:
            received = b""
            try:
                received = client.read_to_end()
            except ConnectionError:
                pass
            assert not received.endswith(LAST_CHUNK), "it would look complete"
    server.event("closed", key=key)
    assert server.ended(key) == ("timed_out", "timeout")


def test_body_arrives_whole_and_in_order_when_the_view_waits_first(server: Served) -> None:
    body = random.Random(7).randbytes(1_000_000)
    with server.running.client() as client:
        for _ in range(3):
            answer = client.post("/fastapi/body", content=body)
            assert answer.json() == {"size": len(body), "digest": hashlib.sha256(body).hexdigest()}
        pieces = [body[at : at + 9_999] for at in range(0, len(body), 9_999)]
        assert client.post("/fastapi/body", content=iter(pieces)).json()["digest"] == hashlib.sha256(body).hexdigest()


def test_file_is_never_truncated_and_the_connection_goes_on(server: Served, tmp_path: Path) -> None:
    with server.running.client() as client:
        for _ in range(5):
            assert len(client.get("/fastapi/file").content) == 1_000_000
            assert client.get("/fastapi/hello").json() == "hello"


def test_finished_request_is_never_cancelled_and_its_background_work_ends(server: Served) -> None:
    key = uuid4().hex
    client = server.running.leaving()
    client.send("GET", f"/fastapi/background/{key}")
    client.read_until(b'"done"')
    client.leave()
    server.event("background", key=key)
    cancelled = [line for line in server.running.log.splitlines() if "was cancelled" in line]
    assert not [line for line in cancelled if "GET /fastapi/background/{key}" in line]  # it is the route's template


@pytest.mark.parametrize("how", ["client leaves", "cancelled"])
def test_websocket_that_works_is_cancelled(server: Served, how: str) -> None:
    key = uuid4().hex
    with connect(f"ws://127.0.0.1:{server.running.port}/fastapi/socket/{key}", close_timeout=1) as socket:
        assert socket.recv() == "accepted"
        begun = server.event("begun", key=key)
        if how == "cancelled":
            with server.running.client() as client:
                assert client.post(f"/jobs/{begun['id']}/cancel").status_code == 202
            with pytest.raises(ConnectionClosed) as closed:
                socket.recv(DEADLINE_SECONDS)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1011
    server.event("finally", key=key)
    assert server.ended(key) == ("cancelled", "disconnect" if how == "client leaves" else "manual")


def test_client_that_leaves_is_no_error(server: Served) -> None:
    before = server.running.log.count("Traceback")
    client, key = server.leaving("fastapi/async")
    client.reset()
    server.ended(key)
    assert server.running.log.count("Traceback") == before
