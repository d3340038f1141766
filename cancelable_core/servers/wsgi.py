"""A request's operation around a WSGI application (PEP 3333): it ends when the server closes the response."""

from __future__ import annotations

import errno
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from http.client import responses
from typing import TYPE_CHECKING, Any, Literal, cast

from ..errors import OperationCancelled, QueueFull
from ..http_api import CLIENT_ID_HEADER, Settings, cancelled_response, queue_full_response
from ..models import CancelationReason
from .application import WebApplication
from .wsgi_client import client_of

if TYPE_CHECKING:
    from collections.abc import Sized

    from ..http_api import EndpointResponse
    from ..jobs import JobRunner
    from ..registry import ThreadSafeRegistry
    from ..store import OperationStore
    from .request_scope import RequestOperation

__all__ = ["CLIENT_ID_KEY", "OPERATION_KEY", "CancelableWsgi", "has_operation", "iterate_wsgi_body", "run_wsgi"]

OPERATION_KEY = "cancelable.operation"
"""Where the request's operation stands in the WSGI environ, and in the ASGI scope."""

CLIENT_ID_KEY = f"HTTP_{CLIENT_ID_HEADER.upper().replace('-', '_')}"
"""Where `CLIENT_ID_HEADER` stands in the WSGI environ (PEP 3333), and in Django's ``META``."""

WsgiApplication = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class CancelableWsgi:
    """Any WSGI application, with every request as an operation that follows its client and keeps its time limit.

    Args:
        application: What to call.
        route: Says the template of the route that a request took, by its environ, for the operation's name; asked late.
        registry: Where the operations are listed; by default the process's store.
        request_timeout_seconds: How long a request may take until its response starts.
        cancel_on_disconnect: As the setting of this name, but ``all`` by default: here no route can ask for it.
        response_header: As the setting of this name.
        cancelled_status: As the setting of this name.

    The application finds its operation by ``current_operation()``, or in the environ under `OPERATION_KEY`. Its own
    ``OperationCancelled``, raised before there is a response, and a ``QueueFull`` are answered as the adapters answer them.

    Attributes:
        registry: The operations.
        jobs: Runs jobs, which outlive the request that submits them.
    """

    def __init__(
        self,
        application: WsgiApplication,
        *,
        route: Callable[[Mapping[str, Any]], str | None] | None = None,
        registry: ThreadSafeRegistry | OperationStore | None = None,
        request_timeout_seconds: float | None = None,
        cancel_on_disconnect: Literal["scoped", "all", "never"] = "all",
        response_header: Literal["scoped", "all", "never"] = "scoped",
        cancelled_status: int = 499,
    ) -> None:
        self._called = application
        self._route = route
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

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if has_operation(environ):
            return self._called(environ, start_response)
        route = self._route
        operation = self._application.new_request(
            environ["REQUEST_METHOD"],
            lambda: None if route is None else route(environ),
            native=environ,
            client=client_of(environ),
            outside_reason=CancelationReason.DISCONNECT,
        )
        header = self._application.settings.response_header
        return run_wsgi(self._answering, environ, start_response, operation, response_header=header)

    def _answering(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        has_started = False

        def start(*response: Any) -> Any:
            nonlocal has_started
            has_started = True
            return start_response(*response)

        try:
            return self._called(environ, start)
        except (OperationCancelled, QueueFull) as error:
            answer = self._answer_to(error, environ[OPERATION_KEY])
            if answer is None:
                raise
            replaces = (sys.exc_info(),) if has_started else ()  # only then: uWSGI takes it for an error in any case
            status = f"{answer.status} {responses.get(answer.status, 'Cancelled')}"
            start_response(status, list(answer.headers), *replaces)
            return [answer.body]

    def _answer_to(self, error: OperationCancelled | QueueFull, operation: RequestOperation) -> EndpointResponse | None:
        if isinstance(error, QueueFull):
            return queue_full_response(error)
        own = operation.cancelation_in(error)
        if own is None:
            return None
        operation.failed_with(own)
        return cancelled_response(own, self._application.settings)


def has_operation(environ: dict[str, Any]) -> bool:
    """Whether the request is an operation already: of a layer around this one, on the ASGI side of a bridge as well."""
    scope = environ.get("asgi.scope")
    if scope is not None and OPERATION_KEY in scope:
        environ.setdefault(OPERATION_KEY, scope[OPERATION_KEY])
    return OPERATION_KEY in environ


def run_wsgi(
    application: WsgiApplication,
    environ: dict[str, Any],
    start_response: Callable[..., Any],
    operation: RequestOperation,
    *,
    response_header: str,
) -> Iterable[bytes]:
    """Call an application inside ``operation``, which is found under `OPERATION_KEY` meanwhile.

    Args:
        response_header: The setting: which responses name their operation.

    Returns:
        The response's body. The operation ends when the server calls its ``close()``, as PEP 3333 demands of every server,
        or when it is exhausted or raises.
    """
    exchange = _Exchange(operation, environ, start_response, response_header)
    environ[OPERATION_KEY] = operation
    operation.exchange = exchange
    operation.begin()
    try:
        body = application(environ, exchange.start)
        exchange.body, exchange.items = body, iter(body)
    except BaseException as error:
        operation.end(error)
        raise
    return _Sized(exchange, cast("Sized", body)) if hasattr(body, "__len__") else exchange


def iterate_wsgi_body(
    operation: RequestOperation, chunks: Iterable[bytes], environ: Mapping[str, Any], content_length: str | None
) -> Iterator[bytes]:
    """`RequestOperation.iterate_body` for a server that speaks WSGI, which hears of a client that left in its own terms."""
    try:
        yield from operation.iterate_body(chunks, _body_length(environ["REQUEST_METHOD"], 200, content_length))
    except OperationCancelled:
        if operation.token.reason is not CancelationReason.DISCONNECT:
            raise
        _leave_to_server(environ)


def _body_length(method: str, status: int, content_length: str | None) -> float:
    """After how many bytes the client has the whole response; infinite where only its end tells."""
    if method == "HEAD" or status in (204, 304):
        return 0
    return int(content_length) if content_length is not None and content_length.isdecimal() else math.inf


def _leave_to_server(environ: Mapping[str, Any]) -> None:
    """End a stream whose client has gone: no error of the application, and nothing to log a traceback for.

    gunicorn and werkzeug take a broken pipe for what it is, and close. The others find out with what they send last; an
    exception would only fill their logs.
    """
    if "gunicorn.socket" in environ or "werkzeug.socket" in environ:
        raise BrokenPipeError(errno.EPIPE, "the client has gone")


class _Exchange:
    """A response on its way: what the application says of it first, then its body, with which the operation ends.

    Closed between its first and its last chunk, the client has gone: no server stops reading otherwise.
    """

    __slots__ = (
        "_chunks_sent",
        "_environ",
        "_headers",
        "_is_over",
        "_operation",
        "_sent",
        "_start_response",
        "_status",
        "_which",
        "body",
        "chunks_known",
        "items",
    )

    def __init__(
        self, operation: RequestOperation, environ: dict[str, Any], start_response: Callable[..., Any], which: str
    ) -> None:
        self._operation = operation
        self._environ = environ
        self._start_response = start_response
        self._which = which
        self._status = 0
        self._headers: list[tuple[str, str]] = []
        self._sent = self._chunks_sent = 0
        self._is_over = False
        self.chunks_known = math.inf
        """Of how many chunks the body is, where that is known."""
        self.body: Iterable[bytes] = ()
        self.items: Iterator[bytes]

    def start(self, status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
        """PEP 3333's ``start_response``."""
        self._status, self._headers = int(status[:3]), headers
        if self._which == "all" or self._operation.is_made:
            self._operation.response_started()
            headers = [*headers, *self._operation.response_headers(self._which, self._status, headers)]
        return self._start_response(status, headers, *exc_info)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        operation = self._operation
        try:
            chunk = next(self.items)
            if operation.is_made and self._is_under_way:
                operation.check_stream()
        except StopIteration:
            self._is_over = True
            operation.end()
            raise
        except BaseException as error:
            self._is_over = True
            client_has_gone = operation.was_cancelled and operation.token.reason is CancelationReason.DISCONNECT
            is_own = operation.cancelation_in(error) is not None
            operation.failed_with(error)
            operation.end()  # here: werkzeug may come across the broken connection before it comes to `close`
            if is_own and client_has_gone:
                _leave_to_server(self._environ)
                raise StopIteration from None
            raise
        self._sent += len(chunk)
        self._chunks_sent += 1
        # with this chunk the client may have it all, and may leave before the server is back here
        if operation.is_made and self.is_complete:
            operation.response_completed()
        return chunk

    @property
    def _is_under_way(self) -> bool:
        return self._chunks_sent > 0 and not (self._is_over or self.is_complete)

    @property
    def is_complete(self) -> bool:
        """Whether the client may have it all, as far as is known: a generator starts its response late."""
        if self._chunks_sent == 0:
            return False
        if self._chunks_sent >= self.chunks_known:
            return True
        named = next((value for name, value in self._headers if name.lower() == "content-length"), None)
        return self._sent >= _body_length(self._environ["REQUEST_METHOD"], self._status, named)

    def close(self) -> None:
        """Close the application's body, and end the request."""
        try:
            close = getattr(self.body, "close", None)
            if close is not None:
                close()
        finally:
            if not self._is_over:
                if self._is_under_way:
                    self._operation.failed_with(GeneratorExit())
                self._operation.end()


class _Sized:
    """A body of a known number of chunks. A server may ask for it (PEP 3333), and give a single chunk its Content-Length."""

    __slots__ = ("_exchange", "close")

    def __init__(self, exchange: _Exchange, body: Sized) -> None:
        exchange.chunks_known = len(body)
        self._exchange = exchange
        self.close = exchange.close

    def __len__(self) -> int:
        return int(self._exchange.chunks_known)

    def __iter__(self) -> Iterator[bytes]:
        return self._exchange
