"""Queries end with the operation that runs them: ``CANCELABLE = {"INTERRUPT_QUERIES": True}``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from cancelable_core import current_operation
from cancelable_core.interrupters import InterruptibleCursor, LibraryInterrupter, call_interruptible, interrupter_for, undoes

__all__ = ["interrupt_queries"]


def interrupt_queries(enabled: bool) -> None:
    """Interrupt the queries of every database connection of the process, those that are open in this thread and all later ones.

    Args:
        enabled: False ends it: for connections that are opened from then on, and the ones open in this thread.
    """
    if enabled:
        connection_created.connect(_wrap, dispatch_uid="cancelable.interrupt_queries")
    else:
        connection_created.disconnect(dispatch_uid="cancelable.interrupt_queries")
    for connection in connections.all(initialized_only=True):
        if enabled:
            _wrap(connection=connection)
        elif _execute in connection.execute_wrappers:
            connection.execute_wrappers.remove(_execute)


def _wrap(*, connection: BaseDatabaseWrapper, **_: Any) -> None:
    if _execute not in connection.execute_wrappers:
        # first: Django's own context manager takes the last one away again when it ends
        connection.execute_wrappers.insert(0, _execute)


def _execute(execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: dict[str, Any]) -> Any:
    operation = current_operation()
    if operation is None or undoes(sql):
        return execute(sql, params, many, context)
    cursor = context["cursor"]
    try:
        interrupter = LibraryInterrupter(interrupter_for(context["connection"].connection))
    except TypeError:  # a database that nothing is known for
        return execute(sql, params, many, context)
    result = call_interruptible(interrupter, execute, sql, params, many, context)
    if not isinstance(cursor.cursor, InterruptibleCursor):
        cursor.cursor = InterruptibleCursor(cursor.cursor, interrupter)  # SQLite and server-side cursors do the work in fetches
    return result
