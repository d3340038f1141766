"""A store of its own for each test."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from ..store import OperationStore, replace_default_store

__all__ = ["fresh_store"]


@contextmanager
def fresh_store(history_limit: int = 1_000) -> Generator[OperationStore]:
    """Put an empty default store in place for one block.

    Applications that are built inside the block, and operations that are opened there, use it; an application built before
    keeps the store it was built with.

    Args:
        history_limit: See `OperationStore`.

    Concurrency:
        The default store is the process's: not for tests that run at the same time in one process.
    """
    store = OperationStore(history_limit)
    before = replace_default_store(store)
    try:
        yield store
    finally:
        replace_default_store(before)
