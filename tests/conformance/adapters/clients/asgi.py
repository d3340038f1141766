"""Drives an ASGI application (HTTP, spec version 2.3) as a server does: a task for each request on one lasting loop."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import ExitStack
from typing import Any
from urllib.parse import unquote

import anyio
from anyio.from_thread import start_blocking_portal

from .base import AdapterClient, Exchange, SentRequest, body_pieces

__all__ = ["AsgiClient"]


class AsgiClient(AdapterClient):
    """Calls an ASGI application."""

    is_asgi = True

    @property
    @abstractmethod
    def application(self) -> Any:
        """What a server is pointed to."""

    def _start(self, **settings: Any) -> None:
        self._loop = ExitStack()
        self._portal = self._loop.enter_context(start_blocking_portal("asyncio"))

    def _stop(self) -> None:
        self._loop.close()

    def _send(self, exchange: Exchange) -> None:
        self._portal.start_task_soon(self._serve, exchange)

    async def _serve(self, exchange: Exchange) -> None:
        connection = _Connection(exchange)
        exchange.when_left(lambda: self._portal.call(connection.over.set))
        try:
            await self.application(_scope(exchange.sent), connection.receive, connection.send)
        except Exception as error:
            exchange.error = error
        finally:
            exchange.post(connection.is_complete)


class _Connection:
    """``receive`` and ``send`` of one request."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._pieces = body_pieces(exchange.sent.body)
        self.over = anyio.Event()
        """The response was sent, or the client has gone."""
        self.is_complete = False

    async def receive(self) -> dict[str, Any]:
        if self._pieces and not self.over.is_set():
            piece = self._pieces.pop(0)
            return {"type": "http.request", "body": piece, "more_body": bool(self._pieces)}
        await self.over.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        if self.over.is_set():
            return
        if message["type"] == "http.response.start":
            headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in message["headers"]]
            self._exchange.post((message["status"], tuple((name.lower(), value) for name, value in headers)))
            return
        if message.get("body"):
            self._exchange.post(bytes(message["body"]))
        if not message.get("more_body", False):
            self.is_complete = True
            self.over.set()


def _scope(sent: SentRequest) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": sent.method.upper(),  # as the specification says
        "scheme": "http",
        "path": unquote(sent.path),
        "raw_path": sent.path.encode("ascii"),
        "query_string": sent.query,
        "root_path": "",
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in sent.headers],
        "client": ("127.0.0.1", 50000),
        "server": ("testserver", 80),
        "state": {},
    }
