"""What can be known about a function before it is called."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import cast

__all__ = ["is_coroutine_function", "refuse_ambiguous_keywords"]


def is_coroutine_function(func: object) -> bool:
    """Whether calling it gives a coroutine; objects with an async ``__call__`` and partials included."""
    return inspect.iscoroutinefunction(func) or inspect.iscoroutinefunction(getattr(func, "__call__", None))  # noqa: B004


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
