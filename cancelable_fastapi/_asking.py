"""Who is asking: the ``principal`` setting is a dependency, resolved by FastAPI itself."""

from __future__ import annotations

import sys
from typing import Annotated, Any

from fastapi import Depends, HTTPException, Request, Response
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from fastapi.routing import APIRoute
from starlette.applications import Starlette
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message

from cancelable_core.http_api import NOBODY_STATUSES, Principal, Settings, as_principal

__all__ = ["PrincipalResolver"]


class PrincipalResolver:
    """Resolves the dependency for one request, where and only where somebody needs to know.

    As a plain ``Depends`` its refusals could not be caught. So it is the only dependency of a route that no client reaches:
    calling that route with a request's scope resolves it with all that it depends on.
    """

    def __init__(self, settings: Settings, app: Starlette | None) -> None:
        self._staff = settings.staff
        self._ask: ASGIApp | None = None
        if settings.principal is not None:
            # the application's dependency_overrides apply here too
            route = APIRoute(
                "/",
                _endpoint_for(settings.principal),
                dependency_overrides_provider=app if hasattr(app, "dependency_overrides") else None,
            )
            self._ask = AsyncExitStackMiddleware(route.app)  # what dependencies leave open is closed with the answer

    async def resolve(self, connection: HTTPConnection) -> Principal:
        """Who sends this request, or opened this WebSocket; nobody where the dependency refuses with 401 or 403."""
        if self._ask is None:
            return Principal()
        refusal: list[tuple[int, BaseException | None]] = []

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                # the application's handlers answer while what they answer is still being handled
                refusal.append((message["status"], sys.exception()))

        # a WebSocket begins as a GET (RFC 6455 §4.1)
        scope = {"method": "GET", **connection.scope, "type": "http", _ANSWER_KEY: _NO_ANSWER}
        try:
            await self._ask(scope, _no_body, send)
        except StarletteHTTPException as error:  # asked outside of the layer that answers for these
            refusal.append((error.status_code, error))
        if scope[_ANSWER_KEY] is not _NO_ANSWER:
            return as_principal(scope[_ANSWER_KEY], self._staff)
        for status, cause in refusal:
            if status not in NOBODY_STATUSES:
                raise cause or HTTPException(status)
        return Principal()


_NO_ANSWER = object()
_ANSWER_KEY = "cancelable.principal"


def _endpoint_for(dependency: Any) -> Any:
    async def endpoint(request: Request, value: Annotated[Any, Depends(dependency)]) -> Response:
        request.scope[_ANSWER_KEY] = value
        return Response()

    # its annotations are looked up by FastAPI, which cannot see this function's variables
    endpoint.__annotations__ = {"request": Request, "value": Annotated[Any, Depends(dependency)], "return": Response}
    return endpoint


async def _no_body() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}
