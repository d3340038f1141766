"""HTTP and TCP servers that keep clients waiting, in threads of the test."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import trustme

from tests.core.helpers import DEADLINE_SECONDS

__all__ = ["Certificates", "WaitingServer", "nobody_accepts", "waiting_server"]


@dataclass(frozen=True)
class Certificates:
    """For a server at ``localhost``, and for clients that trust it, as a context or as a file."""

    server: ssl.SSLContext
    client: ssl.SSLContext
    authority: Path

    @classmethod
    def issued(cls, authority_file: Path) -> Certificates:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(authority_file)
        server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("localhost").configure_cert(server)
        return cls(server, ssl.create_default_context(cafile=authority_file), authority_file)


@dataclass
class WaitingServer:
    """A server with three answers.

    ``/port``: the client's port, which tells whether its connection is the same as before. ``/never``: none. ``/half``: the
    headers and half a body. What is posted is not read.

    Attributes:
        url: Where it is.
        reached: Set when a request came in that keeps its client waiting.
        release: Ends the waiting.
    """

    url: str = ""
    reached: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)

    def wait(self) -> None:
        self.reached.set()
        self.release.wait(2 * DEADLINE_SECONDS)


@contextmanager
def waiting_server(tls: ssl.SSLContext | None = None) -> Iterator[WaitingServer]:
    """Serve until the block is left, HTTP/1.1 with connections that stay open."""
    server = WaitingServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = str(self.client_address[1]).encode()
            path = urlsplit(self.path).path  # a proxy is asked for all of it
            if path == "/never":
                server.wait()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if path == "/half":
                self.wfile.write(body[:2])
                self.wfile.flush()
                server.wait()
            self.wfile.write(body)

        def do_POST(self) -> None:
            server.wait()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # the client has left: that is what is tested

    http = Server(("127.0.0.1", 0), Handler)
    if tls is not None:
        http.socket = tls.wrap_socket(http.socket, server_side=True)
    server.url = f"http{'' if tls is None else 's'}://localhost:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.release.set()
        http.shutdown()
        http.server_close()
        thread.join(DEADLINE_SECONDS)


@contextmanager
def nobody_accepts() -> Iterator[str]:
    """An address at which no connection is ever made: the queue of those who wait to be accepted is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting: list[socket.socket] = []
        try:
            for _ in range(8):
                one = socket.socket()
                waiting.append(one)
                one.settimeout(0.05)
                try:
                    one.connect(listener.getsockname())
                except TimeoutError:
                    break
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            for one in waiting:
                one.close()
