"""Queries of sqlite3, ended by `sqlite3.Connection.interrupt`, which any thread may call."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from ..regions import Interrupter

if TYPE_CHECKING:
    import sqlite3

__all__ = ["SQLiteInterrupter", "interrupter_for"]

_SQLITE_INTERRUPT = 9  # sqlite3.SQLITE_INTERRUPT; the extended codes keep it in their lowest byte


class SQLiteInterrupter(Interrupter):
    """Ends the statements that run on a connection; one that waits for another connection's lock ends by its own timeout."""

    repeats = True  # on an idle connection an interrupt is forgotten

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def interrupt(self) -> None:
        self._connection.interrupt()

    def is_interruption(self, error: Exception) -> bool:
        code = getattr(error, "sqlite_errorcode", None)
        return isinstance(code, int) and code & 0xFF == _SQLITE_INTERRUPT


def interrupter_for(connection: Any) -> SQLiteInterrupter | None:
    """For a `sqlite3.Connection`; None for anything else."""
    driver = sys.modules.get("sqlite3")
    return SQLiteInterrupter(connection) if driver is not None and isinstance(connection, driver.Connection) else None
