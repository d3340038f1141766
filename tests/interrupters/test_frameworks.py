"""Queries of requests and jobs end by route and by deadline, on all three frameworks, on a real PostgreSQL."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import ModuleType
from typing import Any

import anyio
import httpx
import pytest
import sqlalchemy as sa

from cancelable_core import OperationKind, OperationStatus, ThreadSafeRegistry
from cancelable_core.http_api import AllowAll
from cancelable_core.interrupters.sqlalchemy import instrument
from tests.core.helpers import Running, becomes_true
from tests.postgres import PostgreSQL

from .databases import ALIAS, django_connection
from .statements import ON_POSTGRES, STOPPED_SECONDS

Ask = Callable[[str, str], tuple[int, str]]
"""Method and path; what the application answers: status and body."""


@contextmanager
def engine_over(postgres: PostgreSQL) -> Iterator[Callable[[str], str]]:
    engine = instrument(sa.create_engine(postgres.sqlalchemy_url("psycopg"), pool_size=1, max_overflow=0))

    def query(name: str) -> str:
        with engine.connect() as connection:
            return str(connection.scalar(sa.text(ON_POSTGRES.get(name, "SELECT 1"))))

    try:
        yield query
    finally:
        engine.dispose()


@contextmanager
def on_flask(postgres: PostgreSQL, **settings: Any) -> Iterator[Ask]:
    from cancelable_flask import CancelableExtension, CancelableFlask

    with engine_over(postgres) as query:
        app = CancelableFlask(__name__)
        cancelable = app.register_extension(CancelableExtension(policy=AllowAll(), **settings))
        app.add_url_rule("/query/<name>", view_func=query, endpoint="query")
        app.add_url_rule("/job/<name>", view_func=lambda name: cancelable.jobs.submit(query, name).id, endpoint="job")

        def ask(method: str, path: str) -> tuple[int, str]:
            answer = app.test_client().open(path, method=method)
            return answer.status_code, answer.text

        yield ask
        cancelable.jobs.close()


@contextmanager
def on_fastapi(postgres: PostgreSQL, **settings: Any) -> Iterator[Ask]:
    from fastapi import FastAPI
    from fastapi.responses import PlainTextResponse

    from cancelable_fastapi import install

    with engine_over(postgres) as query:
        app = FastAPI(default_response_class=PlainTextResponse)
        cancelable = install(app, policy=AllowAll(), **settings)

        @app.get("/query/{name}")
        def query_view(name: str) -> str:
            return query(name)

        @app.get("/job/{name}")
        def job_view(name: str) -> str:
            return cancelable.jobs.submit(query, name, owner=None).id

        async def ask_in_a_loop(method: str, path: str) -> tuple[int, str]:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
                answer = await client.request(method, path, timeout=None)
            return answer.status_code, answer.text

        yield partial(anyio.run, ask_in_a_loop)
        cancelable.jobs.close()


@contextmanager
def on_django(postgres: PostgreSQL, **settings: Any) -> Iterator[Ask]:
    from django.db import connections
    from django.http import HttpResponse
    from django.test import Client, override_settings
    from django.urls import include, path

    from cancelable_django import jobs

    def query(name: str) -> str:
        with connections[ALIAS].cursor() as cursor:
            cursor.execute(ON_POSTGRES.get(name, "SELECT 1"))
            return str(cursor.fetchone()[0])

    def submit(name: str) -> str:
        return jobs.submit(query, name, owner=None).id

    urls = ModuleType("urls_of_this_test")
    urls.urlpatterns = [  # type: ignore[attr-defined]
        path("query/<str:name>", lambda request, name: HttpResponse(query(name))),
        path("job/<str:name>", lambda request, name: HttpResponse(submit(name))),
        path("jobs/", include("cancelable_django.urls")),
    ]
    written = {"INTERRUPT_QUERIES": True, "POLICY": AllowAll(), **{key.upper(): value for key, value in settings.items()}}

    def ask(method: str, path: str) -> tuple[int, str]:
        try:
            answer = Client(raise_request_exception=False).generic(method, path)
            return answer.status_code, answer.content.decode()
        finally:
            connections.close_all()  # the thread is the test's own

    with django_connection(postgres, CONN_MAX_AGE=0), override_settings(ROOT_URLCONF=urls, CANCELABLE=written):
        yield ask
        jobs.close()


SITES = pytest.mark.parametrize("site", [on_flask, on_django, on_fastapi])
STATEMENTS = pytest.mark.parametrize("statement", ON_POSTGRES)


def runs(postgres: PostgreSQL, statement: str) -> bool:
    return any(statement == query for query in postgres.active_queries())


@SITES
@STATEMENTS
def test_the_query_of_a_request_ends_by_the_route(site: Any, statement: str, postgres: PostgreSQL) -> None:
    with site(postgres) as ask:
        asking = Running(ask, "GET", f"/query/{statement}")
        becomes_true(partial(runs, postgres, ON_POSTGRES[statement]))
        (request,) = ThreadSafeRegistry().list_operations(kind=OperationKind.REQUEST)
        started = time.monotonic()
        assert ask("POST", f"/jobs/{request.id}/cancel")[0] == 202
        assert asking.result()[0] == 499
        assert time.monotonic() - started < STOPPED_SECONDS
        becomes_true(lambda: not postgres.active_queries())
        assert ask("GET", "/query/next") == (200, "1")


@SITES
@STATEMENTS
def test_the_query_of_a_request_ends_by_the_deadline(site: Any, statement: str, postgres: PostgreSQL) -> None:
    with site(postgres, request_timeout_seconds=0.3) as ask:
        started = time.monotonic()
        assert ask("GET", f"/query/{statement}")[0] == 504
        assert time.monotonic() - started < STOPPED_SECONDS
        becomes_true(lambda: not postgres.active_queries())
        assert ask("GET", "/query/next") == (200, "1")


@SITES
@STATEMENTS
def test_the_query_of_a_job_ends_by_the_route(site: Any, statement: str, postgres: PostgreSQL) -> None:
    with site(postgres) as ask:
        status, job_id = ask("GET", f"/job/{statement}")
        assert status == 200
        becomes_true(partial(runs, postgres, ON_POSTGRES[statement]))
        assert ask("POST", f"/jobs/{job_id}/cancel")[0] == 202
        ended = ThreadSafeRegistry().wait_for(job_id, STOPPED_SECONDS)
        assert ended is not None
        assert ended.status is OperationStatus.CANCELLED
        becomes_true(lambda: not postgres.active_queries())
        assert ask("GET", "/query/next") == (200, "1")
