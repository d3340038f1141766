"""Starlette's requests and responses as the core's plain values, and back."""

from __future__ import annotations

from contextlib import aclosing

from fastapi import Request, Response
from starlette.requests import ClientDisconnect
from starlette.routing import Mount
from starlette.types import Scope

from cancelable_core.http_api import BODY_LIMIT, EndpointRequest, EndpointResponse, Principal, query_pairs

__all__ = ["endpoint_request", "native_response", "path_in_app", "route_of"]


async def endpoint_request(request: Request, path: str, principal: Principal) -> EndpointRequest:
    """The request, with no more of the body than tells that it is too long."""
    headers: dict[str, str] = {}
    for name, value in request.headers.items():
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    body = await _bounded_body(request)
    return EndpointRequest(
        method=request.method,
        path=path,
        query=query_pairs(request.scope["query_string"]),
        headers=headers,
        body=body or b"",
        body_lost=body is None,
        origin=f"{request.url.scheme}://{headers.get('host', '')}",
        principal=principal,
        native=request,
    )


async def _bounded_body(request: Request) -> bytes | None:
    body = b""
    try:
        async with aclosing(request.stream()) as chunks:
            async for chunk in chunks:
                body += chunk
                if len(body) > BODY_LIMIT:
                    break
    except ClientDisconnect:  # no error worth a traceback, and nothing to act upon: half of what was meant
        return None
    return body[: BODY_LIMIT + 1]


def native_response(response: EndpointResponse) -> Response:
    """The answer as Starlette sends it: nothing added, nothing taken away."""
    native = Response(response.body, response.status)
    native.raw_headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in response.headers]
    return native


def path_in_app(scope: Scope) -> str:
    """The path below the application's mount point; the whole path where a proxy has taken the mount point off already."""
    path: str = scope.get("path", "")
    mounted_at: str = scope.get("root_path", "").rstrip("/")
    below = path.removeprefix(mounted_at)
    return below if below == "" or below.startswith("/") else path


def route_of(scope: Scope) -> str | None:
    """The template of the route taken, with the mount prefix; None before the router has found one, and if it does not."""
    route = scope.get("route")
    # since FastAPI 0.13x a route does not know the prefixes of the routers around it; this does
    included = scope.get("fastapi", {}).get("effective_route_context")
    if getattr(included, "original_route", None) is route:
        route = included
    template: str | None = getattr(route, "path", None)
    if isinstance(route, Mount) or (route is None and "app_root_path" in scope):
        template = ""  # what is mounted knows no routes; the mount stands in root_path
    return None if template is None else f"{scope.get('root_path', '').rstrip('/')}{template}"
