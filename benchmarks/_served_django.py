"""Django's part of `_served_asgi`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path

from cancelable_core.servers import AsgiApplication, cancelable_view


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
    "django/bare": on_django(),
    "django/no-op": on_django(f"{__name__}.NoOpMiddleware"),
    "django/unused": _ours_on_django,
    "django/used": _ours_on_django,
}
