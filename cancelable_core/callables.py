"""What can be known about a function before it is called."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import cast

__all__ = ["is_coroutine_function", "is_generator_function", "refuse_ambiguous_keywords", "refuse_what_never_runs"]


def is_coroutine_function(func: object) -> bool:
    """Whether calling it gives a coroutine; objects with an async ``__call__`` and partials included."""
    return inspect.iscoroutinefunction(func) or inspect.iscoroutinefunction(getattr(func, "__call__", None))  # noqa: B004


def is_generator_function(func: object) -> bool:
    """Whether calling it runs nothing yet; objects with such a ``__call__`` and partials included."""
    while isinstance(func, partial):
        func = cast("partial[object]", func).func
    called = (func, getattr(type(func), "__call__", None))  # noqa: B004  # its type's: a class is called to make an object
    return any(inspect.isgeneratorfunction(each) or inspect.isasyncgenfunction(each) for each in called)


def refuse_what_never_runs(method: str, func: object, *, may_be_async: bool = False) -> None:
    """Raise for a function whose call only makes an object: its body would never run, and seem to have.

    Args:
        method: Our method's name, for the message.
        func: The function to be called.
        may_be_async: Whether the coroutine that an async function gives is awaited.
    """
    if is_generator_function(func):
        raise TypeError(f"{method}() takes a function that runs when it is called, not a generator function")
    if not may_be_async and is_coroutine_function(func):
        raise TypeError(f"{method}() takes a plain function; await an async one")


def refuse_ambiguous_keywords(method: str, func: Callable[..., object], given: Mapping[str, object]) -> None:
    """Raise for a keyword that may be meant for us or for ``func``.

    Args:
        method: Our method's name, for the message.
        func: The function to be called.
        given: Our own keywords that the caller passed.
    """
    given = {name: value for name, value in given.items() if name not in _bound_keywords(func)}
    if not given:
        return
    try:
        parameters = inspect.signature(func).parameters
    except (TypeError, ValueError):  # a builtin without a signature has no say
        return
    for name in given:
        parameter = parameters.get(name)
        if parameter is not None and parameter.kind is not inspect.Parameter.VAR_KEYWORD:
            raise TypeError(
                f"{method}() and {getattr(func, '__name__', func)!s} both have a keyword {name!r}:"
                f" bind the function's own with functools.partial(func, {name}=...)"
            )


def _bound_keywords(func: object) -> Mapping[str, object]:
    """The keywords that a partial has bound: their function has its own already, so that ours are ours."""
    return cast("partial[object]", func).keywords if isinstance(func, partial) else {}
