"""Which interrupter stops the calls of a given driver's connection."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

from ..operation import current_operation
from ..regions import Interrupter
from . import psycopg, sqlalchemy
from .drivers import DRIVERS

__all__ = ["interrupter_for", "interrupting"]

_PICKERS: tuple[Callable[[object], Interrupter | None], ...] = (*DRIVERS, sqlalchemy.interrupter_for)


def interrupter_for(connection: object) -> Interrupter:
    """The interrupter of a driver's connection.

    Raises:
        TypeError: None is known for it; derive one from `Interrupter`.
    """
    for pick in _PICKERS:
        interrupter = pick(connection)
        if interrupter is not None:
            return interrupter
    kind = f"{type(connection).__module__}.{type(connection).__qualname__}"
    raise TypeError(
        f"nothing is known to interrupt {kind}; known are synchronous connections of sqlite3, psycopg, psycopg2, PyMySQL and"
        " SQLAlchemy. For others, derive from Interrupter and use operation.interruptible()"
    )


def interrupting(connection: object) -> AbstractContextManager[object]:
    """A ``with`` block around one blocking call on ``connection``, which a cancel of the current operation interrupts.

    Without an open operation it does nothing. See `Cancelable.interruptible` for what holds inside.

    Args:
        connection: A connection of sqlite3, psycopg 3, psycopg2 or PyMySQL, or of SQLAlchemy over one of these. Around awaits
            on a `psycopg.AsyncConnection` it sees to it that a native cancelation reaches the server.

    Raises:
        OperationCancelled: At entry or in place of the driver's error.
        TypeError: Nothing is known to interrupt such an object.
    """
    if psycopg.is_async(connection):
        return psycopg.CancelRequestInTime(cast("Any", connection))
    interrupter = interrupter_for(connection)
    operation = current_operation()
    return nullcontext() if operation is None else operation.interruptible(interrupter)
