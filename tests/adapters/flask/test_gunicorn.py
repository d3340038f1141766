"""gunicorn's gthread worker, a process of its own, over real sockets: what one connection starts, another one cancels."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from cancelable_core.testing import LeavingClient

from .helpers import Running

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
DEADLINE_SECONDS = 20.0
"""Reached by failing tests only."""


class Gunicorn:
    """The server, and clients of it."""

    def __init__(self, log: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.log = log
        command = ["gunicorn", "--worker-class", "gthread", "--threads", "8", "--graceful-timeout", "3"]
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *command, "-b", f"127.0.0.1:{self.port}", "tests.adapters.flask.served:create_app()"],
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def client(self, user: str = "root") -> httpx.Client:
        """A connection of its own."""
        headers = {"X-User": user}
        return httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}", headers=headers, timeout=DEADLINE_SECONDS, trust_env=False
        )

    def wait_until_it_answers(self) -> None:
        def answers() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            try:
                with self.client() as client:
                    return client.get("/hello").text == "hello"
            except httpx.TransportError:
                return False

        soon(answers)

    def stop(self) -> int:
        """As a deploy does it; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(DEADLINE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


def soon(condition: Callable[[], Any]) -> Any:
    """What the condition gives as soon as that is something."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)
    return found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gunicorn]:
    server = Gunicorn(tmp_path_factory.mktemp("gunicorn") / "log")
    try:
        server.wait_until_it_answers()
        yield server
    finally:
        if server.process.poll() is None:
            server.stop()


@pytest.fixture
def staff(server: Gunicorn) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


def begun(staff: httpx.Client, name: str) -> str:
    """The id of the request of this name once its view runs."""

    def look() -> str | None:
        found = staff.get("/jobs", params={"kind": "request", "name": name, "status": "running"}).json()["operations"]
        return next((one["id"] for one in found if one["progress"]), None)

    found: str = soon(look)
    return found


def ended(staff: httpx.Client, operation_id: str) -> dict[str, Any]:
    """An operation once it has ended."""

    def look() -> dict[str, Any] | None:
        found: dict[str, Any] = staff.get(f"/jobs/{operation_id}").json()
        return found if found["ended_at"] else None

    found: dict[str, Any] = soon(look)
    return found


@pytest.mark.parametrize("what", ["check", "sleep", "iterate"])
def test_job_is_cancelled_from_another_connection(server: Gunicorn, what: str) -> None:
    with server.client("alice") as one, server.client("alice") as other, server.client("bob") as stranger:
        job_id = one.post(f"/jobs-of/{what}").json()["id"]
        soon(lambda: other.get(f"/jobs/{job_id}").json()["status"] == "running")
        assert stranger.post(f"/jobs/{job_id}/cancel").status_code == 404
        answer = other.post(f"/jobs/{job_id}/cancel", json={"message": "enough", "wait_seconds": 10})
        assert (answer.status_code, answer.json()["operation"]["status"]) == (200, "cancelled")
        assert one.get(f"/jobs/{job_id}").json()["message"] == "enough"


@pytest.mark.parametrize("path", ["/view/check", "/view/sleep", "/view/iterate", "/async"])
def test_view_is_stopped_from_another_connection(server: Gunicorn, staff: httpx.Client, path: str) -> None:
    with server.client("alice") as asking:
        waiting = Running(asking.get, path)
        operation_id = begun(staff, f"GET {'/async' if path == '/async' else '/view/<what>'}")
        assert staff.post(f"/jobs/{operation_id}/cancel", json={"message": "enough"}).status_code == 202
        answer = waiting.result()
        assert (answer.status_code, answer.json()["operation_id"]) == (499, operation_id)
        assert answer.json()["message"] == "enough"
        assert asking.get("/hello").text == "hello", "the connection is as good as before"
    assert ended(staff, operation_id)["status"] == "cancelled"


def test_stream_is_cut_by_the_id_in_its_header(server: Gunicorn, staff: httpx.Client) -> None:
    with server.client("alice") as asking, asking.stream("GET", "/stream") as answer:
        operation_id = answer.headers["X-Operation-ID"]
        with pytest.raises(httpx.RemoteProtocolError):  # cut, so that nobody takes it for the whole
            for number, _ in enumerate(answer.iter_lines()):
                if number == 3:
                    assert staff.post(f"/jobs/{operation_id}/cancel").status_code == 202
    assert (ended(staff, operation_id)["status"], ended(staff, operation_id)["reason"]) == ("cancelled", "manual")


@pytest.mark.parametrize("leave", [LeavingClient.leave, LeavingClient.reset])
def test_client_that_leaves_a_stream_ends_its_request(
    server: Gunicorn, staff: httpx.Client, leave: Callable[[LeavingClient], None]
) -> None:
    client = LeavingClient("127.0.0.1", server.port)
    client.send("GET", "/stream")
    head = client.read_until(b"chunk 2").decode("latin-1").lower()
    operation_id = head.partition("x-operation-id: ")[2].partition("\r")[0]
    leave(client)
    context = ended(staff, operation_id)
    assert (context["status"], context["reason"]) == ("cancelled", "disconnect")


def test_job_does_not_keep_the_server_from_stopping(tmp_path: Path) -> None:
    server = Gunicorn(tmp_path / "log")
    try:
        server.wait_until_it_answers()
        with server.client("alice") as client:
            assert client.post("/jobs-of/sleep").status_code == 202
    finally:
        code = server.stop()
    assert code == 0, server.log.read_text()
