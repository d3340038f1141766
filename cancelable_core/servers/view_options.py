"""What a route asks for itself: `cancelable_view` marks a view, and the adapters read the mark when a request comes to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from types import FunctionType
from typing import Any, Final, TypedDict, TypeVar, Unpack, overload

from ..http_api import checks

__all__ = ["AS_APP", "AsApp", "ViewMark", "ViewOptions", "any_view_is_marked", "cancelable_view", "view_options"]

V = TypeVar("V", bound=Callable[..., Any])


class AsApp:
    """What the application's settings say."""

    def __repr__(self) -> str:
        return "AS_APP"


AS_APP: Final = AsApp()

_MARK = "__cancelable_view__"
_any_is_marked = False

_check_limit = checks.seconds(above_minimum=True, unset=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewOptions:
    """What one route asks for; see `cancelable_view`."""

    timeout_seconds: float | AsApp | None = AS_APP
    cancel_on_disconnect: bool | AsApp = AS_APP
    owner: bool = False
    name: str | None = None


class ViewMark(TypedDict, total=False):
    """The keywords of `cancelable_view`, for functions that pass them on."""

    timeout_seconds: float | timedelta | AsApp | None
    cancel_on_disconnect: bool | AsApp
    owner: bool
    name: str | None


@overload
def cancelable_view(view: V, /) -> V: ...
@overload
def cancelable_view(**options: Unpack[ViewMark]) -> Callable[[V], V]: ...
def cancelable_view(
    view: V | None = None,
    /,
    *,
    timeout_seconds: float | timedelta | AsApp | None = AS_APP,
    cancel_on_disconnect: bool | AsApp = AS_APP,
    owner: bool | None = None,
    name: str | None = None,
) -> V | Callable[[V], V]:
    """Mark a view, a function or a class, with what its route asks for. The view itself stays as it is.

    Requests to a marked view name their operation in ``X-Operation-ID``, also without any option.

    Args:
        view: The view, where the mark is used bare.
        timeout_seconds: How long a request to it may take, from the moment its route was found to the last byte of its
            response; None is without limit, whatever the application's ``request_timeout_seconds`` says.
        cancel_on_disconnect: Whether a request to it is cancelled when its client leaves before the response is complete,
            whatever the application's ``cancel_on_disconnect`` says.
        owner: Whether the request belongs to whoever sends it, so that he can cancel it through the routes.
        name: The operation's name, instead of method and route.

    Raises:
        TypeError: What is marked cannot be called, or takes no marks (mark the function rather than a bound method).
        ValueError: A timeout that is not positive.

    Put it anywhere among a view's decorators, as long as those above it use `functools.wraps`, which keeps the mark. Marks
    add up: an option given by one of them stays unless one above it gives another.
    """
    if not isinstance(timeout_seconds, AsApp):
        try:
            timeout_seconds = _check_limit(timeout_seconds)
        except ValueError as error:
            raise ValueError(f"timeout_seconds {error}") from None
    if name is not None and not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"name must be text, not {type(name).__name__}")
    given: dict[str, Any] = {
        **({} if isinstance(timeout_seconds, AsApp) else {"timeout_seconds": timeout_seconds}),
        **({} if isinstance(cancel_on_disconnect, AsApp) else {"cancel_on_disconnect": bool(cancel_on_disconnect)}),
        **({} if owner is None else {"owner": bool(owner)}),
        **({} if name is None else {"name": name}),
    }

    def mark(view: V) -> V:
        global _any_is_marked
        if not callable(view):
            raise TypeError(f"cancelable_view marks a view, not {type(view).__name__}; give options by their names")
        try:
            setattr(view, _MARK, replace(view_options(view) or ViewOptions(), **given))
        except AttributeError as error:
            raise TypeError(f"{view!r} takes no marks; mark the function or the class that it is of") from error
        _any_is_marked = True
        return view

    return mark if view is None else mark(view)


def any_view_is_marked() -> bool:
    """Whether a view was ever marked in this process: until then nobody need look for marks.

    FastAPI asks when a request comes in: one that itself imports the first marked view of its process is not given its mark.
    """
    return _any_is_marked


def view_options(view: object) -> ViewOptions | None:
    """What a view was marked with; None for most.

    Args:
        view: What the framework calls. Flask's and Django's class-based views name their class in ``view_class``.
    """
    if type(view) is FunctionType and not vars(view):
        return None
    for marked in (view, getattr(view, "view_class", None), getattr(view, "func", None)):
        options = getattr(marked, _MARK, None)
        if isinstance(options, ViewOptions):
            return options
    return None
