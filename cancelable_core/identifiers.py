"""What an operation may be called by. Ids travel in paths, so their form is checked where they are made."""

from __future__ import annotations

import os
import re

from .errors import InvalidOperationId

__all__ = ["ROUTE_WORDS", "SecretId", "checked_operation_id", "new_operation_id"]

ROUTE_WORDS = frozenset({"stats", "cancel-all", "events", "dashboard", "health", "metrics"})
"""Words that stand where an id would stand in the routes."""

_FORM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,199}")


class SecretId(str):
    """An id that nobody can guess, so that knowing it is a capability."""

    __slots__ = ()


def new_operation_id() -> SecretId:
    """128 random bits in hex, straight from the kernel: nothing is buffered that a fork could copy."""
    return SecretId(os.urandom(16).hex())


def checked_operation_id(operation_id: str) -> str:
    """Return the id, or raise `InvalidOperationId`, which says what is wrong with it."""
    if not isinstance(operation_id, str):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers without a type checker
        raise InvalidOperationId(f"an operation id must be text, not {type(operation_id).__name__}")
    if not _FORM.fullmatch(operation_id):
        raise InvalidOperationId(
            f"{operation_id[:210]!r} cannot be an operation id: use 1 to 200 letters, digits and '.', '_', ':' or '-',"
            " beginning with a letter or digit",
            operation_id=operation_id,
        )
    if operation_id.lower() in ROUTE_WORDS:
        raise InvalidOperationId(
            f"{operation_id!r} cannot be an operation id: the routes use this word", operation_id=operation_id
        )
    return operation_id
