"""A cancel at a random moment around the end of a statement never hits the next one. Seeded; full counts by environment."""

from __future__ import annotations

import os
import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from cancelable_core import Cancelable, OperationCancelled, interrupting
from cancelable_core.interrupters.sqlalchemy import instrument
from tests.core.helpers import Running
from tests.mariadb import MariaDB
from tests.postgres import PostgreSQL

from .databases import django_connection

ROUNDS = os.environ.get("CANCELABLE_RACE_ROUNDS")
"""By default so many as take seconds."""
SHORT = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 6000) SELECT count(*) FROM n"
NEXT = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1500) SELECT count(*) FROM n"

Execute = Callable[[str], Any]


@contextmanager
def on_sqlite(_: pytest.FixtureRequest) -> Iterator[Execute]:
    with closing(sqlite3.connect(":memory:")) as connection:

        def execute(statement: str) -> Any:
            with interrupting(connection):
                return connection.execute(statement).fetchall()

        yield execute


@contextmanager
def on_psycopg(request: pytest.FixtureRequest) -> Iterator[Execute]:
    postgres: PostgreSQL = request.getfixturevalue("postgres")
    with closing(psycopg.connect(postgres.url, autocommit=True)) as connection:

        def execute(statement: str) -> Any:
            with interrupting(connection):
                return connection.execute(statement).fetchall()

        yield execute


@contextmanager
def on_sqlalchemy(request: pytest.FixtureRequest) -> Iterator[Execute]:
    postgres: PostgreSQL = request.getfixturevalue("postgres")
    engine = instrument(sa.create_engine(postgres.sqlalchemy_url("psycopg"), isolation_level="AUTOCOMMIT"))
    with engine.connect() as connection:
        yield lambda statement: connection.execute(sa.text(statement)).fetchall()
    engine.dispose()


@contextmanager
def on_django(request: pytest.FixtureRequest) -> Iterator[Execute]:
    with django_connection(request.getfixturevalue("postgres")) as connection:

        def execute(statement: str) -> Any:
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return cursor.fetchall()

        yield execute


@contextmanager
def on_pymysql(request: pytest.FixtureRequest) -> Iterator[Execute]:
    mariadb: MariaDB = request.getfixturevalue("mariadb")
    with closing(mariadb.connect()) as connection, connection.cursor() as cursor:

        def execute(statement: str) -> Any:
            with interrupting(connection):
                # longer than it takes to connect once more, which is how the server is asked to end it
                cursor.execute(statement.replace("6000", "150000"))
                return list(cursor.fetchall())

        execute("SET max_recursive_iterations = 200000")
        yield execute


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("kind", "few"), [(on_sqlite, 250), (on_psycopg, 250), (on_sqlalchemy, 250), (on_django, 250), (on_pymysql, 50)]
)
def test_no_later_statement_is_hit(kind: Any, few: int, request: pytest.FixtureRequest, record_property: Any) -> None:
    rounds = few if ROUNDS is None else int(ROUNDS)
    rng = random.Random(20261125)
    hit: list[BaseException] = []
    interrupted = 0
    with kind(request) as execute:
        started = time.perf_counter()
        for _ in range(20):
            execute(SHORT)
        usual = (time.perf_counter() - started) / 20
        for _ in range(rounds):
            operation = Cancelable(register=False)
            with operation:
                canceller = Running(_cancel_after, operation, rng.uniform(0, 1.5 * usual))
                try:
                    execute(SHORT)
                except OperationCancelled:
                    interrupted += 1
                with operation.shield():  # cancelled or not: this one is none of the cancel's
                    try:
                        assert execute(NEXT) == [(1500,)]
                    except Exception as error:
                        hit.append(error)
                canceller.result()
    record_property("interrupted", interrupted)
    print(f"{kind.__name__}: {rounds} rounds, {interrupted} interrupted, {len(hit)} later statements hit")
    assert not hit
    assert 0 < interrupted < rounds  # the cancels came on both sides of the end


def _cancel_after(operation: Cancelable, seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        time.sleep(0)
    operation.cancel_sync()
