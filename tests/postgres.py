"""A real PostgreSQL of this test process: made in a temporary directory, ended with the session."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

__all__ = ["PostgreSQL", "find_programs", "free_port", "running_postgres"]

_USER = "cancelable"
_START_SECONDS = 30.0
_STOP_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class PostgreSQL:
    """Where it listens, on loopback and on a socket of its own directory."""

    port: int
    directory: Path
    user: str = _USER

    @property
    def url(self) -> str:
        """For psycopg and psycopg2."""
        return f"postgresql://{self.user}@127.0.0.1:{self.port}/postgres"

    @property
    def socket_dsn(self) -> str:
        """The same over the Unix socket."""
        return f"host={self.directory} port={self.port} user={self.user} dbname=postgres"

    def sqlalchemy_url(self, driver: str) -> str:
        """For SQLAlchemy, over one of its drivers."""
        return f"postgresql+{driver}://{self.user}@127.0.0.1:{self.port}/postgres"

    def active_queries(self) -> list[str]:
        """What runs on the server apart from this question."""
        import psycopg

        with psycopg.connect(self.url, autocommit=True) as connection:
            rows = connection.execute(
                "SELECT query FROM pg_stat_activity WHERE state = 'active' AND backend_type = 'client backend'"
                " AND pid <> pg_backend_pid()"
            ).fetchall()
        return [query for (query,) in rows]


def find_programs() -> Path | None:
    """The directory with ``initdb`` and ``postgres``: PATH's, or the newest of a Debian or Ubuntu."""
    found = shutil.which("initdb")
    candidates = [] if found is None else [Path(found).resolve().parent]
    candidates += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((path for path in candidates if (path / "postgres").exists() and (path / "initdb").exists()), None)


@contextmanager
def running_postgres() -> Iterator[PostgreSQL]:
    """Start one, as somebody else if this is root, whom PostgreSQL refuses; end it and remove its files."""
    programs = find_programs()
    if programs is None:
        text = "PostgreSQL is missing: install postgresql, or have initdb and postgres on PATH"
        if os.environ.get("CI"):
            pytest.fail(text)
        pytest.skip(text)
    directory = Path(tempfile.mkdtemp(prefix="cancelable-pg-", dir="/tmp"))  # short: a socket's path is limited
    as_somebody: dict[str, int | str] = {}
    if os.geteuid() == 0:
        as_somebody = {"user": "nobody", "group": "nogroup"}
        shutil.chown(directory, **as_somebody)  # type: ignore[arg-type]
    environment = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "HOME": str(directory)}
    server: subprocess.Popen[bytes] | None = None
    try:
        subprocess.run(
            [programs / "initdb", "-D", directory / "data", "-U", _USER, "-A", "trust", "-E", "UTF8", "--no-sync"],
            check=True, capture_output=True, cwd=directory, env=environment, timeout=60, **as_somebody,
        )  # fmt: skip
        port = free_port()
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(port),
            "unix_socket_directories": str(directory),
            "fsync": "off",
            "max_connections": "40",
            "shared_buffers": "16MB",
        }
        with open(directory / "log", "wb") as log:
            server = subprocess.Popen(
                [programs / "postgres", "-D", directory / "data", *(f"--{key}={value}" for key, value in options.items())],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=directory, env=environment, start_new_session=True,
                **as_somebody,
            )  # fmt: skip
        postgres = PostgreSQL(port, directory)
        _wait_until_ready(postgres, server)
        yield postgres
    finally:
        if server is not None:
            server.send_signal(signal.SIGINT)  # its "fast" shutdown: ends the sessions
            try:
                server.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                server.send_signal(signal.SIGQUIT)
                server.wait(_STOP_SECONDS)
        shutil.rmtree(directory, ignore_errors=True)


def free_port() -> int:
    """A port of the loopback interface that nobody uses now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _wait_until_ready(postgres: PostgreSQL, server: subprocess.Popen[bytes]) -> None:
    import psycopg

    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            psycopg.connect(postgres.url, connect_timeout=5).close()
            return
        except psycopg.OperationalError:
            if server.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"PostgreSQL did not start: {(postgres.directory / 'log').read_text('utf-8', 'replace')[-2000:]}")
            time.sleep(0.05)
