"""Queries of psycopg 3, ended by a cancel request that goes to PostgreSQL over a connection of its own."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from ..regions import Interrupter

if TYPE_CHECKING:
    import psycopg

__all__ = ["QUERY_CANCELED", "PsycopgInterrupter", "interrupter_for"]

QUERY_CANCELED = "57014"
"""PostgreSQL's SQLSTATE query_canceled, which a statement timeout raises as well."""

_REQUEST_SECONDS = 5.0
"""How long a cancel request may take, and with it leaving the region, where the server does not answer."""


class PsycopgInterrupter(Interrupter):
    """Ends the statement that runs on a synchronous connection. Async ones need none: psycopg does the same itself."""

    repeats = True  # a server process that is idle forgets the request

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def interrupt(self) -> None:
        self._connection.cancel_safe(timeout=_REQUEST_SECONDS)

    def is_interruption(self, error: Exception) -> bool:
        return getattr(error, "sqlstate", None) == QUERY_CANCELED


def interrupter_for(connection: Any) -> PsycopgInterrupter | None:
    """For a `psycopg.Connection`; None for anything else."""
    driver = sys.modules.get("psycopg")
    return PsycopgInterrupter(connection) if driver is not None and isinstance(connection, driver.Connection) else None
