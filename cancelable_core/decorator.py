"""``@cancelable``: an operation around every call of a function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial, wraps
from typing import Any, ParamSpec, TypeVar, cast, overload

from .callables import is_coroutine_function, is_generator_function
from .operation import INHERIT, Cancelable, OperationOptions

__all__ = ["cancelable"]

P = ParamSpec("P")
R = TypeVar("R")


@overload
def cancelable(func: Callable[P, R], /) -> Callable[P, R]: ...
@overload
def cancelable(
    *,
    timeout: float | timedelta | None = None,
    name: str | None = None,
    owner: str | None = ...,
    metadata: Mapping[str, Any] | None = None,
    register: bool = True,
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
def cancelable(
    func: Callable[P, R] | None = None,
    /,
    *,
    timeout: float | timedelta | None = None,
    name: str | None = None,
    owner: Any = INHERIT,
    metadata: Mapping[str, Any] | None = None,
    register: bool = True,
) -> Any:
    """Run every call of a function as an operation of its own; keeps the function's signature.

    Args:
        func: A plain or an async function.
        timeout: Seconds, or a timedelta, for each call.
        name: The operations' name; by default the function's.
        owner: As in `Cancelable`.
        metadata: As in `Cancelable`.
        register: As in `Cancelable`.

    Raises:
        ValueError: As `Cancelable`.
        TypeError: What cannot be called, or a generator function: an operation must not stay open across a yield. Use
            `Cancelable.stream`.
    """
    options = OperationOptions(owner=owner, metadata=metadata, register=register)
    if func is None:
        return partial(_wrap, name=name, timeout=timeout, options=options)
    return _wrap(func, name=name, timeout=timeout, options=options)


def _wrap(
    func: Callable[P, R], *, name: str | None, timeout: float | timedelta | None, options: OperationOptions
) -> Callable[P, R]:
    if is_generator_function(func):
        raise TypeError("@cancelable takes functions, not generators; in one, iterate over operation.stream(source)")
    if not callable(func):
        raise TypeError(f"@cancelable takes a function, not {type(func).__name__}; give the name as name=")
    name = name or getattr(func, "__name__", None)
    Cancelable(name, timeout=timeout, **options)  # what is wrong with them is said here, not at the first call
    if is_coroutine_function(func):
        call = cast("Callable[P, Any]", func)

        @wraps(func)
        async def in_async_operation(*args: P.args, **kwargs: P.kwargs) -> Any:
            async with Cancelable(name, timeout=timeout, **options):
                return await call(*args, **kwargs)

        return cast("Callable[P, R]", in_async_operation)

    @wraps(func)
    def in_operation(*args: P.args, **kwargs: P.kwargs) -> R:
        with Cancelable(name, timeout=timeout, **options):
            return func(*args, **kwargs)
        raise AssertionError("an operation that raises on cancel never swallows")

    return in_operation
