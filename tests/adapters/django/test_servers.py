"""gunicorn and uvicorn in processes of their own, real sockets, and clients that read, cancel and leave."""

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
from tests.core.helpers import DEADLINE_SECONDS, becomes_true

ROOT = Path(__file__).parents[3]

COMMANDS = {
    "gunicorn": ["gunicorn", "--threads", "8", "-b", "127.0.0.1:0", "tests.adapters.django.served:wsgi"],  # class gthread
    "uvicorn": ["uvicorn", "--port", "0", "--lifespan", "off", "tests.adapters.django.served:asgi"],
}


class Server:
    """One server on a free port."""

    def __init__(self, name: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", *COMMANDS[name]],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "NO_COLOR": "1"},
        )
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        address = re.compile(r"(?:running on|Listening at:) http://127\.0\.0\.1:(\d+)")
        becomes_true(lambda: address.search(self.log) or self.process.poll() is not None)
        found = address.search(self.log)
        assert found is not None, self.log
        self.port = int(found[1])
        self.client = httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}", timeout=DEADLINE_SECONDS, headers={"X-User": "root"}, trust_env=False
        )

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

    def running(self, name: str) -> dict[str, Any]:
        """The one request of a route that runs, as soon as it does."""
        query = {"kind": "request", "name": name, "status": "running"}
        found: list[dict[str, Any]] = []

        def look() -> bool:
            found[:] = self.client.get("/jobs/", params=query).json()["operations"]
            return bool(found)

        becomes_true(look)
        (one,) = found
        return one

    def ended(self, operation_id: str) -> dict[str, Any]:
        """An operation that did not complete, as soon as it has ended."""
        path = f"/jobs/{operation_id}"
        becomes_true(lambda: self.client.get(path).json()["ended_at"] is not None)
        shown: dict[str, Any] = self.client.get(path).json()
        return shown


@pytest.fixture(scope="module")
def gunicorn() -> Iterator[Server]:
    server = Server("gunicorn")
    yield server
    assert server.stop() == 0


@pytest.fixture(scope="module")
def uvicorn() -> Iterator[Server]:
    server = Server("uvicorn")
    yield server
    server.stop()


@pytest.fixture(params=COMMANDS)
def server(request: pytest.FixtureRequest) -> Server:
    found: Server = request.getfixturevalue(request.param)
    return found


@pytest.mark.parametrize("how", ["async", "sync"])
def test_waiting_request_is_cancelled_by_route(server: Server, how: str) -> None:
    with server.leaving() as client:
        client.send("GET", f"/wait/{how}")
        operation = server.running(f"GET /wait/{how}")
        answer = server.client.post(f"/jobs/{operation['id']}/cancel", json={"message": "enough", "wait_seconds": 10})
        assert (answer.status_code, answer.json()["operation"]["status"]) == (200, "cancelled")
        assert client.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 499 ")
        client.read_until(b'"message":"enough"}')
        client.send("GET", "/hello")  # the connection is as good as before
        client.read_until(b"hello")
    again = server.client.post(f"/jobs/{operation['id']}/cancel")
    assert (again.status_code, again.json()["operation"]["message"]) == (409, "enough")


def test_stream_is_cut_on_the_wire(server: Server) -> None:
    with server.leaving() as client:
        client.send("GET", "/stream")
        client.read_until(b"first,")
        operation = server.running("GET /stream")
        assert server.client.post(f"/jobs/{operation['id']}/cancel").status_code == 202
        received = client.read_to_end()
    assert b"x-operation-id: " + operation["id"].encode() in received.lower()
    assert not received.endswith(b"0\r\n\r\n")  # the end of a chunked body (RFC 9112 §7.1)
    assert server.ended(operation["id"])["status"] == "cancelled"


def test_client_that_leaves_a_stream_cancels_it(server: Server) -> None:
    with server.leaving() as client:
        client.send("GET", "/stream")
        client.read_until(b"first,")
        operation = server.running("GET /stream")
        client.reset()
    ended = server.ended(operation["id"])
    assert (ended["status"], ended["reason"]) == ("cancelled", "disconnect")


@pytest.mark.parametrize("how", ["async", "sync"])
def test_client_that_leaves_an_asgi_view_cancels_it(uvicorn: Server, how: str) -> None:
    with uvicorn.leaving() as client:
        client.send("GET", f"/wait/{how}")
        operation = uvicorn.running(f"GET /wait/{how}")
    ended = uvicorn.ended(operation["id"])
    assert (ended["status"], ended["reason"]) == ("cancelled", "disconnect")


@pytest.mark.parametrize("how", ["async", "sync"])
def test_job_is_cancelled_by_its_owner_only(server: Server, how: str) -> None:
    job_id = server.client.get(f"/start/{how}", headers={"X-User": "ann"}).text
    path = f"/jobs/{job_id}"
    assert server.client.get(path, headers={"X-User": "ben"}).status_code == 404
    assert server.client.post(f"{path}/cancel", headers={"X-User": "ben"}).status_code == 404
    assert server.client.get(path, headers={"X-User": "ann"}).json()["status"] == "running"
    answer = server.client.post(f"{path}/cancel", data={"wait_seconds": "10"}, headers={"X-User": "ann"})
    assert (answer.status_code, answer.json()["operation"]["status"]) == (200, "cancelled")
    assert server.client.post(f"{path}/cancel", headers={"X-User": "ann"}).status_code == 409


def test_completed_requests_are_counted(server: Server) -> None:
    before = server.client.get("/jobs/stats").json()["completed"]
    for _ in range(5):
        assert server.client.get("/hello").text == "hello"
    becomes_true(lambda: server.client.get("/jobs/stats").json()["completed"] == before + 5)


@pytest.mark.parametrize("name", COMMANDS)
def test_server_ends_while_a_job_runs(name: str) -> None:
    """Our threads are daemons: they hold nobody up."""
    server = Server(name)
    try:
        job_id = server.client.get("/start/sync").text
        becomes_true(lambda: server.client.get(f"/jobs/{job_id}").json()["status"] == "running")
    finally:
        code = server.stop()
    assert code in (0, -signal.SIGTERM)  # uvicorn ends by the signal itself once it is done
    assert "Traceback" not in server.log, server.log
