"""`cancelable_view` on endpoints: of FastAPI and Starlette, functions and classes, however deep they are mounted.

Annotations are not postponed here: FastAPI could not find the functions of a test by their names.
"""

from collections.abc import AsyncIterator, Callable
from functools import wraps
from typing import Annotated, Any

import anyio
import pytest
from fastapi import APIRouter, FastAPI, Header, Request, WebSocket, WebSocketDisconnect
from fastapi.responses import StreamingResponse
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from cancelable_fastapi import cancelable_view, current_operation

from .helpers import TestClient, Visit, ask, installed

SHORT_SECONDS = 0.05


async def never(request: Request) -> Response:
    """Waits until somebody cancels it."""
    await anyio.sleep_forever()
    raise AssertionError


limited = cancelable_view(timeout_seconds=SHORT_SECONDS)


@limited
class Never(HTTPEndpoint):
    async def get(self, request: Request) -> Response:
        return await never(request)


def decorated(func: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(func)
    async def call(*args: Any, **kwargs: Any) -> Any:
        return await func(*args, **kwargs)

    return call


def a_function(app: FastAPI) -> None:
    app.get("/work")(limited(never))


def a_plain_function(app: FastAPI) -> None:
    @app.get("/work")
    @limited
    def work() -> None:
        operation = current_operation()
        assert operation is not None
        operation.sleep(60)


def a_decorated_function(app: FastAPI) -> None:
    app.get("/work")(decorated(limited(never)))


def an_included_router(app: FastAPI) -> None:
    inner, outer = APIRouter(), APIRouter(prefix="/deep")
    inner.get("/work")(limited(never))
    outer.include_router(inner, prefix="/deeper")
    app.include_router(outer)


def a_mounted_application(app: FastAPI) -> None:
    inner = FastAPI()
    inner.get("/work")(limited(never))
    app.mount("/deep", inner)


def a_class_of_starlette(app: FastAPI) -> None:
    app.router.routes.append(Mount("/deep", routes=[Route("/work", Never)]))


KINDS: dict[Callable[[FastAPI], None], str] = {
    a_function: "/work",
    a_plain_function: "/work",
    a_decorated_function: "/work",
    an_included_router: "/deep/deeper/work",
    a_mounted_application: "/deep/work",
    a_class_of_starlette: "/deep/work",
}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
async def test_an_endpoint_s_own_limit_counts(kind: Callable[[FastAPI], None]) -> None:
    with installed(request_timeout_seconds=60) as (app, _):
        kind(app)
        assert (await ask(app, KINDS[kind])).status_code == 504


async def test_an_endpoint_may_be_without_limit_and_have_a_name_of_its_own(visit: Visit) -> None:
    with installed(request_timeout_seconds=SHORT_SECONDS) as (app, _):

        @app.get("/work")
        @cancelable_view(timeout_seconds=None, name="patience")
        async def work() -> str:
            with visit.here() as operation:
                await anyio.sleep(2 * SHORT_SECONDS)
                assert operation.name == "patience"
            return "done"

        assert (await ask(app, "/work")).json() == "done"


async def test_a_marked_endpoint_names_its_operation_and_others_do_not() -> None:
    with installed() as (app, _):

        @app.get("/marked")
        @cancelable_view
        async def marked() -> None: ...

        @app.get("/unmarked")
        async def unmarked() -> None: ...

        assert "x-operation-id" in (await ask(app, "/marked")).headers
        assert "x-operation-id" not in (await ask(app, "/unmarked")).headers


async def test_a_route_s_own_limit_covers_its_stream() -> None:
    with installed() as (app, _):
        closed: list[bool] = []

        async def chunks() -> AsyncIterator[str]:
            try:
                yield "first"
                await anyio.sleep_forever()
            finally:
                closed.append(True)

        @app.get("/stream")
        @limited
        async def stream() -> StreamingResponse:
            return StreamingResponse(chunks())

        sent: list[dict[str, Any]] = []

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        async def receive() -> dict[str, Any]:
            await anyio.sleep_forever()
            raise AssertionError

        scope = {
            "type": "http",
            "method": "GET",
            "path": "/stream",
            "query_string": b"",
            "headers": [],
            "asgi": {"spec_version": "2.3"},
        }
        await app(scope, receive, send)  # type: ignore[arg-type]
        assert closed == [True]
        assert sent[-1]["more_body"] is True, "cut, not completed"


async def test_a_request_may_belong_to_whoever_sends_it(visit: Visit) -> None:
    def who(x_user: Annotated[str, Header()]) -> str:
        return x_user

    with installed(principal=who) as (app, _):

        @app.get("/work")
        @cancelable_view(owner=True)
        async def work() -> str | None:
            with visit.here() as operation, anyio.fail_after(10):
                while operation.context.owner is None:
                    await anyio.sleep(0.001)
                return operation.context.owner

        assert (await ask(app, "/work", headers={"X-User": "alice"})).json() == "alice"


async def test_an_owner_who_cannot_be_found_out_is_logged_and_costs_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    def who() -> str:
        raise ZeroDivisionError

    with installed(principal=who) as (app, _):

        @app.get("/work")
        @cancelable_view(owner=True)
        async def work() -> str:
            with anyio.fail_after(10):
                while "could not be found out" not in caplog.text:
                    await anyio.sleep(0.001)
            return "done"

        assert (await ask(app, "/work")).json() == "done"


def test_a_marked_websocket_has_its_limit() -> None:
    with installed() as (app, _):

        @app.websocket("/room")
        @limited
        async def room(websocket: WebSocket) -> None:
            await websocket.accept()
            await anyio.sleep_forever()

        with TestClient(app).websocket_connect("/room") as websocket, pytest.raises(WebSocketDisconnect) as raised:
            websocket.receive_text()
        assert raised.value.code == 1011


async def test_layers_around_find_in_the_scope_what_routers_wrote() -> None:
    seen: list[Any] = []

    class Looking:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await self.app(scope, receive, send)
            seen.append((scope["endpoint"], scope["path_params"]))

    async def found(request: Request) -> Response:
        return PlainTextResponse("found")

    outer = FastAPI()
    with installed(outer) as (app, _):
        app.mount("/deep", Starlette(routes=[Route("/{number:int}", found)]))
        app.user_middleware.insert(0, Middleware(Looking))
        assert (await ask(app, "/deep/7")).text == "found"
    ((endpoint, parameters),) = seen
    assert (endpoint, parameters["number"]) == (found, 7)
