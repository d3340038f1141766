"""The routes, as a router. It declares what OpenAPI shows; what a route answers, the core decides."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from fastapi import APIRouter, Request, Response, params
from pydantic import BaseModel
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.types import Lifespan

from cancelable_core.servers import lifespan_of

from ._documentation import (
    CancelableCancelAnswer,
    CancelableOperation,
    CancelableOperationList,
    CancelableRequested,
    CancelableStatistics,
    problems,
    success,
    takes,
)
from ._translate import endpoint_request, native_response

if TYPE_CHECKING:
    from .install import CancelableSuite

__all__ = ["router"]

_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]


class _Anything(PathConvertor):
    """What Starlette's own ``path`` does not match, too: line breaks."""

    regex = "(?s:.*)"


register_url_convertor("cancelable", _Anything())


class _Documented(NamedTuple):
    """A route as OpenAPI shows it; ``cancelable:`` and its name are for ``url_path_for``."""

    method: str
    path: str
    name: str
    summary: str
    status: int
    answers: type[BaseModel]
    refuses: tuple[int, ...]


_BODY_REFUSALS = (400, 403, 413, 415, 422)

_ROUTES = (
    _Documented("GET", "/", "operations", "List operations", 200, CancelableOperationList, (403, 422)),
    _Documented("GET", "/stats", "stats", "Operation statistics", 200, CancelableStatistics, (403, 422)),
    _Documented("POST", "/cancel-all", "cancel-all", "Cancel many operations", 202, CancelableRequested, _BODY_REFUSALS),
    _Documented("GET", "/{operation_id}", "operation", "One operation", 200, CancelableOperation, (404, 422)),
    _Documented(
        "POST",
        "/{operation_id}/cancel",
        "cancel",
        "Cancel an operation",
        202,
        CancelableCancelAnswer,
        (*_BODY_REFUSALS, 404, 409, 410),
    ),
)


def router(
    suite: CancelableSuite, *, dependencies: Sequence[params.Depends] = (), lifespan: Lifespan[Any] | None = None
) -> APIRouter:
    """The routes of one application, to be included under its prefix.

    Args:
        suite: What `prepare` made.
        dependencies: Asked before each of them, as by ``APIRouter``; those that raise guard the routes.
        lifespan: Merged into the application's by ``include_router``.
    """
    application, resolver = suite.parts.application, suite.parts.resolver

    @asynccontextmanager
    async def merged(app: Any) -> AsyncGenerator[Any]:
        async with lifespan_of(application):
            if lifespan is None:
                yield None
            else:
                async with lifespan(app) as state:
                    yield state

    router = APIRouter(tags=["operations"], dependencies=dependencies, lifespan=merged)

    def answer(template: str) -> Callable[[Request], Awaitable[Response]]:
        below = template.replace(":cancelable}", "}")

        async def endpoint(request: Request) -> Response:
            principal = await resolver.resolve(request)
            path = below.format(**request.path_params)
            return native_response(await application.asgi_api.arespond(await endpoint_request(request, path, principal)))

        return endpoint

    for route in _ROUTES:
        router.add_api_route(
            route.path,
            answer(route.path),
            methods=[route.method],
            name=f"cancelable:{route.name}",
            summary=route.summary,
            status_code=route.status,
            responses=_responses(route),
            response_class=Response,
            openapi_extra=takes(route.path),
        )
    # other methods, the list without its slash, and whatever else there may be: answered in our own words
    for path in ("", "/{path:cancelable}"):
        router.add_api_route(path, answer(path), methods=_METHODS, include_in_schema=False)
    return router


def _responses(route: _Documented) -> dict[int | str, dict[str, Any]]:
    responses: dict[int | str, dict[str, Any]] = {route.status: success(route.answers)}
    if route.answers is CancelableCancelAnswer:
        responses[200] = success(CancelableCancelAnswer, "It was waited for, and has ended")
    return responses | problems(route.refuses)
