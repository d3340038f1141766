"""Cancelable iteration: over async sources, where a stalled one is interrupted, and over plain ones, between items."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Self, TypeVar

import anyio

if TYPE_CHECKING:
    from .errors import OperationCancelled
    from .scopes import TokenScope

__all__ = ["OperationStream", "iterate"]

logger = logging.getLogger("cancelable_core")

T = TypeVar("T")

_CLOSE_SECONDS = 1.0
"""How long a source may take to close itself while everything around it is being cancelled."""


def iterate(iterable: Iterable[T], check: Callable[[], None]) -> Iterator[T]:
    """Yield the items, checking before each one is fetched: what was fetched is always delivered."""
    iterator = iter(iterable)
    while True:
        check()
        try:
            item = next(iterator)
        except StopIteration:
            return
        yield item


class OperationStream(Generic[T]):
    """An async iterator over ``source`` that ends as soon as the operation is cancelled, even while the source stalls.

    The source is closed on exhaustion, error and cancel, for at most one second and shielded; use
    ``async with operation.stream(source) as items`` to have it closed on ``break`` too.

    Attributes:
        delivered: How many items were handed out.
    """

    def __init__(
        self,
        source: AsyncIterable[T],
        scope: Callable[[], TokenScope],
        check: Callable[[], None],
        error: Callable[[], OperationCancelled],
    ) -> None:
        if not hasattr(source, "__aiter__"):
            raise TypeError(f"stream() takes an async iterable, not {type(source).__name__}; use iterate() for plain ones")
        self.delivered = 0
        self._source: AsyncIterator[T] = aiter(source)
        self._scope = scope
        self._check = check
        self._error = error
        self._closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        if self._closed:
            raise StopAsyncIteration
        try:
            self._check()
            with self._scope():  # around one step, never across a yield
                item = await anext(self._source)
                self.delivered += 1
                return item
        except GeneratorExit:  # this step itself is thrown away: nothing can be awaited any more
            raise
        except BaseException:
            await self.aclose()
            raise
        await self.aclose()
        raise self._error()

    async def aclose(self) -> None:
        """Close the source; idempotent."""
        if self._closed:
            return
        self._closed = True
        close = getattr(self._source, "aclose", None)
        if close is None:
            return
        try:
            with anyio.move_on_after(_CLOSE_SECONDS, shield=True) as scope:
                await close()
        except Exception:
            logger.exception("closing the source of a stream raised")
        else:
            if scope.cancelled_caught:
                logger.warning("the source of a stream did not close within %s s", _CLOSE_SECONDS)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()
