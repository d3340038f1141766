"""The client of one WSGI request: what its server puts into the environ tells how to watch it."""

from __future__ import annotations

import logging
import select
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from .client_watcher import PolledClient, SocketWatcher, WatchedClient, hears_of_ends, peek_for_end
from .request_scope import CLIENT_KEY

__all__ = ["WsgiClient"]

logger = logging.getLogger("cancelable_core")

_sockets = SocketWatcher()
_said: set[str] = set()
"""What was said about this process's servers; once is enough."""


class WsgiClient:
    """A `ClientWatch` over whatever the server of a WSGI request offers. Cheap to make; nothing happens before `start`.

    Make it in the thread that the server called: uWSGI knows the connection only there.

    Where the server cannot tell, `start` says so once in the log of ``cancelable_core``, with what to change.
    """

    __slots__ = ("_environ", "_has_stopped", "_starts", "_uwsgi_fd", "_watched")

    def __init__(self, environ: Mapping[str, Any]) -> None:
        self._environ = environ
        self._starts: list[object] = []
        self._has_stopped = False
        self._watched: WatchedClient | None = None
        uwsgi = sys.modules.get("uwsgi") if "uwsgi.version" in environ else None
        self._uwsgi_fd: int | None = None if uwsgi is None else uwsgi.connection_fd()

    def start(self, client_has_gone: Callable[[], object]) -> None:
        """Watch, unless it is watched already or was stopped."""
        if self._starts:
            return
        claim = object()
        self._starts.append(claim)
        if self._starts[0] is not claim or self._has_stopped:
            return
        try:
            self._watched = self._watch(client_has_gone)
        except Exception:  # no descriptor or thread to be had, for one: no reason to refuse the request
            logger.exception("a client cannot be followed; its request goes on")
        if self._has_stopped:  # meanwhile, by another thread, which may have found nothing to stop
            self.stop()

    def stop(self) -> None:
        """Stop watching for good."""
        self._has_stopped = True
        watched = self._watched
        if watched is not None:
            watched.stop()

    def _watch(self, client_has_gone: Callable[[], object]) -> WatchedClient | None:
        environ = self._environ
        connection = environ.get("gunicorn.socket") or environ.get("werkzeug.socket")
        if connection is not None:
            return _watch_socket(connection.fileno(), connection, client_has_gone)
        if self._uwsgi_fd is not None:
            return _watch_socket(self._uwsgi_fd, None, client_has_gone)
        if "waitress.client_disconnected" in environ:
            return _watch_waitress(environ["waitress.client_disconnected"], client_has_gone)
        if "asgi.scope" in environ:
            return _watch_scope(environ["asgi.scope"], client_has_gone)
        server = environ.get("SERVER_SOFTWARE", "unnamed")
        _say(f"this server ({server}) tells WSGI applications nothing of it; gunicorn, waitress and uWSGI do")
        return None


def _watch_socket(fd: int, connection: Any, client_has_gone: Callable[[], object]) -> WatchedClient | None:
    if fd < 0:
        return None  # closed by whoever took the connection over: there is no client any more that could leave
    if hasattr(select, "epoll"):
        return _sockets.watch(fd, client_has_gone)
    if sys.platform == "linux":  # gevent has no epoll, and a thread that waits for one would stop all its greenlets
        return PolledClient(partial(hears_of_ends, fd), client_has_gone)
    if connection is None or hasattr(connection, "pending"):  # encrypted: a peek shows nothing
        _say("on this system an encrypted connection does not show its end: leave encryption to a proxy in front")
        return None
    return PolledClient(partial(peek_for_end, connection), client_has_gone)


def _watch_waitress(client_disconnected: Callable[[], bool], client_has_gone: Callable[[], object]) -> WatchedClient | None:
    channel: Any = getattr(client_disconnected, "__self__", None)
    if channel is not None and channel.adj.channel_request_lookahead < 1:
        _say("waitress looks out for it only with channel_request_lookahead=1 or more")
        return None
    return PolledClient(client_disconnected, client_has_gone)


def _watch_scope(scope: Mapping[str, Any], client_has_gone: Callable[[], object]) -> WatchedClient | None:
    client = scope.get(CLIENT_KEY)
    if client is None:
        _say("nobody asked the ASGI server: put watching_client or CancelableAsgi of cancelable_core.servers around it all")
        return None
    client.start(client_has_gone)
    watched: WatchedClient = client
    return watched


def _say(why: str) -> None:
    if why not in _said:
        _said.add(why)
        logger.warning("requests are not cancelled when their client leaves: %s; or set cancel_on_disconnect to 'never'", why)
