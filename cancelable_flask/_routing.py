"""What is found out about a request as soon as Flask knows its route: the template, and what its view was marked with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Flask, Request, request
from werkzeug.routing import Rule

from cancelable_core.http_api import Settings
from cancelable_core.servers import REQUEST_KEY, LatentRequest, RequestOperation, view_options

from ._translate import asking_principal

__all__ = ["native_request", "operation_of_request", "route_of", "take_route"]

_ROUTE_KEY = "cancelable.flask_route"
"""Where the root path and the `werkzeug.routing.Rule` of a request stand in its environ."""


def route_of(environ: Mapping[str, Any]) -> str | None:
    """The template of the route that a request took."""
    route: tuple[str, Rule] | None = environ.get(_ROUTE_KEY)
    return None if route is None else route[0].rstrip("/") + route[1].rule


def take_route(app: Flask, settings: Settings, endpoint: str | None, values: dict[str, Any] | None) -> None:
    """Remember the route, and give the operation what the view was marked with: Flask's ``url_value_preprocessor``."""
    current = native_request()
    if current.url_rule is None:
        return
    # not the request: it knows its environ, and would be left to the collector
    current.environ[_ROUTE_KEY] = current.root_path, current.url_rule
    options = view_options(app.view_functions.get(current.url_rule.endpoint))
    operation = None if options is None else operation_of_request()
    if options is None or operation is None:
        return
    operation.adopt(options)
    if options.owner:
        operation.owner = asking_principal(settings).id


def native_request() -> Request:
    """Flask's own ``request``, without asking the proxy for each of its attributes: every request comes here."""
    proxy: Any = request
    current: Request = proxy._get_current_object()
    return current


def operation_of_request() -> RequestOperation | None:
    """The current request's."""
    latent: LatentRequest | None = request.environ.get(REQUEST_KEY)
    return None if latent is None else latent.make()
