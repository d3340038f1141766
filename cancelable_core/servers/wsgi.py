"""A request's operation around a WSGI application (PEP 3333): it ends when the server closes the response."""

from __future__ import annotations

import errno
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from http.client import responses
from typing import TYPE_CHECKING, Any, Literal

from ..errors import OperationCancelled, QueueFull
from ..http_api import CLIENT_ID_HEADER, Settings, cancelled_response, queue_full_response
from ..models import CancelationReason
from .application import WebApplication
from .latent import REQUEST_KEY, LatentRequest, no_route
from .wsgi_client import WsgiClient

if TYPE_CHECKING:
    from ..http_api import EndpointResponse, Principal
    from ..jobs import JobRunner
    from ..registry import ThreadSafeRegistry
    from ..store import OperationStore
    from .request_scope import RequestOperation

__all__ = ["CLIENT_ID_KEY", "CancelableWsgi", "WsgiRequest", "is_request", "iterate_wsgi_body", "run_wsgi"]

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

    The application finds its operation by ``current_operation()``. Its own ``OperationCancelled``, raised before there is a
    response, and a ``QueueFull`` are answered as the adapters answer them.

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

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if is_request(environ):
            return self._called(environ, start_response)
        request = WsgiRequest(self._application, environ, start_response, self._route)
        return run_wsgi(self._called, environ, request, answer=self._answer)

    def _answer(self, error: Exception, operation: RequestOperation) -> EndpointResponse | None:
        if isinstance(error, QueueFull):
            return queue_full_response(error)
        own = operation.cancelation_in(error)
        if own is None:
            return None
        operation.failed_with(own)
        return cancelled_response(own, self._application.settings)


def is_request(environ: dict[str, Any]) -> bool:
    """Whether a layer around has taken the request in already, on the ASGI side of a bridge as well."""
    scope = environ.get("asgi.scope")
    if scope is not None and REQUEST_KEY in scope:
        environ.setdefault(REQUEST_KEY, scope[REQUEST_KEY])
    return REQUEST_KEY in environ


def run_wsgi(
    application: WsgiApplication,
    environ: dict[str, Any],
    request: WsgiRequest,
    *,
    answer: Callable[[Exception, RequestOperation], EndpointResponse | None] | None = None,
) -> Iterable[bytes]:
    """Call an application inside ``request``, which is found under `REQUEST_KEY` meanwhile.

    Args:
        answer: Says how an exception of the application's is answered; None where it is an error.

    Returns:
        The response's body. The request ends when the server calls its ``close()``, as PEP 3333 demands of every server,
        or when it is exhausted or raises.
    """
    environ[REQUEST_KEY] = request
    request.begin(request.web, at_once=request.client_id is not None)
    try:
        try:
            body = application(environ, request.start)
        except (OperationCancelled, QueueFull) as error:
            operation = request.make()
            response = None if answer is None or operation is None else answer(error, operation)
            if response is None:
                raise
            body = request.replace(response)
        request.body, request.items = body, iter(body)
    except BaseException as error:
        request.end(error)
        raise
    return _Sized(request) if hasattr(body, "__len__") else request


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


class WsgiRequest(LatentRequest):
    """A request and its response: what the application says of it first, then its body, with which the request ends.

    Closed between its first and its last chunk, the client has gone: no server stops reading otherwise.

    Args:
        web: Whose settings count, and where it is listed.
        environ: What the server called with.
        start_response: The same.
        route: Says the template of the route that was taken, by the environ; see `RequestOperation`.
        client_id: The id that its client chose, as `WebApplication.client_id` returns it.
        asker: Who chose it.
    """

    __slots__ = (
        "_asker",
        "_chunks_sent",
        "_client",
        "_headers",
        "_is_over",
        "_method",
        "_route",
        "_sent",
        "_start_response",
        "_status",
        "body",
        "chunks_known",
        "client_id",
        "items",
        "web",
    )

    def __init__(
        self,
        web: WebApplication,
        environ: dict[str, Any],
        start_response: Callable[..., Any],
        route: Callable[[Mapping[str, Any]], str | None],
        client_id: str | None = None,
        asker: Principal | None = None,
    ) -> None:
        self.web = web
        self.native = environ
        self.client_id = client_id
        self._asker = asker
        self._start_response = start_response
        self._route = route
        self._method: str = environ["REQUEST_METHOD"]
        # uWSGI knows the connection only in the thread that it called
        self._client = WsgiClient(environ) if "uwsgi.version" in environ else None
        self._status = ""
        self._headers: list[tuple[str, str]]
        self._sent = self._chunks_sent = 0
        self._is_over = False
        self.chunks_known: float = math.inf
        """Of how many chunks the body is, where that is known."""
        self.body: Iterable[bytes] = ()
        self.items: Iterator[bytes]

    def _create(self, native: dict[str, Any]) -> RequestOperation:
        operation = self.web.new_request(
            self._method,
            partial(self._route, native),
            native=native,
            client_id=self.client_id,
            asker=self._asker,
            client=self._client or WsgiClient(native),
        )
        operation.exchange = self
        return operation

    def start(self, status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
        """PEP 3333's ``start_response``."""
        self._status, self._headers = status, headers
        operation = self.made
        if operation is not None:
            operation.response_started()
            which = self.web.settings.response_header
            headers = [*headers, *operation.response_headers(which, int(status[:3]), headers)]
        return self._start_response(status, headers, *exc_info)

    def replace(self, response: EndpointResponse) -> list[bytes]:
        """Start another response than the application's; its body."""
        replaces = (sys.exc_info(),) if self._status else ()  # only then: uWSGI takes it for an error in any case
        status = f"{response.status} {responses.get(response.status, 'Cancelled')}"
        self.start(status, list(response.headers), *replaces)
        return [response.body]

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            chunk = next(self.items)
            operation = self.made
            if operation is not None and self._is_under_way:
                operation.check_stream()
        except StopIteration:
            self._is_over = True
            self.end()
            raise
        except BaseException as error:
            self._is_over = True
            if self._break_off(error):
                raise StopIteration from None
            raise
        self._sent += len(chunk)
        self._chunks_sent += 1
        # with this chunk the client may have it all, and may leave before the server is back here
        if operation is not None and self.is_complete:
            operation.response_completed()
        return chunk

    def _break_off(self, error: BaseException) -> bool:
        """End by an error of the body's; whether it is none for the server."""
        operation, environ = self.make(), self.native
        if operation is None:
            return False
        client_has_gone = operation.token.reason is CancelationReason.DISCONNECT
        is_own = operation.cancelation_in(error) is not None
        operation.failed_with(error)
        self.end()  # here: werkzeug may come across the broken connection before it comes to `close`
        if not (is_own and client_has_gone):
            return False
        _leave_to_server(environ or {})
        return True

    @property
    def _is_under_way(self) -> bool:
        return self._chunks_sent > 0 and not (self._is_over or self.is_complete)

    @property
    def is_complete(self) -> bool:
        """Whether the client may have it all, as far as is known: a generator starts its response late."""
        if self._chunks_sent == 0 or not self._status:
            return False
        if self._chunks_sent >= self.chunks_known:
            return True
        named = next((value for name, value in self._headers if name.lower() == "content-length"), None)
        return self._sent >= _body_length(self._method, int(self._status[:3]), named)

    def close(self) -> None:
        """Close the application's body, and end the request."""
        try:
            close = getattr(self.body, "close", None)
            if close is not None:
                close()
        finally:
            if not self._is_over:
                self.end(GeneratorExit() if self._is_under_way else None)
            self.body, self.items, self._client = (), iter(()), None  # which may know the environ, and so this


class _Sized:
    """A body of a known number of chunks. A server may ask for it (PEP 3333), and give a single chunk its Content-Length."""

    __slots__ = ("_request", "close")

    def __init__(self, request: WsgiRequest) -> None:
        body: Any = request.body
        request.chunks_known = len(body)
        self._request = request
        self.close = request.close

    def __len__(self) -> int:
        return int(self._request.chunks_known)

    def __iter__(self) -> Iterator[bytes]:
        return self._request
