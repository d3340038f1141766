"""SIGTERM with ten running operations, on every server: the process ends, and each operation in good order."""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from collections import Counter
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from cancelable_core.testing import LeavingClient

from .launching import DEADLINE_SECONDS, SERVERS, RunningServer, ServerKind, serving, soon

FLASK = "tests.conformance.servers.apps.shutdown_flask:app"
FASTAPI = "tests.conformance.servers.apps.shutdown_fastapi:app"
DJANGO = "tests.conformance.servers.apps.shutdown_django:"

WORK_SECONDS = 60.0
IN_TIME_SECONDS = 15.0
"""Far from the work's length, and from the ``drain + 1 s`` that is seen; see ``docs/explanation/servers.md``."""

MIXED = {"/sync": 2, "/async": 2, "/stream": 2, "sync": 2, "async": 2}
"""How many of which work runs: paths are requests, words are kinds of jobs."""

WITH_SOCKETS = {**MIXED, "/socket": 2}

ONE_AT_A_TIME = {"/sync": 1, "sync": 5, "async": 4}


def changed(name: str, *options: str) -> ServerKind:
    """A server started with more options, before the application."""
    kind = SERVERS[name]
    return dataclasses.replace(kind, command=(*kind.command[:-1], *options, kind.command[-1]))


def gunicorn(name: str, *options: str, config: str = "cancelable_core.servers.gunicorn") -> ServerKind:
    return changed(name, "-c", f"python:{config}", *options)


LATE_IMPORT = "tests.conformance.servers.apps.shutdown_gunicorn_conf"
"""gevent has not patched anything yet when gunicorn reads its configuration."""


WITHOUT_ASYNC_VIEWS = {"/sync": 3, "/stream": 3, "sync": 2, "async": 2}
"""Under WSGI, Django runs an async view in a loop of its own that no hook reaches: it sees its token only."""

CASES = {
    "gunicorn-sync": (gunicorn("gunicorn-sync"), FLASK, ONE_AT_A_TIME),
    "gunicorn-sync-preload": (gunicorn("gunicorn-sync", "--preload"), FLASK, ONE_AT_A_TIME),
    "gunicorn-gthread": (gunicorn("gunicorn-gthread"), FLASK, MIXED),
    "gunicorn-gthread-preload": (gunicorn("gunicorn-gthread-preload"), DJANGO + "wsgi", WITHOUT_ASYNC_VIEWS),
    "gunicorn-gevent": (gunicorn("gunicorn-gevent", config=LATE_IMPORT), FLASK, {"/sync": 3, "/stream": 3, "sync": 4}),
    "gunicorn-asgi": (gunicorn("gunicorn-asgi"), FASTAPI, WITH_SOCKETS),
    "gunicorn-asgi-lifespan": (SERVERS["gunicorn-asgi"], FASTAPI, WITH_SOCKETS),
    "gunicorn-asgi-django": (gunicorn("gunicorn-asgi"), DJANGO + "asgi", MIXED),
    "uvicorn-h11": (SERVERS["uvicorn-h11"], FASTAPI, WITH_SOCKETS),
    "uvicorn-httptools": (SERVERS["uvicorn-httptools"], FASTAPI, WITH_SOCKETS),
    "uvicorn-workers": (changed("uvicorn-h11", "--workers", "2"), FASTAPI, WITH_SOCKETS),
    "uvicorn-django": (SERVERS["uvicorn-h11"], DJANGO + "asgi", MIXED),
    "hypercorn-asyncio": (SERVERS["hypercorn-asyncio"], FASTAPI, WITH_SOCKETS),
    "hypercorn-trio": (SERVERS["hypercorn-trio"], FASTAPI, WITH_SOCKETS),
    "granian-asgi": (SERVERS["granian-asgi"], FASTAPI, WITH_SOCKETS),
    "waitress": (SERVERS["waitress"], FLASK, MIXED),
    "werkzeug": (SERVERS["werkzeug"], FLASK, MIXED),
}
if not os.environ.get("CANCELABLE_FULL_COUNTS"):  # ways to start that differ little from others
    for each in ("gunicorn-sync-preload", "gunicorn-asgi-lifespan", "gunicorn-asgi-django", "uvicorn-httptools"):
        del CASES[each]
EXPLICIT = {"waitress", "werkzeug"}


def begin(server: RunningServer, work: dict[str, int], events: Path, opened: ExitStack) -> int:
    """Start all of the work, jobs first, since a server may be busy after one request; returns how many there are."""
    everything = [what for what, times in sorted(work.items(), reverse=True) for _ in range(times)]
    for count, what in enumerate(everything, start=1):
        client = LeavingClient("127.0.0.1", server.port, timeout_seconds=DEADLINE_SECONDS)
        opened.callback(client.leave)
        if what.startswith("/"):
            client.send("GET", what, headers=UPGRADE if what == "/socket" else None)
        else:
            client.send("POST", f"/jobs-of/{what}", headers={"Connection": "close"})
            client.read_until(b"\r\n\r\n")
        soon(partial(has_begun, events, count))
    return len(everything)


UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


def has_begun(events: Path, count: int) -> bool:
    return told(events)["began"] == count


def told(events: Path) -> Counter[str]:
    return Counter(events.read_text().splitlines()) if events.exists() else Counter()


def environment(name: str, events: Path, drain_seconds: float = 0) -> dict[str, str]:
    explicit = {"SHUTDOWN_EXPLICIT": "1"} if name in EXPLICIT else {}
    return {"SHUTDOWN_EVENTS": str(events), "SHUTDOWN_DRAIN_SECONDS": str(drain_seconds), **explicit}


@pytest.mark.parametrize("name", CASES)
def test_everything_ends_with_the_process(name: str, tmp_path: Path) -> None:
    kind, app, work = CASES[name]
    events = tmp_path / "events"
    with serving(kind, app, tmp_path / "log", **environment(name, events)) as server, ExitStack() as opened:
        count = begin(server, work, events, opened)
        before = time.monotonic()
        server.stop(WORK_SECONDS)
        seconds = time.monotonic() - before
        log = server.log
    print(f"{name}: {seconds:.2f} s")
    jobs = sum(times for what, times in work.items() if not what.startswith("/"))
    found = told(events)
    del found["ended request completed None"]  # those that submitted the jobs
    assert found == {
        "began": count,
        "cleaned": count,
        "ended job cancelled shutdown": jobs,
        "ended request cancelled shutdown": count - jobs,
    }, log
    assert seconds < IN_TIME_SECONDS


@pytest.mark.parametrize("name", ["uvicorn-h11", "uvicorn-django", "waitress"])
def test_the_drain_is_waited_for_first(name: str, tmp_path: Path) -> None:
    kind, app, _ = CASES[name]
    events = tmp_path / "events"
    with (
        serving(kind, app, tmp_path / "log", **environment(name, events, drain_seconds=1.0)) as server,
        ExitStack() as opened,
    ):
        begin(server, {"/sync": 1, "sync": 1}, events, opened)
        before = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        soon(lambda: told(events)["cleaned"] == 2)
        drained = time.monotonic() - before
        server.process.wait(WORK_SECONDS)
        seconds = time.monotonic() - before
    print(f"{name}: work cleaned after {drained:.2f} s, end after {seconds:.2f} s")
    assert drained > 0.9
    assert seconds < IN_TIME_SECONDS
    found = told(events)
    assert found["ended job cancelled shutdown"] == found["ended request cancelled shutdown"] == 1
