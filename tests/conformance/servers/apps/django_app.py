"""The application, on Django, under WSGI and under ASGI."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import django
from asgiref.sync import iscoroutinefunction
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import FileResponse, HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.urls import include, path
from django.utils.decorators import sync_and_async_middleware

from . import work
from .events import tell

__all__ = ["make_asgi_app", "make_old_asgi_app", "make_wsgi_app"]


@sync_and_async_middleware
def fail_on_demand(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """A middleware that may fail."""

    def look(request: HttpRequest) -> None:
        if "fail" in request.GET:
            raise ZeroDivisionError

    def middleware(request: HttpRequest) -> HttpResponseBase:
        look(request)
        response: HttpResponseBase = get_response(request)
        return response

    async def async_middleware(request: HttpRequest) -> HttpResponseBase:
        look(request)
        response: HttpResponseBase = await get_response(request)
        return response

    return async_middleware if iscoroutinefunction(get_response) else middleware


class PlainOnly:
    """A middleware as old projects have them."""

    sync_capable = True
    async_capable = False

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        return self._get_response(request)


_MIDDLEWARE = [
    "django.middleware.common.CommonMiddleware",
    "cancelable_django.middleware.CancelableMiddleware",
    f"{__name__}.fail_on_demand",
]

settings.configure(
    SECRET_KEY="tests only",
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["cancelable_django"],
    MIDDLEWARE=_MIDDLEWARE,
    CANCELABLE={
        "PRINCIPAL": lambda request: request.headers.get("X-User"),
        "STAFF": bool,
        "REQUEST_TIMEOUT_SECONDS": work.LIMIT_SECONDS,
    },
    LOGGING_CONFIG=None,
    FILE_UPLOAD_MAX_MEMORY_SIZE=100_000,
)
django.setup()

from cancelable_django import cancelable_view, jobs  # noqa: E402
from cancelable_django.asgi import wrap  # noqa: E402

patient = cancelable_view(timeout_seconds=None)
limited = cancelable_view(timeout_seconds=work.LIMIT_SECONDS)


Application = Callable[..., Any]


def make_wsgi_app(*, with_suite: bool = True) -> Application:
    """The project's WSGI application; without the suite's middleware for comparison."""
    with _middleware(*_MIDDLEWARE if with_suite else _without_suite()):
        return get_wsgi_application()


def make_asgi_app(*, with_suite: bool = True) -> Application:
    """The same under ASGI."""
    with _middleware(*_MIDDLEWARE if with_suite else _without_suite()):
        return get_asgi_application()


def make_old_asgi_app() -> Application:
    """A project with a middleware that is for plain code only, below ours: `wrap` has it hear of its clients all the same."""
    with _middleware(*_MIDDLEWARE, f"{__name__}.PlainOnly"):
        return wrap(get_asgi_application())


def make_older_asgi_app() -> Application:
    """A project with such a middleware above ours, which is async all the same."""
    with _middleware(f"{__name__}.PlainOnly", *_MIDDLEWARE):
        return wrap(get_asgi_application())


def _without_suite() -> list[str]:
    return [name for name in _MIDDLEWARE if "cancelable" not in name]


@contextmanager
def _middleware(*names: str) -> Iterator[None]:
    """Django reads the setting when an application is made."""
    settings.MIDDLEWARE = names
    try:
        yield
    finally:
        settings.MIDDLEWARE = _MIDDLEWARE


def hello(request: HttpRequest) -> HttpResponse:
    return HttpResponse("hello")


def with_status(request: HttpRequest, status: int) -> HttpResponse:
    return HttpResponse(status=status, headers={"ETag": '"one"'})


def file(request: HttpRequest) -> FileResponse:
    return FileResponse(work.FILE.open("rb"))


def error(request: HttpRequest) -> HttpResponse:
    raise ZeroDivisionError


@patient
def wait(request: HttpRequest, key: str) -> HttpResponse:
    return HttpResponse(work.wait(key))


@patient
def ask(request: HttpRequest, key: str) -> HttpResponse:
    return HttpResponse(work.ask(key))


@patient
async def await_(request: HttpRequest, key: str) -> HttpResponse:
    return HttpResponse(await work.await_(key))


@cancelable_view(timeout_seconds=None, cancel_on_disconnect=False)
def unfollowed(request: HttpRequest, key: str) -> HttpResponse:
    return HttpResponse(work.wait_for_gate(key))


@patient
def quick(request: HttpRequest, key: str) -> HttpResponse:
    return HttpResponse(work.quick(key))


@patient
async def await_quick(request: HttpRequest, key: str) -> HttpResponse:
    return HttpResponse(await work.await_quick(key))


def too_long(request: HttpRequest, key: str) -> HttpResponse:
    return HttpResponse(work.wait(key))


async def await_too_long(request: HttpRequest, key: str) -> HttpResponse:
    return HttpResponse(await work.await_(key))


@limited
def limited_view(request: HttpRequest, key: str) -> HttpResponse:
    return HttpResponse(work.wait(key))


@limited
def limited_stream(request: HttpRequest, key: str) -> StreamingHttpResponse:
    return StreamingHttpResponse(work.stalled_chunks(key))


@limited
async def await_limited_stream(request: HttpRequest, key: str) -> StreamingHttpResponse:
    return StreamingHttpResponse(work.await_stalled_chunks(key))


@patient
async def await_stalled(request: HttpRequest, key: str) -> StreamingHttpResponse:
    return StreamingHttpResponse(work.await_stalled_chunks(key))


@patient
def stalled(request: HttpRequest, key: str) -> StreamingHttpResponse:
    return StreamingHttpResponse(work.stalled_chunks(key))


@cancelable_view(cancel_on_disconnect=False)
def endless(request: HttpRequest, key: str) -> StreamingHttpResponse:
    return StreamingHttpResponse(work.endless_chunks(key))


@patient
async def await_body(request: HttpRequest) -> HttpResponse:
    await asyncio.sleep(0.02)  # longer than a client is left unfollowed
    return HttpResponse(work.digest(work.pieces(request)))


@patient
def body(request: HttpRequest) -> HttpResponse:
    return HttpResponse(work.digest(work.pieces(request)))


@patient
def json_body(request: HttpRequest) -> HttpResponse:
    return HttpResponse(work.digest([str(json.loads(request.body)["text"]).encode()]))


@patient
def uploaded(request: HttpRequest) -> HttpResponse:
    return HttpResponse(work.digest(request.FILES["file"].chunks()))


@patient
def starting(request: HttpRequest, key: str) -> HttpResponse:
    work.started_job(jobs.submit, key)
    response = HttpResponse("started")
    close = response.close

    def close_and_tell() -> None:
        close()
        tell("closed", key=key)

    response.close = close_and_tell  # type: ignore[method-assign]  # the test's own
    if "wait" in request.GET:
        work.wait(key)
    return response


urlpatterns = [
    path("jobs/", include("cancelable_django.urls")),
    path("hello", hello),
    path("status/<int:status>", with_status),
    path("file", file),
    path("upload", uploaded),
    path("error", error),
    path("wait/<str:key>", wait),
    path("ask/<str:key>", ask),
    path("await/<str:key>", await_),
    path("await-quick/<str:key>", await_quick),
    path("await-too-long/<str:key>", await_too_long),
    path("await-limited-stream/<str:key>", await_limited_stream),
    path("await-stalled/<str:key>", await_stalled),
    path("await-body", await_body),
    path("unfollowed/<str:key>", unfollowed),
    path("quick/<str:key>", quick),
    path("too-long/<str:key>", too_long),
    path("limited/<str:key>", limited_view),
    path("limited-stream/<str:key>", limited_stream),
    path("stalled/<str:key>", stalled),
    path("endless/<str:key>", endless),
    path("body", body),
    path("json", json_body),
    path("starting/<str:key>", starting),
]
