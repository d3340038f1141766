"""How ends of connections are heard, on real sockets: by the one thread, by looking now and then, and never by mistake."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cancelable_core import OperationStore
from cancelable_core.servers import RequestOperation, client_watcher
from cancelable_core.servers.client_watcher import PolledClient, SocketWatcher, WatchedClient, hears_of_ends, peek_for_end
from tests.core.helpers import DEADLINE_SECONDS, becomes_true

ROOT = Path(__file__).parents[2]

Ends = Callable[[socket.socket], None]


def close(client: socket.socket) -> None:
    client.close()


def reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def half_close(client: socket.socket) -> None:
    client.shutdown(socket.SHUT_WR)


def close_behind_data(client: socket.socket) -> None:
    client.sendall(b"GET /next HTTP/1.1\r\n\r\n")
    client.close()


ENDS = [close, reset, half_close, close_behind_data]


class Connection:
    """Both ends of a TCP connection."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.client = socket.create_connection(listener.getsockname())
            self.server, _ = listener.accept()

    def close(self) -> None:
        self.client.close()
        self.server.close()


@pytest.fixture
def connection() -> Iterator[Connection]:
    connection = Connection()
    yield connection
    connection.close()


@pytest.fixture(scope="module")
def watcher() -> SocketWatcher:
    return SocketWatcher()


def by_epoll(watcher: SocketWatcher, connection: Connection, tell: Callable[[], object]) -> WatchedClient:
    return watcher.watch(connection.server.fileno(), tell)


def by_poll(watcher: SocketWatcher, connection: Connection, tell: Callable[[], object]) -> WatchedClient:
    return PolledClient(lambda: hears_of_ends(connection.server.fileno()), tell)


def by_peeking(watcher: SocketWatcher, connection: Connection, tell: Callable[[], object]) -> WatchedClient:
    return PolledClient(lambda: peek_for_end(connection.server), tell)


Watches = Callable[[SocketWatcher, Connection, Callable[[], object]], WatchedClient]


WAYS = [by_epoll, by_poll, by_peeking]
HEARD = [(watch, end) for watch in WAYS for end in ENDS if (watch, end) != (by_peeking, close_behind_data)]
"""A peek finds the data, and does not see the end behind it."""


@pytest.mark.parametrize(("watch", "end"), HEARD)
def test_every_end_is_heard_once(watcher: SocketWatcher, connection: Connection, watch: Watches, end: Ends) -> None:
    heard: list[int] = []
    watched = watch(watcher, connection, lambda: heard.append(1))
    end(connection.client)
    becomes_true(lambda: bool(heard))
    watched.stop()
    watched.stop()
    assert heard == [1]


@pytest.mark.parametrize("watch", WAYS)
def test_nothing_is_heard_after_the_stop(watcher: SocketWatcher, connection: Connection, watch: Watches) -> None:
    heard: list[int] = []
    watch(watcher, connection, lambda: heard.append(1)).stop()
    connection.client.close()
    other, told = Connection(), threading.Event()
    watched = watch(watcher, other, told.set)
    other.client.close()
    assert told.wait(DEADLINE_SECONDS)
    watched.stop()
    other.close()
    assert heard == []


def test_end_that_came_before_the_watching_is_heard(watcher: SocketWatcher, connection: Connection) -> None:
    connection.client.close()
    told = threading.Event()
    watched = watcher.watch(connection.server.fileno(), told.set)
    assert told.wait(DEADLINE_SECONDS)
    watched.stop()


def test_client_is_not_taken_for_the_last_one_with_his_number(watcher: SocketWatcher) -> None:
    """The end of one connection and the beginning of the next with the same number, over and over."""
    numbers: set[int] = set()
    wrong: list[int] = []
    for turn in range(1_000):
        connection = Connection()
        numbers.add(connection.server.fileno())
        leaves = turn % 2 == 1
        watched = watcher.watch(connection.server.fileno(), lambda leaves=leaves, turn=turn: leaves or wrong.append(turn))
        if leaves:
            connection.client.close()  # and at once, while the thread may be on its way with the event:
        watched.stop()
        connection.server.close()
        if not leaves:
            connection.client.close()
    assert len(numbers) < 100, "numbers were meant to be used again"
    assert wrong == []


def test_event_of_a_number_s_last_owner_is_told_to_nobody_and_costs_nothing(
    watcher: SocketWatcher, connection: Connection
) -> None:
    told = threading.Event()
    watched = watcher.watch(connection.server.fileno(), told.set)
    watcher._look_again(watcher._epoll, connection.server.fileno())  # as the thread does with an event that came too late
    assert not told.is_set()
    connection.client.close()
    assert told.wait(DEADLINE_SECONDS), "it was watched on"
    watched.stop()


def test_client_whose_request_ends_during_the_look_is_not_told(
    watcher: SocketWatcher, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """His number may have been another's by the time of the look, so that what was seen is nobody's end."""
    told: list[int] = []
    watched = watcher.watch(connection.server.fileno(), lambda: told.append(1))

    def look(fd: int) -> bool:
        watched.stop()
        return True

    monkeypatch.setattr(client_watcher, "hears_of_ends", look)
    watcher._look_again(watcher._epoll, connection.server.fileno())
    assert told == []


def test_request_that_was_never_ended_does_not_disturb_the_next_on_its_connection(
    watcher: SocketWatcher, connection: Connection
) -> None:
    told: list[str] = []
    forgotten = watcher.watch(connection.server.fileno(), lambda: told.append("forgotten"))
    watched = watcher.watch(connection.server.fileno(), lambda: told.append("next"))
    forgotten.stop()
    connection.client.close()
    becomes_true(lambda: bool(told))
    watched.stop()
    assert told == ["next"]


def test_connection_that_was_closed_too_early_is_forgotten_all_the_same(watcher: SocketWatcher, connection: Connection) -> None:
    watched = watcher.watch(connection.server.fileno(), pytest.fail)
    connection.server.close()
    watched.stop()
    assert not watcher._watched


def test_error_in_what_is_told_does_not_end_the_watching(
    watcher: SocketWatcher, connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    watched = watcher.watch(connection.server.fileno(), fail)
    connection.client.close()
    becomes_true(lambda: "could not be passed on" in caplog.text)
    watched.stop()
    other, told = Connection(), threading.Event()
    watched = watcher.watch(other.server.fileno(), told.set)
    other.client.close()
    assert told.wait(DEADLINE_SECONDS)
    watched.stop()
    other.close()


def test_slow_callback_of_one_client_does_not_delay_another_s_cancel(watcher: SocketWatcher) -> None:
    connections = [Connection(), Connection()]
    release, entered = threading.Event(), threading.Event()

    def hold(_: object) -> None:
        entered.set()
        release.wait(DEADLINE_SECONDS)

    class Client:
        def __init__(self, fd: int) -> None:
            self._fd = fd
            self._watched: WatchedClient | None = None

        def start(self, client_has_gone: Callable[[], object]) -> None:
            self._watched = watcher.watch(self._fd, client_has_gone)

        def stop(self) -> None:
            if self._watched is not None:
                self._watched.stop()

    requests = [
        RequestOperation(
            "GET", lambda: "/", store=OperationStore(), client=Client(one.server.fileno()), cancel_on_disconnect="all"
        )
        for one in connections
    ]
    for request in requests:
        request.begin()
    requests[0].on_cancel(hold)
    connections[0].client.close()
    assert entered.wait(DEADLINE_SECONDS)
    connections[1].client.close()
    assert requests[1].wait(DEADLINE_SECONDS)
    assert not release.is_set()
    release.set()
    for request, connection in zip(reversed(requests), reversed(connections), strict=True):
        request.end()
        connection.close()


FORKING = """
import os, socket, threading
from cancelable_core.servers.client_watcher import SocketWatcher

watcher = SocketWatcher()

def works():
    ours, theirs = socket.socketpair()
    told = threading.Event()
    watched = watcher.watch(ours.fileno(), told.set)
    theirs.close()
    assert told.wait(10)
    watched.stop()
    ours.close()

works()
kept, other = socket.socketpair()
inherited = watcher.watch(kept.fileno(), os.abort)
child = os.fork()
works()
inherited.stop()
if child:
    assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
def test_forked_child_watches_its_own_clients() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore:This process:DeprecationWarning", "-c", FORKING],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
