"""`install`: everything at once, for the usual application."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Unpack

from fastapi import FastAPI, Request, Response, WebSocket
from starlette.middleware import Middleware

from cancelable_core import ConfigurationError, JobRunner, QueueFull, ThreadSafeRegistry
from cancelable_core.http_api import Settings, SettingsOptions, queue_full_response, websocket_close_code
from cancelable_core.servers import WebApplication

from ._asking import PrincipalResolver
from ._translate import native_response
from .middleware import CancelableMiddleware
from .router import make_router

__all__ = ["CancelableSuite", "install"]


@dataclass(frozen=True, slots=True)
class CancelableSuite:
    """What was installed in one application.

    Attributes:
        settings: The application's settings.
        registry: Its operations.
        jobs: Runs jobs, which nobody owns unless told; `CurrentJobs` knows who is asking.
    """

    settings: Settings
    registry: ThreadSafeRegistry
    jobs: JobRunner


_USUAL_PREFIX = "/jobs"


def install(app: FastAPI, *, prefix: str = _USUAL_PREFIX, **settings: Unpack[SettingsOptions]) -> CancelableSuite:
    """Make an application's requests and jobs cancelable.

    Args:
        app: Before its first request.
        prefix: The path that the routes lie under. Everything below it is answered by them.
        settings: The `Settings`. ``principal`` is a dependency like any other here: it may be async and have dependencies
            itself; a 401 or 403 that it raises means nobody.

    Raises:
        ConfigurationError: A setting is unknown or cannot work.
        RuntimeError: The application has been installed into already, or has served a request.
        TypeError: It is no FastAPI application.

    Every request becomes an operation: async endpoints are interrupted where they wait, in plain ones
    ``current_operation().check()``, ``sleep`` and ``iterate`` raise.
    """
    if not isinstance(app, FastAPI):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers without a type checker
        raise TypeError(f"install() takes a FastAPI application, not {type(app).__name__}")
    if hasattr(app.state, "cancelable"):
        raise RuntimeError("cancelable_fastapi is installed in this application already")
    if app.middleware_stack is not None:
        raise RuntimeError("install() must come before the application's first request")
    if "url_prefix" in settings and prefix != _USUAL_PREFIX:
        raise ConfigurationError("prefix and url_prefix are two names of one setting; give one of them", setting="url_prefix")
    chosen = Settings.from_mapping({"url_prefix": prefix, **settings}, spelled=_spelled)
    application = WebApplication(chosen)
    resolver = PrincipalResolver(application.settings, app)
    # innermost, where add_middleware would make it the outermost: what others add to responses is added to ours too
    app.user_middleware.append(Middleware(CancelableMiddleware, application=application, resolver=resolver))
    app.include_router(make_router(application, resolver), prefix=application.settings.url_prefix)
    # the application's own comes first; Starlette calls it for WebSockets too, which its annotation leaves out
    answer: Any = _answer_queue_full
    app.exception_handlers.setdefault(QueueFull, answer)
    suite = CancelableSuite(application.settings, application.registry, application.jobs)
    app.state.cancelable = suite
    return suite


async def _answer_queue_full(connection: Request | WebSocket, error: Exception) -> Response | None:
    assert isinstance(error, QueueFull)
    if isinstance(connection, WebSocket):
        await connection.close(websocket_close_code(error))
        return None
    return native_response(queue_full_response(error))


def _spelled(key: str) -> str:
    return "prefix" if key == "url_prefix" else key
