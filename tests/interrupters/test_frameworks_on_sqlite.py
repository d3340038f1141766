"""Queries of requests and jobs end by route and by deadline, on all three frameworks, on SQLite."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from types import ModuleType
from typing import Any

import anyio
import httpx
import pytest

from cancelable_core import OperationKind, OperationStatus, ThreadSafeRegistry, interrupting
from cancelable_core.http_api import AllowAll
from tests.core.helpers import Running, becomes_true

from .statements import RECURSION, STOPPED_SECONDS

Ask = Callable[[str, str], tuple[int, str]]
"""Method and path; what the application answers: status and body."""

SORT = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200000000)"
    " SELECT i FROM n ORDER BY random() DESC LIMIT 1 OFFSET 1"
)
STATEMENTS = {"recursion": RECURSION, "sort": SORT}


def query(name: str) -> str:
    """By the driver itself, on a connection of its own."""
    with closing(sqlite3.connect(":memory:")) as connection:
        with interrupting(connection):
            return str(connection.execute(STATEMENTS.get(name, "SELECT 1")).fetchone()[0])


@contextmanager
def on_flask(**settings: Any) -> Iterator[Ask]:
    from cancelable_flask import CancelableExtension, CancelableFlask

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
def on_fastapi(**settings: Any) -> Iterator[Ask]:
    from fastapi import FastAPI
    from fastapi.responses import PlainTextResponse

    from cancelable_fastapi import install

    app = FastAPI(default_response_class=PlainTextResponse)
    cancelable = install(app, policy=AllowAll(), **settings)
    app.get("/query/{name}")(query)

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
def on_django(**settings: Any) -> Iterator[Ask]:
    """By Django's own connection, with the setting on."""
    from django.db import connections
    from django.http import HttpResponse
    from django.test import Client, override_settings
    from django.urls import include, path

    from cancelable_django import jobs

    def django_query(name: str) -> str:
        try:
            with connections["default"].cursor() as cursor:
                cursor.execute(STATEMENTS.get(name, "SELECT 1"))
                return str(cursor.fetchone()[0])
        finally:
            connections.close_all()  # the thread is the test's own

    urls = ModuleType("urls_of_this_test")
    urls.urlpatterns = [  # type: ignore[attr-defined]
        path("query/<str:name>", lambda request, name: HttpResponse(django_query(name))),
        path("job/<str:name>", lambda request, name: HttpResponse(jobs.submit(django_query, name, owner=None).id)),
        path("jobs/", include("cancelable_django.urls")),
    ]
    written = {"INTERRUPT_QUERIES": True, "POLICY": AllowAll(), **{key.upper(): value for key, value in settings.items()}}

    def ask(method: str, path: str) -> tuple[int, str]:
        answer = Client(raise_request_exception=False).generic(method, path)
        return answer.status_code, answer.content.decode()

    with override_settings(ROOT_URLCONF=urls, CANCELABLE=written):
        yield ask
        jobs.close()


each_site = pytest.mark.parametrize("site", [on_flask, on_django, on_fastapi])
each_statement = pytest.mark.parametrize("statement", STATEMENTS)


@each_site
@each_statement
def test_the_query_of_a_request_ends_by_the_route(site: Any, statement: str) -> None:
    with site() as ask:
        asking = Running(ask, "GET", f"/query/{statement}")
        registry = ThreadSafeRegistry()
        becomes_true(lambda: registry.list_operations(kind=OperationKind.REQUEST))
        (request,) = registry.list_operations(kind=OperationKind.REQUEST)
        started = time.monotonic()
        assert ask("POST", f"/jobs/{request.id}/cancel")[0] == 202
        assert asking.result()[0] == 499
        assert time.monotonic() - started < STOPPED_SECONDS
        assert ask("GET", "/query/next") == (200, "1")


@each_site
@each_statement
def test_the_query_of_a_request_ends_by_the_deadline(site: Any, statement: str) -> None:
    with site(request_timeout_seconds=0.3) as ask:
        started = time.monotonic()
        assert ask("GET", f"/query/{statement}")[0] == 504
        assert time.monotonic() - started < STOPPED_SECONDS


@each_site
@each_statement
def test_the_query_of_a_job_ends_by_the_route(site: Any, statement: str) -> None:
    with site() as ask:
        status, job_id = ask("GET", f"/job/{statement}")
        assert status == 200
        becomes_true(lambda: ThreadSafeRegistry().list_operations(status=OperationStatus.RUNNING, kind=OperationKind.JOB))
        assert ask("POST", f"/jobs/{job_id}/cancel")[0] == 202
        ended = ThreadSafeRegistry().wait_for(job_id, STOPPED_SECONDS)
        assert ended is not None
        assert ended.status is OperationStatus.CANCELLED
