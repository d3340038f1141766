"""What `bench_asgi` has uvicorn serve: one answer by three applications, several ways each, chosen by the path."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Annotated, Any

import anyio
from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path
from fastapi import Depends, FastAPI
from fastapi.responses import PlainTextResponse

from cancelable_core.servers import AsgiApplication, CancelableAsgi, Receive, Scope, Send, cancelable_view
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


async def hello(request: HttpRequest) -> HttpResponse:
    return HttpResponse("hello", headers={"Content-Length": "5"})


@cancelable_view
async def marked_hello(request: HttpRequest) -> HttpResponse:
    return HttpResponse("hello", headers={"Content-Length": "5"})


urlpatterns = [path("", hello), path("marked/", marked_hello)]

settings.configure(
    SECRET_KEY="benchmarks only",
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["cancelable_django"],
    LOGGING_CONFIG=None,
)


def on_django(*middleware: str) -> AsgiApplication:
    """Django, with this middleware."""
    settings.MIDDLEWARE = list(middleware)
    application: AsgiApplication = get_asgi_application()
    return application


class NoOpMiddleware:
    """Django's idea of the least: for async views, and for plain ones."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self._get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        return self._acall(request) if self._is_async else self._get_response(request)

    async def _acall(self, request: HttpRequest) -> Any:
        return await self._get_response(request)


_ours_on_django = on_django("cancelable_django.middleware.CancelableMiddleware")

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
    "django/bare": on_django(),
    "django/no-op": on_django(f"{__name__}.NoOpMiddleware"),
    "django/unused": _ours_on_django,
    "django/used": _ours_on_django,
}


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Pass on to the application that the path names."""
    chosen = scope["path"].strip("/")
    inside = {**scope, "path": "/marked/" if chosen == "django/used" else "/"}
    await APPLICATIONS[chosen](inside, receive, send)
