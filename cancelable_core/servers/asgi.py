"""A request's operation around an ASGI application (ASGI 3): it ends with the last message of the response.

The application runs in its caller's task. Parameters are named as the specification names them: daphne calls by keyword.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from http import HTTPStatus
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

import anyio

from ..errors import OperationCancelled, QueueFull
from ..http_api import CLIENT_ID_HEADER, Settings, cancelled_response, queue_full_response, websocket_close_code
from ..operation import detached_context
from ..wakeup import new_cancel_scope, running_port
from .application import WebApplication
from .asgi_client import AsgiClient, Message, Receive, Scope, Send, is_last_message
from .latent import REQUEST_KEY, LatentRequest, no_route
from .request_scope import CLIENT_KEY, RequestOperation

if TYPE_CHECKING:
    from ..http_api import EndpointResponse, Principal
    from ..jobs import JobRunner
    from ..registry import ThreadSafeRegistry
    from ..store import OperationStore
    from ..wakeup import CancelScope

__all__ = [
    "AsgiApplication",
    "AsgiRequest",
    "CancelableAsgi",
    "close_code",
    "find_owner_soon",
    "is_operation",
    "leaves_cut_streams_open",
    "run_asgi",
    "send_response",
    "watching_client",
]

logger = logging.getLogger("cancelable_core")

AsgiApplication = Callable[[Scope, Receive, Send], Awaitable[None]]

Answer = Callable[[OperationCancelled, Send], Awaitable[bool]]
"""Sends what the client is to hear of a cancel, where nothing was sent yet; False when that is left to us."""


class CancelableAsgi:
    """Any ASGI application, with every request and every WebSocket as an operation that follows its client.

    Args:
        application: What to call.
        route: Says the template of the route that a request took, by its scope, for the operation's name; asked late.
        registry: Where the operations are listed; by default the process's store.
        request_timeout_seconds: How long a request may take until its response starts.
        cancel_on_disconnect: As the setting of this name, but ``all`` by default: here no route can ask for it.
        response_header: As the setting of this name.
        cancelled_status: As the setting of this name.

    A cancel interrupts the application where it waits. If nothing was sent yet, the client is told why; a response under way is
    cut, a WebSocket is closed. The application finds its operation by ``current_operation()``. Its lifespan passes through.

    Attributes:
        registry: The operations.
        jobs: Runs jobs, which outlive the request that submits them.
    """

    def __init__(
        self,
        application: AsgiApplication,
        *,
        route: Callable[[Scope], str | None] | None = None,
        registry: ThreadSafeRegistry | OperationStore | None = None,
        request_timeout_seconds: float | None = None,
        cancel_on_disconnect: Literal["scoped", "all", "never"] = "all",
        response_header: Literal["scoped", "all", "never"] = "scoped",
        cancelled_status: int = 499,
    ) -> None:
        self._called = application
        self._route = route or no_route
        self._application = WebApplication(
            Settings(
                registry=registry,
                request_timeout_seconds=request_timeout_seconds,
                cancel_on_disconnect=cancel_on_disconnect,
                response_header=response_header,
                cancelled_status=cancelled_status,
            )
        )
        self.registry: ThreadSafeRegistry = self._application.registry
        self.jobs: JobRunner = self._application.jobs

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not is_operation(scope):
            await self._called(scope, receive, send)
            return
        await run_asgi(self._called, scope, receive, send, self._application, route=self._route)


_CLIENT_ID_NAME = CLIENT_ID_HEADER.lower().encode("ascii")


def _header(scope: Scope, name: bytes) -> str | None:
    """A header's value; of several there is none."""
    values = [value for each, value in scope["headers"] if each == name]
    return bytes(values[0]).decode("latin-1") if len(values) == 1 else None


def is_operation(scope: Scope) -> bool:
    """Whether a scope is a request or a WebSocket that no layer around has made an operation yet."""
    return scope["type"] in ("http", "websocket") and REQUEST_KEY not in scope


async def run_asgi(
    application: AsgiApplication,
    scope: Scope,
    receive: Receive,
    send: Send,
    web: WebApplication,
    *,
    route: Callable[[Scope], str | None],
    answer: Answer | None = None,
    departures: tuple[type[Exception], ...] = (),
    asker: Callable[[], Awaitable[Principal]] | None = None,
) -> None:
    """Call an application inside a request's operation, which is found in the scope under `REQUEST_KEY`.

    Args:
        web: Whose settings count, and where the operation is listed.
        route: Says the template of the route that was taken, by the scope; see `RequestOperation`.
        answer: Answers a cancel in the framework's own way.
        departures: The exceptions by which the framework says that the client has gone.
        asker: Finds out who is asking, where that must be known: in whose namespace an id is that the client chose.

    Raises:
        OperationCancelled: One that is not this request's.
        Exception: What the application raised, as it raised it.
    """
    is_websocket = scope["type"] == "websocket"
    # headers are not even looked through where the answer is no
    client_id = web.client_id(_header(scope, _CLIENT_ID_NAME)) if web.settings.accept_operation_ids else None
    chooser = await asker() if client_id is not None and asker is not None else None
    client = scope.get(CLIENT_KEY)
    if not isinstance(client, AsgiClient):
        client = scope[CLIENT_KEY] = AsgiClient(receive, is_websocket=is_websocket, port=web.newest_port)
        web.newest_port = client.port
        receive = client.receive
    request = scope[REQUEST_KEY] = AsgiRequest(web, scope, send, client, route, client_id, chooser, departures)
    try:
        async with request:
            try:
                await application(scope, receive, request.send)
                if request.held is not None:
                    await request.send_held()
            except BaseException as error:
                request.application_has_ended(error)
                raise
            request.application_has_ended(None)
    except OperationCancelled as error:
        if request.made is None or error.operation_id != request.made.id:
            raise
        if is_websocket:
            await request.close_websocket(close_code(error, scope))
        elif not request.has_started:
            if answer is None or not await answer(error, request.send):
                await send_response(cancelled_response(error, web.settings), send)
        elif not (request.is_complete or client.has_gone) and leaves_cut_streams_open(scope):
            await request.finish()
    except QueueFull as error:
        if request.is_complete or (request.has_started and not is_websocket):
            raise
        if is_websocket:
            await request.close_websocket(close_code(error, scope))
        else:
            await send_response(queue_full_response(error), send)
    finally:
        client.close()


def find_owner_soon(operation: RequestOperation, find_owner: Callable[[], Awaitable[str | None]]) -> object:
    """Give a request its owner as soon as the loop has found him out, while its endpoint runs. Keep what is returned till then.

    For frameworks that find a route in plain code, where nothing can be awaited.
    """
    port = running_port()
    assert port is not None

    async def find() -> None:
        try:
            operation.owner = await find_owner()
        except Exception:  # a refusal is no error; this is, and nobody is above who could answer it
            logger.exception("the owner of %a (%s) could not be found out: it has none", operation.name, operation.id)

    return port.spawn(find, detached_context(), ended=lambda: None)


def leaves_cut_streams_open(scope: Mapping[str, Any]) -> bool:
    """Whether the server leaves its client waiting when an application ends in the middle of a response, however it ends.

    daphne does. An error in the middle of a response would keep it from looking after any other application's end (4.2).
    """
    # it names no version of the specification, as test clients do not either
    return "daphne.server" in sys.modules and "spec_version" not in scope.get("asgi", {})


def close_code(error: OperationCancelled | QueueFull, scope: Mapping[str, Any]) -> int:
    """`websocket_close_code`, as far as the server lets applications use it.

    daphne does not (4.2): it takes 1000, and what RFC 6455 §7.4.2 leaves to libraries and applications, 3000 to 4999.
    """
    code = websocket_close_code(error)
    return code + 3000 if leaves_cut_streams_open(scope) else code


async def send_response(response: EndpointResponse, send: Send) -> None:
    """Send one of our own responses as it stands."""
    headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in response.headers]
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body})


_STARTS = frozenset({"http.response.start", "websocket.accept", "websocket.http.response.start"})


class AsgiRequest(LatentRequest):
    """A request, or a WebSocket, and its response: passes the application's messages on, and ends with the last.

    As an ``async with`` block it is the request's operation, whose cancel interrupts what is inside.

    Args:
        web: Whose settings count, and where it is listed.
        scope: The server's.
        send: The server's.
        client: Who is to hear of the last message.
        route: Says the template of the route that was taken, by the scope; see `RequestOperation`.
        client_id: The id that its client chose.
        asker: Who chose it.
        departures: The exceptions by which the framework says that the client has gone.
    """

    __slots__ = (
        "_asker",
        "_client_id",
        "_departures",
        "_native_scope",
        "_route",
        "_says_cancelled",
        "_send",
        "_web",
        "client",
        "has_started",
        "held",
        "is_complete",
    )

    def __init__(
        self,
        web: WebApplication,
        scope: Scope,
        send: Send,
        client: AsgiClient,
        route: Callable[[Scope], str | None],
        client_id: str | None,
        asker: Principal | None,
        departures: tuple[type[Exception], ...],
    ) -> None:
        self.native = scope
        self.client = client
        self._departures = departures
        self._web = web
        self._send = send
        self._route = route
        self._client_id = client_id
        self._asker = asker
        self._native_scope: CancelScope
        self._says_cancelled = False
        self.held: list[Message] | None = None
        self.has_started = False
        self.is_complete = False

    def _create(self, native: Scope) -> RequestOperation:
        operation = self._web.new_request(
            "WEBSOCKET" if native["type"] == "websocket" else native["method"],
            partial(self._route, native),
            native=native,
            client=self.client,
            client_id=self._client_id,
            asker=self._asker,
        )
        operation.interrupt_in(self._native_scope, self.client.port)
        return operation

    async def __aenter__(self) -> Self:
        port = self.client.port
        native_scope = self._native_scope = new_cancel_scope(port)  # no token cancels it before somebody looks
        native_scope.__enter__()
        try:
            self.begin(self._web, at_once=self._client_id is not None, port=port)
        except BaseException as error:
            native_scope.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if exc is None and self.made is None:
            self.end()  # first: whoever looks from now on finds nothing, and has no scope to cancel
            self._native_scope.__exit__(None, None, None)
            return False
        operation = self.make()
        try:
            if operation is None:
                self._native_scope.__exit__(exc_type, exc, traceback)
                return False
            return await operation.__aexit__(exc_type, exc, traceback)
        finally:
            self.end()

    def application_has_ended(self, error: BaseException | None) -> None:
        """It returned, or raised: a response under way ends here."""
        if error is None:
            if self.has_started and not (self.is_complete or self.client.is_websocket):
                self._client_has_gone()  # Starlette leaves a stream without a word then
        elif isinstance(error, self._departures):
            self._client_has_gone()
        elif isinstance(error, OperationCancelled) and self.held is not None:
            self.held, self.has_started = None, False  # the answer was its last resort, and there is a better one to give

    def _client_has_gone(self) -> None:
        """Nobody is there for the rest of the response."""
        self.end(GeneratorExit())

    async def send(self, message: Message) -> None:
        """Send one message of the application's."""
        is_start = message["type"] in _STARTS
        if is_start:
            message = self._start(message)
        if self.held is not None:
            self.held.append(message)
        else:
            await self._pass_on(message, is_start=is_start)

    async def send_held(self) -> None:
        """The application returned, so that it meant what it said."""
        held, self.held = self.held, None
        for number, message in enumerate(held or ()):
            await self._pass_on(message, is_start=number == 0)

    async def _pass_on(self, message: Message, *, is_start: bool) -> None:
        is_last = not is_start and is_last_message(message)
        if is_last:
            self.is_complete = True  # before it goes: from then on nobody leaves too early
            self.client.sending_last()
        try:
            if self._says_cancelled:
                with anyio.CancelScope(shield=True):  # the answer to a cancel is not part of what was cancelled
                    await self._send(message)
            else:
                await self._send(message)
        except BaseException:
            if is_start:
                self.has_started = False  # interrupted before it went: there is an answer to give
            raise
        finally:
            if is_last:
                self.client.sent_last()
        # a cancel that came before the last byte may still interrupt what is left: then the block's end decides
        operation = self.made
        if self.is_complete and (self._says_cancelled or operation is None or not operation.token.is_cancelled):
            self.end()

    async def finish(self) -> None:
        """End a response that was cut, where the client would wait for the rest for ever."""
        with anyio.CancelScope(shield=True):
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def close_websocket(self, code: int) -> None:
        """Close it from our side, unless it is closed."""
        if not (self.is_complete or self.client.has_gone):
            with anyio.CancelScope(shield=True):
                await self.client.stop_reading()  # granian closes nothing while somebody reads
                await self._send({"type": "websocket.close", "code": code})

    def _start(self, message: Message) -> Message:
        self.has_started = True
        operation = self.made
        if operation is None:
            return message
        handled = sys.exception()  # exception handlers answer while the framework still handles what they were called for
        if handled is not None and not operation.is_over and operation.cancelation_in(handled):
            self._says_cancelled = True
            operation.failed_with(handled)
            if message.get("status", 0) >= HTTPStatus.INTERNAL_SERVER_ERROR:
                self.held = []  # a mounted application of Starlette's says 500 to what it raises again right after
        operation.response_started()
        headers = [*message.get("headers", ())]  # which may be read only once
        present = ((bytes(name).decode("latin-1"), bytes(value).decode("latin-1")) for name, value in headers)
        which = self._web.settings.response_header
        added = operation.response_headers(which, message.get("status", 101), present)
        headers += ((name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in added)
        return {**message, "headers": headers}


def watching_client(application: AsgiApplication) -> AsgiApplication:
    """An application whose requests leave their `ClientWatch` in the scope, under `CLIENT_KEY`, for what runs inside."""

    async def watched(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or CLIENT_KEY in scope:
            await application(scope, receive, send)
            return
        client = scope[CLIENT_KEY] = AsgiClient(receive, is_websocket=scope["type"] == "websocket")

        async def send_and_tell(message: Message) -> None:
            is_last = is_last_message(message)
            if is_last:
                client.sending_last()
            try:
                await send(message)
            finally:
                if is_last:
                    client.sent_last()

        try:
            await application(scope, client.receive, send_and_tell)
        finally:
            client.close()

    return watched
