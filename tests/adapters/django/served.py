"""The project that the tests of servers start: ``gunicorn tests.adapters.django.served:wsgi``, ``uvicorn …:asgi``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import django
from django.conf import settings
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import include, path

from cancelable_django import current_operation, jobs


def _user(request: HttpRequest) -> str | None:
    return request.headers.get("X-User")


def _is_staff(user: str) -> bool:
    return user == "root"


settings.configure(
    SECRET_KEY="tests only",
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["cancelable_django"],
    MIDDLEWARE=["cancelable_django.middleware.CancelableMiddleware"],
    CANCELABLE={"PRINCIPAL": _user, "STAFF": _is_staff, "RESPONSE_HEADER": "all"},
    LOGGING={"version": 1, "disable_existing_loggers": False},
)
django.setup()

from django.core.asgi import get_asgi_application  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402

wsgi, asgi = get_wsgi_application(), get_asgi_application()


def hello(request: HttpRequest) -> HttpResponse:
    return HttpResponse("hello")


def wait_sync(request: HttpRequest) -> HttpResponse:
    operation = current_operation()
    assert operation is not None
    operation.sleep(60)
    raise AssertionError


async def wait_async(request: HttpRequest) -> HttpResponse:
    operation = current_operation()
    assert operation is not None
    while True:  # under WSGI it sees its token only
        await operation.checkpoint()
        await asyncio.sleep(0.01)


def _chunks() -> Iterator[bytes]:
    operation = current_operation()
    assert operation is not None
    yield b"first,"
    while True:
        operation.sleep(0.01)
        yield b"more,"


async def _achunks() -> AsyncIterator[bytes]:
    yield b"first,"
    await asyncio.sleep(60)


def stream(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(_achunks() if isinstance(request, ASGIRequest) else _chunks())


def _sleep() -> None:
    operation = current_operation()
    assert operation is not None
    operation.sleep(60)


def start(request: HttpRequest) -> HttpResponse:
    return HttpResponse(jobs.submit(_sleep, name="sleep").id)


async def astart(request: HttpRequest) -> HttpResponse:
    return HttpResponse((await jobs.asubmit(asyncio.sleep, 60, name="sleep")).id)


urlpatterns = [
    path("jobs/", include("cancelable_django.urls")),
    path("hello", hello),
    path("wait/sync", wait_sync),
    path("wait/async", wait_async),
    path("stream", stream),
    path("start/sync", start),
    path("start/async", astart),
]
