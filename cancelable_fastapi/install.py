"""`install`: everything at once, for the usual application; `prepare`: the parts, for those who compose them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Unpack

from fastapi import FastAPI, Request, Response, WebSocket
from starlette.applications import Starlette
from starlette.middleware import Middleware

from cancelable_core import ConfigurationError, JobRunner, QueueFull, ThreadSafeRegistry
from cancelable_core.http_api import Settings, SettingsOptions, queue_full_response
from cancelable_core.servers import WebApplication, close_code

from ._asking import PrincipalResolver
from ._translate import native_response
from .middleware import CancelableMiddleware, Installed
from .router import router

__all__ = ["CancelableSuite", "install", "prepare"]


@dataclass(frozen=True, slots=True)
class CancelableSuite:
    """What one application has.

    Attributes:
        settings: The application's settings.
        registry: Its operations.
        jobs: Runs jobs, which nobody owns unless told; `CurrentJobs` knows who is asking.
    """

    settings: Settings
    registry: ThreadSafeRegistry
    jobs: JobRunner
    parts: Installed = field(repr=False)
    """For `CancelableMiddleware` and `router`."""


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
    suite = prepare(app, prefix=prefix, **settings)
    # innermost, where add_middleware would make it the outermost: what others add to responses is added to ours too
    app.user_middleware.append(Middleware(CancelableMiddleware, suite=suite))
    app.include_router(router(suite), prefix=suite.settings.url_prefix)
    answer: Any = _answer_queue_full  # Starlette's types know of handlers for requests only
    app.exception_handlers.setdefault(QueueFull, answer)  # the application's own comes first
    app.state.cancelable = suite
    return suite


def prepare(
    app: Starlette | None = None, *, prefix: str = _USUAL_PREFIX, **settings: Unpack[SettingsOptions]
) -> CancelableSuite:
    """What `install` installs, for an application that puts the parts in their places itself.

    Args:
        app: The application whose ``dependency_overrides`` apply to the ``principal`` dependency, if it has any.
        prefix: The path that the application will have the routes under.
        settings: See `install`.

    Raises:
        ConfigurationError: A setting is unknown or cannot work.

    Pass the result on: ``Middleware(CancelableMiddleware, suite=suite)``, last in the list of middleware, and
    ``include_router(router(suite), prefix="/jobs")``. In plain Starlette, mount a FastAPI application
    that has the router so, as the last of the routes: ``Mount("/", endpoints)``.
    """
    if "url_prefix" in settings and prefix != _USUAL_PREFIX:
        raise ConfigurationError("prefix and url_prefix are two names of one setting; give one of them", setting="url_prefix")
    chosen = Settings.from_mapping({"url_prefix": prefix, **settings}, spelled=_spelled)
    application = WebApplication(chosen)
    parts = Installed(application, PrincipalResolver(chosen, app))
    return CancelableSuite(application.settings, application.registry, application.jobs, parts)


async def _answer_queue_full(connection: Request | WebSocket, error: Exception) -> Response | None:
    assert isinstance(error, QueueFull)
    if isinstance(connection, WebSocket):
        await connection.close(close_code(error, connection.scope))
        return None
    return native_response(queue_full_response(error))


def _spelled(key: str) -> str:
    return "prefix" if key == "url_prefix" else key
