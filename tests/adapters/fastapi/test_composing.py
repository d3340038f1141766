"""The parts, put in their places by the application itself: FastAPI without `install`, and plain Starlette."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Header, HTTPException
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from cancelable_core import OperationStore
from cancelable_core.http_api import AllowAll
from cancelable_fastapi import (
    CancelableMiddleware,
    CancelableSuite,
    CurrentJobs,
    CurrentOperation,
    CurrentRegistry,
    current_operation,
    prepare,
    router,
)

from .helpers import TestClient, ask, names_plain_routes

Prepare = Callable[..., CancelableSuite]


@pytest.fixture
def prepared() -> Iterator[Prepare]:
    """Prepares suites whose jobs end with the test."""
    suites: list[CancelableSuite] = []

    def make(app: Starlette | None = None, **settings: Any) -> CancelableSuite:
        suites.append(prepare(app, **settings))
        return suites[-1]

    yield make
    for suite in suites:
        suite.jobs.close()


async def current_user(x_user: Annotated[str | None, Header()] = None) -> str | None:
    return x_user


async def test_fastapi_from_its_parts(prepared: Prepare) -> None:
    suite = prepared(prefix="/work", principal=current_user)
    app = FastAPI(middleware=[Middleware(CancelableMiddleware, suite=suite)])
    app.include_router(router(suite), prefix="/work")

    @app.post("/start")
    async def start(jobs: CurrentJobs, operation: CurrentOperation, registry: CurrentRegistry) -> dict[str, Any]:
        job = jobs.submit(int)
        await job.wait()
        return {"id": job.id, "request": (await registry.get_operation(operation.id)).name}  # type: ignore[union-attr]

    started = (await ask(app, "/start", "POST", headers={"X-User": "alice"})).json()
    assert started["request"] == "POST /start"
    answer = await ask(app, f"/work/{started['id']}", headers={"X-User": "alice"})
    assert (answer.status_code, answer.json()["owner"]) == (200, "alice")
    assert (await ask(app, "/jobs")).json() == {"detail": "Not Found"}
    assert suite.registry.get_statistics().running_operations == 0


async def test_dependencies_of_the_router_guard_every_route(prepared: Prepare) -> None:
    def refuse(authorization: Annotated[str | None, Header()] = None) -> None:
        if authorization != "Bearer key":
            raise HTTPException(401, "who are you?")

    suite = prepared(policy=AllowAll())
    app = FastAPI(middleware=[Middleware(CancelableMiddleware, suite=suite)])
    app.include_router(router(suite, dependencies=[Depends(refuse)]), prefix="/jobs")
    for path in ("/jobs", "/jobs/", "/jobs/stats", "/jobs/ab12", "/jobs/no/such/route"):
        assert (await ask(app, path)).json() == {"detail": "who are you?"}
    assert (await ask(app, "/jobs", headers={"Authorization": "Bearer key"})).status_code == 200


def test_its_lifespan_is_merged_with_the_applications(prepared: Prepare) -> None:
    seen: list[str] = []

    def lifespan(name: str) -> Any:
        @asynccontextmanager
        async def context(app: object) -> AsyncIterator[None]:
            seen.append(f"{name} begins")
            yield
            seen.append(f"{name} ends")

        return context

    suite = prepared()
    app = FastAPI(lifespan=lifespan("application"), middleware=[Middleware(CancelableMiddleware, suite=suite)])
    app.include_router(router(suite, lifespan=lifespan("router")), prefix="/jobs")
    with TestClient(app) as client:
        assert client.get("/jobs/ab12").status_code == 404
        assert sorted(seen) == ["application begins", "router begins"]
    assert sorted(seen[2:]) == ["application ends", "router ends"]


async def test_overridden_dependencies_apply(prepared: Prepare) -> None:
    app = FastAPI()
    suite = prepared(app, principal=current_user)
    app.include_router(router(suite), prefix="/jobs")
    assert (await ask(app, "/jobs")).status_code == 403
    app.dependency_overrides = {current_user: lambda: "alice"}
    assert (await ask(app, "/jobs")).status_code == 200


@names_plain_routes
async def test_plain_starlette(prepared: Prepare) -> None:
    async def page(request: Request) -> PlainTextResponse:
        operation = current_operation()
        assert operation is not None
        return PlainTextResponse(operation.name)

    async def cancelled(request: Request) -> PlainTextResponse:
        operation = current_operation()
        assert operation is not None
        operation.cancel_sync("enough")
        await operation.checkpoint()
        return PlainTextResponse("ran to its end")

    suite = prepared(principal=current_user, registry=OperationStore())
    endpoints = FastAPI(openapi_url=None)
    endpoints.include_router(router(suite), prefix="/jobs")
    app = Starlette(
        routes=[Route("/page", page), Route("/cancelled", cancelled), Mount("/", endpoints)],
        middleware=[Middleware(CancelableMiddleware, suite=suite)],
    )
    assert (await ask(app, "/page")).text == "GET /page"
    answer = await ask(app, "/cancelled")
    assert (answer.status_code, answer.json()["message"]) == (499, "enough")
    job = suite.jobs.submit(int, owner="alice")
    await job.wait()
    assert (await ask(app, f"/jobs/{job.id}", headers={"X-User": "alice"})).json()["status"] == "completed"
    assert (await ask(app, f"/jobs/{job.id}", headers={"X-User": "bob"})).status_code == 404
    assert [entry["id"] for entry in (await ask(app, "/jobs/", headers={"X-User": "alice"})).json()["operations"]] == [job.id]
    assert suite.registry.get_statistics().by_kind["request"] == 2, "our own endpoints are no operations"


def test_a_test_client_needs_no_with(prepared: Prepare) -> None:
    suite = prepared(policy=AllowAll())
    app = FastAPI(middleware=[Middleware(CancelableMiddleware, suite=suite)])
    app.include_router(router(suite), prefix="/jobs")
    client = TestClient(app)
    job = suite.jobs.submit(lambda: current_operation().sleep(60))  # type: ignore[union-attr]
    answer = client.post(f"/jobs/{job.id}/cancel", json={"wait_seconds": 10})
    assert (answer.status_code, answer.json()["operation"]["status"]) == (200, "cancelled")
