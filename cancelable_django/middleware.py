"""Every request as an operation, in sync and async mode alike, without a hop between the two."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, cast

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.core.handlers.wsgi import WSGIRequest
from django.http import FileResponse, HttpRequest, StreamingHttpResponse
from django.http.response import HttpResponseBase

from cancelable_core import CancelationReason, OperationCancelled, QueueFull
from cancelable_core.http_api import cancelled_response, queue_full_response
from cancelable_core.servers import (
    CLIENT_KEY,
    OPERATION_KEY,
    ClientWatch,
    RequestOperation,
    WsgiClient,
    has_operation,
    iterate_wsgi_body,
    view_options,
)

from ._routes import is_ours
from ._translate import aprincipal_of, native_response, principal_of, route_of
from .conf import get_application

__all__ = ["CancelableMiddleware"]


class CancelableMiddleware:
    """Put it last in ``MIDDLEWARE``, or at least below everything that is for sync or for async only.

    A view finds its operation by ``current_operation()``. Async views are interrupted where they wait; in plain ones
    ``check``, ``sleep`` and ``iterate`` raise. An async view under WSGI runs on a loop that no hook reaches: it sees its token.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self._get_response = get_response
        self._is_async = iscoroutinefunction(get_response)  # pyright: ignore[reportDeprecated]  # from 3.14 on
        if self._is_async:
            markcoroutinefunction(self)
            vars(self)["process_view"] = self._aprocess_view  # Django would take the plain one to a thread

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if has_operation(request.META) or is_ours(request):
            response: HttpResponseBase | Awaitable[HttpResponseBase] = self._get_response(request)
            return response
        operation = get_application().new_request(
            request.method or "GET",
            partial(route_of, request),
            native=request,
            client=_client_of(request),
            outside_reason=CancelationReason.DISCONNECT,  # Django cancels a view's task for nothing else
        )
        request.META[OPERATION_KEY] = operation
        if self._is_async:
            return self._acall(request, operation)
        operation.begin()
        try:
            return _follow(operation, request, self._get_response(request))
        except BaseException as error:
            operation.end(error)
            raise

    async def _acall(self, request: HttpRequest, operation: RequestOperation) -> HttpResponseBase:
        operation.begin()
        try:
            try:
                response = await operation.run(partial(self._get_response, request))
            except OperationCancelled as error:
                response = self._answer(operation, error)
                if response is None:
                    raise
            return _follow(operation, request, response)
        except BaseException as error:
            operation.end(error)
            raise

    def process_view(self, request: HttpRequest, view: Any, args: Any, kwargs: Any) -> None:
        """Give the operation what the view was marked with."""
        options, operation = view_options(view), _operation_of(request)
        if options is None or operation is None:
            return
        operation.adopt(options)
        if options.owner:
            operation.owner = principal_of(request, get_application().settings).id

    async def _aprocess_view(self, request: HttpRequest, view: Any, args: Any, kwargs: Any) -> None:
        options, operation = view_options(view), _operation_of(request)
        if options is None or operation is None:
            return
        operation.adopt(options)
        if options.owner:
            operation.owner = (await aprincipal_of(request, get_application().settings)).id

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponseBase | None:
        """Answer for a view that its own request's cancel ended, or whose job found no room."""
        if isinstance(exception, QueueFull):
            return native_response(queue_full_response(exception))
        operation = _operation_of(request)
        if operation is None:
            return None
        operation.failed_with(exception)
        return self._answer(operation, exception)

    @staticmethod
    def _answer(operation: RequestOperation, error: Exception) -> HttpResponseBase | None:
        own = operation.cancelation_in(error)
        if own is None:
            return None
        operation.failed_with(own)
        response = native_response(cancelled_response(own, get_application().settings))
        vars(response)["_has_been_logged"] = True  # once, by us: no error mail for a cancel
        return response


def _client_of(request: HttpRequest) -> ClientWatch | None:
    if isinstance(request, WSGIRequest):
        return WsgiClient(request.META)
    client: ClientWatch | None = cast(Any, request).scope.get(CLIENT_KEY)  # where `cancelable_django.asgi.wrap` put it
    return client


def _operation_of(request: HttpRequest) -> RequestOperation | None:
    return request.META.get(OPERATION_KEY)


def _follow(operation: RequestOperation, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    """End the operation with the response's last byte, however that comes about."""
    operation.response_started()
    header = get_application().settings.response_header
    present = {name.lower() for name in response.headers}
    for name, value in operation.response_headers(header, response.status_code, present):
        response.headers[name] = value
    if isinstance(response, StreamingHttpResponse) and not isinstance(response, FileResponse):
        content = cast(Any, response.streaming_content)
        if response.is_async:
            response.streaming_content = operation.stream_body(content)
        elif isinstance(request, WSGIRequest):
            length = response.headers.get("Content-Length")
            response.streaming_content = iterate_wsgi_body(operation, content, request.META, length)
        else:
            response.streaming_content = operation.iterate_body(content)
    elif isinstance(request, WSGIRequest):
        operation.response_completed()  # all that is left to do is to send it
    close = response.close

    def close_and_end() -> None:
        try:
            close()
        finally:
            operation.end()

    response.close = close_and_end  # type: ignore[method-assign]  # every handler calls it once the response is out
    return response
