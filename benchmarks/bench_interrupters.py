"""How long a query outlives its cancel, over the driver's own interruption from another thread; and what a region costs."""

from __future__ import annotations

import sqlite3
import statistics
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _harness import compare, print_header

from cancelable_core import Cancelable, Interrupter, interrupting
from tests.postgres import find_programs, running_postgres

ROUNDS = 30
LONG = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000000000) SELECT count(*) FROM n"


def outlives(run: Callable[[], object], stop: Callable[[], object]) -> float:
    """Seconds from the call of ``stop`` in another thread to the end of ``run``."""
    stopped: list[float] = []

    def stopping() -> None:
        time.sleep(0.05)
        stopped.append(time.perf_counter())
        stop()

    thread = threading.Thread(target=stopping)
    thread.start()
    try:
        run()
    except Exception:  # what the driver makes of it, or what we do
        pass
    ended = time.perf_counter()
    thread.join()
    return ended - stopped[0]


def latency(
    name: str,
    query: Callable[[], object],
    interrupt: Callable[[], object],
    region: Callable[[], AbstractContextManager[object]],
) -> None:
    """Print how long a query outlives a cancel of its operation, over what it outlives the driver's own call."""
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(ROUNDS):
        theirs.append(outlives(query, interrupt))
        operation = Cancelable(register=False)

        def in_operation(operation: Cancelable = operation) -> None:
            with operation, region():
                query()

        ours.append(outlives(in_operation, operation.cancel_sync))
    middle, floor = statistics.median(ours), statistics.median(theirs)
    print(f"{name:<52} {middle / floor:7.2f} x  {middle * 1e3:.2f} ms over {floor * 1e3:.2f} ms; at most {max(ours) * 1e3:.1f}")


class Nothing(Interrupter):
    """Never called: nobody cancels."""

    def interrupt(self) -> None:
        pass


def region_costs() -> None:
    with closing(sqlite3.connect(":memory:")) as connection, Cancelable(register=False) as operation:

        def plain(times: int) -> None:
            for _ in range(times):
                connection.execute("SELECT 1").fetchall()

        def armed(times: int) -> None:
            for _ in range(times):
                with operation.interruptible(nothing):
                    connection.execute("SELECT 1").fetchall()

        nothing = Nothing()
        compare("SELECT 1 on SQLite in a region, over without", armed, plain)


def main() -> None:
    print_header("interrupters", "psycopg", "psycopg2-binary")
    region_costs()
    with closing(sqlite3.connect(":memory:", check_same_thread=False)) as connection:
        latency(
            "sqlite3: from the cancel to the end of the call",
            lambda: connection.execute(LONG),
            connection.interrupt,
            lambda: interrupting(connection),
        )
    if find_programs() is None:
        print("psycopg, psycopg2: left out, no PostgreSQL here")
        return
    import psycopg
    import psycopg2

    with running_postgres() as postgres:
        with closing(psycopg.connect(postgres.url, autocommit=True)) as three:
            latency("psycopg", lambda: three.execute(LONG), three.cancel_safe, lambda: interrupting(three))
        with closing(psycopg2.connect(postgres.url)) as two:
            two.autocommit = True
            latency("psycopg2", lambda: two.cursor().execute(LONG), two.cancel, lambda: interrupting(two))


if __name__ == "__main__":
    main()
