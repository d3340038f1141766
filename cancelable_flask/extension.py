"""The Flask extension: what `CancelableExtension.init_app` hooks into an application, and what it offers views."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Unpack, cast

from flask import Flask, current_app, has_app_context, has_request_context

from cancelable_core import JobRunner, ThreadSafeRegistry
from cancelable_core.http_api import Settings, SettingsOptions
from cancelable_core.servers import (
    CLIENT_ID_KEY,
    WebApplication,
    WsgiRequest,
    is_request,
    run_wsgi,
)

from ._overrides import override_methods
from ._routing import route_of, take_route
from ._translate import asking_principal, principal_before_request, text_in
from .blueprint import make_blueprint
from .cli import make_commands

__all__ = ["CancelableExtension"]

_CONFIG_PREFIX = "CANCELABLE_"


class CancelableExtension:
    """Makes a Flask application's requests and jobs cancelable.

    Args:
        app: An application to set up at once; or call `init_app`, any number of times, or ``app.register_extension``.
        settings: The `Settings`, as keywords. ``CANCELABLE_*`` in ``app.config`` goes first.

    Every request becomes an operation: ``current_operation().check()``, ``sleep`` and ``iterate`` raise in a plain view once it
    was cancelled, async views are interrupted where they wait. The routes lie under ``url_prefix``, by default ``/jobs``.
    """

    def __init__(self, app: Flask | None = None, **settings: Unpack[SettingsOptions]) -> None:
        self._options = settings
        self._newest: WebApplication | None = None
        self._has_several = False
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Set up one application. Call it before the first request, with ``app.config`` filled.

        Raises:
            ConfigurationError: A setting is unknown or cannot work.
            RuntimeError: The application has a `CancelableExtension` already.
        """
        if "cancelable" in app.extensions:
            raise RuntimeError("this application has a CancelableExtension already")
        application = WebApplication(
            self._read_settings(app),
            asker=lambda: asking_principal(application.settings).id if has_request_context() else None,
            job_context=app.app_context,
            async_job_context=partial(_async_app_context, app),
            # a job must find the fresh application context above, and no trace of the request that is over by then
            keeps_variable=lambda variable: not variable.name.startswith("flask."),
            use_running_loop=False,  # async views run on loops that end with the request
        )
        app.register_blueprint(make_blueprint(application))  # first: Flask refuses it when it is too late for all of this
        app.url_value_preprocessor(partial(take_route, app, application.settings))
        override_methods(app, application.settings)
        app.wsgi_app = _Middleware(app, application)  # type: ignore[method-assign]  # the documented way
        app.cli.add_command(make_commands())
        app.extensions["cancelable"] = application
        self._has_several = self._newest is not None
        self._newest = application

    @property
    def jobs(self) -> JobRunner:
        """Runs jobs of the current application; inside a request, whoever is asking owns what is submitted."""
        return self._application.jobs

    @property
    def registry(self) -> ThreadSafeRegistry:
        """The current application's operations."""
        return self._application.registry

    @property
    def settings(self) -> Settings:
        """The current application's settings."""
        return self._application.settings

    @property
    def _application(self) -> WebApplication:
        if has_app_context():
            application: WebApplication | None = current_app.extensions.get("cancelable")
        elif self._has_several:
            raise RuntimeError("the extension serves several applications: use it in the app_context() of one of them")
        else:
            application = self._newest
        if application is None:
            raise RuntimeError("the extension was not set up: call init_app(app) first")
        return application

    def _read_settings(self, app: Flask) -> Settings:
        config = cast("dict[str, Any]", app.config)
        configured = {
            key.removeprefix(_CONFIG_PREFIX).lower(): value for key, value in config.items() if key.startswith(_CONFIG_PREFIX)
        }
        options = {key: value for key, value in self._options.items() if key not in configured}
        # each on its own first, so that messages spell names as they were written, the nearest to an unknown one included
        Settings.from_mapping(options)
        Settings.from_mapping(configured, spelled=_in_config)
        return Settings.from_mapping(
            {**options, **configured}, spelled=lambda key: _in_config(key) if key in configured else key
        )


def _in_config(key: str) -> str:
    return _CONFIG_PREFIX + key.upper()


@asynccontextmanager
async def _async_app_context(app: Flask) -> AsyncGenerator[None]:
    with app.app_context():
        yield


class _Middleware:
    """Runs every request as an operation, but those to our own endpoints."""

    def __init__(self, app: Flask, application: WebApplication) -> None:
        self._app = app
        self._wsgi_app: Callable[..., Iterable[bytes]] = app.wsgi_app
        self._application = application
        self._prefix = application.settings.url_prefix.encode().decode("latin-1")  # as it stands in an environ

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        application = self._application
        # nearly every path is told apart by its text alone
        is_ours = self._prefix in environ.get("PATH_INFO", "") and application.serves(text_in(environ, "PATH_INFO"))
        if is_request(environ) or is_ours:
            return self._wsgi_app(environ, start_response)
        header = environ.get(CLIENT_ID_KEY)
        client_id = None if header is None else application.client_id(header)
        asker = None if client_id is None else principal_before_request(self._app, environ, application.settings)
        request = WsgiRequest(application, environ, start_response, route_of, client_id, asker)
        return run_wsgi(self._wsgi_app, environ, request)
