"""The database drivers whose calls can be interrupted, one after the other."""

from __future__ import annotations

from collections.abc import Callable

from ..regions import Interrupter
from . import psycopg, psycopg2, pymysql, sqlite3

__all__ = ["DRIVERS"]

DRIVERS: tuple[Callable[[object], Interrupter | None], ...] = (
    sqlite3.interrupter_for,
    psycopg.interrupter_for,
    psycopg2.interrupter_for,
    pymysql.interrupter_for,
)
"""Each returns the interrupter of its own connections, and None for others."""
