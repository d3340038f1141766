"""A request's operation around an ASGI application (ASGI 3): it ends with the last message of the response.

The application runs in its caller's task. Parameters are named as the specification names them: daphne calls by keyword.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import anyio

from ..errors import OperationCancelled, QueueFull
from ..http_api import CLIENT_ID_HEADER, Settings, cancelled_response, queue_full_response, websocket_close_code
from ..operation import detached_context
from ..scopes import OpenScope
from ..wakeup import Port, running_port
from .application import WebApplication
from .asgi_client import AsgiClient, Message, Receive, Scope, Send, is_last_message
from .latent import REQUEST_KEY, LatentRequest, making, no_route
from .request_scope import CLIENT_KEY, RequestOperation

if TYPE_CHECKING:
    from ..http_api import EndpointResponse, Principal
    from ..jobs import JobRunner
    from ..registry import ThreadSafeRegistry
    from ..store import OperationStore

__all__ = [
    "AsgiApplication",
    "AsgiRequest",
    "CancelableAsgi",
    "close_code",
    "find_owner_soon",
    "is_operation",
    "leaves_cut_streams_open",
    "send_response",
    "watching_client",
]

logger = logging.getLogger("cancelable_core")

AsgiApplication = Callable[[Scope, Receive, Send], Awaitable[None]]


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
        request = _RoutedRequest(self._application, scope, receive, send)
        request.find_route = self._route
        await request.run(self._called)


_CLIENT_ID_NAME = CLIENT_ID_HEADER.lower().encode("ascii")


def _header(scope: Scope, name: bytes) -> str | None:
    """A header's value; of several there is none."""
    values = [value for each, value in scope["headers"] if each == name]
    return bytes(values[0]).decode("latin-1") if len(values) == 1 else None


def is_operation(scope: Scope) -> bool:
    """Whether a scope is a request or a WebSocket that no layer around has made an operation yet."""
    return scope["type"] in ("http", "websocket") and REQUEST_KEY not in scope


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

    Adapters derive from it and say what their framework knows.

    Args:
        web: Whose settings count, and where it is listed.
        scope: The server's; inside, it has the request under `REQUEST_KEY` and, as what tells of its client, `CLIENT_KEY`.
        receive: The server's.
        send: The server's.
    """

    departures: ClassVar[tuple[type[Exception], ...]] = ()
    """The exceptions by which the framework says that the client has gone."""

    __slots__ = (
        "_asker",
        "_client",
        "_client_id",
        "_is_sent",
        "_receive",
        "_says_cancelled",
        "_send",
        "has_started",
        "held",
        "is_complete",
        "is_websocket",
        "web",
    )

    def __init__(self, web: WebApplication, scope: Scope, receive: Receive, send: Send) -> None:
        self.web = web
        self.native = scope
        self._receive = receive
        self._send = send
        self._client: AsgiClient | None = None
        self._client_id: str | None = None
        self._asker: Principal | None = None
        self._is_sent = self._says_cancelled = False
        self.is_websocket: bool = scope["type"] == "websocket"
        self.has_started = self.is_complete = False
        self.held: list[Message] | None = None
        if CLIENT_KEY in scope and isinstance(scope[CLIENT_KEY], AsgiClient):
            self._client = scope[CLIENT_KEY]  # of `watching_client` around it

    # --- what a framework knows

    def route(self, scope: Scope) -> str | None:
        """The template of the route that was taken, by the scope; see `RequestOperation`."""
        return None

    async def who_asks(self, scope: Scope) -> Principal | None:
        """In whose namespace an id is that the client chose."""
        return None

    async def answer(self, error: OperationCancelled, scope: Scope) -> bool:
        """Send what the client is to hear of a cancel, where nothing was sent yet; False when that is left to us."""
        return False

    # --- the request

    async def run(self, application: AsgiApplication) -> None:
        """Call an application inside.

        Raises:
            OperationCancelled: One that is not this request's.
            Exception: What the application raised, as it raised it.
        """
        scope: Scope = self.native
        if self.web.settings.accept_operation_ids:  # headers are not even looked through where the answer is no
            self._client_id = self.web.client_id(_header(scope, _CLIENT_ID_NAME))
            self._asker = None if self._client_id is None else await self.who_asks(scope)
        scope[REQUEST_KEY] = scope[CLIENT_KEY] = self
        try:
            try:
                self.begin(self.web, at_once=self._client_id is not None, scope=OpenScope())
                await application(scope, self.receive, self.send)
                if self.held is not None:
                    await self.send_held()
                if self.has_started and not (self.is_complete or self.is_websocket):
                    self.end(GeneratorExit())  # Starlette leaves a stream without a word when its client has gone
            except BaseException as error:
                self._application_has_failed(error)
                if not self._leave(error):
                    raise
            else:
                self._leave(None)
        except OperationCancelled as error:
            if self.made is None or error.operation_id != self.made.id:
                raise
            await self._answer_cancel(error, scope)
        except QueueFull as error:
            if self.is_complete or (self.has_started and not self.is_websocket):
                raise
            if self.is_websocket:
                await self.close_websocket(close_code(error, scope))
            else:
                await send_response(queue_full_response(error), self._send)
        finally:
            if self._client is not None:
                self._client.close()

    async def _answer_cancel(self, error: OperationCancelled, scope: Scope) -> None:
        if self.is_websocket:
            await self.close_websocket(close_code(error, scope))
        elif not self.has_started:
            if not await self.answer(error, scope):
                await send_response(cancelled_response(error, self.web.settings), self._send)
        elif not (self.is_complete or self.client.has_gone) and leaves_cut_streams_open(scope):
            await self.finish()

    @property
    def client(self) -> AsgiClient:
        """Made for the first who reads, or wants to follow it. On the loop's own thread."""
        return self._client or self._take_the_client(self.port)

    def _take_the_client(self, port: Port | None) -> AsgiClient:
        with making():
            if self._client is None:
                client = AsgiClient(self._receive, is_websocket=self.is_websocket, port=port)
                receive = client.receive
                if self._client is None:  # a signal handler may be interrupted here, or have come in between, with another
                    self._receive, self._client = receive, client
                if self.is_complete:  # asked once it is there for `send`, which looks the other way round
                    self._client.sending_last()
                if self._is_sent:
                    self._client.sent_last()
            return self._client

    def _create(self, native: Scope) -> RequestOperation:
        return self.web.new_request(
            "WEBSOCKET" if self.is_websocket else native["method"],
            partial(self.route, native),
            native=native,
            client=self,
            client_id=self._client_id,
            asker=self._asker,
        )

    def _leave(self, error: BaseException | None) -> bool:
        """The application is through: leave the scope, and end; whether ``error`` ends here."""
        if error is None and self.made is None:
            if self.native is not None:
                self.end()  # first: whoever looks from now on finds nothing, and has no scope to cancel
            return self._leave_scope(None)
        operation = self.make()
        try:
            return self._leave_scope(error) if operation is None else operation.end_with_scope(error)
        finally:
            self.end()
            self.cancel_scope = None

    def start(self, client_has_gone: Callable[[], object]) -> None:
        """As a `ClientWatch`."""
        port = self.port
        if port is not None:  # else the application has returned
            self._take_the_client(port).start(client_has_gone)

    def stop(self) -> None:
        """As a `ClientWatch`."""
        if self._client is not None:
            self._client.stop()

    async def receive(self) -> Message:
        """The next message for the application."""
        if self._client is None:
            self._take_the_client(self.port)
        return await self._receive()

    def _application_has_failed(self, error: BaseException) -> None:
        """It raised: a response under way ends here, if its client has gone."""
        if isinstance(error, self.departures):
            self.end(GeneratorExit())
        elif isinstance(error, OperationCancelled) and self.held is not None:
            self.held, self.has_started = None, False  # the answer was its last resort, and there is a better one to give

    async def send(self, message: Message) -> None:
        """Send one message of the application's."""
        starts = not self.has_started and message["type"] in _STARTS
        if starts:
            self.has_started = True
            if self.made is not None:
                message = self._start(self.made, message)
        if self.held is not None:
            self.held.append(message)
            return
        is_last = not starts and is_last_message(message)
        if is_last:
            self.is_complete = True  # before it goes: from then on nobody leaves too early
            if self._client is not None:
                self._client.sending_last()
        try:
            if self._says_cancelled:
                with anyio.CancelScope(shield=True):  # the answer to a cancel is not part of what was cancelled
                    await self._send(message)
            else:
                await self._send(message)
        except BaseException:
            if starts:
                self.has_started = False  # interrupted before it went: there is an answer to give
            raise
        finally:
            if is_last:
                self._is_sent = True
                if self._client is not None:
                    self._client.sent_last()
        # a cancel that came before the last byte may still interrupt what is left: then the block's end decides
        operation = self.made
        if self.is_complete and (self._says_cancelled or operation is None or not operation.token.is_cancelled):
            self.end()

    async def send_held(self) -> None:
        """The application returned, so that it meant what it said."""
        held, self.held = self.held, None
        for message in held or ():
            await self.send(message)

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

    def _start(self, operation: RequestOperation, message: Message) -> Message:
        """The start of the response of a request that somebody looked at."""
        handled = sys.exception()  # exception handlers answer while the framework still handles what they were called for
        if handled is not None and not operation.is_over and operation.cancelation_in(handled):
            self._says_cancelled = True
            operation.failed_with(handled)
            if message.get("status", 0) >= HTTPStatus.INTERNAL_SERVER_ERROR:
                self.held = []  # a mounted application of Starlette's says 500 to what it raises again right after
        operation.response_started()
        headers = [*message.get("headers", ())]  # which may be read only once
        present = ((bytes(name).decode("latin-1"), bytes(value).decode("latin-1")) for name, value in headers)
        which = self.web.settings.response_header
        added = operation.response_headers(which, message.get("status", 101), present)
        headers += ((name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in added)
        return {**message, "headers": headers}


class _RoutedRequest(AsgiRequest):
    """A request to an application of which no more is known than who finds its routes."""

    __slots__ = ("find_route",)

    find_route: Callable[[Scope], str | None]

    def route(self, scope: Scope) -> str | None:
        return self.find_route(scope)


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
