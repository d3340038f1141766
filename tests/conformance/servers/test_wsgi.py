"""Every WSGI server, in a process of its own, with Flask, Django and a bare application: clients leave, time runs out.

`TRIALS` and `REQUESTS` are kept small for everyday runs; ``CANCELABLE_FULL_COUNTS=1`` raises them to what the project promises.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import random
import re
import socket
import statistics
import struct
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from cancelable_core.testing import LeavingClient

from .apps.events import EVENTS_FILE, Events
from .launching import DEADLINE_SECONDS, WSGI_SERVERS, RunningServer, ServerKind, serving, soon

pytestmark = pytest.mark.slow

FULL = bool(os.environ.get("CANCELABLE_FULL_COUNTS"))
TRIALS = 50 if FULL else 2
REQUESTS = 5_000 if FULL else 120
"""Of the clients that stay; those that leave send as many."""
LEAVING_CLIENTS = 50 if FULL else 8

TELLING = [server for server in WSGI_SERVERS if server.detects_disconnect]
SILENT = [server for server in WSGI_SERVERS if not server.detects_disconnect]
LAST_CHUNK = b"0\r\n\r\n"
"""The end of a chunked body (RFC 9112 §7.1)."""
APPS = ["flask", "django", "bare"]
FRAMEWORKS = ["flask", "django"]
LEAVE = [LeavingClient.leave, LeavingClient.reset]

ANSWERS_ONE_AT_A_TIME = frozenset({"gunicorn-sync"})
KEEPS_NO_CONNECTION = frozenset({"uwsgi"})
"""Nor says so: it closes after one answer, and what was sent ahead is lost."""
NEVER_SAYS_CONTINUE = frozenset({"uwsgi"})
"""Whatever it serves."""
NEVER_CLOSES_A_LEFT_STREAM = frozenset({"hypercorn-wsgi"})
"""It goes on to its end, and what it yields goes nowhere."""
HIDES_ENDS_BEHIND_REQUESTS = frozenset({"waitress"})
"""It reads no further than its lookahead."""
ENDS_BROKEN_STREAMS_IN_ORDER = frozenset({"granian-wsgi"})
"""It takes an error for the end, so that what was cut looks complete."""


class Served:
    """A server that runs the applications, and what they tell."""

    def __init__(self, running: RunningServer, events: Events) -> None:
        self.running = running
        self.events = events
        self.kind = running.kind

    def get(self, path: str, **options: Any) -> httpx.Response:
        with self.running.client() as client:
            return client.get(path, headers={"X-User": "root", "Connection": "close"}, **options)

    def event(self, event: str, **details: Any) -> dict[str, Any]:
        """The one event, as soon as it is there."""
        found: list[dict[str, Any]] = soon(lambda: self.events.all(event, **details))
        assert len(found) == 1, found
        return found[0]

    def ended(self, app: str, key: str) -> dict[str, Any]:
        """What the registry says of the operation that began under ``key``, once it has ended."""
        path = f"/{'flask' if app == 'bare' else app}/jobs/{self.event('begun', key=key)['id']}"

        def look() -> dict[str, Any] | None:
            found: dict[str, Any] = self.get(path).json()
            return found if found["ended_at"] else None

        found: dict[str, Any] = soon(look)
        return found

    def leaving(self, path: str) -> tuple[LeavingClient, str]:
        """A client whose request has begun to work under the returned key."""
        key = uuid4().hex
        client = self.running.leaving()
        client.send("GET", f"{path}/{key}")
        self.event("begun", key=key)
        return client, key

    def log_of(self, text: str) -> list[str]:
        return [line for line in self.running.log.splitlines() if text in line]

    def cancels_logged(self, operation_id: str) -> list[str]:
        return [line for line in self.log_of(operation_id) if "was cancelled" in line]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[ServerKind], Served]]:
    """Starts each server once, and ends them all."""
    servers: dict[str, Served] = {}
    with ExitStack() as stack:

        def start(kind: ServerKind) -> Served:
            if kind.name not in servers:
                folder = tmp_path_factory.mktemp(kind.name)
                events = Events(folder / "events")
                app = "tests.conformance.servers.apps.wsgi:app"
                environment = {EVENTS_FILE: str(events.file), "PYTHONUNBUFFERED": "1"}
                running = stack.enter_context(serving(kind, app, folder / "log", **environment))
                servers[kind.name] = Served(running, events)
            return servers[kind.name]

        yield start


def _over(kinds: list[ServerKind] | tuple[ServerKind, ...]) -> Any:
    return pytest.mark.parametrize("server", kinds, ids=lambda kind: kind.name, indirect=True)


@pytest.fixture
def server(request: pytest.FixtureRequest, start: Callable[[ServerKind], Served]) -> Served:
    return start(request.param)


# --- clients that leave


@pytest.mark.parametrize("app", APPS)
@pytest.mark.parametrize("leave", LEAVE)
@_over(TELLING)
def test_client_that_leaves_a_working_view_cancels_it(
    server: Served, app: str, leave: Callable[[LeavingClient], None], record_property: Callable[[str, object], None]
) -> None:
    delays: list[float] = []
    for _ in range(TRIALS):
        client, key = server.leaving(f"/{app}/wait")
        if FULL:
            time.sleep(0.4)  # as long as it takes a person to press a button
        left_at = time.monotonic()
        leave(client)
        assert server.event("stopped", key=key)["reason"] == "disconnect"
        delays.append(server.event("stopped", key=key)["at"] - left_at)
    ended = server.ended(app, key)
    assert (ended["status"], ended["reason"]) == ("cancelled", "disconnect")
    assert max(delays) < DEADLINE_SECONDS / 2
    if len(delays) > 2:
        print(f"p95 {server.kind.name} {app} {leave.__name__}: {statistics.quantiles(delays, n=20)[-1] * 1000:.1f} ms")


@_over(TELLING)
def test_client_that_leaves_an_async_view_interrupts_it(server: Served) -> None:
    client, key = server.leaving("/flask/await")
    client.leave()
    server.event("finally", key=key)
    ended = server.ended("flask", key)
    assert (ended["status"], ended["reason"]) == ("cancelled", "disconnect")


@pytest.mark.parametrize("app", FRAMEWORKS)
@_over([kind for kind in TELLING if kind.name not in HIDES_ENDS_BEHIND_REQUESTS])
def test_request_that_was_sent_ahead_does_not_hide_the_client_s_end(server: Served, app: str) -> None:
    client, key = server.leaving(f"/{app}/wait")
    client.send("GET", f"/{app}/hello")
    client.leave()
    assert server.event("stopped", key=key)["reason"] == "disconnect"


@pytest.mark.parametrize("app", APPS)
@pytest.mark.parametrize("leave", LEAVE)
@_over(TELLING)
def test_client_that_leaves_a_stalled_stream_cancels_it(
    server: Served, app: str, leave: Callable[[LeavingClient], None]
) -> None:
    client, key = server.leaving(f"/{app}/stalled")
    client.read_until(b"first")
    leave(client)
    server.event("finally", key=key)
    ended = server.ended(app, key)
    assert (ended["status"], ended["reason"]) == ("cancelled", "disconnect")


@pytest.mark.parametrize("app", FRAMEWORKS)
@_over([kind for kind in WSGI_SERVERS if kind.name not in NEVER_CLOSES_A_LEFT_STREAM])
def test_client_that_leaves_a_running_stream_ends_it_wherever_the_server_closes_it(server: Served, app: str) -> None:
    """By ``close()`` (PEP 3333), which every server calls: its route does not follow the client."""
    client, key = server.leaving(f"/{app}/endless")
    client.read_until(b"chunk")
    client.reset()
    server.event("finally", key=key)
    ended = server.ended(app, key)
    assert (ended["status"], ended["reason"], ended["origin"]) == ("cancelled", "disconnect", "closed")


@pytest.mark.parametrize("app", FRAMEWORKS)
@_over(TELLING)
def test_half_closed_connection_counts_as_left(server: Served, app: str) -> None:
    client, key = server.leaving(f"/{app}/wait")
    client.close_sending()
    assert server.event("stopped", key=key)["reason"] == "disconnect"
    client.leave()


@pytest.mark.parametrize("app", FRAMEWORKS)
@_over(TELLING)
def test_route_that_does_not_follow_its_client_runs_to_its_end(server: Served, app: str) -> None:
    client, key = server.leaving(f"/{app}/unfollowed")
    client.leave()
    if server.kind.name not in ANSWERS_ONE_AT_A_TIME:
        other, other_key = server.leaving(f"/{app}/wait")
        other.leave()
        server.event("stopped", key=other_key)  # the watcher is awake, and has had its chance
    server.events.open(key)
    server.event("done", key=key)


@pytest.mark.parametrize("app", FRAMEWORKS)
@_over(TELLING)
def test_client_that_leaves_is_logged_once_and_without_a_traceback(server: Served, app: str) -> None:
    for path in (f"/{app}/wait", f"/{app}/stalled"):
        before = len(server.running.log)
        client, key = server.leaving(path)
        client.leave()
        operation_id = server.ended(app, key)["id"]
        (line,) = soon(partial(server.cancels_logged, operation_id))
        assert "INFO" in line
        since = server.running.log[before:]
        assert "OperationCancelled" not in since
        assert "BrokenPipeError" not in since


@_over(SILENT)
def test_server_that_cannot_tell_says_so_once(server: Served) -> None:
    for app in ("flask", "django", "flask"):
        client, key = server.leaving(f"/{app}/wait")
        client.leave()
        if server.kind.name == "waitress-lookahead-0":
            assert server.log_of("channel_request_lookahead=1")
        path = f"/{app}/jobs/{server.event('begun', key=key)['id']}"
        with server.running.client() as other:
            assert other.post(f"{path}/cancel", headers={"X-User": "root"}).status_code == 202
        assert server.event("stopped", key=key)["reason"] == "manual"
    assert len(server.log_of("not cancelled when their client leaves")) == 1


# --- what a client that left, or stayed, must not disturb


@pytest.mark.parametrize("app", FRAMEWORKS)
@_over(TELLING)
def test_what_a_left_request_has_started_runs_to_its_end(server: Served, app: str) -> None:
    key = uuid4().hex
    client = server.running.leaving()
    client.send("GET", f"/{app}/starting/{key}?wait")
    server.event("begun", key=key)
    client.leave()
    server.event("stopped", key=key)
    if app == "flask":
        assert server.event("after", key=key)["status"] == 499
        server.event("closed", key=key)
    server.events.open(key)
    server.event("job done", key=key)


@pytest.mark.parametrize("app", FRAMEWORKS)
@_over(WSGI_SERVERS)
def test_what_an_answered_request_has_started_runs_to_its_end(server: Served, app: str) -> None:
    key = uuid4().hex
    assert server.get(f"/{app}/starting/{key}").text == "started"  # and the client leaves
    server.event("closed", key=key)
    server.events.open(key)
    server.event("job done", key=key)
    path = f"/{app}/jobs/{server.event('job', key=key)['id']}"
    soon(lambda: server.get(path).json()["status"] == "completed")


@pytest.mark.parametrize("app", FRAMEWORKS)
@_over(TELLING)
def test_keep_alive_pipelining_and_clients_that_leave_do_not_disturb_each_other(server: Served, app: str) -> None:
    pid = server.running.process.pid
    _fill_the_pool(server, app)
    before = soon(lambda: _steady(pid))
    _load(server, app, REQUESTS)
    assert server.get(f"/{app}/hello").text == "hello"
    soon(lambda: _open_files(pid) <= before[0])
    soon(lambda: _threads(pid) <= before[1])


def _fill_the_pool(server: Served, app: str) -> None:
    """Have the server start all the threads that it ever will."""
    before = {one["key"] for one in server.events.all("begun")}
    connections = [Connection(server) for _ in range(16)]
    for connection in connections:
        connection.send(f"/{app}/wait/{uuid4().hex}")
    most = 1 if server.kind.name in ANSWERS_ONE_AT_A_TIME else len(connections)
    soon(lambda: len(_still_waiting(server, before)) >= most)
    for connection in connections:
        connection.leave()
    soon(lambda: not _still_waiting(server, before))


def _load(server: Served, app: str, requests: int) -> None:
    before = {one["key"] for one in server.events.all("begun")}
    seed = random.randrange(1 << 30)
    with ThreadPoolExecutor(4 + LEAVING_CLIENTS) as pool:
        staying = [pool.submit(_stay, server, app, requests // 4) for _ in range(4)]
        each = max(1, requests // LEAVING_CLIENTS)
        leaving = [pool.submit(_leave_at_random, server, app, each, seed + number) for number in range(LEAVING_CLIENTS)]
        for task in [*staying, *leaving]:
            task.result(DEADLINE_SECONDS * (40 if FULL else 1))
    soon(lambda: not _still_waiting(server, before))
    stopped = [one for one in server.events.all("stopped") if one["key"] not in before]
    assert {one["reason"] for one in stopped} == {"disconnect"}, f"seed {seed}"


def _still_waiting(server: Served, before: set[str]) -> set[str]:
    begun, stopped = ({one["key"] for one in server.events.all(event)} for event in ("begun", "stopped"))
    return begun - stopped - before


class Connection:
    """A kept connection, with requests sent ahead."""

    def __init__(self, server: Served) -> None:
        self._socket = socket.create_connection(("127.0.0.1", server.running.port), timeout=DEADLINE_SECONDS)
        self._file = self._socket.makefile("rb")
        self._may_be_kept = server.kind.name not in KEEPS_NO_CONNECTION

    def send(self, *paths: str) -> None:
        self._socket.sendall(b"".join(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode() for path in paths))

    def read(self) -> tuple[bytes, bool]:
        """The next answer's body, and whether the connection is kept after it."""
        head = http.client.parse_headers(self._file) if self._file.readline().startswith(b"HTTP/1.1 200 ") else None
        assert head is not None, "not the answer of a request that ran to its end"
        length = head["Content-Length"]
        body = self._file.read() if length is None else self._file.read(int(length))
        return body, self._may_be_kept and length is not None and head["Connection"] != "close"

    def leave(self, *, reset: bool = False) -> None:
        if reset:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._file.close()
        self._socket.close()


def _stay(server: Served, app: str, requests: int) -> None:
    """Pipelined requests, three at a time, over one connection for as long as the server keeps it; every answer is right."""
    connection, answered = Connection(server), 0
    while answered < requests:
        keys = [uuid4().hex for _ in range(1 if server.kind.name in KEEPS_NO_CONNECTION else 3)]
        connection.send(*(f"/{app}/quick/{key}" for key in keys))
        for key in keys:
            body, is_kept = connection.read()
            assert body == f"quick {key}".encode()
            answered += 1
            if not is_kept:
                connection.leave()
                connection = Connection(server)
                break
    connection.leave()


def _leave_at_random(server: Served, app: str, requests: int, seed: int) -> None:
    """Answered requests and abandoned ones, over connections that are dropped at random moments."""
    chance = random.Random(seed)
    while requests > 0:
        connection, is_kept = Connection(server), True
        for _ in range(chance.randrange(3)):
            connection.send(f"/{app}/quick/{uuid4().hex}")
            _, is_kept = connection.read()
            requests -= 1
            if not is_kept:
                connection.leave()
                connection = Connection(server)
        connection.send(f"/{app}/wait/{uuid4().hex}")
        requests -= 1
        time.sleep(chance.uniform(0, 0.02))
        connection.leave(reset=chance.random() < 0.5)


def _family(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(grandchild for child in children for grandchild in _family(int(child)))]


def _open_files(pid: int) -> int:
    return sum(len(os.listdir(f"/proc/{member}/fd")) for member in _family(pid))


def _threads(pid: int) -> int:
    return sum(len(os.listdir(f"/proc/{member}/task")) for member in _family(pid))


def _steady(pid: int) -> tuple[int, int] | None:
    """Open files and threads, once closed connections are gone."""
    now = _open_files(pid), _threads(pid)
    time.sleep(0.1)
    return now if now == (_open_files(pid), _threads(pid)) else None


# --- time limits


@pytest.mark.parametrize("app", FRAMEWORKS)
@pytest.mark.parametrize("route", ["too-long", "limited"])
@_over(WSGI_SERVERS)
def test_request_that_takes_too_long_is_answered_504(server: Served, app: str, route: str) -> None:
    key = uuid4().hex
    answer = server.get(f"/{app}/{route}/{key}")
    assert (answer.status_code, answer.json()["type"]) == (504, "urn:cancelable:timed-out")
    assert server.event("stopped", key=key)["reason"] == "timeout"
    assert server.ended(app, key)["status"] == "timed_out"


@pytest.mark.parametrize("app", FRAMEWORKS)
@_over(WSGI_SERVERS)
def test_stalled_stream_is_cut_at_its_route_s_limit(server: Served, app: str) -> None:
    with server.running.leaving() as client:
        key = uuid4().hex
        client.send("GET", f"/{app}/limited-stream/{key}")
        if server.kind.name in ENDS_BROKEN_STREAMS_IN_ORDER:
            received = client.read_until(LAST_CHUNK)
        else:
            received = client.read_to_end()
            assert not received.endswith(LAST_CHUNK), "it would look complete"
    assert b"first" in received
    assert b"last" not in received
    server.event("finally", key=key)
    assert server.ended(app, key)["status"] == "timed_out"


# --- bodies


def _digest(data: bytes) -> str:
    return f"{len(data)} {hashlib.sha256(data).hexdigest()}"


@pytest.mark.parametrize("app", FRAMEWORKS)
@_over(WSGI_SERVERS)
def test_request_bodies_arrive_whole_and_in_order(server: Served, app: str) -> None:
    data = random.Random(app).randbytes(1_000_000)
    with server.running.client(headers={"Connection": "close"}) as client:
        text = data.hex()[:1000]
        assert client.post(f"/{app}/json", json={"text": text}).text == _digest(text.encode())
        assert client.post(f"/{app}/upload", files={"file": ("a.bin", data)}).text == _digest(data)
        assert client.post(f"/{app}/body", content=data).text == _digest(data)
        slow = client.post(f"/{app}/body", content=_slowly(data), headers={"Content-Length": str(len(data))})
        assert slow.text == _digest(data)


@pytest.mark.parametrize("app", FRAMEWORKS)
@_over([kind for kind in WSGI_SERVERS if kind.name not in NEVER_SAYS_CONTINUE])
def test_client_that_waits_to_be_told_to_continue_is_told(server: Served, app: str) -> None:
    data = b"x" * 10_000
    head = f"POST /{app}/body HTTP/1.1\r\nHost: 127.0.0.1\r\nExpect: 100-continue\r\nContent-Length: {len(data)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.running.port), timeout=DEADLINE_SECONDS) as connection:
        connection.sendall(head.encode())
        received = _receive_until(connection, b"\r\n\r\n")
        assert received.startswith(b"HTTP/1.1 100 "), received
        connection.sendall(data)
        _receive_until(connection, _digest(data).encode())


def _receive_until(connection: socket.socket, ending: bytes) -> bytes:
    received = b""
    while ending not in received:
        chunk = connection.recv(65_536)
        assert chunk, received
        received += chunk
    return received


def _slowly(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), 50_000):
        yield data[start : start + 50_000]
        time.sleep(0.005)


# --- everything else is as it is without the suite


REQUESTS_ALIKE = {
    "hello": ("GET", "/hello", {}),
    "head": ("HEAD", "/hello", {}),
    "no content": ("GET", "/status/204", {}),
    "not modified": ("GET", "/status/304", {}),
    "not found": ("GET", "/nowhere", {}),
    "file": ("GET", "/file", {}),
    "head of a file": ("HEAD", "/file", {}),
    "error": ("GET", "/error", {}),
    "error in a middleware": ("GET", "/hello?fail", {}),
}


@pytest.mark.parametrize("app", FRAMEWORKS)
@_over(WSGI_SERVERS)
def test_responses_are_those_of_the_application_without_the_suite(server: Served, app: str) -> None:
    for name, (method, path, headers) in REQUESTS_ALIKE.items():
        ours, plain = (_raw(server, method, f"/{prefix}{app}{path}", headers) for prefix in ("", "plain-"))
        assert ours == plain, name


def _raw(server: Served, method: str, path: str, headers: dict[str, str]) -> bytes:
    """Head and body as they came, the date apart; and a second answer on the same connection, where it is kept."""
    with server.running.leaving() as client:
        client.send(method, path, headers={**headers, "Connection": "close"})
        received = client.read_to_end()
    received = received.replace(b"plain-", b"")
    return re.sub(rb"(?i)\r\n(date|last-modified): [^\r]*", b"", received)


@pytest.mark.parametrize("app", FRAMEWORKS)
@_over([kind for kind in WSGI_SERVERS if kind.name not in KEEPS_NO_CONNECTION])
def test_connections_are_kept_as_without_the_suite(server: Served, app: str) -> None:
    paths = [path for method, path, _ in REQUESTS_ALIKE.values() if method == "GET"]
    with server.running.client() as ours, server.running.client() as plain:
        kept = [_connection(ours.get(f"/{app}{path}")) is _connection(ours.get(f"/{app}/hello")) for path in paths]
        assert kept == [
            _connection(plain.get(f"/plain-{app}{path}")) is _connection(plain.get(f"/plain-{app}/hello")) for path in paths
        ]
        if kept[0]:
            timed_out = ours.get(f"/{app}/limited/{uuid4().hex}")
            assert timed_out.status_code == 504
            assert _connection(ours.get(f"/{app}/hello")) is _connection(timed_out)


def _connection(answer: httpx.Response) -> object:
    """What an answer came over; the same object for as long as it is kept."""
    return answer.extensions["network_stream"]
