"""What the nearest peer got wrong in its web adapters, each seen in a run of it; none of it may exist here.

D1, D4, D5, D10, D11 and D12; those of the core have their tests in ``tests/core/test_peer_defects.py``.
"""

from __future__ import annotations

import anyio
import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, Request, Response
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint

from cancelable_core import Cancelable, CancelationReason, current_operation
from cancelable_core.servers import cancelable_view
from cancelable_fastapi import CurrentOperation
from tests.adapters.fastapi.helpers import (
    Exchange,
    TestClient,
    Visit,
    ask,
    installed,
    serving,
    skip_where_starlette_leaves_generators_open,
)
from tests.adapters.flask.helpers import make_app

BODY = b'{"number": 7, "text": "' + b"x" * 200_000 + b'"}'


@pytest.fixture
def visit() -> Visit:
    return Visit()


async def test_d1_no_byte_of_a_body_is_stolen_whoever_waits_first(anyio_backend_name: str) -> None:
    skip_where_starlette_leaves_generators_open(anyio_backend_name)

    async def wait(request: Request, call_next: RequestResponseEndpoint) -> Response:
        await anyio.sleep(0.01)
        return await call_next(request)

    async def dependency() -> None:
        await anyio.sleep(0.01)

    app = FastAPI()
    app.add_middleware(BaseHTTPMiddleware, dispatch=wait)
    with installed(app, cancel_on_disconnect="all"):

        @app.post("/raw")
        async def raw(request: Request, operation: CurrentOperation, _: None = Depends(dependency)) -> int:
            await anyio.sleep(0.01)
            return len(await request.body())

        @app.post("/stream")
        async def stream(request: Request, operation: CurrentOperation, _: None = Depends(dependency)) -> int:
            await anyio.sleep(0.01)
            return sum([len(chunk) async for chunk in request.stream()])

        @app.post("/parsed")
        async def parsed(body: dict[str, int | str], operation: CurrentOperation, _: None = Depends(dependency)) -> int:
            return len(str(body["text"]))

        pieces = tuple(BODY[start : start + 10_000] for start in range(0, len(BODY), 10_000))
        for path, length in (("/raw", len(BODY)), ("/stream", len(BODY)), ("/parsed", 200_000)):
            async with serving(app, Exchange(path, method="POST", body=pieces)) as exchange:
                pass
            assert (exchange.status, exchange.json) == (200, length), path


async def test_d4_a_background_task_outlives_a_response_that_was_delivered(visit: Visit) -> None:
    over = anyio.Event()
    with installed(cancel_on_disconnect="all") as (app, _):

        async def afterwards() -> None:
            await anyio.sleep(0.01)
            over.set()

        @app.get("/work")
        async def work(tasks: BackgroundTasks) -> str:
            with visit.here():
                tasks.add_task(afterwards)
            return "done"

        assert (await ask(app, "/work")).json() == "done"
        with anyio.fail_after(10):
            await over.wait()
    assert (visit.operation.status, visit.operation.token.reason) == ("completed", None)


async def test_d5_an_operation_inside_ends_with_its_request(visit: Visit) -> None:
    """How a server tells that the client left is tested with real servers; here the request is cancelled for that reason."""
    with installed() as (app, suite):

        @app.get("/work")
        async def work() -> None:
            with visit.here():
                async with Cancelable("a step"):
                    await anyio.sleep_forever()

        async def leave() -> None:
            while not visit.begun.is_set():
                await anyio.sleep(0.001)
            visit.operation.cancel_sync(CancelationReason.DISCONNECT)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(leave)
            assert (await ask(app, "/work")).status_code == 499
        assert suite.registry.get_statistics(kind=["operation"]).cancelled_operations >= 1


async def test_d10_a_mark_keeps_an_endpoints_signature_on_fastapi() -> None:
    with installed() as (app, _):

        @app.get("/items/{number}")
        @cancelable_view(timeout_seconds=30)
        async def item(number: int, q: str = "none") -> tuple[int, str]:
            return number, q

        assert (await ask(app, "/items/7?q=x")).json() == [7, "x"]
        parameters = app.openapi()["paths"]["/items/{number}"]["get"]["parameters"]
        assert [parameter["name"] for parameter in parameters] == ["number", "q"]


def test_d10_and_on_flask() -> None:
    app, _ = make_app()

    @app.get("/items/<int:number>")
    @cancelable_view(timeout_seconds=30)
    def item(number: int) -> str:
        return str(number)

    assert app.test_client().get("/items/7").text == "7"


async def test_d11_no_client_sets_a_limit_and_no_document_offers_one() -> None:
    with installed(request_timeout_seconds=30) as (app, _):

        @app.get("/work")
        @cancelable_view(timeout_seconds=20)
        async def work(operation: CurrentOperation) -> float | None:
            await anyio.sleep(0.05)
            return operation.remaining_seconds

        for query in ("timeout=0.01", "timeout_seconds=0.01", "default_timeout=0.01", "cancel_on_disconnect=false"):
            answer = await ask(app, f"/work?{query}", headers={"X-Timeout": "0.01", "X-Request-Timeout": "0.01"})
            assert answer.status_code == 200
            assert 10 < answer.json() < 30
        assert "timeout" not in str(app.openapi()["paths"]["/work"])


async def test_d12_the_applications_limit_is_used() -> None:
    with installed(request_timeout_seconds=0.02) as (app, _):

        @app.get("/async")
        async def waits() -> None:
            await anyio.sleep_forever()

        @app.get("/plain")
        def sleeps() -> None:
            operation = current_operation()
            assert operation is not None
            operation.sleep(60)

        for path in ("/async", "/plain"):
            assert (await ask(app, path)).status_code == 504
        assert TestClient(app).get("/async").status_code == 504
