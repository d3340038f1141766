"""A query of SQLite on a connection of its own; the log says when it is asked, and what became of its request."""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing

from cancelable_core import interrupting
from tests.interrupters.statements import RECURSION

__all__ = ["ASKED", "sqlite_query"]

ASKED = "SQLite is asked"

logging.basicConfig(level=logging.INFO)


def sqlite_query() -> str:
    """Count for minutes."""
    with closing(sqlite3.connect(":memory:")) as connection:
        logging.getLogger(__name__).info(ASKED)
        with interrupting(connection):
            return str(connection.execute(RECURSION).fetchone()[0])
