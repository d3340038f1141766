"""Statements that take long where nobody interrupts them, and what the tests do with them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from cancelable_core import Cancelable, OperationCancelled

RECURSION = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000000000) SELECT count(*) FROM n"
SLEEP = "SELECT 1 FROM (SELECT pg_sleep(30)) AS slept"
SORT = "SELECT md5(i::text) AS m FROM generate_series(1, 40000000) AS i ORDER BY m DESC LIMIT 1"

ON_POSTGRES = {"sleep": SLEEP, "recursion": RECURSION, "sort": SORT}

STOPPED_SECONDS = 8.0
"""Generous, for loaded machines: far below what the statements take, so that nobody waited for their end."""


def is_stopped(run: Callable[[], Any], *, after_seconds: float = 0.3) -> OperationCancelled:
    """Run a statement in an operation with a deadline, which interrupts it; returns what the caller then saw."""
    started = time.monotonic()
    seen: OperationCancelled | None = None
    try:
        with Cancelable("statement", timeout=after_seconds):
            run()
    except OperationCancelled as error:
        seen = error
    assert seen is not None, "it was not interrupted"
    assert time.monotonic() - started < STOPPED_SECONDS
    return seen
