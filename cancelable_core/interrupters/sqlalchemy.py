"""Statements of SQLAlchemy 2, by what interrupts the driver below: once per engine, or around one call."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

from ..errors import OperationCancelled
from ..regions import Interrupter
from ..wakeup import is_native_cancelation
from . import psycopg
from .cursors import InterruptibleCursor, LibraryInterrupter, call_interruptible, undoes
from .drivers import DRIVERS

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

    AnyEngine = TypeVar("AnyEngine", Engine, AsyncEngine)

__all__ = ["instrument", "interrupter_for"]


def instrument(engine: AnyEngine) -> AnyEngine:
    """Have a cancel interrupt the statements and fetches of an engine, in whatever operation is current where they run.

    Args:
        engine: A synchronous engine over sqlite3, psycopg, psycopg2 or PyMySQL, or an asynchronous one; others are left as
            they are. An ORM session needs its ``rollback()`` afterwards, as after any error.

    Returns:
        The engine. Doing it twice changes nothing.

    Raises:
        OperationCancelled: From the interrupted call, with the driver's error as its cause.

    Asynchronous engines are cancelled natively where they await, and SQLAlchemy then replaces the connection. Where the driver
    leaves the statement running, as aiosqlite does, and psycopg in anyio's scopes, that is ended too.
    """
    from sqlalchemy import event

    sync_engine = cast("Engine", getattr(engine, "sync_engine", engine))
    if sync_engine.dialect not in _instrumented:
        _instrumented.add(sync_engine.dialect)
        for name, listener in _LISTENERS.items():
            event.listen(sync_engine, name, listener)
    return engine


_instrumented: weakref.WeakSet[object] = weakref.WeakSet()
"""The dialects that have our listeners. SQLAlchemy is not asked: its ``event.contains`` goes by the number of an object (`id`),
and finds the listeners of an engine that is gone in a new one that was given the same."""


def _do_execute(cursor: Any, statement: str, parameters: Any, context: Any) -> bool | None:
    return _run(context, cursor, context.dialect.do_execute, statement, parameters)


def _do_executemany(cursor: Any, statement: str, parameters: Any, context: Any) -> bool | None:
    return _run(context, cursor, context.dialect.do_executemany, statement, parameters)


def _do_execute_no_params(cursor: Any, statement: str, context: Any) -> bool | None:
    return _run(context, cursor, context.dialect.do_execute_no_params, statement)


def _handle_error(context: Any) -> None:
    """Keep the connection: a ``TimeoutError``, which a timeout's is, counts as the end of it otherwise."""
    if isinstance(context.original_exception, OperationCancelled):
        context.is_disconnect = False


_LISTENERS: dict[str, Callable[..., bool | None]] = {
    "do_execute": _do_execute,
    "do_executemany": _do_executemany,
    "do_execute_no_params": _do_execute_no_params,
    "handle_error": _handle_error,
}


def _run(context: Any, cursor: Any, execute: Callable[..., Any], *args: Any) -> bool | None:
    """Execute in the dialect's place (True), or leave it to the dialect (None)."""
    driver_connection = context.root_connection.connection.driver_connection
    if context.dialect.is_async:
        return _run_awaiting(driver_connection, execute, cursor, *args, context)
    interrupter = None if undoes(args[0]) else _driver_interrupter(driver_connection)
    if interrupter is None:
        return None
    call_interruptible(interrupter, execute, cursor, *args, context)
    context.cursor = InterruptibleCursor(cursor, interrupter)  # the result fetches from there
    return True


def _run_awaiting(driver_connection: Any, execute: Callable[..., Any], *args: Any) -> bool | None:
    if psycopg.is_async(driver_connection):
        with psycopg.CancelRequestInTime(driver_connection):
            execute(*args)
        return True
    driver = sys.modules.get("aiosqlite")
    if driver is None or not isinstance(driver_connection, driver.Connection):
        return None
    try:
        execute(*args)
    except BaseException as error:
        if is_native_cancelation(error):  # nobody awaits its thread any more
            _run_to_the_end(driver_connection.interrupt())
        raise
    return True


def _run_to_the_end(coroutine: Any) -> None:
    """For a coroutine that never suspends, as aiosqlite's ``interrupt`` does not."""
    try:
        coroutine.send(None)
    except StopIteration:
        pass
    finally:
        coroutine.close()


def _driver_interrupter(connection: object) -> Interrupter | None:
    for pick in DRIVERS:
        interrupter = pick(connection)
        if interrupter is not None:
            return interrupter
    return None


def interrupter_for(connection: Any) -> LibraryInterrupter | None:
    """For a `sqlalchemy.Connection` over a driver that can be interrupted; None for anything else."""
    library = sys.modules.get("sqlalchemy")
    if library is None or not isinstance(connection, library.Connection):
        return None
    inner = _driver_interrupter(connection.connection.driver_connection)
    return None if inner is None else LibraryInterrupter(inner)
