"""Every request as an operation: a pure ASGI middleware, which runs the application in its caller's task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from cancelable_core import OperationCancelled
from cancelable_core.servers import OPERATION_KEY, RequestOperation, WebApplication, is_operation, run_asgi, view_options

from ._asking import PrincipalResolver
from ._translate import path_in_app, route_of

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

    A cancel interrupts the request where it waits. If nothing was sent yet, the client gets the answer that says why: the
    application's exception handler for `OperationCancelled` has the first word. A WebSocket is closed, with 1001 at shutdown
    and else with 1011. A response under way is cut; only a ``BaseHTTPMiddleware`` (or ``@app.middleware("http")``) around us
    completes what it got of it, as of any stream that fails.

    The operation ends with the last byte of the response. What comes after it, such as background tasks, is not part of it.
    """

    # ASGI servers may call with keywords: the parameters' names are part of the protocol
    def __init__(self, app: ASGIApp, *, application: WebApplication, resolver: PrincipalResolver) -> None:
        self._app = app
        self._application = application
        self._installed = Installed(application, resolver)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[INSTALLED_KEY] = self._installed  # a mounted application's own, where it has one
        if not is_operation(scope) or self._application.serves(path_in_app(scope)):
            await self._app(scope, receive, send)
            return
        outer = scope.get("app")  # a mounted application puts itself there
        scope = _RoutedScope(scope, self._installed.resolver)

        async def answer(error: OperationCancelled, send: Send) -> bool:
            return await _handled(error, outer, scope, receive, send)

        await run_asgi(
            self._app,
            scope,
            receive,
            send,
            self._application,
            route=lambda: route_of(scope),
            answer=answer,
            departures=(ClientDisconnect, WebSocketDisconnect),
        )


class _RoutedScope(dict[str, Any]):
    """A scope that hears which endpoint the router found, and gives the operation what that is marked with.

    Between a router and its endpoint there is no hook; but every router of Starlette and FastAPI writes what it found here, in
    the request's own task, right before the endpoint is called. What is written goes to the server's scope as well, for those
    around us who read it.
    """

    def __init__(self, scope: Scope, resolver: PrincipalResolver) -> None:
        super().__init__(scope)
        self._around = scope
        self._resolver = resolver
        self._finding_owner: object = None

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        self._around[key] = value

    def setdefault(self, key: str, default: Any = None) -> Any:
        if key not in self:
            self[key] = default
        return self[key]

    def update(self, *args: Any, **kwargs: Any) -> None:
        super().update(*args, **kwargs)
        self._around.update(*args, **kwargs)
        operation, options = self.get(OPERATION_KEY), view_options(self.get("endpoint"))
        if options is None or not isinstance(operation, RequestOperation):
            return
        operation.adopt(options)
        if options.owner and self._finding_owner is None:
            self._finding_owner = operation.beside(self._find_owner)

    async def _find_owner(self) -> None:
        operation: RequestOperation = self[OPERATION_KEY]
        operation.owner = (await self._resolver.resolve(HTTPConnection(self))).id


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
