"""A driver's cursor, whose fetches can be interrupted: SQLite and server-side cursors do their work there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ..operation import current_operation
from ..regions import Interrupter

__all__ = ["InterruptibleCursor", "LibraryInterrupter", "call_interruptible", "undoes"]


def undoes(statement: object) -> bool:
    """Whether a statement only takes back what was done: it must run in a cancelled operation, too, and is quick."""
    return isinstance(statement, str) and statement.lstrip()[:9].upper().startswith(("ROLLBACK", "RELEASE"))


def call_interruptible(interrupter: Interrupter, func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Call ``func``, which blocks; a cancel of the current operation interrupts it. Without one it is just called."""
    operation = current_operation()
    if operation is None:
        return func(*args, **kwargs)
    with operation.interruptible(interrupter):
        return func(*args, **kwargs)


class InterruptibleCursor:
    """Stands for a DB-API cursor after it has executed; everything but the fetches is the cursor's own."""

    __slots__ = ("_cursor", "_interrupter")

    def __init__(self, cursor: Any, interrupter: Interrupter) -> None:
        self._cursor = cursor
        self._interrupter = interrupter

    def fetchone(self) -> Any:
        return call_interruptible(self._interrupter, self._cursor.fetchone)

    def fetchmany(self, *args: Any, **kwargs: Any) -> Any:
        return call_interruptible(self._interrupter, self._cursor.fetchmany, *args, **kwargs)

    def fetchall(self) -> Any:
        return call_interruptible(self._interrupter, self._cursor.fetchall)

    def __iter__(self) -> Iterator[Any]:
        rows = iter(self._cursor)
        end = object()
        while (row := call_interruptible(self._interrupter, next, rows, end)) is not end:
            yield row

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in InterruptibleCursor.__slots__:
            object.__setattr__(self, name, value)
        else:
            setattr(self._cursor, name, value)


class LibraryInterrupter(Interrupter):
    """Stops the driver's call, and knows the driver's error as the cause of a library's."""

    repeats = True

    def __init__(self, driver: Interrupter) -> None:
        self._driver = driver

    def interrupt(self) -> None:
        self._driver.interrupt()

    def is_interruption(self, error: Exception) -> bool:
        return any(isinstance(each, Exception) and self._driver.is_interruption(each) for each in (error, error.__cause__))
