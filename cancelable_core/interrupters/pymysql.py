"""Queries of PyMySQL, ended by ``KILL QUERY``, which goes to MariaDB or MySQL over a connection of its own."""

from __future__ import annotations

import sys
from typing import Any

from ..regions import Interrupter

__all__ = ["PyMySqlInterrupter", "interrupter_for"]

_QUERY_INTERRUPTED = 1317
"""The server's error ER_QUERY_INTERRUPTED."""

_REQUEST_SECONDS = 5
"""How long connecting and asking may take each, and with them leaving the region, where the server does not answer."""


class PyMySqlInterrupter(Interrupter):
    """Ends the statement that runs on a connection. The user must be allowed to connect once more, from this host."""

    repeats = True  # a session that is idle forgets the request

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._session = connection.thread_id()

    def interrupt(self) -> None:
        with self._connect_again() as killing, killing.cursor() as cursor:
            cursor.execute(f"KILL QUERY {self._session:d}")

    def _connect_again(self) -> Any:
        ours = self._connection
        return type(ours)(
            host=ours.host,
            port=ours.port,
            user=ours.user,
            password=ours.password,
            unix_socket=ours.unix_socket,
            ssl=ours.ctx if getattr(ours, "_ssl_required", ours.ssl) else None,  # newer ones encrypt where the server can
            ssl_disabled=not ours.ssl,
            connect_timeout=_REQUEST_SECONDS,
            read_timeout=_REQUEST_SECONDS,
            write_timeout=_REQUEST_SECONDS,
        )

    def is_interruption(self, error: Exception) -> bool:
        return bool(error.args) and error.args[0] == _QUERY_INTERRUPTED


def interrupter_for(connection: Any) -> PyMySqlInterrupter | None:
    """For a PyMySQL connection; None for anything else."""
    driver = sys.modules.get("pymysql.connections")
    return PyMySqlInterrupter(connection) if driver is not None and isinstance(connection, driver.Connection) else None
