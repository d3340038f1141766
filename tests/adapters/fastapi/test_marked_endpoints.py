"""`cancelable_view` where FastAPI has more than Starlette: included routers, dependencies, WebSockets; see `test_views`.

Annotations are not postponed here: FastAPI could not find the functions of a test by their names.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import anyio
import pytest
from fastapi import APIRouter, FastAPI, Request, WebSocket, WebSocketDisconnect
from starlette.responses import Response

from cancelable_fastapi import cancelable_view

from .helpers import TestClient, Visit, ask, installed

SHORT_SECONDS = 0.3


async def never(request: Request) -> Response:
    """Waits until somebody cancels it."""
    await anyio.sleep_forever()
    raise AssertionError


limited = cancelable_view(timeout_seconds=SHORT_SECONDS)


def decorated(func: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(func)
    async def call(*args: Any, **kwargs: Any) -> Any:
        return await func(*args, **kwargs)

    return call


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


KINDS: dict[Callable[[FastAPI], None], str] = {
    a_decorated_function: "/work",
    an_included_router: "/deep/deeper/work",
    a_mounted_application: "/deep/work",
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
