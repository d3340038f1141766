"""Queries of psycopg 3, ended by a cancel request that goes to PostgreSQL over a connection of its own."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ..regions import Interrupter
from ..timer_thread import shared_timer
from ..wakeup import is_native_cancelation

if TYPE_CHECKING:
    import psycopg

__all__ = ["QUERY_CANCELED", "CancelRequestInTime", "PsycopgInterrupter", "interrupter_for", "is_async"]

QUERY_CANCELED = "57014"
"""PostgreSQL's SQLSTATE query_canceled, which a statement timeout raises as well."""

_REQUEST_SECONDS = 5.0
"""How long a cancel request may take, and with it leaving the region, where the server does not answer."""


class PsycopgInterrupter(Interrupter):
    """Ends the statement that runs on a synchronous connection."""

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


class CancelRequestInTime:
    """A ``with`` block around awaits on a `psycopg.AsyncConnection`.

    When its task is cancelled, psycopg asks the server to cancel the statement and awaits that. Inside anyio's scopes, and so
    in operations, a cancel is level-triggered and interrupts this await too: psycopg then closes the connection, and the
    statement would run on at the server. So the request is sent from here. It can hit no other: nobody has that session now.
    """

    __slots__ = ("_cancel", "_connection")

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._connection = connection
        self._cancel: Any = None

    def __enter__(self) -> None:
        shared_timer().start()
        self._cancel = None if self._connection.closed else self._connection.pgconn.get_cancel()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        cancel, self._cancel = self._cancel, None
        if cancel is not None and exc is not None and is_native_cancelation(exc) and self._connection.closed:
            shared_timer().dispatch(cancel.cancel)


def is_async(connection: Any) -> bool:
    """Whether it is a `psycopg.AsyncConnection`."""
    driver = sys.modules.get("psycopg")
    return driver is not None and isinstance(connection, driver.AsyncConnection)
