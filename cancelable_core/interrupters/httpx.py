"""A transport for `httpx.Client` whose requests end with the operation that makes them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from ..operation import current_operation
from .sockets import Handshake, armed, connected

if TYPE_CHECKING:
    import httpcore
    import httpx

__all__ = ["interruptible_transport"]


def interruptible_transport(**options: Any) -> httpx.HTTPTransport:
    """A transport for a synchronous client, which may be shared by threads and operations as before::

        client = httpx.Client(transport=interruptible_transport())

    A cancel of the operation that is current where a request is made ends its waiting in every phase: while it connects, shakes
    hands, sends, waits for the answer, or reads the body. The connection is discarded, also a reused one; the pool goes on.

    Args:
        options: What `httpx.HTTPTransport` takes, except ``http2``: there one connection carries many requests, and all of them
            would end with one.

    Raises:
        OperationCancelled: From the request, instead of an error of httpx's.

    An `httpx.AsyncClient` needs none of this: a cancel interrupts it where it awaits.
    """
    import httpx

    if options.get("http2"):
        raise ValueError("an interruptible transport speaks HTTP/1.1 only: over HTTP/2 one connection carries many requests")
    transport = httpx.HTTPTransport(**options)
    # httpcore's pool takes a backend as an argument, but httpx, which makes the pool, has none for it
    pool: Any = transport._pool  # pyright: ignore[reportPrivateUsage]
    pool._network_backend = _Backend(pool._network_backend)
    return transport


class _Backend:
    """Makes the connections of a pool; what `httpcore.NetworkBackend` says."""

    def __init__(self, inner: httpcore.NetworkBackend) -> None:
        self._inner = inner

    def connect_tcp(self, *args: Any, **kwargs: Any) -> _Stream:
        return self._connected(partial(self._inner.connect_tcp, *args, **kwargs))

    def connect_unix_socket(self, *args: Any, **kwargs: Any) -> _Stream:
        return self._connected(partial(self._inner.connect_unix_socket, *args, **kwargs))

    def _connected(self, connect: Callable[[], httpcore.NetworkStream]) -> _Stream:
        return _Stream(connected(connect, lambda stream: stream.close()))

    def sleep(self, seconds: float) -> None:
        """Between two attempts to connect."""
        operation = current_operation()
        (self._inner if operation is None else operation).sleep(seconds)


class _Stream:
    """A connection, each wait of which is armed by itself, whoever's request it carries; what `httpcore.NetworkStream` says."""

    def __init__(self, inner: httpcore.NetworkStream) -> None:
        self._inner = inner

    def read(self, *args: Any, **kwargs: Any) -> bytes:
        return armed(self._inner.get_extra_info("socket"), partial(self._inner.read, *args, **kwargs))

    def write(self, *args: Any, **kwargs: Any) -> None:
        armed(self._inner.get_extra_info("socket"), partial(self._inner.write, *args, **kwargs))

    def close(self) -> None:
        self._inner.close()

    def start_tls(self, *args: Any, **kwargs: Any) -> _Stream:
        start = partial(self._inner.start_tls, *args, **kwargs)
        operation = current_operation()
        if operation is None:
            return _Stream(start())
        with Handshake(self._inner.get_extra_info("socket")) as handshake:
            with operation.interruptible(handshake):
                return _Stream(start())

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)
