"""The application, on Django under WSGI."""

from __future__ import annotations

import json
from collections.abc import Callable

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import FileResponse, HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.urls import include, path

from . import work
from .events import tell

__all__ = ["make_app"]


class FailOnDemand:
    """A middleware that may fail."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if "fail" in request.GET:
            raise ZeroDivisionError
        return self._get_response(request)


_FAILING = f"{__name__}.FailOnDemand"

settings.configure(
    SECRET_KEY="tests only",
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["cancelable_django"],
    MIDDLEWARE=["django.middleware.common.CommonMiddleware", "cancelable_django.middleware.CancelableMiddleware", _FAILING],
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

patient = cancelable_view(timeout_seconds=None)
limited = cancelable_view(timeout_seconds=work.LIMIT_SECONDS)


def make_app(*, with_suite: bool = True) -> Callable[..., object]:
    """The project's WSGI application; without the suite's middleware for comparison."""
    middleware = settings.MIDDLEWARE
    if not with_suite:
        settings.MIDDLEWARE = [name for name in middleware if "cancelable" not in name]
    try:
        return get_wsgi_application()
    finally:
        settings.MIDDLEWARE = middleware


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


@cancelable_view(timeout_seconds=None, cancel_on_disconnect=False)
def unfollowed(request: HttpRequest, key: str) -> HttpResponse:
    return HttpResponse(work.wait_for_gate(key))


@patient
def quick(request: HttpRequest, key: str) -> HttpResponse:
    return HttpResponse(work.quick(key))


def too_long(request: HttpRequest, key: str) -> HttpResponse:
    return HttpResponse(work.wait(key))


@limited
def limited_view(request: HttpRequest, key: str) -> HttpResponse:
    return HttpResponse(work.wait(key))


@limited
def limited_stream(request: HttpRequest, key: str) -> StreamingHttpResponse:
    return StreamingHttpResponse(work.stalled_chunks(key))


@patient
def stalled(request: HttpRequest, key: str) -> StreamingHttpResponse:
    return StreamingHttpResponse(work.stalled_chunks(key))


@cancelable_view(cancel_on_disconnect=False)
def endless(request: HttpRequest, key: str) -> StreamingHttpResponse:
    return StreamingHttpResponse(work.endless_chunks(key))


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
