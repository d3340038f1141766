"""Every request as an operation: a pure ASGI middleware, which runs the application in its caller's task."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import anyio
from starlette.datastructures import MutableHeaders
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cancelable_core import CancelationReason, OperationCancelled
from cancelable_core.http_api import cancelled_response
from cancelable_core.servers import OPERATION_KEY, RequestOperation, WebApplication

from ._asking import PrincipalResolver
from ._translate import native_response, path_in_app, route_of

__all__ = ["INSTALLED_KEY", "CancelableMiddleware", "Installed"]

INSTALLED_KEY = "cancelable.installed"
"""Where dependencies find what the middleware was installed with."""


@dataclass(frozen=True, slots=True)
class Installed:
    """What dependencies need."""

    application: WebApplication
    resolver: PrincipalResolver


class CancelableMiddleware:
    """Opens an operation around every HTTP request but those to our own endpoints.

    A cancel interrupts the request where it waits. If nothing was sent yet, the client gets the answer that says why: the
    application's exception handler for `OperationCancelled` has the first word. A response under way is cut; only a
    ``BaseHTTPMiddleware`` (or ``@app.middleware("http")``) around us completes what it got of it, as of any stream that fails.

    The operation ends with the last byte of the response. What comes after it, such as background tasks, is not part of it.
    """

    # ASGI servers may call with keywords: the parameters' names are part of the protocol
    def __init__(self, app: ASGIApp, *, application: WebApplication, resolver: PrincipalResolver) -> None:
        self._app = app
        self._application = application
        self._installed = Installed(application, resolver)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[INSTALLED_KEY] = self._installed  # a mounted application's own, where it has one
        if scope["type"] != "http" or OPERATION_KEY in scope or self._application.serves(path_in_app(scope)):
            await self._app(scope, receive, send)
            return
        outer = scope.get("app")  # a mounted application puts itself there
        operation = self._application.new_request(
            scope["method"],
            lambda: route_of(scope),
            native=scope,
            outside_reason=CancelationReason.DISCONNECT,
        )
        scope[OPERATION_KEY] = operation
        response = _Response(send, operation, self._application.settings.response_header)
        try:
            async with operation:
                await self._run(scope, receive, response)
        except OperationCancelled as error:
            if error.operation_id != operation.id:
                raise
            if not response.has_started and not await _handled(error, outer, scope, receive, response.send):
                await native_response(cancelled_response(error, self._application.settings))(scope, receive, send)

    async def _run(self, scope: Scope, receive: Receive, response: _Response) -> None:
        try:
            await self._app(scope, receive, response.send)
        except ClientDisconnect:
            response.client_has_gone()
            raise
        if response.has_started and not response.is_complete:
            response.client_has_gone()  # Starlette leaves a stream without a word then


class _Response:
    """Passes the application's messages on, adds our headers to the first, and ends the operation after the last."""

    __slots__ = ("_operation", "_says_cancelled", "_send", "_which", "has_started", "is_complete")

    def __init__(self, send: Send, operation: RequestOperation, which: str) -> None:
        self._send = send
        self._operation = operation
        self._which = which
        self._says_cancelled = False
        self.has_started = False
        self.is_complete = False

    async def send(self, message: Message) -> None:
        is_start = message["type"] == "http.response.start"
        if is_start:
            message = self._start(message)
        self.is_complete = self.is_complete or _is_last(message)  # before it goes: from then on nobody leaves too early
        if self._says_cancelled:
            with anyio.CancelScope(shield=True):  # the answer to a cancel is not part of what was cancelled
                await self._send(message)
        else:
            try:
                await self._send(message)
            except BaseException:
                if is_start:
                    self.has_started = False  # interrupted before it went: there is an answer to give
                raise
        # a cancel that came before the last byte may still interrupt what is left: then the block's end decides
        if self.is_complete and (self._says_cancelled or not self._operation.token.is_cancelled):
            self._operation.end()

    def client_has_gone(self) -> None:
        """Nobody is there for the rest of the response."""
        self._operation.end(GeneratorExit())

    def _start(self, message: Message) -> Message:
        self.has_started = True
        handled = sys.exception()  # exception handlers answer while Starlette still handles what they were called for
        if handled is not None and not self._operation.is_over and self._operation.cancelation_in(handled):
            self._says_cancelled = True
            self._operation.failed_with(handled)
        self._operation.response_started()
        message = {**message, "headers": [*message.get("headers", ())]}  # ours, not the application's own object
        headers = MutableHeaders(scope=message)
        for name, value in self._operation.response_headers(self._which, message["status"], headers.keys()):
            headers[name] = value
        return message


def _is_last(message: Message) -> bool:
    """Whether a message ends the response's body (ASGI's HTTP specification, and its extensions that send files)."""
    kind = message["type"]
    if kind in ("http.response.body", "http.response.zerocopysend"):
        return not message.get("more_body", False)
    return bool(kind == "http.response.pathsend")


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
