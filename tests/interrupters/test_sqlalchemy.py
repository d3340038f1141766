"""SQLAlchemy: an instrumented engine's statements and fetches end with the operation; pool and sessions work on."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.ext.asyncio import create_async_engine

from cancelable_core import Cancelable, OperationCancelled, OperationTimedOut, interrupting
from cancelable_core.interrupters.sqlalchemy import instrument
from tests.core.helpers import Running, becomes_true, becomes_true_soon
from tests.postgres import PostgreSQL

from .statements import ON_POSTGRES, RECURSION, SLEEP, is_stopped


class Base(orm.DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "notes"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    text: orm.Mapped[str]


@pytest.fixture(params=["psycopg", "psycopg2", "sqlite"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sa.Engine]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'notes.db'}"
    else:
        url = request.getfixturevalue("postgres").sqlalchemy_url(request.param)
    engine = instrument(instrument(sa.create_engine(url, pool_size=2, max_overflow=0)))
    yield engine
    Base.metadata.drop_all(engine)
    engine.dispose()


def run(engine: sa.Engine, statement: str) -> Any:
    with engine.connect() as connection:
        return connection.execute(sa.text(statement)).fetchall()


def checked_in(engine: sa.Engine) -> int:
    return engine.pool.checkedin()  # type: ignore[attr-defined,no-any-return]


def test_statements_end_and_the_pool_keeps_its_connections(engine: sa.Engine, request: pytest.FixtureRequest) -> None:
    statements = [RECURSION] if engine.name == "sqlite" else list(ON_POSTGRES.values())
    made: list[object] = []
    sa.event.listen(engine, "connect", lambda connection, _: made.append(connection))
    for statement in statements:
        seen = is_stopped(partial(run, engine, statement))
        assert isinstance(seen.__cause__, engine.dialect.dbapi.Error)  # type: ignore[union-attr]
        assert run(engine, "SELECT 1") == [(1,)]
    assert (len(made), checked_in(engine)) == (1, 1)
    if engine.name != "sqlite":
        postgres: PostgreSQL = request.getfixturevalue("postgres")
        becomes_true(lambda: not postgres.active_queries())


def test_every_engine_is_instrumented_whatever_others_there_were() -> None:
    """SQLAlchemy tells listeners apart by numbers that Python gives to new objects again."""
    numbers: list[int] = []
    kept: list[object] = []
    for _ in range(300):
        engine = instrument(sa.create_engine("sqlite://", poolclass=sa.NullPool))
        numbers.append(id(engine))
        kept.append(engine.dialect)  # which the listeners are in; it may outlive the engine
        with pytest.raises(OperationCancelled), Cancelable("cancelled") as operation, engine.connect() as connection:
            operation.cancel_sync()
            connection.execute(sa.text("SELECT 1"))
        engine.dispose()
        del connection, engine
        gc.collect(0)
    assert len(set(numbers)) < len(numbers), "no number was given again"


def test_a_session_is_usable_after_its_rollback(engine: sa.Engine) -> None:
    Base.metadata.create_all(engine)
    with orm.Session(engine) as session:
        session.add(Note(text="kept"))
        session.commit()
        session.add(Note(text="lost"))
        session.flush()
        is_stopped(lambda: session.execute(sa.text(RECURSION)).all())
        session.rollback()
        assert [note.text for note in session.scalars(sa.select(Note))] == ["kept"]


def test_what_is_fetched_late_is_interrupted_too(engine: sa.Engine) -> None:
    with engine.connect() as connection:
        streaming = connection.execution_options(stream_results=True, yield_per=1)
        late = f"SELECT 1 UNION ALL SELECT * FROM ({RECURSION}) AS late"

        def read() -> None:
            for row in streaming.execute(sa.text(late)):
                assert row == (1,)

        is_stopped(read)
        connection.rollback()
        assert connection.scalar(sa.text("SELECT 1")) == 1


def test_a_region_of_ones_own_around_an_engine_that_is_not_instrumented(postgres: PostgreSQL) -> None:
    engine = sa.create_engine(postgres.sqlalchemy_url("psycopg"))
    with engine.connect() as connection:

        def read() -> None:
            with interrupting(connection):
                connection.execute(sa.text(SLEEP))

        assert isinstance(is_stopped(read).__cause__, sa.exc.OperationalError)
        connection.rollback()
        assert connection.scalar(sa.text("SELECT 1")) == 1
    engine.dispose()


def test_inserts_and_errors_are_as_before(engine: sa.Engine) -> None:
    Base.metadata.create_all(engine)
    with Cancelable(), orm.Session(engine) as session:
        session.add_all([Note(text=str(n)) for n in range(5)])
        session.commit()
        assert session.scalar(sa.select(sa.func.count()).select_from(Note)) == 5
        with pytest.raises(sa.exc.DatabaseError):
            session.execute(sa.text("SELECT * FROM missing"))


@pytest.mark.parametrize("driver", ["psycopg", "aiosqlite"])
async def test_an_async_engine_leaves_nothing_running(
    driver: str, request: pytest.FixtureRequest, tmp_path: Path, anyio_backend_name: str
) -> None:
    if anyio_backend_name != "asyncio":
        pytest.skip("SQLAlchemy's async engines know asyncio only")
    if driver == "aiosqlite":
        url, statement = f"sqlite+aiosqlite:///{tmp_path / 'async.db'}", RECURSION
    else:
        url, statement = request.getfixturevalue("postgres").sqlalchemy_url("psycopg"), SLEEP
    engine = instrument(create_async_engine(url, pool_size=1, max_overflow=0))
    threads = threading.active_count()
    with pytest.raises(OperationTimedOut):
        async with Cancelable(timeout=0.3):
            async with engine.connect() as connection:
                await connection.execute(sa.text(statement))
    if driver == "psycopg":
        postgres: PostgreSQL = request.getfixturevalue("postgres")
        await becomes_true_soon(lambda: not postgres.active_queries())
    else:
        await becomes_true_soon(lambda: threading.active_count() <= threads + 2)
    async with engine.connect() as connection:  # of the pool's one
        assert await connection.scalar(sa.text("SELECT 1")) == 1
    await engine.dispose()
    await becomes_true_soon(lambda: not any("aiosqlite" in str(thread) for thread in threading.enumerate()))


def test_from_another_thread(engine: sa.Engine) -> None:
    operations: list[Cancelable] = []

    def work() -> None:
        with Cancelable() as operation:
            operations.append(operation)
            run(engine, RECURSION)

    running = Running(work)
    becomes_true(lambda: operations)
    operations[0].cancel_sync()
    with pytest.raises(OperationCancelled):
        running.result()
