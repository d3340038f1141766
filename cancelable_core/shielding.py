"""Blocks in which an operation's cancelation waits."""

from __future__ import annotations

from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING

from .wakeup import new_cancel_scope, running_port

if TYPE_CHECKING:
    from .wakeup import CancelScope

__all__ = ["Shield", "is_shielded"]

_shields: ContextVar[tuple[Shield, ...]] = ContextVar("cancelable_shields", default=())
"""Those entered in this context; ones that were left since, elsewhere or in another order, no longer count."""


def is_shielded(operation: object) -> bool:
    """Whether this context is inside a shield of the operation."""
    return any(shield.is_open and shield.operation is operation for shield in _shields.get())


class Shield:
    """Used as ``with`` or ``async with``; on a running event loop both keep native cancelation out as well."""

    __slots__ = ("_scope", "is_open", "operation")

    def __init__(self, operation: object) -> None:
        self.operation = operation
        self.is_open = False
        self._scope: CancelScope | None = None

    def __enter__(self) -> None:
        if self.is_open:
            raise RuntimeError("this shield is entered already; ask for another one")
        port = running_port()
        if port is not None:
            self._scope = new_cancel_scope(port, shield=True)
            self._scope.__enter__()
        self.is_open = True
        _shields.set((*_shields.get(), self))

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.is_open = False
        _shields.set(tuple(shield for shield in _shields.get() if shield.is_open))
        scope, self._scope = self._scope, None
        if scope is not None:
            scope.__exit__(exc_type, exc, traceback)

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(exc_type, exc, traceback)
