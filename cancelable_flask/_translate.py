"""Flask's requests and responses as the core's plain values, and back."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from io import BytesIO
from typing import Any
from urllib.parse import urlencode

from flask import Flask, Response, current_app, request
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from cancelable_core.http_api import (
    BODY_LIMIT,
    NOBODY_STATUSES,
    EndpointRequest,
    EndpointResponse,
    Principal,
    Settings,
    as_principal,
    query_pairs,
)

__all__ = ["asking_principal", "endpoint_request", "native_response", "principal_before_request", "text_in"]


def endpoint_request(path: str, settings: Settings) -> EndpointRequest:
    """The current request, with at most one byte more of the body than is allowed."""
    return EndpointRequest(
        method=request.method,
        path=path,
        query=query_pairs(request.query_string),
        headers={name.lower(): value for name, value in request.headers.items()},
        body=_body(),
        body_lost="Transfer-Encoding" in request.headers and not request.environ.get("wsgi.input_terminated"),
        origin=f"{request.scheme}://{request.host}",
        principal=asking_principal(settings),
        native=request,
    )


def _body() -> bytes:
    try:
        body = request.stream.read(BODY_LIMIT + 1)
    except RequestEntityTooLarge:  # the application's MAX_CONTENT_LENGTH is below our limit: the answer is the same
        return bytes(BODY_LIMIT + 1)
    # a before_request function, of a CSRF extension for instance, may have read it: what it read is what was sent
    return body or request.get_data() or urlencode(list(request.form.items(multi=True))).encode()


def native_response(response: EndpointResponse) -> Response:
    """The answer as Flask sends it: nothing added, nothing taken away."""
    native = Response(response.body, response.status)
    native.headers.clear()
    native.headers.extend(response.headers)
    return native


def asking_principal(settings: Settings) -> Principal:
    """Who sends the current request: what the ``principal`` setting says, else Flask-Login's current user."""
    if settings.principal is not None:
        return as_principal(settings.principal(request), settings.staff)
    flask_login = sys.modules.get("flask_login")
    if flask_login is None or not hasattr(current_app, "login_manager"):
        return Principal()
    return as_principal(flask_login.current_user._get_current_object(), settings.staff)


def principal_before_request(app: Flask, environ: dict[str, Any], settings: Settings) -> Principal:
    """Who sends a request that Flask knows nothing of yet; nobody, where that is refused by Flask's own means.

    It is asked without the body, which is the view's to read.
    """
    try:
        with app.request_context({**environ, "wsgi.input": BytesIO(), "CONTENT_LENGTH": "0"}):
            return asking_principal(settings)
    except HTTPException as error:
        if error.code in NOBODY_STATUSES:
            return Principal()
        raise


def text_in(environ: Mapping[str, Any], key: str) -> str:
    """A path of an environ, which holds bytes disguised as text (PEP 3333)."""
    value: str = environ.get(key, "")
    return value if value.isascii() else value.encode("latin-1").decode(errors="replace")
