"""Hears the other side of connections leave while requests work: one thread for all of a process, or a look now and then."""

from __future__ import annotations

import logging
import select
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from .. import forks
from ..timer_thread import Timer, shared_timer

__all__ = ["POLL_INTERVAL_SECONDS", "PolledClient", "SocketWatcher", "WatchedClient", "hears_of_ends", "peek_for_end"]

logger = logging.getLogger("cancelable_core")

POLL_INTERVAL_SECONDS = 0.05
"""How often a client is looked at where nothing wakes a thread."""

_GONE = getattr(select, "POLLRDHUP", 0x2000) | select.POLLHUP | select.POLLERR
"""RDHUP also behind requests that were sent ahead and lie unread, which hide the end from a read."""


class WatchedClient(Protocol):
    """One client that is being watched; `stop` ends that, any number of times."""

    def stop(self) -> None: ...


class SocketWatcher:
    """One epoll and one daemon thread, which sleeps until a connection ends. Nothing starts before it is used.

    File descriptors are numbers that the system hands out again at once: an event that was fetched may be about a connection
    that is closed by now, and its number another client's. So the thread looks at the connection once more before it tells,
    and tells only whoever was registered before that look and still is after it: the number was his in between.

    There is no lock to take: a finaliser, which the collector runs anywhere, may be what ends a request.

    Concurrency:
        Every method: any thread. New in a forked child, where the sockets are the parent's.
    """

    def __init__(self) -> None:
        self._reset()
        forks.run_in_child(self._reset)

    def _reset(self) -> None:
        self._starting = threading.Lock()
        self._epoll: Any = None
        self._watched: dict[int, _Registered] = {}

    def watch(self, fd: int, client_has_gone: Callable[[], object]) -> WatchedClient:
        """Have ``client_has_gone()`` called, once, in the watcher's thread; it must be quick.

        Args:
            fd: A connected socket's. It must stay open until the returned `WatchedClient` was stopped.
        """
        epoll = self._start()
        registered = _Registered(self, fd, client_has_gone)
        self._watched[fd] = registered
        flags = select.EPOLLRDHUP | select.EPOLLONESHOT  # once: what stays true must not wake the thread again and again
        try:
            epoll.register(fd, flags)
        except FileExistsError:  # its last owner closed the connection without a word, or has yet to say it
            epoll.modify(fd, flags)
        return registered

    def forget(self, registered: _Registered) -> None:
        """Stop watching; before the server closes the connection, so that the number cannot be another's by then."""
        if self._watched.get(registered.fd) is not registered:
            return
        del self._watched[registered.fd]
        try:
            self._epoll.unregister(registered.fd)
        except OSError:
            pass  # closed, against the rule: the system forgot it by itself

    def _start(self) -> Any:
        if self._epoll is None:
            with self._starting:
                if self._epoll is None:
                    epoll = select.epoll()
                    threading.Thread(target=self._run, args=(epoll,), name="cancelable-clients", daemon=True).start()
                    self._epoll = epoll
        return self._epoll

    def _run(self, epoll: Any) -> None:
        while True:
            for fd, _ in epoll.poll():
                self._look_again(epoll, fd)

    def _look_again(self, epoll: Any, fd: int) -> None:
        registered = self._watched.get(fd)
        if registered is None:
            return
        has_gone = hears_of_ends(fd)
        if self._watched.get(fd) is not registered:
            return
        if has_gone:
            registered.tell()
            return
        try:
            epoll.modify(fd, select.EPOLLRDHUP | select.EPOLLONESHOT)  # the event was about the number's last owner
        except OSError:
            pass  # stopped meanwhile


class _Registered:
    """A connection's place in a `SocketWatcher`."""

    __slots__ = ("_claims", "_watcher", "fd")

    def __init__(self, watcher: SocketWatcher, fd: int, client_has_gone: Callable[[], object]) -> None:
        self._watcher = watcher
        self._claims = [client_has_gone]
        self.fd = fd

    def tell(self) -> None:
        for client_has_gone in self._take():
            try:
                client_has_gone()
            except Exception:
                logger.exception("the end of a connection could not be passed on; the others are watched on")

    def stop(self) -> None:
        self._take()
        self._watcher.forget(self)

    def _take(self) -> list[Callable[[], object]]:
        try:
            return [self._claims.pop()]
        except IndexError:
            return []


class PolledClient:
    """A client that is looked at every `POLL_INTERVAL_SECONDS`, in the timer thread.

    Args:
        has_gone: Says whether it has; must not block.
        client_has_gone: Called once when it has, in the timer thread; it must be quick.
    """

    __slots__ = ("_client_has_gone", "_has_gone", "_timer")

    def __init__(self, has_gone: Callable[[], object], client_has_gone: Callable[[], object]) -> None:
        self._has_gone = has_gone
        self._client_has_gone: Callable[[], object] | None = client_has_gone
        self._timer: Timer | None = None
        self._look_later()

    def stop(self) -> None:
        """Stop looking."""
        self._client_has_gone = None
        timer = self._timer
        if timer is not None:
            timer.cancel()

    def _look_later(self) -> None:
        self._timer = shared_timer().schedule(time.monotonic() + POLL_INTERVAL_SECONDS, self._look)

    def _look(self) -> None:
        client_has_gone = self._client_has_gone
        if client_has_gone is None:
            return
        if not self._has_gone():
            self._look_later()
        elif self._client_has_gone is not None:
            self._client_has_gone = None
            client_has_gone()


def hears_of_ends(fd: int) -> bool:
    """Whether a socket's other side has closed, half-closed or reset the connection, as ``poll`` says; Linux only."""
    poll = _poll_class()()
    poll.register(fd, _GONE)
    return any(events & _GONE for _, events in poll.poll(0))  # not POLLNVAL: a closed descriptor is nobody's client


def _poll_class() -> Any:
    """``select.poll``: gevent's own never reports RDHUP, so that Python's is needed there; it is asked without waiting."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None and monkey.is_module_patched("select"):
        return monkey.get_original("select", "poll")
    return select.poll


def peek_for_end(connection: socket.socket) -> bool:
    """The same where ``poll`` does not report it, macOS for one; a request that was sent ahead hides the end."""
    try:
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
