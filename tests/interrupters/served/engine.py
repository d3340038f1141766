"""The database, as Flask and FastAPI reach it: by SQLAlchemy, over psycopg."""

from __future__ import annotations

import os

import sqlalchemy as sa

from cancelable_core.interrupters.sqlalchemy import instrument
from tests.interrupters.statements import ON_POSTGRES

__all__ = ["POSTGRES_PORT", "POSTGRES_USER", "query"]

POSTGRES_PORT = "CANCELABLE_TEST_POSTGRES_PORT"
POSTGRES_USER = "CANCELABLE_TEST_POSTGRES_USER"
"""The environment variables that say where it is."""

_address = f"{os.environ[POSTGRES_USER]}@127.0.0.1:{os.environ[POSTGRES_PORT]}"
_engine = instrument(sa.create_engine(f"postgresql+psycopg://{_address}/postgres", pool_size=1, max_overflow=0))


def query(name: str) -> str:
    """Run one of the statements; any other name is a quick one."""
    with _engine.connect() as connection:
        return str(connection.scalar(sa.text(ON_POSTGRES.get(name, "SELECT 1"))))
