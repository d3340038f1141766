"""Blocking calls on sockets. Shutting a socket down wakes whoever reads or writes there; closing it would not."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Protocol, Self, TypeVar

from ..operation import current_operation
from ..regions import Interrupter

if TYPE_CHECKING:
    from ..operation import Cancelable

__all__ = ["Handshake", "HasFileno", "SocketInterrupter", "armed", "connected"]

T = TypeVar("T")


class HasFileno(Protocol):
    """A socket, or what stands for one, TLS included."""

    def fileno(self) -> int: ...


class SocketInterrupter(Interrupter):
    """Shuts a socket down. Whoever waits there hears of the end of the stream; the connection is of no use afterwards.

    TLS makes no difference: what is shut down lies below it, so that nobody reads what was not decrypted.
    """

    ends_quietly = True

    def __init__(self, sock: HasFileno) -> None:
        self._sock = sock

    def interrupt(self) -> None:
        """Shut it down, unless it is closed or was never connected."""
        try:
            with _second_handle(self._sock) as handle:
                handle.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # whoever uses it hears the same

    def is_interruption(self, error: Exception) -> bool:
        """Always: every protocol has its own word for a connection that ends in the middle."""
        return True


def _second_handle(sock: HasFileno) -> socket.socket:
    return socket.socket(fileno=os.dup(sock.fileno()))


class Handshake(Interrupter):
    """An interrupter for the time in which a library wraps a socket into TLS, and nobody else knows what it has become."""

    def __init__(self, sock: HasFileno | None = None) -> None:
        self._handles: list[socket.socket] = []
        self._asked = False
        if sock is not None:
            self.begins(sock)

    def begins(self, sock: HasFileno) -> None:
        """This is what it wraps."""
        self._handles.append(_second_handle(sock))
        if self._asked:  # looked at after the handle was laid out: one of the two sees the other
            self.interrupt()

    def interrupt(self) -> None:
        """Shut it down, now or when it begins."""
        self._asked = True
        for handle in self._handles:
            SocketInterrupter(handle).interrupt()

    def is_interruption(self, error: Exception) -> bool:
        """Always, as for the socket."""
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.close()


def armed(sock: HasFileno, func: Callable[[], T]) -> T:
    """Call ``func``, which blocks on a socket, so that a cancel of the current operation shuts the socket down."""
    operation = current_operation()
    if operation is None:
        return func()
    with operation.interruptible(SocketInterrupter(sock)):
        return func()


def connected(connect: Callable[[], T], discard: Callable[[T], object]) -> T:
    """Connect, without the current operation's cancel having to wait for it.

    No signal ends the look-up of a name, and nobody has a socket to shut down while a library makes it. So that happens in a
    thread, which a cancel leaves behind, and which then discards what it got.
    """
    operation = current_operation()
    if operation is None:
        return connect()
    attempt = _Attempt(operation, connect, discard)
    with operation.interruptible(attempt):
        return attempt.result()


class _Attempt(Interrupter, Generic[T]):
    """As an interrupter it only wakes the one who waits; the thread notices when it is through."""

    def __init__(self, operation: Cancelable, connect: Callable[[], T], discard: Callable[[T], object]) -> None:
        self._operation = operation
        self._connect = connect
        self._discard = discard
        self._lock = threading.Lock()
        self._woken = threading.Event()
        self._made: list[T] = []
        self._error: BaseException | None = None
        self._is_over = False
        self._is_left = False

    def interrupt(self) -> None:
        self._woken.set()

    def is_interruption(self, error: Exception) -> bool:
        return isinstance(error, ConnectionAbortedError)

    def result(self) -> T:
        threading.Thread(target=self._run, name="cancelable-connect", daemon=True).start()
        try:
            self._woken.wait()
        finally:
            self._leave()
        if self._is_left:
            raise ConnectionAbortedError("given up before it was made")
        if self._error is not None:
            raise self._error
        return self._made[0]

    def _leave(self) -> None:
        with self._lock:
            if not self._is_over:
                self._is_left = True
                self._operation.count_abandoned_threads(+1)

    def _run(self) -> None:
        try:
            self._made.append(self._connect())
        except BaseException as error:
            self._error = error
        with self._lock:
            self._is_over = True
        self._woken.set()
        if self._is_left:
            self._operation.count_abandoned_threads(-1)
            for connection in self._made:
                self._discard(connection)
