"""Applications made of a test's own routes, and what drives them: httpx, and an ASGI server's side of one request."""

from __future__ import annotations

import json
import math
import threading
import warnings
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from importlib import metadata
from typing import Any

import anyio
import anyio.lowlevel
import httpx
import pytest
from fastapi import FastAPI

from cancelable_core import Cancelable
from cancelable_fastapi import CancelableSuite, current_operation, install
from tests.core.helpers import DEADLINE_SECONDS, becomes_true, becomes_true_soon, happens, happens_soon

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Starlette would rather have another client library under its test client
    from starlette.testclient import TestClient

STARLETTE = tuple(int(part) for part in metadata.version("starlette").split(".")[:2])

names_plain_routes = pytest.mark.skipif(
    STARLETTE < (1, 0), reason="before 1.0 Starlette does not say which of its routes it took"
)


def skip_where_starlette_leaves_generators_open(anyio_backend_name: str) -> None:
    """Trio warns of what ``BaseHTTPMiddleware`` forgot to close before 1.0; requests came to no harm."""
    if STARLETTE < (1, 0) and anyio_backend_name == "trio":
        pytest.skip("before 1.0 Starlette's BaseHTTPMiddleware leaves async generators open")


__all__ = [
    "DEADLINE_SECONDS",
    "Exchange",
    "TestClient",
    "Visit",
    "ask",
    "becomes_true",
    "becomes_true_soon",
    "client_of",
    "happens",
    "happens_soon",
    "installed",
    "names_plain_routes",
    "serving",
    "skip_where_starlette_leaves_generators_open",
]


@contextmanager
def installed(app: FastAPI | None = None, **settings: Any) -> Generator[tuple[FastAPI, CancelableSuite]]:
    """An application with the suite in it; its jobs end with the block."""
    app = app or FastAPI()
    suite = install(app, **settings)
    try:
        yield app, suite
    finally:
        suite.jobs.close()


class Visit:
    """What an endpoint tells its test."""

    def __init__(self) -> None:
        self.begun, self.over = threading.Event(), threading.Event()
        self.error: BaseException | None = None
        self._operation: Cancelable | None = None

    @contextmanager
    def here(self) -> Generator[Cancelable]:
        """Around an endpoint's body."""
        operation = current_operation()
        assert operation is not None, "the endpoint runs in no operation"
        self._operation = operation
        self.begun.set()
        try:
            yield operation
        except BaseException as error:
            self.error = error
            raise
        finally:
            self.over.set()

    @property
    def operation(self) -> Cancelable:
        assert self._operation is not None, "the endpoint was not called"
        return self._operation


def client_of(app: Any, **options: Any) -> httpx.AsyncClient:
    """A client of an application in this very loop."""
    transport = httpx.ASGITransport(app, **options)
    return httpx.AsyncClient(transport=transport, base_url="http://testserver", timeout=DEADLINE_SECONDS)


async def ask(app: Any, path: str, method: str = "GET", **options: Any) -> httpx.Response:
    """One request, whatever comes of it."""
    with anyio.fail_after(DEADLINE_SECONDS):
        async with client_of(app, raise_app_exceptions=False) as client:
            return await client.request(method, path, **options)


class Exchange:
    """One request as an ASGI server makes it (spec version 2.3); the client may leave at any time."""

    def __init__(
        self,
        path: str,
        *,
        method: str = "GET",
        body: tuple[bytes, ...] = (b"",),
        pieces_sent: int | None = None,
        spec_version: str = "2.3",
        root_path: str = "",
    ) -> None:
        path, _, query = path.partition("?")
        self.scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": spec_version},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "root_path": root_path,
            "query_string": query.encode(),
            "headers": [(b"host", b"testserver"), (b"content-type", b"application/json")],
            "server": ("testserver", 80),
            "client": ("127.0.0.1", 4),
        }
        self._put, self._get = anyio.create_memory_object_stream[dict[str, Any]](math.inf)
        for number, piece in enumerate(body[:pieces_sent], start=1):
            self._put.send_nowait({"type": "http.request", "body": piece, "more_body": number < len(body)})
        self.sent: list[dict[str, Any]] = []
        self.error: BaseException | None = None
        self.pieces_left = 0
        """How much of the request's body the application did not ask for."""
        self._over = anyio.Event()
        self._is_gone = False

    async def serve(self, app: Any) -> None:
        """What the server's task for this request does."""
        try:
            # by keyword, as one of the servers calls
            await app(scope=self.scope, receive=self._receive, send=self._send)
        except Exception as error:
            self.error = error
        finally:
            self._over.set()
            self.pieces_left = self._get.statistics().current_buffer_used
            self._put.close()
            self._get.close()

    async def _receive(self) -> dict[str, Any]:
        if self._is_gone:
            return {"type": "http.disconnect"}
        message = await self._get.receive()
        self._is_gone = message["type"] == "http.disconnect"
        return message

    async def _send(self, message: dict[str, Any]) -> None:
        await anyio.lowlevel.checkpoint()  # as where a client reads slowly
        self.sent.append(message)

    def leave(self) -> None:
        """What a server says when the connection has gone; nobody listens any more once the application has returned."""
        if not self._over.is_set():
            self._put.send_nowait({"type": "http.disconnect"})

    async def over(self) -> None:
        """Wait until the application has returned."""
        with anyio.fail_after(DEADLINE_SECONDS):
            await self._over.wait()

    async def received(self, text: bytes) -> None:
        """Wait until the client has read this."""
        await becomes_true_soon(lambda: text in self.body)

    @property
    def body(self) -> bytes:
        """What the client has read so far."""
        return b"".join(message.get("body", b"") for message in self.sent)

    @property
    def is_complete(self) -> bool:
        """Whether the client knows that it has all of it."""
        return bool(self.sent) and self.sent[-1]["type"] == "http.response.body" and not self.sent[-1].get("more_body")

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode().lower(): value.decode() for name, value in self.sent[0]["headers"]}

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@asynccontextmanager
async def serving(app: Any, exchange: Exchange) -> AsyncGenerator[Exchange]:
    """Serve one request beside the block, which then waits for its end."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(exchange.serve, app)
        yield exchange
        await exchange.over()
