"""The application, on Django: the URLs of a project whose settings the driver overrides."""

from __future__ import annotations

from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import include, path

from cancelable_django import jobs

from .work import ASYNC_VIEWS, SYNC_VIEWS, WORK, async_stream, stream

__all__ = ["TEMPLATE", "settings", "urlpatterns"]

TEMPLATE = "/sync/<str:what>"
"""How this framework writes the route of the plain views."""


def settings(**given: object) -> dict[str, object]:
    """The ``CANCELABLE`` setting."""
    return {
        "PRINCIPAL": lambda request: request.headers.get("X-Test-User"),
        "STAFF": lambda user: user == "root",
        **{key.upper(): value for key, value in given.items()},
    }


def _options(request: HttpRequest, work: str, job_id: str) -> dict[str, object]:
    timeout = request.GET.get("timeout")
    return {
        "name": request.GET.get("name", work),
        "job_id": None if job_id == "any" else job_id,
        "timeout": None if timeout is None else float(timeout),
    }


def submit_sync(request: HttpRequest, work: str, job_id: str) -> HttpResponse:
    job = jobs.submit(WORK[work], request.GET.get("gate", job_id), **_options(request, work, job_id))
    return HttpResponse(job.id, status=202)


async def submit_async(request: HttpRequest, work: str, job_id: str) -> HttpResponse:
    job = await jobs.asubmit(WORK[work], request.GET.get("gate", job_id), **_options(request, work, job_id))
    return HttpResponse(job.id, status=202)


def sync_view(request: HttpRequest, what: str) -> HttpResponse:
    return HttpResponse(SYNC_VIEWS[what]())


async def async_view(request: HttpRequest, what: str) -> HttpResponse:
    return HttpResponse(await ASYNC_VIEWS[what]())


def streaming(request: HttpRequest) -> StreamingHttpResponse:
    chunks = async_stream() if isinstance(request, ASGIRequest) else stream()
    return StreamingHttpResponse(chunks, content_type="text/plain")


urlpatterns = [
    path("jobs/", include("cancelable_django.urls")),
    path("submit/<str:work>/<str:job_id>", submit_sync),
    path("asubmit/<str:work>/<str:job_id>", submit_async),
    path("sync/<str:what>", sync_view),
    path("async/<str:what>", async_view),
    path("stream", streaming),
]
