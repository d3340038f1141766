"""What `bench_wsgi` has gunicorn serve: one answer by three applications, four ways each, chosen by the path."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import Any

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path
from flask import Flask

from cancelable_core.servers import CancelableWsgi, cancelable_view
from cancelable_flask import CancelableExtension

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def no_op(application: Application) -> Application:
    """The least that a middleware can be."""

    def middleware(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        return application(environ, start_response)

    return middleware


class Least:
    """The least that can see how a response starts, and know when it is complete."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self._running: dict[object, object] = {}

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        request = LeastRequest(start_response, self._running)
        self._running[request] = None
        _current.set(request)
        request.body = self._application(environ, request.start)
        request.items = iter(request.body)
        return request


class LeastRequest:
    """One request of `Least`, and its response's body."""

    __slots__ = ("_running", "_start_response", "body", "items")

    def __init__(self, start_response: Callable[..., Any], running: dict[object, object]) -> None:
        self._start_response = start_response
        self._running = running
        self.body: Iterable[bytes]
        self.items: Iterator[bytes]

    def start(self, *response: Any) -> Any:
        return self._start_response(*response)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self.items)

    def close(self) -> None:
        close = getattr(self.body, "close", None)
        if close is not None:
            close()
        self._running.pop(self, None)
        _current.set(None)


_current: ContextVar[object] = ContextVar("least", default=None)


def function(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    """No framework at all."""
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
    return [b"hello"]


def on_flask(*, with_suite: bool = False, marked: bool = False) -> Flask:
    """Flask, with one view."""
    app = Flask(__name__)

    def hello() -> str:
        return "hello"

    app.add_url_rule("/", view_func=cancelable_view(hello) if marked else hello)
    if with_suite:
        CancelableExtension(app)
    return app


def hello(request: HttpRequest) -> HttpResponse:
    return HttpResponse("hello", headers={"Content-Length": "5"})


@cancelable_view
def marked_hello(request: HttpRequest) -> HttpResponse:
    return HttpResponse("hello", headers={"Content-Length": "5"})


urlpatterns = [path("", hello), path("marked/", marked_hello)]

settings.configure(
    SECRET_KEY="benchmarks only",
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["cancelable_django"],
    LOGGING_CONFIG=None,
)


def on_django(*middleware: str) -> Application:
    """Django, with this middleware."""
    settings.MIDDLEWARE = list(middleware)
    application: Application = get_wsgi_application()
    return application


class NoOpMiddleware:
    """Django's idea of the least."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self._get_response(request)


_ours_on_django = on_django("cancelable_django.middleware.CancelableMiddleware")

APPLICATIONS: dict[str, Application] = {
    "function/bare": function,
    "function/no-op": no_op(function),
    "function/least": Least(function),
    "function/unused": CancelableWsgi(function, cancel_on_disconnect="scoped"),
    "function/watched": CancelableWsgi(function),
    "flask/bare": on_flask(),
    "flask/no-op": no_op(on_flask()),
    "flask/least": Least(on_flask()),
    "flask/unused": on_flask(with_suite=True),
    "flask/watched": on_flask(with_suite=True, marked=True),
    "django/bare": on_django(),
    "django/no-op": on_django(f"{__name__}.NoOpMiddleware"),
    "django/least": Least(on_django()),
    "django/unused": _ours_on_django,
    "django/watched": _ours_on_django,
}


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Pass on to the application that the path names."""
    framework, way = environ["PATH_INFO"].strip("/").split("/")
    environ["PATH_INFO"] = "/marked/" if (framework, way) == ("django", "watched") else "/"
    return APPLICATIONS[f"{framework}/{way}"](environ, start_response)
