"""sqlite3, psycopg and psycopg2: a cancel ends the statement, and the connection works on."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import anyio
import psycopg
import psycopg2
import pytest

from cancelable_core import Cancelable, OperationCancelled, OperationStatus, OperationTimedOut, interrupting
from tests.core.helpers import becomes_true, becomes_true_soon
from tests.postgres import PostgreSQL

from .statements import ON_POSTGRES, RECURSION, SLEEP, is_stopped

Connect = Callable[..., Any]


@pytest.fixture(params=[psycopg.connect, psycopg2.connect], ids=["psycopg", "psycopg2"])
def connect(request: pytest.FixtureRequest) -> Connect:
    return request.param


@pytest.fixture
def connection(connect: Connect, postgres: PostgreSQL) -> Iterator[Any]:
    with closing(connect(postgres.url)) as connection:
        yield connection


def rows(connection: Any, statement: str) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall()


@pytest.mark.parametrize("statement", ON_POSTGRES.values(), ids=ON_POSTGRES.keys())
def test_a_statement_on_postgresql_ends_and_the_next_one_works(connection: Any, postgres: PostgreSQL, statement: str) -> None:
    def run() -> None:
        with interrupting(connection):
            rows(connection, statement)

    seen = is_stopped(run)
    assert isinstance(seen, OperationTimedOut)
    assert isinstance(seen.__cause__, (psycopg.errors.QueryCanceled, psycopg2.extensions.QueryCanceledError))
    connection.rollback()
    assert rows(connection, "SELECT 1") == [(1,)]
    becomes_true(lambda: not postgres.active_queries())


def test_over_a_unix_socket_too(connect: Connect, postgres: PostgreSQL) -> None:
    with closing(connect(postgres.socket_dsn)) as connection:

        def run() -> None:
            with interrupting(connection):
                rows(connection, SLEEP)

        is_stopped(run)


def test_a_statement_timeout_of_the_server_stays_the_drivers_error(connection: Any) -> None:
    rows(connection, "SELECT set_config('statement_timeout', '50', false)")
    with pytest.raises((psycopg.errors.QueryCanceled, psycopg2.errors.QueryCanceled)):
        with Cancelable() as operation, interrupting(connection):
            rows(connection, SLEEP)
    assert operation.status is OperationStatus.FAILED


async def test_a_native_cancel_of_an_async_connection_reaches_the_server(postgres: PostgreSQL, anyio_backend_name: str) -> None:
    if anyio_backend_name != "asyncio":
        pytest.skip("psycopg's async connections know asyncio only")
    async with await psycopg.AsyncConnection.connect(postgres.url) as connection:
        with pytest.raises(OperationTimedOut):
            async with Cancelable(timeout=0.2):
                with interrupting(connection):
                    await connection.execute(SLEEP)
        await becomes_true_soon(lambda: not postgres.active_queries())


async def test_leaving_a_thread_ends_its_statement(postgres: PostgreSQL) -> None:
    ended: list[BaseException] = []

    def run() -> None:
        with closing(psycopg.connect(postgres.url)) as connection:
            try:
                with interrupting(connection):
                    rows(connection, SLEEP)
            except OperationCancelled as error:
                ended.append(error)
                raise

    with pytest.raises(OperationCancelled):
        async with Cancelable() as operation, anyio.create_task_group() as group:
            group.start_soon(operation.run_in_thread, run)
            await becomes_true_soon(lambda: SLEEP in postgres.active_queries())
            operation.cancel_sync()
    await becomes_true_soon(lambda: ended and not postgres.active_queries())


@pytest.mark.parametrize("fetch", ["execute", "fetchall", "iterate"])
def test_a_statement_on_sqlite_ends_and_the_next_one_works(fetch: str) -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE kept (n)")
        connection.execute("INSERT INTO kept VALUES (7)")

        def run() -> None:
            with interrupting(connection):
                if fetch == "execute":
                    connection.execute(RECURSION)
                elif fetch == "fetchall":
                    connection.execute(f"SELECT 1 UNION ALL SELECT * FROM ({RECURSION})").fetchall()
                else:
                    list(connection.execute(f"SELECT 1 UNION ALL SELECT * FROM ({RECURSION})"))

        cause = is_stopped(run).__cause__
        assert isinstance(cause, sqlite3.OperationalError)
        assert connection.execute("SELECT n FROM kept").fetchall() == [(7,)]  # nothing was rolled back


def test_an_interrupt_that_came_before_the_statement_is_repeated() -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        with pytest.raises(OperationCancelled):
            with Cancelable() as operation, interrupting(connection) as region:
                operation.cancel_sync()
                becomes_true(lambda: region._fired)  # the first one hit nothing
                connection.execute(RECURSION)


def test_without_an_operation_nothing_is_armed() -> None:
    with closing(sqlite3.connect(":memory:")) as connection, interrupting(connection):
        assert connection.execute("SELECT 1").fetchall() == [(1,)]
