"""What `bench_asgi` has uvicorn serve: one answer by three applications, several ways each, chosen by the path.

Django's are in `_served_django`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Annotated, Any

import anyio
from fastapi import Depends, FastAPI
from fastapi.responses import PlainTextResponse

from cancelable_core.servers import AsgiApplication, CancelableAsgi, Receive, Scope, Send
from cancelable_fastapi import CurrentOperation, install


class NoOp:
    """The least that a middleware can be."""

    def __init__(self, app: AsgiApplication) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


class Least:
    """The least that can interrupt a request where it waits, hear its client, and know when its response is complete."""

    def __init__(self, app: AsgiApplication) -> None:
        self._app = app
        self._running: dict[object, object] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = LeastRequest(receive, send, self._running)
        self._running[request] = None
        _current.set(request)
        with anyio.CancelScope():
            await self._app(scope, request.receive, request.send)


class LeastRequest:
    """One request of `Least`."""

    __slots__ = ("_receive", "_running", "_send")

    def __init__(self, receive: Receive, send: Send, running: dict[object, object]) -> None:
        self._receive = receive
        self._send = send
        self._running = running

    async def receive(self) -> Any:
        return await self._receive()

    async def send(self, message: Any) -> None:
        await self._send(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self._running.pop(self, None)
            _current.set(None)


_current: ContextVar[object] = ContextVar("least", default=None)


async def function(scope: Scope, receive: Receive, send: Send) -> None:
    """No framework at all."""
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"5")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"hello"})


async def plain() -> str:
    return "hello"


async def trivial() -> str:
    return "hello"


async def with_dependency(hello: Annotated[str, Depends(trivial)]) -> str:
    return hello


async def with_operation(operation: CurrentOperation) -> str:
    return "hello"


def on_fastapi(
    endpoint: Callable[..., Awaitable[str]] = plain, *, with_suite: bool = False, middleware: type[Any] | None = None
) -> FastAPI:
    """FastAPI, with one endpoint."""
    app = FastAPI(default_response_class=PlainTextResponse)
    app.get("/")(endpoint)
    if with_suite:
        install(app)
    if middleware is not None:
        app.add_middleware(middleware)
    return app


APPLICATIONS: dict[str, AsgiApplication] = {
    "function/bare": function,
    "function/no-op": NoOp(function),
    "function/least": Least(function),
    "function/unused": CancelableAsgi(function, cancel_on_disconnect="scoped"),
    "function/used": CancelableAsgi(function),
    "fastapi/bare": on_fastapi(),
    "fastapi/no-op": on_fastapi(middleware=NoOp),
    "fastapi/least": on_fastapi(middleware=Least),
    "fastapi/dependency": on_fastapi(with_dependency),
    "fastapi/unused": on_fastapi(with_suite=True),
    "fastapi/used": on_fastapi(with_operation, with_suite=True),
}


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Pass on to the application that the path names."""
    chosen = scope["path"].strip("/")
    if chosen.startswith("django/") and chosen not in APPLICATIONS:
        # only now: once a view of a process is marked, FastAPI's routes are asked for marks as well
        from _served_django import APPLICATIONS as on_django

        APPLICATIONS.update(on_django)
    inside = {**scope, "path": "/marked/" if chosen == "django/used" else "/"}
    await APPLICATIONS[chosen](inside, receive, send)
