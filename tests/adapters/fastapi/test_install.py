"""`install`: what an application writes, and what it is told when that is wrong."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import anyio
import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route

import cancelable_fastapi
from cancelable_core import ConfigurationError, OperationRegistry, OperationStore, QueueFull
from cancelable_core.http_api import AllowAll
from cancelable_fastapi import CancelableMiddleware, CurrentJobs, CurrentOperation, install

from .helpers import Exchange, Visit, ask, installed, serving

ROOT = Path(__file__).parents[3]


def test_every_public_name_is_there() -> None:
    assert [name for name in cancelable_fastapi.__all__ if not hasattr(cancelable_fastapi, name)] == []


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"max_wait_second": 3}, "max_wait_seconds"),
        ({"principals": None}, "principal"),
        ({"prefx": "/work"}, "the nearest is prefix"),
        ({"job_workers": 0}, "job_workers"),
        ({"principal": "alice"}, "principal"),
        ({"prefix": "/"}, "^prefix"),
        ({"prefix": 7}, "^prefix"),
        ({"prefix": "/work", "url_prefix": "/jobs"}, "two names"),
        ({"cancelled_status": 200}, "cancelled_status"),
        ({"response_header": "some"}, "response_header"),
        ({"registry_url": "redis://127.0.0.1"}, "not available in this version"),
    ],
)
def test_what_cannot_work_is_refused_and_changes_nothing(settings: dict[str, Any], said: str) -> None:
    app = FastAPI()
    with pytest.raises(ConfigurationError, match=said):
        install(app, **settings)
    with installed(app):
        assert [middleware.cls for middleware in app.user_middleware] == [CancelableMiddleware]


def test_the_second_installation_is_refused() -> None:
    app = FastAPI()
    with installed(app), pytest.raises(RuntimeError, match="already"):
        install(app)


async def test_installing_after_the_first_request_is_refused() -> None:
    app = FastAPI()
    assert (await ask(app, "/nowhere")).status_code == 404
    with pytest.raises(RuntimeError, match="first request"):
        install(app)


@pytest.mark.parametrize("app", [Starlette(), APIRouter(), None])
def test_only_fastapi_applications_are_taken(app: Any) -> None:
    with pytest.raises(TypeError, match=f"not {type(app).__name__}"):
        install(app)


def test_what_was_installed_is_found_in_the_state() -> None:
    app = FastAPI()
    with installed(app, max_wait_seconds=3) as (_, suite):
        assert app.state.cancelable is suite
        assert suite.settings.max_wait_seconds == 3
        assert suite.settings.url_prefix == "/jobs"


@pytest.mark.parametrize("prefix", ["/work", "/api/v1/jobs"])
async def test_the_prefix_is_the_application_s_choice(prefix: str) -> None:
    with installed(prefix=prefix, policy=AllowAll()) as (app, _):
        for path in (prefix, prefix + "/", prefix + "/stats"):
            answer = await ask(app, path)
            assert (answer.status_code, answer.history) == (200, [])
        assert (await ask(app, "/jobs")).json() == {"detail": "Not Found"}


async def test_everything_below_the_prefix_is_answered_in_our_words() -> None:
    with installed() as (app, _):
        for path in ("/jobs/no/such/route", "/jobs/stats/", "/jobs//"):
            answer = await ask(app, path)
            assert (answer.status_code, answer.json()["type"]) == (404, "urn:cancelable:not-found")
        answer = await ask(app, "/jobs/stats", "DELETE")
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS")


async def test_no_more_of_a_long_body_is_read_than_tells_that_it_is_too_long() -> None:
    pieces = tuple(b" " * 40_000 for _ in range(100))
    with installed() as (app, _):
        async with serving(app, Exchange("/jobs/ab12/cancel", method="POST", body=pieces)) as exchange:
            pass
    assert (exchange.status, exchange.json["type"]) == (413, "urn:cancelable:too-large")
    assert exchange.pieces_left == 98


async def test_a_client_that_leaves_in_the_middle_of_a_cancel_cancels_nothing() -> None:
    with installed(policy=AllowAll()) as (app, suite):
        job = suite.jobs.submit(anyio.sleep, 60)
        exchange = Exchange(f"/jobs/{job.id}/cancel", method="POST", body=(b"{}", b"never comes"), pieces_sent=1)
        exchange.leave()
        async with serving(app, exchange):
            pass
        assert (exchange.error, exchange.status) == (None, 411)
        assert not job.operation.token.is_cancelled
        job.cancel_sync()
        await job.wait()


async def test_the_registry_may_be_a_store_of_its_own(visit: Visit) -> None:
    store = OperationStore()
    with installed(registry=OperationRegistry(store), policy=AllowAll()) as (app, suite):

        @app.get("/work")
        async def work() -> None:
            with visit.here() as operation:
                assert suite.registry.get_operation(operation.id) is not None

        assert (await ask(app, "/work")).status_code == 200
        assert store.statistics().total_operations == 1


async def test_dependencies_of_the_application_guard_our_routes_too() -> None:
    def refuse() -> None:
        raise HTTPException(401, "who are you?")

    with installed(FastAPI(dependencies=[Depends(refuse)]), policy=AllowAll()) as (app, _):
        for path in ("/jobs", "/jobs/stats", "/jobs/ab12"):
            assert (await ask(app, path)).json() == {"detail": "who are you?"}


def _cors(app: FastAPI) -> None:
    app.add_middleware(CORSMiddleware, allow_origins=["https://app.example.com"])


@pytest.mark.parametrize("order", ["before", "after", "in the constructor"])
async def test_headers_of_other_middleware_stay_on_our_answers(order: str) -> None:
    given = [Middleware(CORSMiddleware, allow_origins=["https://app.example.com"])] if order == "in the constructor" else []
    app = FastAPI(middleware=given)
    if order == "before":
        _cors(app)
    with installed(app, request_timeout_seconds=0.02):
        if order == "after":
            _cors(app)

        @app.get("/timeout")
        async def timeout() -> None:
            await anyio.sleep(60)

        @app.get("/cancelled")
        async def cancelled(operation: CurrentOperation) -> None:
            operation.cancel_sync("enough")
            await operation.checkpoint()

        @app.get("/full")
        async def full() -> None:
            raise QueueFull("no room", limit=3)

        for path, status in (("/timeout", 504), ("/cancelled", 499), ("/full", 503), ("/jobs/ab12", 404)):
            answer = await ask(app, path, headers={"Origin": "https://app.example.com"})
            assert answer.status_code == status
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.headers["access-control-allow-origin"] == "https://app.example.com"


async def test_a_full_queue_is_answered_with_503(visit: Visit) -> None:
    release = threading.Event()
    with installed(job_workers=1, job_queue_limit=1) as (app, _):

        @app.post("/jobs-of-mine")
        async def submit(jobs: CurrentJobs) -> str:
            return jobs.submit(release.wait, 10).id

        assert (await ask(app, "/jobs-of-mine", "POST")).status_code == 200
        assert (await ask(app, "/jobs-of-mine", "POST")).status_code == 200
        answer = await ask(app, "/jobs-of-mine", "POST")
        release.set()
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
        assert answer.json()["type"] == "urn:cancelable:queue-full"


@pytest.mark.parametrize("when", ["before", "after"])
async def test_the_application_s_own_answer_to_a_full_queue_wins(when: str) -> None:
    async def answer(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"mine": str(error)}, 429)

    app = FastAPI(exception_handlers={QueueFull: answer} if when == "before" else None)
    with installed(app):
        if when == "after":
            app.add_exception_handler(QueueFull, answer)

        @app.get("/full")
        async def full() -> None:
            raise QueueFull("no room", limit=3)

        response = await ask(app, "/full")
        assert (response.status_code, response.json()) == (429, {"mine": "no room"})


async def test_plain_starlette_routes_are_operations_too(visit: Visit) -> None:
    async def plain(request: Request) -> PlainTextResponse:
        with visit.here() as operation:
            operation.cancel_sync("enough")
            await operation.checkpoint()
        raise AssertionError

    with installed() as (app, _):
        app.router.routes.append(Route("/plain", plain))
        assert (await ask(app, "/plain")).status_code == 499
    assert visit.operation.status == "cancelled"


async def test_the_lifespan_passes_through() -> None:
    seen: list[str] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    with installed() as (app, suite):
        middleware = app.user_middleware[-1]
        layer: Any = middleware.cls(inner, *middleware.args, **middleware.kwargs)
        before = suite.registry.get_statistics().total_operations
        await layer({"type": "lifespan"}, None, None)
        assert seen == ["lifespan"]
        assert suite.registry.get_statistics().total_operations == before


def test_installing_starts_nothing() -> None:
    code = (
        "import signal, threading\n"
        "before = [signal.getsignal(number) for number in signal.valid_signals()]\n"
        "from fastapi import FastAPI\n"
        "from cancelable_fastapi import install\n"
        "install(FastAPI())\n"
        "assert threading.active_count() == 1, threading.enumerate()\n"
        "assert before == [signal.getsignal(number) for number in signal.valid_signals()]\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, check=True, timeout=60)
