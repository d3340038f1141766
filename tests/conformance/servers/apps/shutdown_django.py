"""The application on Django, ``wsgi`` and ``asgi``; a lifespan of ours, gunicorn's hook, or a call installs the hook."""

from __future__ import annotations

import os
from typing import Any

import django
from django.conf import settings

from .shutdown_work import DRAIN_SECONDS, async_stream, async_work, store, stream, work

settings.configure(
    SECRET_KEY="for tests only",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["cancelable_django"],
    MIDDLEWARE=["cancelable_django.middleware.CancelableMiddleware"],
    CANCELABLE={"REGISTRY": store, "DRAIN_SECONDS": DRAIN_SECONDS},
)
django.setup()

from django.core.asgi import get_asgi_application  # noqa: E402  # needs the settings
from django.core.handlers.asgi import ASGIRequest  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse  # noqa: E402
from django.urls import path  # noqa: E402

from cancelable_core.servers import answer_lifespan, install_shutdown_hook  # noqa: E402
from cancelable_django import jobs  # noqa: E402
from cancelable_django.conf import get_application  # noqa: E402


def sync_view(request: HttpRequest) -> HttpResponse:
    return HttpResponse(work())


async def async_view(request: HttpRequest) -> HttpResponse:
    return HttpResponse(await async_work())


def quick(request: HttpRequest) -> HttpResponse:
    return HttpResponse("quick")


def streaming(request: HttpRequest) -> StreamingHttpResponse:
    chunks = async_stream() if isinstance(request, ASGIRequest) else stream()
    return StreamingHttpResponse(chunks, content_type="text/event-stream")


def submit(request: HttpRequest, kind: str) -> HttpResponse:
    job = jobs.submit(async_work if kind == "async" else work, owner=None)
    return HttpResponse(job.id, status=202)


urlpatterns = [
    path("sync", sync_view),
    path("async", async_view),
    path("quick", quick),
    path("stream", streaming),
    path("jobs-of/<str:kind>", submit),
]
wsgi = get_wsgi_application()
django_asgi = get_asgi_application()


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await answer_lifespan(get_application(), receive, send)
    else:
        if os.environ.get("SHUTDOWN_EXPLICIT") == "request":  # daphne's own handlers are not there before
            install_shutdown_hook()
        await django_asgi(scope, receive, send)


if os.environ.get("SHUTDOWN_EXPLICIT") == "1":
    install_shutdown_hook(exits=True)
