"""A client that leaves for real: HTTP libraries keep sockets in pools, and a pooled socket says nothing to the server."""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping
from types import TracebackType
from typing import Self

__all__ = ["LeavingClient"]


class LeavingClient:
    """One connection over a raw socket, for requests that nobody waits for.

    Args:
        host: The server's address.
        port: The server's port.
        timeout_seconds: How long connecting and each read may take.
    """

    def __init__(self, host: str, port: int, *, timeout_seconds: float = 10) -> None:
        self._host = f"{host}:{port}"
        self._socket = socket.create_connection((host, port), timeout=timeout_seconds)
        self._received = b""

    def send(self, method: str, path: str, *, headers: Mapping[str, str] | None = None, body: bytes = b"") -> None:
        """Send a whole HTTP/1.1 request; the answer is read with `read_until`, or never."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self._host}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        if body or method == "POST":
            lines.append(f"Content-Length: {len(body)}")
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + body)

    def read_until(self, ending: bytes) -> bytes:
        """Everything received so far, once it contains ``ending``.

        Raises:
            TimeoutError: It did not come in time.
            EOFError: The server closed the connection before.
        """
        while ending not in self._received:
            chunk = self._socket.recv(65_536)
            if not chunk:
                raise EOFError(f"the server closed the connection after {self._received!r}")
            self._received += chunk
        return self._received

    def read_to_end(self) -> bytes:
        """Everything until the server closes the connection."""
        while chunk := self._socket.recv(65_536):
            self._received += chunk
        return self._received

    def leave(self) -> None:
        """Close the connection in good order: the server's side sees a FIN."""
        self._socket.close()

    def close_sending(self) -> None:
        """Close one direction only, and go on reading: to most servers that looks like a client that left."""
        self._socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Break the connection off: the server's side sees an RST."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.leave()
