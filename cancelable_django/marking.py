"""`cancelable_view` for Django, where a mark does one thing more: it has async views interrupted under WSGI too."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial, wraps
from typing import Any, TypeVar, Unpack, cast, overload

from django.http import HttpRequest
from django.views import View

from cancelable_core import current_operation
from cancelable_core.callables import is_coroutine_function
from cancelable_core.servers import ViewMark, current_request
from cancelable_core.servers import cancelable_view as mark_view

__all__ = ["INTERRUPTED_KEY", "cancelable_view"]

INTERRUPTED_KEY = "cancelable.is_interrupted"
"""In ``request.META``: a cancel interrupts this request's view already."""

V = TypeVar("V", bound=Callable[..., Any])


@overload
def cancelable_view(view: V, /) -> V: ...
@overload
def cancelable_view(**options: Unpack[ViewMark]) -> Callable[[V], V]: ...
def cancelable_view(view: V | None = None, /, **options: Unpack[ViewMark]) -> V | Callable[[V], V]:
    """Mark a view, a function or a class, with what its route asks for; see `cancelable_core.servers.cancelable_view`.

    An async view that is marked is also interrupted under WSGI, where Django runs each on a loop of its own, out of reach of
    any middleware. An unmarked one sees its token there, and no more.
    """
    mark = mark_view(**options)

    def decorate(view: V) -> V:
        if isinstance(view, type):
            if issubclass(view, View) and view.view_is_async:
                of_class = cast(Any, view)
                of_class.dispatch = _interruptible(of_class.dispatch)  # every method goes through it
            return mark(cast("V", view))
        return mark(cast("V", _interruptible(view)) if is_coroutine_function(view) else view)

    return decorate if view is None else decorate(view)


def _interruptible(view: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @wraps(view)
    async def interruptible(*args: Any, **kwargs: Any) -> Any:
        request = next(argument for argument in args if isinstance(argument, HttpRequest))  # behind self, in a class
        operation = current_request(current_operation())
        if operation is None or INTERRUPTED_KEY in request.META:
            return await view(*args, **kwargs)
        request.META[INTERRUPTED_KEY] = True
        return await operation.run(partial(view, *args, **kwargs))

    return interruptible
