"""What a WSGI environ says about its client, and what is said where it says nothing."""

from __future__ import annotations

import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from cancelable_core.servers import CLIENT_KEY, WsgiClient, wsgi_client
from tests.core.helpers import DEADLINE_SECONDS


@pytest.fixture(autouse=True)
def nothing_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wsgi_client, "_said", set())


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    server, client = socket.socketpair()
    yield server, client
    server.close()
    client.close()


class Channel:
    """What waitress hands over: the bound method of its channel."""

    def __init__(self, lookahead: int) -> None:
        self.adj = SimpleNamespace(channel_request_lookahead=lookahead)
        self.connected = True

    def check_client_disconnected(self) -> bool:
        return not self.connected


@pytest.mark.parametrize("key", ["gunicorn.socket", "werkzeug.socket"])
def test_server_s_socket_tells(key: str, pair: tuple[socket.socket, socket.socket]) -> None:
    told = threading.Event()
    client = WsgiClient({key: pair[0]})
    client.start(told.set)
    pair[1].close()
    assert told.wait(DEADLINE_SECONDS)
    client.stop()


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_socket_is_looked_at_where_nothing_can_sleep_over_it(
    platform: str, pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under gevent, and elsewhere than on Linux."""
    monkeypatch.delattr(wsgi_client.select, "epoll")
    monkeypatch.setattr(wsgi_client.sys, "platform", platform)
    told = threading.Event()
    client = WsgiClient({"gunicorn.socket": pair[0]})
    client.start(told.set)
    assert not told.is_set()
    pair[1].close()
    assert told.wait(DEADLINE_SECONDS)
    client.stop()


def test_encrypted_connection_is_not_followed_where_only_its_bytes_would_tell(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delattr(wsgi_client.select, "epoll")
    monkeypatch.setattr(wsgi_client.sys, "platform", "darwin")
    with ssl.create_default_context().wrap_socket(socket.socket(), server_hostname="localhost") as encrypted:
        client = WsgiClient({"gunicorn.socket": encrypted})
        client.start(pytest.fail)
        client.stop()
    assert "encryption" in caplog.text


def test_uwsgi_is_asked_in_the_request_s_own_thread(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def connection_fd() -> int:
        asked.append(threading.get_ident())
        return pair[0].fileno()

    monkeypatch.setitem(sys.modules, "uwsgi", SimpleNamespace(connection_fd=connection_fd))  # a module of the server's own
    told = threading.Event()
    client = WsgiClient({"uwsgi.version": b"2.0"})
    starting = threading.Thread(target=client.start, args=(told.set,))
    starting.start()
    starting.join()
    assert asked == [threading.get_ident()]
    pair[1].close()
    assert told.wait(DEADLINE_SECONDS)
    client.stop()


def test_waitress_tells_where_it_looks_ahead() -> None:
    channel, told = Channel(1), threading.Event()
    client = WsgiClient({"waitress.client_disconnected": channel.check_client_disconnected})
    client.start(told.set)
    assert not told.is_set()
    channel.connected = False
    assert told.wait(DEADLINE_SECONDS)
    client.stop()


def test_it_is_watched_once_however_often_it_is_started(pair: tuple[socket.socket, socket.socket]) -> None:
    told: list[str] = []
    later = threading.Event()
    client = WsgiClient({"gunicorn.socket": pair[0]})
    client.start(lambda: (told.append("first"), later.set()))
    client.start(lambda: told.append("second"))
    pair[1].close()
    assert later.wait(DEADLINE_SECONDS)
    client.stop()
    assert told == ["first"]


def test_what_was_stopped_does_not_start(pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("it was watched")

    monkeypatch.setattr(wsgi_client._sockets, "watch", refuse)
    client = WsgiClient({"gunicorn.socket": pair[0]})
    client.stop()
    client.start(refuse)


def test_connection_that_somebody_closed_is_let_be(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[0].close()
    client = WsgiClient({"gunicorn.socket": pair[0]})
    client.start(pytest.fail)
    client.stop()


def test_client_that_cannot_be_followed_costs_no_request(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("too many open files")

    monkeypatch.setattr(wsgi_client._sockets, "watch", refuse)
    client = WsgiClient({"gunicorn.socket": pair[0]})
    client.start(pytest.fail)
    client.stop()
    assert "a client cannot be followed" in caplog.text
    assert "too many open files" in caplog.text


def test_application_under_asgi_follows_what_the_asgi_side_found() -> None:
    calls: list[tuple[str, object]] = []

    class Asgi:
        def start(self, client_has_gone: Callable[[], object]) -> None:
            calls.append(("start", client_has_gone))

        def stop(self) -> None:
            calls.append(("stop", None))

    def tell() -> None: ...

    client = WsgiClient({"asgi.scope": {CLIENT_KEY: Asgi()}})
    client.start(tell)
    client.stop()
    assert calls == [("start", tell), ("stop", None)]


UNTELLING: dict[str, tuple[dict[str, Any], str]] = {
    "unknown server": ({"SERVER_SOFTWARE": "Granian"}, "(Granian)"),
    "unnamed server": ({}, "gunicorn"),
    "waitress": ({"waitress.client_disconnected": Channel(0).check_client_disconnected}, "channel_request_lookahead=1"),
    "under ASGI, alone": ({"asgi.scope": {}}, "watching_client or CancelableAsgi of cancelable_core.servers"),
}


@pytest.mark.parametrize("case", UNTELLING)
def test_server_that_cannot_tell_is_named_once_with_what_to_change(case: str, caplog: pytest.LogCaptureFixture) -> None:
    environ, advice = UNTELLING[case]
    assert not caplog.records, "nobody wanted to follow a client yet"
    for _ in range(3):
        client = WsgiClient(environ)
        client.start(pytest.fail)
        client.stop()
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert advice in record.getMessage()
    assert "cancel_on_disconnect" in record.getMessage()
