"""Django's requests and responses as the core's plain values, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asgiref.sync import async_to_sync, sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse

from cancelable_core.callables import is_coroutine_function
from cancelable_core.http_api import (
    BODY_LIMIT,
    EndpointRequest,
    EndpointResponse,
    Principal,
    Settings,
    as_principal,
    query_pairs,
)

__all__ = ["aprincipal_of", "bounded_body", "endpoint_request", "native_response", "principal_of", "route_of"]


def endpoint_request(request: HttpRequest, path: str, body: bytes, principal: Principal) -> EndpointRequest:
    """The request as the endpoints take it."""
    return EndpointRequest(
        method=request.method or "GET",
        path=path,
        query=query_pairs(request.META.get("QUERY_STRING", "")),
        headers={name.lower(): value for name, value in request.headers.items()},
        body=body,
        # under WSGI Django reads no further than Content-Length, which a chunked request does not have
        body_lost=not isinstance(request, ASGIRequest) and "Transfer-Encoding" in request.headers,
        origin=f"{request.scheme}://{request.get_host()}",
        principal=principal,
        native=request,
    )


def bounded_body(request: HttpRequest) -> bytes:
    """The body, at most one byte more than is allowed."""
    return request.read(BODY_LIMIT + 1)


def native_response(response: EndpointResponse) -> HttpResponse:
    """The answer as Django sends it: nothing added, nothing taken away."""
    native = HttpResponse(response.body, status=response.status)
    del native.headers["Content-Type"]
    for name, value in response.headers:
        native.headers[name] = value
    return native


def principal_of(request: HttpRequest, settings: Settings) -> Principal:
    """Who is asking, in sync code: what the ``PRINCIPAL`` setting says, else ``request.user``."""
    ask = settings.principal
    if ask is None:
        return as_principal(getattr(request, "user", None), settings.staff)
    value: Any = async_to_sync(ask)(request) if is_coroutine_function(ask) else ask(request)
    return as_principal(value, settings.staff)


async def aprincipal_of(request: HttpRequest, settings: Settings) -> Principal:
    """The same in async code.

    ``request.user`` comes before ``request.auser`` here, too: a middleware that finds out by itself, from a token for instance,
    sets the former, and the latter goes on to say whose the session is. Who it is may have to be read from the database.
    """
    ask = settings.principal
    if ask is None and not hasattr(request, "user") and hasattr(request, "auser"):
        value: Any = await request.auser()
    elif ask is not None and is_coroutine_function(ask):
        value = await ask(request)
    else:
        return await sync_to_async(principal_of)(request, settings)
    return await sync_to_async(as_principal)(value, settings.staff)


def route_of(request: HttpRequest) -> str | None:
    """The template of the route taken, with the mount prefix; None before the resolver has found one, and if it does not."""
    match = request.resolver_match
    if match is None:
        return None
    mount: Mapping[str, Any] = request.META
    return f"{str(mount.get('SCRIPT_NAME', '')).rstrip('/')}/{match.route.lstrip('^/')}"
