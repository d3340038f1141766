"""The methods of a Flask application that are overridden, on the object: its class stays what it is."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial, wraps
from typing import Any

from flask import Flask, got_request_exception, has_request_context, request

from cancelable_core import OperationCancelled, QueueFull, current_operation
from cancelable_core.http_api import EndpointResponse, Settings, cancelled_response, queue_full_response
from cancelable_core.servers import current_request

from ._routing import native_request, operation_of_request
from ._translate import native_response

__all__ = ["override_methods"]

_VIEW_IS_OVER_KEY = "cancelable.view_is_over"


def override_methods(app: Flask, settings: Settings) -> None:
    """Have async views interrupted, and cancelled views answered."""
    vars(app).update(
        async_to_sync=_interruptible(app.async_to_sync),
        handle_user_exception=_answering(app, settings),
        process_response=_ending_the_view(app.process_response),
    )
    got_request_exception.connect(_remember_error, app)


def _interruptible(
    convert: Callable[[Callable[..., Coroutine[Any, Any, Any]]], Callable[..., Any]],
) -> Callable[[Callable[..., Coroutine[Any, Any, Any]]], Callable[..., Any]]:
    """Have async views run inside a scope of their own loop, which a cancel reaches from anywhere.

    Views, and what comes before them; error handlers, `after_request` and teardown functions see the response to its end.
    """

    def async_to_sync(func: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
        @wraps(func)
        async def interruptible(*args: Any, **kwargs: Any) -> Any:
            operation = current_request(current_operation())
            is_over = has_request_context() and _VIEW_IS_OVER_KEY in request.environ
            call = partial(func, *args, **kwargs)
            return await (call() if operation is None or is_over else operation.run(call))

        return convert(interruptible)

    return async_to_sync


def _answering(app: Flask, settings: Settings) -> Callable[..., Any]:
    """Answer the request's own cancel, and a full queue, as all adapters do.

    An error handler for `OperationCancelled` or `QueueFull` of the application goes first. One for ``Exception`` does not,
    not even a blueprint's, which Flask would prefer to an application's more exact one: it means errors.
    """
    handle: Callable[..., Any] = app.handle_user_exception

    @wraps(handle)
    def handle_user_exception(*args: Any) -> Any:
        *before, error = args  # newer Flasks pass their context before it
        request.environ[_VIEW_IS_OVER_KEY] = True
        answer: EndpointResponse | None = None
        operation = operation_of_request() if isinstance(error, OperationCancelled) else None  # a 404 is no reason to look
        own = None if operation is None else operation.cancelation_in(error)
        if operation is not None and own is not None:
            operation.failed_with(own)
            error, answer = own, cancelled_response(own, settings)
        elif isinstance(error, QueueFull):
            answer = queue_full_response(error)
        if answer is None or _has_handler(app, error):
            return handle(*before, error)
        return native_response(answer)

    return handle_user_exception


def _has_handler(app: Flask, error: Exception) -> bool:
    kinds = [kind for kind in type(error).__mro__ if issubclass(kind, OperationCancelled | QueueFull)]
    return any(kind in app.error_handler_spec[scope][None] for scope in (*request.blueprints, None) for kind in kinds)


def _ending_the_view(process: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(process)
    def process_response(*args: Any) -> Any:
        native_request().environ[_VIEW_IS_OVER_KEY] = True
        return process(*args)

    return process_response


def _remember_error(sender: Flask, exception: BaseException, **_: Any) -> None:
    operation = operation_of_request()
    if operation is not None:
        operation.failed_with(exception)
