"""Django: with one setting, queries of every alias end with the operation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from django.db import DatabaseError, OperationalError, connection, connections, models, transaction
from django.test import override_settings

from cancelable_core import Cancelable, ConfigurationError, OperationCancelled
from cancelable_django.conf import read_settings
from tests.core.helpers import becomes_true
from tests.django_project import close_connections
from tests.postgres import PostgreSQL

from .databases import ALIAS, django_connection
from .statements import ON_POSTGRES, RECURSION, SLEEP, is_stopped


@pytest.fixture(autouse=True)
def connections_are_closed() -> Iterator[None]:
    yield
    close_connections()


@pytest.fixture
def on_postgres(postgres: PostgreSQL) -> Iterator[Any]:
    with django_connection(postgres) as connection:
        yield connection


def rows(connection: Any, statement: str) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return list(cursor.fetchall())


@pytest.mark.parametrize("statement", ON_POSTGRES.values(), ids=ON_POSTGRES.keys())
def test_a_query_on_postgresql_ends_and_the_persistent_connection_works_on(
    on_postgres: Any, postgres: PostgreSQL, statement: str
) -> None:
    rows(on_postgres, "SELECT 1")
    before = on_postgres.connection
    seen = is_stopped(lambda: rows(on_postgres, statement))
    assert isinstance(seen.__cause__, OperationalError)
    assert isinstance(seen.__cause__.__cause__, psycopg.errors.QueryCanceled)
    on_postgres.close_if_unusable_or_obsolete()  # what the end of a request does
    assert rows(on_postgres, "SELECT 1") == [(1,)]
    assert on_postgres.connection is before
    becomes_true(lambda: not postgres.active_queries())


def test_atomic_rolls_back_and_a_savepoint_saves_the_rest(on_postgres: Any) -> None:
    rows_of = "SELECT n FROM kept"
    with on_postgres.cursor() as cursor:
        cursor.execute("CREATE TEMP TABLE kept (n int)")
    with pytest.raises(OperationCancelled):
        with Cancelable(timeout=0.2), transaction.atomic(using=ALIAS):
            with on_postgres.cursor() as cursor:
                cursor.execute("INSERT INTO kept VALUES (1)")
            rows(on_postgres, SLEEP)
    assert rows(on_postgres, rows_of) == []
    with transaction.atomic(using=ALIAS):
        with on_postgres.cursor() as cursor:
            cursor.execute("INSERT INTO kept VALUES (2)")

        def inner() -> None:
            with transaction.atomic(using=ALIAS):
                rows(on_postgres, SLEEP)

        is_stopped(inner)
    assert rows(on_postgres, rows_of) == [(2,)]


class Slow(models.Model):
    """A view that takes its time after the first row."""

    n = models.IntegerField(primary_key=True)

    class Meta:
        app_label = "cancelable"
        managed = False
        db_table = "slow"


def test_server_side_cursors_are_interrupted_while_they_fetch(on_postgres: Any, postgres: PostgreSQL) -> None:
    with on_postgres.cursor() as cursor:
        cursor.execute(
            "CREATE TEMP VIEW slow AS SELECT i AS n FROM generate_series(1, 2000) AS i"
            " WHERE i < 1000 OR pg_sleep(30) IS NOT NULL"
        )
    seen: list[int] = []

    def read() -> None:
        with transaction.atomic(using=ALIAS):  # without one it is WITH HOLD, and all is done before the first row
            for row in Slow.objects.using(ALIAS).iterator(chunk_size=100):
                seen.append(row.n)

    is_stopped(read)
    assert 100 <= len(seen) < 1000
    assert rows(on_postgres, "SELECT 1") == [(1,)]
    becomes_true(lambda: not postgres.active_queries())


@pytest.mark.parametrize("late", [False, True], ids=["execute", "fetch"])
@override_settings(CANCELABLE={"INTERRUPT_QUERIES": True})
def test_sqlite_as_well(late: bool) -> None:
    statement = f"SELECT 1 UNION ALL SELECT * FROM ({RECURSION})" if late else RECURSION
    is_stopped(lambda: rows(connection, statement))
    assert rows(connection, "SELECT 1") == [(1,)]


def test_it_is_off_unless_asked_for() -> None:
    with Cancelable(), connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        assert not connection.execute_wrappers
        with override_settings(CANCELABLE={"INTERRUPT_QUERIES": True}):
            assert len(connection.execute_wrappers) == 1
        assert not connection.execute_wrappers


@override_settings(CANCELABLE={"INTERRUPT_QUERIES": True})
def test_every_alias_and_later_connections_are_covered() -> None:
    connections.close_all()
    for each in connections.all():
        each.ensure_connection()
        assert len(each.execute_wrappers) == 1


@override_settings(CANCELABLE={"INTERRUPT_QUERIES": True})
def test_other_errors_are_djangos() -> None:
    with Cancelable(), pytest.raises(DatabaseError):
        rows(connection, "SELECT * FROM missing")


@pytest.mark.parametrize("written", [{"INTERRUPT_QUERIES": 1}, {"INTERRUPT_QUERIES": True, "interrupt_queries": True}])
def test_a_value_that_cannot_work_is_refused(written: dict[str, object]) -> None:
    with override_settings(CANCELABLE=written), pytest.raises(ConfigurationError, match="INTERRUPT_QUERIES"):
        read_settings()
