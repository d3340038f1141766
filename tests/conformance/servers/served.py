"""What the suites of the WSGI and of the ASGI servers share: servers that run the applications, clients, loads, and counts."""

from __future__ import annotations

import hashlib
import http.client
import os
import random
import re
import socket
import struct
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from cancelable_core.testing import LeavingClient

from .apps.events import EVENTS_FILE, Events
from .launching import DEADLINE_SECONDS, RunningServer, ServerKind, serving, soon

__all__ = [
    "ANSWERS_ONE_AT_A_TIME",
    "FULL",
    "KEEPS_NO_CONNECTION",
    "LAST_CHUNK",
    "LEAVE",
    "LEAVING_CLIENTS",
    "REQUESTS",
    "TRIALS",
    "Connection",
    "Served",
    "connection_of",
    "connections_kept",
    "different_answers",
    "digest",
    "each_once",
    "fill_the_pool",
    "load",
    "open_files",
    "over",
    "receive_until",
    "slowly",
    "steady",
    "threads",
]

FULL = bool(os.environ.get("CANCELABLE_FULL_COUNTS"))
"""Everyday runs keep the counts small; this raises them to what the project promises."""

TRIALS = 50 if FULL else 2
REQUESTS = 5_000 if FULL else 120
"""Of the clients that stay; those that leave send as many."""
LEAVING_CLIENTS = 50 if FULL else 8

LAST_CHUNK = b"0\r\n\r\n"
"""The end of a chunked body (RFC 9112 §7.1)."""
LEAVE = [LeavingClient.leave, LeavingClient.reset]

ANSWERS_ONE_AT_A_TIME = frozenset({"gunicorn-sync"})
KEEPS_NO_CONNECTION = frozenset({"uwsgi"})
"""Nor says so: it closes after one answer, and what was sent ahead is lost."""


class Served:
    """A server that runs the applications, and what they tell."""

    def __init__(self, running: RunningServer, events: Events, jobs: str) -> None:
        self.running = running
        self.events = events
        self.kind = running.kind
        self.jobs = jobs
        """Where the suite's routes are: of one application, for all of the process."""

    def get(self, path: str, **options: Any) -> httpx.Response:
        with self.running.client() as client:
            return client.get(path, headers={"X-User": "root", "Connection": "close"}, **options)

    def event(self, event: str, **details: Any) -> dict[str, Any]:
        """The one event, as soon as it is there."""
        found: list[dict[str, Any]] = soon(lambda: self.events.all(event, **details))
        assert len(found) == 1, found
        return found[0]

    def ended(self, key: str) -> dict[str, Any]:
        """What the registry says of the operation that began under ``key``, once it has ended."""
        path = f"{self.jobs}/{self.event('begun', key=key)['id']}"

        def look() -> dict[str, Any] | None:
            found: dict[str, Any] = self.get(path).json()
            return found if found["ended_at"] else None

        found: dict[str, Any] = soon(look)
        return found

    def cancel(self, key: str) -> None:
        """Cancel the operation that began under ``key``, as a person would."""
        with self.running.client() as client:
            path = f"{self.jobs}/{self.event('begun', key=key)['id']}/cancel"
            assert client.post(path, headers={"X-User": "root"}).status_code == 202

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


@contextmanager
def each_once(app: str, jobs: str, folders: pytest.TempPathFactory) -> Iterator[Callable[[ServerKind], Served]]:
    """Starts each server once, when it is asked for, and ends them all."""
    servers: dict[str, Served] = {}
    with ExitStack() as stack:

        def start(kind: ServerKind) -> Served:
            if kind.name not in servers:
                folder = folders.mktemp(kind.name)
                events = Events(folder / "events")
                environment = {EVENTS_FILE: str(events.file), "PYTHONUNBUFFERED": "1"}
                running = stack.enter_context(serving(kind, app, folder / "log", **environment))
                servers[kind.name] = Served(running, events, jobs)
            return servers[kind.name]

        yield start


def over(kinds: list[ServerKind] | tuple[ServerKind, ...]) -> Any:
    """Have a test run on these servers, by its argument ``server``."""
    return pytest.mark.parametrize("server", kinds, ids=lambda kind: kind.name, indirect=True)


# --- many clients at once


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


def fill_the_pool(server: Served, path: str) -> int:
    """Have the server start all the threads that it ever will, by views under ``path`` that wait; returns how many it had."""
    before = _begun(server)
    connections = [Connection(server) for _ in range(16)]
    for connection in connections:
        connection.send(f"{path}/{uuid4().hex}")
    most = 1 if server.kind.name in ANSWERS_ONE_AT_A_TIME else len(connections)
    soon(lambda: len(_still_waiting(server, before)) >= most)
    had = threads(server.running.process.pid)
    for connection in connections:
        connection.leave()
    soon(lambda: not _still_waiting(server, before))
    return had


def load(server: Served, quick: str, waiting: str, requests: int) -> set[str]:
    """Clients that stay, and get all their answers, beside clients that leave, of whose requests none goes on.

    Args:
        quick: A path whose view answers ``quick <key>``.
        waiting: A path whose view waits for as long as nobody cancels it.

    Returns:
        The keys of the requests that had begun to wait.
    """
    before = _begun(server)
    seed = random.randrange(1 << 30)
    with ThreadPoolExecutor(4 + LEAVING_CLIENTS) as pool:
        tasks = [pool.submit(_stay, server, quick, requests // 4) for _ in range(4)]
        each = max(1, requests // LEAVING_CLIENTS)
        tasks += [
            pool.submit(_leave_at_random, server, quick, waiting, each, seed + number) for number in range(LEAVING_CLIENTS)
        ]
        for task in tasks:
            task.result(DEADLINE_SECONDS * (40 if FULL else 1))
    soon(lambda: not _still_waiting(server, before))
    return _begun(server) - before


def _begun(server: Served) -> set[str]:
    return {one["key"] for one in server.events.all("begun")}


def _still_waiting(server: Served, before: set[str]) -> set[str]:
    return _begun(server) - {one["key"] for one in server.events.all("finally")} - before


def _stay(server: Served, quick: str, requests: int) -> None:
    """Pipelined requests, three at a time, over one connection for as long as the server keeps it; every answer is right."""
    connection, answered = Connection(server), 0
    while answered < requests:
        keys = [uuid4().hex for _ in range(1 if server.kind.name in KEEPS_NO_CONNECTION else 3)]
        connection.send(*(f"{quick}/{key}" for key in keys))
        for key in keys:
            body, is_kept = connection.read()
            assert body == f"quick {key}".encode()
            answered += 1
            if not is_kept:
                connection.leave()
                connection = Connection(server)
                break
    connection.leave()


def _leave_at_random(server: Served, quick: str, waiting: str, requests: int, seed: int) -> None:
    """Answered requests and abandoned ones, over connections that are dropped at random moments."""
    chance = random.Random(seed)
    connection, key = Connection(server), uuid4().hex
    connection.send(f"{waiting}/{key}")
    server.event("begun", key=key)  # of the others a busy machine may begin none in time
    connection.leave(reset=chance.random() < 0.5)
    while requests > 1:
        connection, is_kept = Connection(server), True
        for _ in range(chance.randrange(3)):
            connection.send(f"{quick}/{uuid4().hex}")
            _, is_kept = connection.read()
            requests -= 1
            if not is_kept:
                connection.leave()
                connection = Connection(server)
        connection.send(f"{waiting}/{uuid4().hex}")
        requests -= 1
        time.sleep(chance.uniform(0, 0.02))
        connection.leave(reset=chance.random() < 0.5)


# --- what a process holds


def _family(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(grandchild for child in children for grandchild in _family(int(child)))]


def open_files(pid: int) -> int:
    """Of a process and its children."""
    return sum(len(os.listdir(f"/proc/{member}/fd")) for member in _family(pid))


def threads(pid: int) -> int:
    """Of a process and its children."""
    return sum(len(os.listdir(f"/proc/{member}/task")) for member in _family(pid))


def steady(pid: int) -> tuple[int, int] | None:
    """Open files and threads, once closed connections are gone."""
    now = open_files(pid), threads(pid)
    time.sleep(0.1)
    return now if now == (open_files(pid), threads(pid)) else None


# --- bytes as they come and go


def digest(data: bytes) -> str:
    """What a view says of a body that has arrived whole."""
    return f"{len(data)} {hashlib.sha256(data).hexdigest()}"


def slowly(data: bytes) -> Iterator[bytes]:
    """A body that takes its time."""
    for start in range(0, len(data), 50_000):
        yield data[start : start + 50_000]
        time.sleep(0.005)


def receive_until(connection: socket.socket, ending: bytes) -> bytes:
    """What comes up to there, and maybe beyond."""
    received = b""
    while ending not in received:
        chunk = connection.recv(65_536)
        assert chunk, received
        received += chunk
    return received


# --- what is as it is without the suite

ALIKE = {
    "hello": ("GET", "/hello"),
    "head": ("HEAD", "/hello"),
    "no content": ("GET", "/status/204"),
    "not modified": ("GET", "/status/304"),
    "not found": ("GET", "/nowhere"),
    "file": ("GET", "/file"),
    "head of a file": ("HEAD", "/file"),
    "error": ("GET", "/error"),
    "error in a middleware": ("GET", "/hello?fail"),
}
"""Requests of which an application answers each the same with the suite and, under ``/plain-…``, without it."""


def different_answers(server: Served, app: str, without: Collection[str] = ()) -> list[str]:
    """Those that differ by a byte."""
    return [
        name
        for name, (method, path) in ALIKE.items()
        if name not in without and _raw(server, method, f"/{app}{path}") != _raw(server, method, f"/plain-{app}{path}")
    ]


def _raw(server: Served, method: str, path: str) -> bytes:
    """Head and body of an answer as they came, what differs by time and by the application's name apart."""
    with server.running.leaving() as client:
        client.send(method, path, headers={"Connection": "close"})
        received = client.read_to_end()
    received = received.replace(b"plain-", b"")
    return re.sub(rb"(?i)\r\n(date|last-modified): [^\r]*", b"", received)


def connections_kept(server: Served, app: str) -> list[bool]:
    """After which of the answers the connection went on."""
    with server.running.client() as client:
        return [_is_kept(client, app, path) for method, path in ALIKE.values() if method == "GET"]


def _is_kept(client: httpx.Client, app: str, path: str) -> bool:
    answer = client.get(f"/{app}{path}")
    try:
        return connection_of(client.get(f"/{app}/hello")) is connection_of(answer)
    except httpx.TransportError:
        return False  # closed while we asked for more


def connection_of(answer: httpx.Response) -> object:
    """What an answer came over; the same object for as long as it is kept."""
    return answer.extensions["network_stream"]
