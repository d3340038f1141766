"""A web request as an operation: named by its route, ended when its last byte was sent, in whichever thread that happens."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

from .. import ending
from ..errors import DuplicateOperation, OperationCancelled
from ..identifiers import SecretId, new_operation_id
from ..models import CancelationReason, OperationKind, OperationStatus
from ..operation import Cancelable, thread_variable
from ..scopes import TokenScope
from ..store import OperationStore
from ..timer_thread import shared_timer
from ..verdicts import Verdict
from ..wakeup import Port, running_port
from .view_options import AsApp, ViewOptions

if TYPE_CHECKING:
    from ..wakeup import CancelScope

__all__ = ["CLIENT_KEY", "ClientWatch", "RequestOperation", "current_request"]

logger = logging.getLogger("cancelable_core")

R = TypeVar("R")

CLIENT_KEY = "cancelable.client"
"""Where the `ClientWatch` of a request stands in the ASGI scope, for what runs inside: a WSGI application, for instance."""

_KEEPS_IT_PRIVATE = ("private", "no-store", "no-cache")
"""What a response's ``Cache-Control`` must have (RFC 9111 §5.2.2), if it has one, for the response to name its operation."""


class ClientWatch(Protocol):
    """What a server can tell about the client of one request: that it has gone, before its response was complete.

    Concurrency:
        Both methods: any thread, any number of times. Neither blocks for longer than a lock takes.
    """

    def start(self, client_has_gone: Callable[[], object]) -> None:
        """Begin to watch, and call ``client_has_gone()`` from any thread when it has; nothing once it was stopped."""
        ...

    def stop(self) -> None:
        """The response is complete, or nobody wants to know any more: nothing is called from now on.

        A call that has begun is not waited for.
        """
        ...


class Exchange(Protocol):
    """A response on its way."""

    @property
    def is_complete(self) -> bool:
        """Whether the client may have all of it, and leave."""
        ...


class RequestOperation(Cancelable):
    """The operation that a request is.

    Args:
        method: The request's method.
        route: Says the template of the route that was taken, with its mount prefix, or None. Asked late, since routers find
            out late; the path itself never becomes part of a name.
        store: Where it is listed.
        operation_id: The id that its client chose, in its canonical form; one that is taken gives way to a generated one.
        timeout_seconds: The application's limit for the time until the response starts.
        outside_reason: What it means when the server, or whoever called the application, cancels around it.
        client: Tells when the client has gone, where the server can tell.
        cancel_on_disconnect: The application's setting: ``scoped`` requests end with their client once their route made use of
            its operation (`note_use`), ``all`` from the start, ``never`` ones run on. A route's own option goes first.
        native: The framework's request, for those who find the operation and want it.

    Concurrency:
        Frameworks enter and leave requests in different tasks and threads: `begin` and `end` may be called from any. Where one
        task does both, ``async with`` works as for every operation.
    """

    kind = OperationKind.REQUEST
    may_get_deadline = True

    __slots__ = (
        "_client",
        "_ends",
        "_error",
        "_follows_client",
        "_is_cut_off",
        "_limit_is_the_routes",
        "_method",
        "_outside",
        "_response_is_complete",
        "_route",
        "exchange",
        "is_scoped",
        "native",
    )

    def __init__(
        self,
        method: str,
        route: Callable[[], str | None],
        *,
        store: OperationStore,
        operation_id: SecretId | None = None,
        timeout_seconds: float | None = None,
        outside_reason: CancelationReason = CancelationReason.PARENT,
        client: ClientWatch | None = None,
        cancel_on_disconnect: Literal["scoped", "all", "never"] = "scoped",
        native: object = None,
    ) -> None:
        if operation_id is not None and store.finished(operation_id) is not None:
            operation_id = None  # a cancel that was answered for it must not seem to be this one's
        super().__init__(operation_id=operation_id, owner=None, parent=None, timeout=timeout_seconds, registry=store)
        self._method = method
        self._route: Callable[[], str | None] | None = route
        self._outside = outside_reason
        self._client = client
        self._follows_client = cancel_on_disconnect
        self._error: BaseException | None = None
        self._ends: list[object] = []
        self._is_cut_off = False
        self._limit_is_the_routes = False
        self._response_is_complete = False
        self.native = native
        self.exchange: Exchange | None = None
        """Asked, where there is one, before its client is followed."""
        self.is_scoped = False
        """Whether the route made use of it; see `note_use`."""

    @property
    def name(self) -> str | None:
        """Method and route template."""
        route = self._route  # read once: another thread may be ending the request
        return self._name if route is None else f"{self._method} {route() or '(no route)'}"

    def begin(self, port: Port | None = None) -> None:
        """Open it here; whoever runs in this context from now on runs inside it.

        Args:
            port: Of the loop on which it begins.
        """
        self._open(port)

    def has_begun(self, at: float) -> None:
        """It was begun at that time, and only the operation was wanting."""
        self._entered, self._created, self._started = True, at, at

    def appear(self) -> None:
        """Be listed, after `has_begun`. Once more does no harm."""
        self._store.register(self, OperationStatus.RUNNING)
        self._tell_store_of_cancel()

    def interrupt_in(self, scope: CancelScope, port: Port) -> None:
        """Have its cancel interrupt what runs in this scope, until `leave_scope` or `end_with_scope`."""
        self._scope = TokenScope.around(scope, self.token, port)

    def leave_scope(self, error: BaseException | None) -> bool:
        """Leave the scope of `interrupt_in`, by an error or without; whether that was its cancel."""
        scope, self._scope = self._scope, None
        return scope is not None and scope.__exit__(type(error) if error else None, error, None)

    def end_with_scope(self, error: BaseException | None) -> bool:
        """Leave the scope of `interrupt_in`, and end, as ``async with`` does; whether ``error`` ends here.

        Raises:
            OperationCancelled: The request was cancelled.
        """
        return self._leave_scope(type(error) if error else None, error, None)

    async def run(self, call: Callable[[], Awaitable[R]]) -> R:
        """Await ``call()`` so that a cancel interrupts it wherever it waits.

        Raises:
            OperationCancelled: The request was cancelled.
        """
        mark = thread_variable.set(self)  # threads that the framework starts see it also once it has left them behind
        try:
            with TokenScope(self.token):
                return await call()
            raise self.error()
        finally:
            thread_variable.reset(mark)

    def cancelation_in(self, error: BaseException) -> OperationCancelled | None:
        """This request's own cancel, if that is what ``error`` brings out of a view; else None."""
        if not isinstance(error, OperationCancelled) or not self.token.is_cancelled or not self._is_lineage_of(error):
            return None
        return error if error.operation_id == self.id else self.error()

    def failed_with(self, error: BaseException) -> None:
        """Remember what ended the view, where the framework turns errors into responses before `end` is called.

        Its own cancel stands: what a thread that was left behind brings afterwards is nobody's answer any more.
        """
        if self._error is None or self.cancelation_in(self._error) is None:
            self._error = error

    def adopt(self, options: ViewOptions) -> None:
        """The route was found, and this is what it asks for. Called before its view runs, in the same thread or task."""
        if not isinstance(options.cancel_on_disconnect, AsApp):
            self._follows_client = "scoped" if options.cancel_on_disconnect else "never"
            if self._client is not None and not options.cancel_on_disconnect:
                self._client.stop()
        self.note_use()
        if options.name is not None:
            self._name, self._route = options.name, None
        if not isinstance(options.timeout_seconds, AsApp):
            self._lift_deadline()
            self._limit_is_the_routes = True
            if options.timeout_seconds is not None:
                self._start_deadline(options.timeout_seconds, running_port())

    def response_started(self) -> None:
        """The application's time limit covers what came before, and the stream may take its time; a route's own covers both."""
        if not self._limit_is_the_routes:
            self._lift_deadline()

    def response_completed(self) -> None:
        """The last byte is on its way: whatever the client does from now on, it does not leave a request that works."""
        self._response_is_complete = True
        if self._client is not None:
            self._client.stop()

    def check_stream(self) -> None:
        """Raise between two chunks of a response if the request was cancelled, unless the response is what says so."""
        if self._error is None:
            self.check()

    def end(self, error: BaseException | None = None) -> None:
        """The last byte was sent, the stream was closed, or ``error`` ended it all. Any thread; the first call counts."""
        if self._closed or self._started is None:
            return
        claim = object()
        self._ends.append(claim)
        if self._ends[0] is not claim:
            return
        error = error or self._error or (GeneratorExit() if self._is_cut_off else None)
        if error is None:
            self._settle(OperationStatus.COMPLETED)
        elif self.cancelation_in(error):
            self._settle(self._cancelled_status())
        else:
            self._settle(self._verdict_on(error))

    def iterate_body(
        self, chunks: Iterable[bytes], length: float = math.inf, *, ends_in_order: bool = False
    ) -> Iterator[bytes]:
        """A response's stream that ends when the request is cancelled, between two chunks; and the request with it.

        Args:
            length: After how many bytes the client has it all, where its headers say so.
            ends_in_order: Stop, rather than raise, when it is cut; for servers that do not break off what raises.
        """
        sent = 0
        try:
            for chunk in self.iterate(chunks):
                sent += len(chunk)
                if sent >= length:
                    self.response_completed()
                yield chunk
            self.response_completed()
        except BaseException as error:
            self.end(error)
            if not (ends_in_order and self.cancelation_in(error)):
                raise

    async def stream_body(self, chunks: AsyncIterable[R], *, ends_in_order: bool = False) -> AsyncIterator[R]:
        """The same for an async stream, which is interrupted wherever it waits.

        Nobody has to close it for the request to end rightly: `end`, between its first and its last chunk, means that the
        client has gone.
        """
        self._is_cut_off = True
        try:
            async with self.stream(chunks) as items:
                async for chunk in items:
                    yield chunk
            self._is_cut_off = False
        except BaseException as error:
            self.end(error)
            if not (ends_in_order and self.cancelation_in(error)):
                raise

    def note_use(self) -> None:
        """The route made use of its operation: opened one inside, asked for it, or is marked. Any thread."""
        self.is_scoped = True
        if self._follows_client == "scoped":
            self._watch_client()

    def follow(self, client: ClientWatch) -> None:
        """Have a client watched that was not given at the beginning, if the request follows its client at all."""
        self._client = client
        if self._follows_client == "all" or (self._follows_client == "scoped" and self.is_scoped):
            self._watch_client()

    def _note_child(self) -> None:
        self.note_use()

    def _open(self, port: Port | None) -> None:
        try:
            super()._open(port)
        except DuplicateOperation:  # nothing was changed
            self.id, self._entered = new_operation_id(), False
            super()._open(port)
        if self._follows_client == "all":
            self._watch_client()

    def _watch_client(self) -> None:
        client, exchange = self._client, self.exchange  # another thread may be ending the request
        if client is None or self.is_over or self._response_is_complete or (exchange is not None and exchange.is_complete):
            return
        client.start(self._client_has_gone)

    def _client_has_gone(self) -> None:
        # callbacks on the pool: a slow one must not hold up the thread, or the loop, that watches everybody's clients
        self._request(Verdict(CancelationReason.DISCONNECT, None, "client", time.time()), shared_timer().dispatch)

    def response_headers(self, which: str, status: int, present: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
        """What to add to the response, so that the client can name its operation.

        Args:
            which: The ``response_header`` setting.
            status: The response's status.
            present: Its headers.
        """
        if which == "never" or (which == "scoped" and not self.is_scoped) or status == 304:
            return ()
        caching = [value.lower() for name, value in present if name.lower() == "cache-control"]
        # a shared cache must not hand one client's id to another
        if caching and not any(word in value for value in caching for word in _KEEPS_IT_PRIVATE):
            return ()
        return (("X-Operation-ID", self.id), *([] if caching else [("Cache-Control", "private")]))

    @property
    def _outside_reason(self) -> CancelationReason:
        return CancelationReason.SHUTDOWN if ending.is_under_way() else self._outside

    def _settle(self, status: OperationStatus) -> None:
        if self._closed:  # ended with its last byte, or with its client, before the framework was done with it
            self._leave_context()
            return
        if self._client is not None:
            self._client.stop()  # a response that is complete is no disconnect, whatever the client does next
        self._name, self._route = self.name, None  # the route's native objects go, the name stays
        super()._settle(status)
        self.native = self._error = self._client = self.exchange = None
        verdict = self.token.verdict
        if verdict is not None and status in (OperationStatus.CANCELLED, OperationStatus.TIMED_OUT):
            # %a: a message, an origin and a method come from outside
            logger.info("%a (%s) was cancelled: %s, %a, by %a", self.name, self.id, *verdict[:3])


def current_request(operation: Cancelable | None) -> RequestOperation | None:
    """The request that an operation is part of: itself, or the nearest among its ancestors."""
    while operation is not None and not isinstance(operation, RequestOperation):
        operation = operation.parent
    return operation
