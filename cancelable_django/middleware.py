"""Every request as an operation, in sync and async mode alike, without a hop between the two."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from types import FunctionType
from typing import Any, cast

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.core.handlers.asgi import ASGIRequest
from django.core.handlers.wsgi import WSGIRequest
from django.http import FileResponse, HttpRequest, StreamingHttpResponse
from django.http.response import HttpResponseBase

from cancelable_core import OperationCancelled, QueueFull
from cancelable_core.http_api import EndpointResponse, Principal, cancelled_response, queue_full_response
from cancelable_core.servers import (
    CLIENT_ID_KEY,
    CLIENT_KEY,
    REQUEST_KEY,
    ClientWatch,
    LatentRequest,
    RequestOperation,
    ViewOptions,
    WebApplication,
    WsgiClient,
    is_request,
    iterate_wsgi_body,
    leaves_cut_streams_open,
    view_options,
)

from ._routes import is_ours
from ._translate import aprincipal_of, native_response, principal_of, route_of
from .conf import get_application
from .marking import INTERRUPTED_KEY

__all__ = ["CancelableMiddleware"]

_Chosen = tuple[str | None, Principal | None]


class CancelableMiddleware:
    """Put it last in ``MIDDLEWARE``, or at least below everything that is for sync or for async only.

    A view finds its operation by ``current_operation()``. Async views are interrupted where they wait; in plain ones
    ``check``, ``sleep`` and ``iterate`` raise. An async view under WSGI runs on a loop that no hook reaches: it sees its token,
    and is interrupted if `cancelable_view` marks it.
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
        if is_request(request.META) or is_ours(request):
            response: HttpResponseBase | Awaitable[HttpResponseBase] = self._get_response(request)
            return response
        application = get_application()
        client_id = application.client_id(request.META.get(CLIENT_ID_KEY))
        if self._is_async:
            return self._acall(request, application, client_id)
        asker = None if client_id is None else principal_of(request, application.settings)
        latent = DjangoRequest(request, application, (client_id, asker))
        latent.begin(application, at_once=client_id is not None)
        try:
            return _follow(latent, request, self._get_response(request))
        except BaseException as error:
            latent.end(error)
            raise

    async def _acall(self, request: HttpRequest, application: WebApplication, client_id: str | None) -> HttpResponseBase:
        asker = None if client_id is None else await aprincipal_of(request, application.settings)
        # Django itself cancels what is async throughout; if two do, asgiref's threads get into disorder
        latent = DjangoRequest(request, application, (client_id, asker), is_followed=False)
        request.META[INTERRUPTED_KEY] = True
        try:
            try:
                response = await latent.begin_around(
                    partial(self._get_response, request), application, at_once=client_id is not None
                )
            except OperationCancelled as error:
                response = None if latent.made is None else self._answer(latent.made, error)
                if response is None:
                    raise
            return _follow(latent, request, response)
        except BaseException as error:
            latent.end(error)
            raise

    def process_view(self, request: HttpRequest, view: Any, args: Any, kwargs: Any) -> None:
        """Give the operation what the view was marked with."""
        operation = _adopt_options(view, request)
        if operation is not None:
            operation.owner = principal_of(request, get_application().settings).id

    async def _aprocess_view(self, request: HttpRequest, view: Any, args: Any, kwargs: Any) -> None:
        operation = _adopt_options(view, request)
        if operation is not None:
            operation.owner = (await aprincipal_of(request, get_application().settings)).id

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponseBase | None:
        """Answer for a view that its own request's cancel ended, or whose job found no room."""
        if isinstance(exception, QueueFull):
            return _quiet(queue_full_response(exception))
        if (operation := _operation_of(request)) is None:
            return None
        operation.failed_with(exception)
        return self._answer(operation, exception)

    @staticmethod
    def _answer(operation: RequestOperation, error: Exception) -> HttpResponseBase | None:
        if (own := operation.cancelation_in(error)) is None:
            return None
        operation.failed_with(own)
        return _quiet(cancelled_response(own, get_application().settings))


class DjangoRequest(LatentRequest):
    """A request and its response.

    Args:
        request: Django's.
        application: Whose settings count.
        chosen: The id that its client chose, and who that is.
        is_followed: Whether we tell when the client has gone.
    """

    __slots__ = ("_chosen", "_is_followed", "application", "is_complete")

    def __init__(self, request: HttpRequest, application: WebApplication, chosen: _Chosen, *, is_followed: bool = True) -> None:
        self.native, self.application = request, application
        self.is_complete = False
        self._chosen = chosen
        self._is_followed = is_followed
        request.META[REQUEST_KEY] = self

    def __call__(self) -> None:
        """The response is closed."""
        self.end()

    def __reduce__(self) -> tuple[Any, ...]:
        return partial, (int,)  # in a cache, a response is closed without its request

    def _create(self, native: HttpRequest) -> RequestOperation:
        client_id, asker = self._chosen
        operation = self.application.new_request(
            native.method or "GET",
            partial(route_of, native),
            native=native,
            client=_client_of(native) if self._is_followed else None,
            client_id=client_id,
            asker=asker,
        )
        operation.exchange = self
        return operation


def _client_of(request: HttpRequest) -> ClientWatch | None:
    """What tells of the client: the WSGI server, or what `wrap` left in the ASGI scope."""
    if isinstance(request, WSGIRequest):
        return WsgiClient(request.META)
    client: ClientWatch | None = request.scope.get(CLIENT_KEY) if isinstance(request, ASGIRequest) else None
    return client


def _operation_of(request: HttpRequest) -> RequestOperation | None:
    latent: LatentRequest | None = request.META.get(REQUEST_KEY)
    return None if latent is None else latent.make()


def _adopt_options(view: Any, request: HttpRequest) -> RequestOperation | None:
    """Give the operation what the view was marked with; returned is one that wants an owner."""
    options = _options_of(view, request)
    if options is None or (operation := _operation_of(request)) is None:
        return None
    operation.adopt(options)
    return operation if options.owner else None


def _options_of(view: Any, request: HttpRequest) -> ViewOptions | None:
    """What a view was marked with. Those of Django REST framework name their class, and a ViewSet's action, their own way."""
    if type(view) is FunctionType and not vars(view):
        return None  # as most: nothing was written on it
    actions, of_class = getattr(view, "actions", None), getattr(view, "cls", None)
    methods = cast("dict[str, str]", actions) if isinstance(actions, dict) else {}
    action = getattr(of_class, methods.get(str(request.method).lower(), ""), None)
    return view_options(action) or view_options(view) or view_options(of_class)


def _quiet(response: EndpointResponse) -> HttpResponseBase:
    """An answer that the core has logged already. Django logs every 5xx as an error, which it mails to ADMINS."""
    native = native_response(response)
    vars(native)["_has_been_logged"] = True
    return native


def _follow(latent: DjangoRequest, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    """End the request with the response's last byte, however that comes about."""
    is_stream = isinstance(response, StreamingHttpResponse) and not isinstance(response, FileResponse)
    operation = latent.make() if is_stream else latent.made
    if operation is not None:
        operation.response_started()
        header = latent.application.settings.response_header
        for name, value in operation.response_headers(header, response.status_code, response.headers.items()):
            response.headers[name] = value
    if operation is not None and isinstance(response, StreamingHttpResponse) and is_stream:
        _follow_stream(operation, request, response)
    elif isinstance(request, WSGIRequest):
        latent.is_complete = True  # all that is left to do is to send it
        if operation is not None:
            operation.response_completed()
    cast(Any, response)._resource_closers.append(latent)  # every handler closes it once it is out; Django's own add to these
    return response


def _follow_stream(operation: RequestOperation, request: HttpRequest, response: StreamingHttpResponse) -> None:
    content = cast(Any, response.streaming_content)
    in_order = isinstance(request, ASGIRequest) and leaves_cut_streams_open(request.scope)
    if response.is_async:
        response.streaming_content = operation.stream_body(content, ends_in_order=in_order)
    elif isinstance(request, WSGIRequest):
        length = response.headers.get("Content-Length")
        response.streaming_content = iterate_wsgi_body(operation, content, request.META, length)
    else:
        if (client := _client_of(request)) is not None:
            operation.follow(client)  # Django takes all of it in a thread, which it does not tell
        response.streaming_content = operation.iterate_body(content, ends_in_order=in_order)
