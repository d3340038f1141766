"""Real servers in processes of their own, on free loopback ports: how each is started, and what it can tell."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import httpx

from cancelable_core.testing import LeavingClient

__all__ = ["ASGI_SERVERS", "DEADLINE_SECONDS", "SERVERS", "WSGI_SERVERS", "RunningServer", "ServerKind", "serving", "soon"]

ROOT = Path(__file__).resolve().parents[3]

DEADLINE_SECONDS = 30.0
"""Reached by failing tests only."""


@dataclass(frozen=True, slots=True)
class ServerKind:
    """One server, started in one way.

    Attributes:
        name: What the tests and the documentation call it.
        interface: What kind of application it serves.
        command: What follows ``python``; ``{port}`` and ``{app}`` (``module:attribute``) are filled in.
        detects_disconnect: Whether it can tell that a client left while the application works.
        environment: What to add to the environment.
    """

    name: str
    interface: Literal["wsgi", "asgi"]
    command: tuple[str, ...]
    detects_disconnect: bool = True
    environment: Mapping[str, str] = field(default_factory=dict[str, str])


def _gunicorn(worker_class: str, *options: str) -> tuple[str, ...]:
    bind = ("--worker-class", worker_class, "-b", "127.0.0.1:{port}", "--graceful-timeout", "5", *options, "{app}")
    return ("-m", "gunicorn", *bind)


def _hypercorn(worker_class: str) -> tuple[str, ...]:
    return ("-m", "hypercorn", "--worker-class", worker_class, "-w", "0", "-b", "127.0.0.1:{port}", "{app}")


WSGI_SERVERS = (
    ServerKind("gunicorn-sync", "wsgi", _gunicorn("sync")),
    ServerKind("gunicorn-gthread", "wsgi", _gunicorn("gthread", "--threads", "16")),
    ServerKind("gunicorn-gthread-preload", "wsgi", _gunicorn("gthread", "--threads", "16", "--preload")),
    ServerKind("gunicorn-gevent", "wsgi", _gunicorn("gevent")),
    ServerKind(
        "waitress",
        "wsgi",
        ("-m", "waitress", "--listen=127.0.0.1:{port}", "--threads=16", "--channel-request-lookahead=1", "{app}"),
    ),
    ServerKind(
        "waitress-lookahead-0",
        "wsgi",
        ("-m", "waitress", "--listen=127.0.0.1:{port}", "--threads=16", "{app}"),
        detects_disconnect=False,
    ),
    ServerKind("werkzeug", "wsgi", ("-m", "tests.conformance.servers.werkzeug_server", "{port}", "{app}")),
    ServerKind(
        "uwsgi",
        "wsgi",
        (
            "-c",
            "import pyuwsgi; pyuwsgi.run()",
            "--http-socket",
            "127.0.0.1:{port}",
            "--threads",
            "16",
            "--need-app",
            "--die-on-term",
            "--virtualenv",
            sys.prefix,
            "--module",
            "{app}",
        ),
    ),
    ServerKind(
        "granian-wsgi",
        "wsgi",
        (
            "-m",
            "granian",
            "--interface",
            "wsgi",
            "--host",
            "127.0.0.1",
            "--port",
            "{port}",
            "--blocking-threads",
            "16",
            "{app}",
        ),
        detects_disconnect=False,
    ),
    ServerKind("hypercorn-wsgi", "wsgi", (*_hypercorn("asyncio")[:-1], "wsgi:{app}"), detects_disconnect=False),
)

ASGI_SERVERS = (
    ServerKind("uvicorn-h11", "asgi", ("-m", "uvicorn", "--http", "h11", "--loop", "asyncio", "--port", "{port}", "{app}")),
    ServerKind(
        "uvicorn-httptools", "asgi", ("-m", "uvicorn", "--http", "httptools", "--loop", "uvloop", "--port", "{port}", "{app}")
    ),
    ServerKind("hypercorn-asyncio", "asgi", _hypercorn("asyncio")),
    ServerKind("hypercorn-trio", "asgi", _hypercorn("trio")),
    ServerKind(
        "granian-asgi", "asgi", ("-m", "granian", "--interface", "asgi", "--host", "127.0.0.1", "--port", "{port}", "{app}")
    ),
    ServerKind("daphne", "asgi", ("-m", "daphne", "-b", "127.0.0.1", "-p", "{port}", "{app}")),
    ServerKind("gunicorn-asgi", "asgi", _gunicorn("asgi")),
)

SERVERS = {server.name: server for server in WSGI_SERVERS + ASGI_SERVERS}


class RunningServer:
    """A server that answers, and ways to talk to it."""

    def __init__(self, kind: ServerKind, port: int, process: subprocess.Popen[bytes], log_file: Path) -> None:
        self.kind = kind
        self.port = port
        self.process = process
        self._log_file = log_file

    @property
    def log(self) -> str:
        """What it has printed until now."""
        return self._log_file.read_text(errors="replace")

    def client(self, **options: Any) -> httpx.Client:
        """A connection pool of its own."""
        return httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=DEADLINE_SECONDS, trust_env=False, **options)

    def leaving(self) -> LeavingClient:
        """One raw connection, to be closed or reset in the middle of something."""
        return LeavingClient("127.0.0.1", self.port, timeout_seconds=DEADLINE_SECONDS)

    def stop(self, timeout_seconds: float = DEADLINE_SECONDS) -> int:
        """SIGTERM, as a service manager sends it; returns the exit code.

        Raises:
            subprocess.TimeoutExpired: It has not ended in time.
        """
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_seconds)


@contextmanager
def serving(kind: ServerKind, app: str, log_file: Path, **environment: str) -> Iterator[RunningServer]:
    """Serve ``app`` (``module:attribute``) until the block is left; nothing of it stays behind."""
    port = _free_port()
    command = [sys.executable, *(part.format(port=port, app=app) for part in kind.command)]
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", **kind.environment, **environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = RunningServer(kind, port, process, log_file)
    try:
        soon(lambda: _accepts(server))
        yield server
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)  # the session's group: the server and its workers
        except ProcessLookupError:
            pass
        process.wait()


def _accepts(server: RunningServer) -> bool:
    assert server.process.poll() is None, server.log
    try:
        socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_SECONDS).close()
    except ConnectionRefusedError:
        return False
    return True


def soon(condition: Any, timeout_seconds: float = DEADLINE_SECONDS) -> Any:
    """What ``condition()`` gives as soon as that is something."""
    deadline = time.monotonic() + timeout_seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
