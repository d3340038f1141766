"""Every request as an operation: a pure ASGI middleware, which runs the application in its caller's task."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from cancelable_core import OperationCancelled
from cancelable_core.http_api import Principal
from cancelable_core.servers import (
    REQUEST_KEY,
    AsgiRequest,
    WebApplication,
    any_view_is_marked,
    find_owner_soon,
    is_operation,
    view_options,
)

from ._asking import PrincipalResolver
from ._routing import RoutedScope
from ._translate import path_in_app, route_of

if TYPE_CHECKING:
    from .install import CancelableSuite

__all__ = ["INSTALLED_KEY", "CancelableMiddleware", "Installed"]

INSTALLED_KEY = "cancelable.installed"
"""Where dependencies find what the middleware was installed with."""


@dataclass(frozen=True, slots=True)
class Installed:
    """What dependencies need."""

    application: WebApplication
    resolver: PrincipalResolver


class CancelableMiddleware:
    """Opens an operation around every HTTP request and every WebSocket, but those to our own endpoints.

    Args:
        app: What lies inside. Nothing but the application's own router should: others add their headers to our answers then.
        suite: What `prepare` made.

    A cancel interrupts the request where it waits. If nothing was sent yet, the client gets the answer that says why: the
    application's exception handler for `OperationCancelled` has the first word. A WebSocket is closed, with 1001 at shutdown
    and else with 1011. A response under way is cut; only a ``BaseHTTPMiddleware`` (or ``@app.middleware("http")``) around us
    completes what it got of it, as of any stream that fails.

    The operation ends with the last byte of the response. What comes after it, such as background tasks, is not part of it.
    """

    def __init__(self, app: ASGIApp, *, suite: CancelableSuite) -> None:
        self._app = app
        self._installed = suite.parts
        self._application = suite.parts.application
        self._prefix = self._application.settings.url_prefix

    # ASGI servers may call with keywords: the parameters' names are part of the protocol
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[INSTALLED_KEY] = self._installed  # a mounted application's own, where it has one
        # nearly every path is told apart by its text alone
        is_ours = self._prefix in scope.get("path", "") and self._application.serves(path_in_app(scope))
        if is_ours or not is_operation(scope):
            await self._app(scope, receive, send)
            return
        request = FastapiRequest(self._application, scope, receive, send)
        request.outer = scope.get("app")
        request.resolver = self._installed.resolver
        await request.run(self._find_marks if any_view_is_marked() else self._app)

    def _find_marks(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        request: FastapiRequest = scope[REQUEST_KEY]
        request.finding = []
        return self._app(RoutedScope(scope, partial(request.found, scope)), receive, send)


class FastapiRequest(AsgiRequest):
    """A request, or a WebSocket, to a FastAPI or Starlette application."""

    departures = (ClientDisconnect, WebSocketDisconnect)

    __slots__ = ("finding", "outer", "resolver")

    finding: list[object]
    """Who finds out its owner."""

    outer: Any
    """The application that the middleware is installed in: a mounted one puts itself in the scope."""

    resolver: PrincipalResolver

    def route(self, scope: Scope) -> str | None:
        return route_of(scope)

    async def who_asks(self, scope: Scope) -> Principal:
        return await self.resolver.resolve(HTTPConnection(scope))

    async def answer(self, error: OperationCancelled, scope: Scope) -> bool:
        return await _handled(error, self.outer, scope, self.receive, self.send)

    def found(self, scope: Scope, endpoint: object) -> None:
        """A router found this endpoint."""
        options = view_options(endpoint)
        operation = None if options is None else self.make()
        if options is None or operation is None:
            return
        operation.adopt(options)
        if options.owner:
            self.finding.append(find_owner_soon(operation, partial(self._owner, scope)))

    async def _owner(self, scope: Scope) -> str | None:
        return (await self.who_asks(scope)).id


async def _handled(error: OperationCancelled, outer: Any, scope: Scope, receive: Receive, send: Send) -> bool:
    """Let the application's own exception handlers answer, the mounted one's first; whether there was one.

    Starlette's own layer of them lies inside the request's scope: it never sees a cancel that interrupted an ``await``, and
    what it does about others is interrupted itself.
    """

    async def fail(scope: Scope, receive: Receive, send: Send) -> None:
        raise error

    for app in dict.fromkeys((scope.get("app"), outer)):
        handlers = getattr(app, "exception_handlers", {})
        # Starlette keeps these two for errors that nobody expected, outside of all middleware
        expected = {key: handler for key, handler in handlers.items() if key not in (Exception, 500)}
        try:
            await ExceptionMiddleware(fail, handlers=expected)(scope, receive, send)
        except OperationCancelled as unhandled:
            if unhandled is not error:
                raise
        else:
            return True
    return False
