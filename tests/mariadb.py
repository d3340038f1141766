"""A real MariaDB of this test process: made in a temporary directory, ended with the session."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pymysql
import pytest

from tests.postgres import free_port

__all__ = ["MariaDB", "running_mariadb"]

_START_SECONDS = 30.0
_STOP_SECONDS = 15.0
_PLACES = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin"))


@dataclass(frozen=True, slots=True)
class MariaDB:
    """Where it listens."""

    port: int

    def connect(self) -> Any:
        """A connection of PyMySQL."""
        return pymysql.connect(host="127.0.0.1", port=self.port, user="cancelable", database="mysql", autocommit=True)

    @property
    def sqlalchemy_url(self) -> str:
        return f"mysql+pymysql://cancelable@127.0.0.1:{self.port}/mysql"

    def active_queries(self) -> list[str]:
        """What runs on the server apart from this question."""
        with closing(self.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT info FROM information_schema.processlist"
                " WHERE command = 'Query' AND user = 'cancelable' AND id <> CONNECTION_ID()"
            )
            return [info for (info,) in cursor.fetchall()]


@contextmanager
def running_mariadb() -> Iterator[MariaDB]:
    """Start one, as somebody else if this is root, whom it refuses; end it and remove its files."""
    programs = [shutil.which(name, path=_PLACES) for name in ("mariadb-install-db", "mariadbd")]
    if None in programs:
        text = "MariaDB is missing: install mariadb-server-core, or have mariadbd and mariadb-install-db on PATH"
        if os.environ.get("CI"):
            pytest.fail(text)
        pytest.skip(text)
    installs, serves = map(str, programs)
    directory = Path(tempfile.mkdtemp(prefix="cancelable-mariadb-", dir="/tmp"))  # short: a socket's path is limited
    as_somebody: dict[str, Any] = {}
    if os.geteuid() == 0:
        as_somebody = {"user": "nobody", "group": "nogroup"}
        shutil.chown(directory, **as_somebody)
    port = free_port()
    server: subprocess.Popen[bytes] | None = None
    try:
        subprocess.run(
            [installs, "--no-defaults", f"--datadir={directory / 'data'}", "--auth-root-authentication-method=normal"],
            check=True, capture_output=True, cwd=directory, timeout=60, **as_somebody,
        )  # fmt: skip
        (directory / "users.sql").write_text("CREATE USER 'cancelable'@'%';\nGRANT ALL ON *.* TO 'cancelable'@'%';\n")
        options = {
            "datadir": directory / "data",
            "socket": directory / "socket",
            "pid-file": directory / "pid",
            "port": port,
            "bind-address": "127.0.0.1",
            "init-file": directory / "users.sql",
            "skip-name-resolve": 1,
        }
        with open(directory / "log", "wb") as log:
            server = subprocess.Popen(
                [serves, "--no-defaults", *(f"--{key}={value}" for key, value in options.items())],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=directory, start_new_session=True, **as_somebody,
            )  # fmt: skip
        mariadb = MariaDB(port)
        _wait_until_ready(mariadb, server, directory / "log")
        yield mariadb
    finally:
        if server is not None:
            server.terminate()
            server.wait(_STOP_SECONDS)
        shutil.rmtree(directory, ignore_errors=True)


def _wait_until_ready(mariadb: MariaDB, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            mariadb.connect().close()
            return
        except pymysql.err.OperationalError:
            if server.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"MariaDB did not start: {log.read_text('utf-8', 'replace')[-2000:]}")
            time.sleep(0.05)
