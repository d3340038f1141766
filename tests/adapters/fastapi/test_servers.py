"""A real uvicorn in a process of its own, real sockets, and clients that read, cancel and leave."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from cancelable_core.testing import LeavingClient

from .helpers import DEADLINE_SECONDS, becomes_true

ROOT = Path(__file__).parents[3]

STAFF = {"X-User": "root"}


class Server:
    """One uvicorn on a free port."""

    def __init__(self, *options: str) -> None:
        command = [sys.executable, "-m", "uvicorn", "tests.adapters.fastapi.served:app", "--port", "0", *options]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, "NO_COLOR": "1"}
        )
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        becomes_true(lambda: "running on" in self.log or self.process.poll() is not None)
        found = re.search(r"running on http://127\.0\.0\.1:(\d+)", self.log)
        assert found is not None, self.log
        self.port = int(found[1])
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=DEADLINE_SECONDS, headers=STAFF)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.append(line)

    @property
    def log(self) -> str:
        return "".join(self._lines)

    def stop(self) -> int:
        """End it as a service manager does."""
        self.client.close()
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(DEADLINE_SECONDS)
        finally:
            self.process.kill()
            self.process.wait()
            self._reader.join(DEADLINE_SECONDS)
            assert self.process.stdout is not None
            self.process.stdout.close()

    def leaving(self) -> LeavingClient:
        return LeavingClient("127.0.0.1", self.port, timeout_seconds=DEADLINE_SECONDS)

    def requests(self, name: str) -> list[dict[str, Any]]:
        """The requests of a route, newest first."""
        answer = self.client.get("/jobs", params={"kind": "request", "name": name})
        found: list[dict[str, Any]] = answer.json()["operations"]
        return found

    def running(self, name: str) -> dict[str, Any]:
        """The one request of a route that runs, as soon as it does."""
        becomes_true(lambda: any(one["status"] == "running" for one in self.requests(name)))
        (found,) = (one for one in self.requests(name) if one["status"] == "running")
        return found

    def ended(self, operation_id: str) -> dict[str, Any]:
        """A request that was cancelled, as soon as it has ended."""
        path = f"/jobs/{operation_id}"
        becomes_true(lambda: self.client.get(path).json()["ended_at"] is not None)
        shown: dict[str, Any] = self.client.get(path).json()
        return shown


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    if request.param == "uvloop":
        pytest.importorskip("uvloop", reason="uvicorn's faster loop is not installed")
    server = Server("--loop", request.param)
    yield server
    server.stop()
    assert "Traceback" not in server.log, server.log


@pytest.mark.parametrize("how", ["async", "sync"])
def test_a_waiting_request_is_cancelled_by_route(server: Server, how: str) -> None:
    with server.leaving() as client:
        client.send("GET", f"/wait/{how}")
        operation = server.running(f"GET /wait/{how}")
        answer = server.client.post(f"/jobs/{operation['id']}/cancel", json={"message": "enough", "wait_seconds": 10})
        assert (answer.status_code, answer.json()["operation"]["status"]) == (200, "cancelled")
        assert client.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 499 ")
        client.read_until(b'"message":"enough"}')
        client.send("GET", "/hello")  # the connection is as good as before
        client.read_until(b'"hello"')
    again = server.client.post(f"/jobs/{operation['id']}/cancel")
    assert (again.status_code, again.json()["operation"]["message"]) == (409, "enough")


def test_a_stream_is_cut_on_the_wire(server: Server) -> None:
    with server.leaving() as client:
        client.send("GET", "/stream")
        client.read_until(b"first,")
        operation = server.running("GET /stream")
        assert server.client.post(f"/jobs/{operation['id']}/cancel").status_code == 202
        received = client.read_to_end()
    assert b"X-Operation-ID: ".lower() + operation["id"].encode() in received.lower()
    assert not received.endswith(b"0\r\n\r\n")  # the end of a chunked body (RFC 9112 §7.1)
    assert server.ended(operation["id"])["status"] == "cancelled"


@pytest.mark.parametrize("how", ["leave", "reset"])
def test_a_stream_ends_when_its_client_leaves(server: Server, how: str) -> None:
    client = server.leaving()
    client.send("GET", "/stream")
    client.read_until(b"first,")
    operation = server.running("GET /stream")
    getattr(client, how)()
    ended = server.ended(operation["id"])
    assert (ended["status"], ended["reason"]) == ("cancelled", "disconnect")


def test_a_time_limit_is_answered_with_504(server: Server) -> None:
    answer = server.client.get("/too-slow")
    assert (answer.status_code, answer.json()["type"]) == (504, "urn:cancelable:timed-out")


def test_a_body_arrives_whole_beside_other_middleware(server: Server) -> None:
    values = list(range(20_000))
    assert server.client.post("/sum", json=values).json() == sum(values)


def test_a_job_outlives_its_client_and_is_cancelled_by_its_owner(server: Server) -> None:
    client = server.leaving()
    client.send("POST", "/start", headers={"X-User": "alice"})
    received = client.read_until(b'"}').decode()
    client.reset()
    job_id = received.rpartition('"id":"')[2].removesuffix('"}')
    alice, bob = {"X-User": "alice"}, {"X-User": "bob"}
    assert server.client.get(f"/jobs/{job_id}", headers=alice).json()["status"] == "running"
    assert server.client.post(f"/jobs/{job_id}/cancel", headers=bob).status_code == 404
    answer = server.client.post(f"/jobs/{job_id}/cancel", json={"wait_seconds": 10}, headers=alice)
    assert (answer.status_code, answer.json()["operation"]["status"]) == (200, "cancelled")


def test_the_server_stops_with_a_stream_and_a_job_running() -> None:
    """An orderly shutdown is the server's own here: it cancels what is left, and nothing of ours holds it back."""
    server = Server("--timeout-graceful-shutdown", "1")
    with server.leaving() as client:
        client.send("GET", "/stream")
        client.read_until(b"first,")
        assert server.client.post("/start").status_code == 200
        status = server.stop()
    assert status in (0, -signal.SIGTERM)
