"""Queries end when the client of their request leaves: real servers, a real PostgreSQL, all three frameworks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.conformance.servers.launching import SERVERS, RunningServer, serving
from tests.core.helpers import becomes_true
from tests.postgres import PostgreSQL

from .statements import ON_POSTGRES, STOPPED_SECONDS

pytestmark = pytest.mark.slow

SITES = {
    "flask": ("gunicorn-gthread", "flask_app:app"),
    "django_wsgi": ("gunicorn-gthread", "django_app:wsgi"),
    "django_asgi": ("uvicorn-httptools", "django_app:asgi"),
    "fastapi": ("uvicorn-httptools", "fastapi_app:app"),
}


@pytest.fixture(scope="module")
def start(postgres: PostgreSQL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], RunningServer]]:
    """Starts each site once, and ends them all."""
    servers: dict[str, RunningServer] = {}
    environment = {"CANCELABLE_TEST_POSTGRES_PORT": str(postgres.port), "CANCELABLE_TEST_POSTGRES_USER": postgres.user}
    with ExitStack() as stack:

        def start(site: str) -> RunningServer:
            if site not in servers:
                kind, app = SITES[site]
                log = tmp_path_factory.mktemp(site) / "log"
                module = f"tests.interrupters.served.{app}"
                servers[site] = stack.enter_context(serving(SERVERS[kind], module, log, **environment))
            return servers[site]

        yield start


@pytest.mark.parametrize("statement", ON_POSTGRES)
@pytest.mark.parametrize("site", SITES)
def test_the_query_of_a_request_ends_with_its_client(
    start: Callable[[str], RunningServer], site: str, statement: str, postgres: PostgreSQL
) -> None:
    server = start(site)
    client = server.leaving()
    client.send("GET", f"/query/{statement}")
    becomes_true(postgres.active_queries)
    left_at = time.monotonic()
    client.leave()
    becomes_true(lambda: not postgres.active_queries())
    assert time.monotonic() - left_at < STOPPED_SECONDS
    with server.client() as other:
        assert other.get("/query/next").text == "1"
    assert "Traceback" not in server.log


@pytest.mark.parametrize("site", SITES)
def test_a_query_of_sqlite_ends_with_its_client(start: Callable[[str], RunningServer], site: str) -> None:
    server = start(site)
    before = len(server.log)
    client = server.leaving()
    client.send("GET", "/sqlite")
    becomes_true(lambda: "SQLite is asked" in server.log[before:])
    left_at = time.monotonic()
    client.leave()
    becomes_true(lambda: "/sqlite" in server.log[before:] and "was cancelled: disconnect" in server.log[before:])
    assert time.monotonic() - left_at < STOPPED_SECONDS
    with server.client() as other:
        assert other.get("/query/next").text == "1"
