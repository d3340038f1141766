"""Connection pools of urllib3 whose requests end with the operation that makes them; `requests` stands on them."""

from __future__ import annotations

import io
import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import cache, partial
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import OperationCancelled, OperationTimedOut
from ..operation import current_operation
from .sockets import Handshake, armed, connected

if TYPE_CHECKING:
    import urllib3
    from urllib3.connection import HTTPConnection

    Manager = TypeVar("Manager", bound=urllib3.PoolManager)

else:
    HTTPConnection = object  # what is made here is put in front of the pool's own kind of connection

__all__ = ["instrument"]


def instrument(manager: Manager) -> Manager:
    """Make the connections that a pool manager opens from now on interruptible: ``http = instrument(urllib3.PoolManager())``.

    A cancel of the operation that is current where a request is made ends its waiting in every phase. The connection is
    discarded, also a reused one; the pool goes on.

    Raises:
        OperationCancelled: From the request, or from reading the body. A timeout's is an `OperationTimedOut` only once it
            leaves the operation: urllib3 would take a ``TimeoutError`` for one of its own, and try again.
    """
    manager.pool_classes_by_scheme = {scheme: _pool_class(pool) for scheme, pool in manager.pool_classes_by_scheme.items()}
    return manager


@cache
def _pool_class(base: type[Any]) -> type[Any]:
    """The same kind of pool, with interruptible connections."""
    if issubclass(base.ConnectionCls, _Connection):
        return base
    return type(f"Interruptible{base.__name__}", (base,), {"ConnectionCls": _connection_class(base.ConnectionCls)})


@cache
def _connection_class(base: type[Any]) -> type[Any]:
    return type(f"Interruptible{base.__name__}", (_Connection, base), {})


class _Connection(HTTPConnection):
    _handshake: Handshake | None = None

    def connect(self) -> None:
        operation = current_operation()
        if operation is None:
            super().connect()
        else:
            with Handshake() as self._handshake, _no_timeout_error(), operation.interruptible(self._handshake):
                super().connect()
            self._handshake = None
        self.sock: Any = _Socket(self.sock)

    def _new_conn(self) -> socket.socket:
        sock = connected(super()._new_conn, socket.socket.close)
        if self._handshake is not None:
            self._handshake.begins(sock)
        return sock


class _Socket:
    """A connected socket, every wait of which is armed by itself, whoever's request it carries."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock

    def sendall(self, *args: Any) -> None:
        with _no_timeout_error():
            armed(self._sock, partial(self._sock.sendall, *args))

    def makefile(self, mode: str) -> io.BufferedReader:
        assert mode == "rb", "http.client reads so"
        return io.BufferedReader(_Reader(self._sock))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


class _Reader(io.RawIOBase):
    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self._unbuffered: socket.SocketIO = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        readinto: Callable[[Any], int | None] = self._unbuffered.readinto
        with _no_timeout_error():
            return armed(self._sock, partial(readinto, buffer))

    def fileno(self) -> int:
        return self._unbuffered.fileno()

    def close(self) -> None:
        self._unbuffered.close()
        super().close()


@contextmanager
def _no_timeout_error() -> Generator[None]:
    """urllib3 takes every ``TimeoutError`` for its own. The operation makes it a timeout again when this one leaves it."""
    try:
        yield
    except OperationTimedOut as error:
        raise OperationCancelled(
            str(error),
            name=error.name,
            reason=error.reason,
            message=error.message,
            origin=error.origin,
            lineage=error.lineage,
        ) from error
