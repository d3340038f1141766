"""Queries of PyMySQL end with their operation, on a real MariaDB."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pymysql
import pytest
import sqlalchemy as sa

from cancelable_core import interrupting
from cancelable_core.interrupters.sqlalchemy import instrument
from tests.core.helpers import becomes_true
from tests.mariadb import MariaDB

from .statements import is_stopped

STATEMENTS = {
    "sleep": "SELECT SLEEP(30)",
    "join": "SELECT COUNT(*) FROM seq_1_to_200000 a JOIN seq_1_to_200000 b WHERE SIN(a.seq) + COS(b.seq) > 3",
    "sort": "SELECT MD5(seq) AS m FROM seq_1_to_40000000 ORDER BY m DESC LIMIT 1",
}


@pytest.fixture
def connection(mariadb: MariaDB) -> Iterator[Any]:
    with closing(mariadb.connect()) as connection:
        yield connection


def execute(connection: Any, statement: str) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall()


@pytest.mark.parametrize("statement", STATEMENTS.values(), ids=STATEMENTS)
def test_a_statement_ends_and_the_connection_goes_on(connection: Any, mariadb: MariaDB, statement: str) -> None:
    session = connection.thread_id()

    def run() -> None:
        with interrupting(connection):
            execute(connection, statement)

    error = is_stopped(run)
    assert isinstance(error.__cause__, pymysql.err.OperationalError)
    becomes_true(lambda: not mariadb.active_queries())
    assert execute(connection, "SELECT 1") == ((1,),)
    assert connection.thread_id() == session


def test_an_error_of_the_statement_itself_passes(connection: Any) -> None:
    with pytest.raises(pymysql.err.ProgrammingError), interrupting(connection):
        execute(connection, "SELECT * FROM nowhere.nothing")


def test_an_engine_s_pool_keeps_its_connection(mariadb: MariaDB) -> None:
    engine = instrument(sa.create_engine(mariadb.sqlalchemy_url, pool_size=1, max_overflow=0))
    try:
        with engine.connect() as connection:
            session = connection.scalar(sa.text("SELECT CONNECTION_ID()"))

        def run() -> None:
            with engine.connect() as connection:
                connection.scalar(sa.text(STATEMENTS["sleep"]))

        is_stopped(run)
        becomes_true(lambda: not mariadb.active_queries())
        with engine.connect() as connection:
            assert connection.scalar(sa.text("SELECT CONNECTION_ID()")) == session
    finally:
        engine.dispose()
