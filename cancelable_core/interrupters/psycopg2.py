"""Queries of psycopg2, ended by its `cancel`, which any thread may call."""

from __future__ import annotations

import sys
from typing import Any, Protocol

from ..regions import Interrupter
from .psycopg import QUERY_CANCELED

__all__ = ["Psycopg2Interrupter", "interrupter_for"]


class _Connection(Protocol):
    """What is needed of psycopg2's, which comes without types."""

    def cancel(self) -> None: ...


class Psycopg2Interrupter(Interrupter):
    """Ends the statement that runs on a connection. libpq's cancel request knows no timeout but the connection attempt's."""

    repeats = True  # a server process that is idle forgets the request

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection

    def interrupt(self) -> None:
        self._connection.cancel()

    def is_interruption(self, error: Exception) -> bool:
        return getattr(error, "pgcode", None) == QUERY_CANCELED


def interrupter_for(connection: Any) -> Psycopg2Interrupter | None:
    """For a psycopg2 connection; None for anything else."""
    driver = sys.modules.get("psycopg2.extensions")
    return Psycopg2Interrupter(connection) if driver is not None and isinstance(connection, driver.connection) else None
