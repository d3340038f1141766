"""The Flask extension: what `CancelableExtension.init_app` hooks into an application, and what it offers views."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Unpack, cast

from flask import Flask, Request, current_app, has_app_context, has_request_context, request
from werkzeug.local import LocalProxy
from werkzeug.routing import Rule

from cancelable_core import JobRunner, ThreadSafeRegistry
from cancelable_core.http_api import Settings, SettingsOptions
from cancelable_core.servers import (
    CLIENT_ID_KEY,
    REQUEST_KEY,
    LatentRequest,
    WebApplication,
    WsgiRequest,
    is_request,
    run_wsgi,
    view_options,
)

from ._overrides import override_methods
from ._translate import asking_principal, principal_before_request
from .blueprint import make_blueprint
from .cli import make_commands

__all__ = ["CancelableExtension"]

_RULE_KEY = "cancelable.flask_rule"
"""Where the `werkzeug.routing.Rule` that a request took stands in its environ."""

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
        app.url_value_preprocessor(partial(_take_route, app, application.settings))
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

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        application = self._application
        if is_request(environ) or application.serves(_text(environ, "PATH_INFO")):
            return self._wsgi_app(environ, start_response)
        client_id = application.client_id(environ.get(CLIENT_ID_KEY))
        asker = None if client_id is None else principal_before_request(self._app, environ, application.settings)
        request = WsgiRequest(application, environ, start_response, _route_of, client_id, asker)
        return run_wsgi(self._wsgi_app, environ, request)


def _text(environ: Mapping[str, Any], key: str) -> str:
    value: str = environ.get(key, "")
    return value if value.isascii() else value.encode("latin-1").decode(errors="replace")  # PEP 3333: bytes in disguise


def _route_of(environ: Mapping[str, Any]) -> str | None:
    rule: Rule | None = environ.get(_RULE_KEY)
    return None if rule is None else _text(environ, "SCRIPT_NAME").rstrip("/") + rule.rule


def _take_route(app: Flask, settings: Settings, endpoint: str | None, values: dict[str, Any] | None) -> None:
    """Remember the route, and give the operation what the view was marked with."""
    current = cast("LocalProxy[Request]", request)._get_current_object()  # pyright: ignore[reportPrivateUsage]  # documented
    environ = current.environ
    environ[_RULE_KEY] = current.url_rule  # not the request: it knows its environ, and would be left to the collector
    options = None if endpoint is None else view_options(app.view_functions.get(endpoint))
    if options is None:
        return
    latent: LatentRequest | None = environ.get(REQUEST_KEY)
    operation = None if latent is None else latent.make()
    if operation is None:
        return
    operation.adopt(options)
    if options.owner:
        operation.owner = asking_principal(settings).id
