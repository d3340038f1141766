"""`cancelable_view` on endpoints: functions, plain and async, classes, WebSockets; of FastAPI and of Starlette."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

import anyio
import pytest
from fastapi import FastAPI, Header
from fastapi.responses import StreamingResponse
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from cancelable_core.http_api import AllowAll
from cancelable_fastapi import CurrentOperation, cancelable_view

from .helpers import Exchange, Visit, ask, becomes_true_soon, happens_soon, installed, serving


def _async_function(visit: Visit) -> Any:
    async def view(request: Request) -> PlainTextResponse:
        with visit.here():
            await anyio.sleep(60)
        raise AssertionError

    return view


def _function(visit: Visit) -> Any:
    def view(request: Request) -> PlainTextResponse:
        with visit.here() as operation:
            operation.sleep(60)
        raise AssertionError

    return view


def _class(visit: Visit) -> Any:
    class View(HTTPEndpoint):
        async def get(self, request: Request) -> PlainTextResponse:
            with visit.here():
                await anyio.sleep(60)
            raise AssertionError

    return View


def _route(app: FastAPI, view: Any) -> str:
    app.router.routes.append(Route("/work", view))
    return "/work"


def _api_route(app: FastAPI, view: Any) -> str:
    app.get("/work")(view)
    return "/work"


def _mounted(app: FastAPI, view: Any) -> str:
    app.mount("/sub", Starlette(routes=[Mount("/deeper", routes=[Route("/work", view)])]))
    return "/sub/deeper/work"


VIEWS = [
    pytest.param(_async_function, _api_route, id="async function"),
    pytest.param(_function, _api_route, id="function"),
    pytest.param(_async_function, _route, id="async function on Starlette"),
    pytest.param(_async_function, _mounted, id="async function mounted"),
    pytest.param(_function, _route, id="function on Starlette"),
    pytest.param(_function, _mounted, id="function mounted"),
    pytest.param(_class, _route, id="class"),
]

Make = Callable[[Visit], Any]
Add = Callable[[FastAPI, Any], str]


@pytest.mark.parametrize(("make", "add"), VIEWS)
async def test_a_limit_of_its_own(visit: Visit, make: Make, add: Add) -> None:
    with installed() as (app, _):
        path = add(app, cancelable_view(timeout_seconds=0.05)(make(visit)))
        answer = await ask(app, path)
    assert answer.status_code == 504
    assert "x-operation-id" not in answer.headers  # the problem names it
    await becomes_true_soon(lambda: visit.operation.status == "timed_out")


@pytest.mark.parametrize(("make", "add"), VIEWS)
async def test_a_client_that_leaves_cancels_a_marked_view(visit: Visit, make: Make, add: Add) -> None:
    with installed() as (app, _):
        path = add(app, cancelable_view(make(visit)))
        async with serving(app, Exchange(path)) as exchange:
            await happens_soon(visit.begun)
            exchange.leave()
    await happens_soon(visit.over)
    context = visit.operation.context
    assert (context.status, context.reason, context.origin) == ("cancelled", "disconnect", "client")


@pytest.mark.parametrize(("make", "add"), VIEWS)
async def test_a_view_that_does_not_follow_its_client_goes_on(visit: Visit, make: Make, add: Add) -> None:
    with installed(cancel_on_disconnect="all") as (app, _):
        path = add(app, cancelable_view(cancel_on_disconnect=False)(make(visit)))
        async with serving(app, Exchange(path)) as exchange:
            await happens_soon(visit.begun)
            exchange.leave()
            for _ in range(5):
                await anyio.sleep(0.005)  # longer than a client is left unwatched
            assert not visit.operation.token.is_cancelled
            visit.operation.cancel_sync("enough")
    assert visit.operation.token.reason == "manual"


@pytest.mark.parametrize(("make", "add"), VIEWS)
async def test_a_name_and_an_owner_of_its_own(visit: Visit, make: Make, add: Add) -> None:
    def current_user(x_user: Annotated[str | None, Header()] = None) -> str | None:
        return x_user

    with installed(principal=current_user, policy=AllowAll()) as (app, suite):
        path = add(app, cancelable_view(name="slow work", owner=True)(make(visit)))
        exchange = Exchange(path)
        exchange.scope["headers"].append((b"x-user", b"alice"))
        async with serving(app, exchange):
            await happens_soon(visit.begun)
            await becomes_true_soon(lambda: visit.operation.context.owner == "alice")
            assert visit.operation.name == "slow work"
            assert suite.registry.cancel_all(kind="request", owner="alice") == 1
    assert exchange.status == 499


async def test_a_limit_of_its_own_cuts_a_stalled_stream_whose_source_is_closed(visit: Visit) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        with visit.here():
            yield b"first,"
            await anyio.sleep(60)

    with installed() as (app, _):

        @app.get("/work")
        @cancelable_view(timeout_seconds=0.5)
        async def work(operation: CurrentOperation) -> StreamingResponse:
            return StreamingResponse(operation.stream(chunks()))

        async with serving(app, Exchange("/work")) as exchange:
            pass
    assert (exchange.body, exchange.is_complete) == (b"first,", False)
    assert visit.over.is_set()
    assert visit.operation.status == "timed_out"


async def test_layers_around_see_the_route_that_was_taken(visit: Visit) -> None:
    with installed() as (app, _):

        @app.get("/work/{number}")
        async def work(number: int) -> int:
            return number

        async with serving(app, Exchange("/work/7")) as exchange:
            pass
    assert exchange.scope["endpoint"] is work
    assert exchange.scope["path_params"] == {"number": "7"}
