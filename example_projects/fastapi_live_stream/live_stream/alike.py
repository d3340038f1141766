"""Which files share the most lines: one query in SQLite, which takes minutes over all of the standard library."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from typing_extensions import TypedDict  # pydantic needs its own before Python 3.12

from cancelable_core.interrupters import interrupting
from cancelable_fastapi import current_operation

__all__ = ["Alike", "Pair", "files_alike"]

_SHORTEST_LINE = 10

_QUERY = """
SELECT one.file, other.file, COUNT(*) AS shared
FROM lines AS one JOIN lines AS other ON one.text = other.text AND one.file < other.file
GROUP BY one.file, other.file ORDER BY shared DESC, one.file, other.file LIMIT ?
"""


class Pair(TypedDict):
    """Two files."""

    files: tuple[str, str]
    shared_lines: int


class Alike(TypedDict):
    """The pairs that share the most lines."""

    pairs: list[Pair]


def files_alike(files: Sequence[Path], *, limit: int = 10) -> Alike:
    """Count the lines that each two files share.

    Concurrency:
        Blocks; runs in a thread of the current operation. A cancel ends the query where it is, and this raises.
    """
    operation = current_operation()
    assert operation is not None
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE lines (file TEXT, text TEXT)")
        for path in operation.iterate(files):
            lines = {line.strip() for line in path.read_text("utf-8", "replace").splitlines()}
            rows = [(str(path), line) for line in lines if len(line) >= _SHORTEST_LINE]
            connection.executemany("INSERT INTO lines VALUES (?, ?)", rows)
        operation.report_progress("comparing")
        with interrupting(connection):
            found = connection.execute(_QUERY, [limit]).fetchall()
    return Alike(pairs=[Pair(files=(Path(one).name, Path(other).name), shared_lines=shared) for one, other, shared in found])
