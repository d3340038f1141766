"""A request as an operation: how its cancel is answered, what it is called, what is added to its response."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import weakref
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from fastapi import APIRouter, Body, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from cancelable_core import Cancelable, CancelableError, CancelationReason, OperationCancelled, OperationTimedOut
from cancelable_core.http_api import AllowAll, Principal, canonical_operation_id
from cancelable_core.servers import REQUEST_KEY, cancelable_view
from cancelable_core.wakeup import is_native_cancelation
from cancelable_fastapi import CurrentOperation, current_operation
from tests.collector import no_collector

from .helpers import (
    Exchange,
    Visit,
    ask,
    becomes_true_soon,
    happens_soon,
    installed,
    names_plain_routes,
    serving,
    skip_where_starlette_leaves_generators_open,
)

# --- cancelled endpoints


def _check(operation: Cancelable) -> None:
    while True:
        operation.check()
        operation.wait(0.001)


def _sleep(operation: Cancelable) -> None:
    operation.sleep(60)


def _iterate(operation: Cancelable) -> None:
    for _ in operation.iterate(iter(int, 1)):
        operation.wait(0.001)


def _in_child(operation: Cancelable) -> None:
    with Cancelable("a step") as step:
        step.sleep(60)


async def _async_sleep(operation: Cancelable) -> None:
    await anyio.sleep(60)


async def _async_checkpoint(operation: Cancelable) -> None:
    while True:
        await operation.checkpoint()


async def _async_in_child(operation: Cancelable) -> None:
    async with Cancelable("a step"):
        await anyio.sleep(60)


async def _async_in_thread(operation: Cancelable) -> None:
    await operation.run_in_thread(_sleep, operation)


ENDPOINTS = (_check, _sleep, _iterate, _in_child, _async_sleep, _async_checkpoint, _async_in_child, _async_in_thread)
FEW_ENDPOINTS = (_check, _async_sleep, _async_checkpoint)


def _named(work: Callable[..., Any]) -> str:
    return work.__name__.strip("_")


def _add(app: FastAPI, visit: Visit, work: Callable[[Cancelable], Any]) -> None:
    """An endpoint, sync or async as the work is."""
    if asyncio.iscoroutinefunction(work):

        @app.get("/work")
        async def async_endpoint() -> str:
            with visit.here() as operation:
                await work(operation)
            return "ran to its end"

    else:

        @app.get("/work")
        def endpoint() -> str:
            with visit.here() as operation:
                work(operation)
            return "ran to its end"


def _logged(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name == "cancelable_core" and "was cancelled" in record.getMessage()]


REASONS = [
    (CancelationReason.MANUAL, 499, "cancelled"),
    (CancelationReason.TIMEOUT, 504, "timed-out"),
    (CancelationReason.SHUTDOWN, 503, "shutting-down"),
]


@pytest.mark.parametrize("work", ENDPOINTS, ids=_named)
@pytest.mark.parametrize(("reason", "status", "code"), REASONS)
async def test_cancelled_endpoint_is_answered_with_a_problem_and_logged_once(
    visit: Visit,
    work: Callable[[Cancelable], Any],
    reason: CancelationReason,
    status: int,
    code: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    limit: dict[str, Any] = {"request_timeout_seconds": 0.05} if reason is CancelationReason.TIMEOUT else {}
    with installed(policy=AllowAll(), **limit) as (app, _):
        _add(app, visit, work)
        async with serving(app, Exchange("/work")) as exchange:
            await happens_soon(visit.begun)
            if reason is not CancelationReason.TIMEOUT:
                assert visit.operation.cancel_sync(reason, "enough")
        await happens_soon(visit.over)
        operation = visit.operation
        shown = (await ask(app, f"/jobs/{operation.id}")).json()
    assert (exchange.status, exchange.is_complete) == (status, True)
    assert exchange.headers["content-type"] == "application/problem+json"
    assert exchange.headers["cache-control"] == "no-store"
    assert ("retry-after" in exchange.headers) == (status == 503)
    problem = exchange.json
    assert (problem["type"], problem["status"]) == (f"urn:cancelable:{code}", status)
    assert (problem["operation_id"], problem["reason"]) == (operation.id, str(reason))
    assert problem["message"] == (None if status == 504 else "enough")
    assert visit.error is not None
    assert isinstance(visit.error, OperationCancelled) or is_native_cancelation(visit.error)
    assert (shown["status"], shown["reason"]) == ("timed_out" if status == 504 else "cancelled", reason)
    assert [(record.levelno, record.exc_info) for record in _logged(caplog)] == [(logging.INFO, None)]


@pytest.mark.parametrize("work", FEW_ENDPOINTS, ids=_named)
async def test_cancel_by_route_stops_a_request(visit: Visit, work: Callable[[Cancelable], Any]) -> None:
    with installed() as (app, _):
        _add(app, visit, work)
        async with serving(app, Exchange("/work")) as exchange:
            await happens_soon(visit.begun)
            path = f"/jobs/{visit.operation.id}/cancel"
            first = await ask(app, path, "POST", json={"message": "by route", "wait_seconds": 20})
            second = await ask(app, path, "POST", json={})
    assert (first.status_code, first.json()["outcome"]) == (200, "requested")
    assert first.json()["operation"]["status"] == "cancelled"
    assert (second.status_code, second.json()["type"]) == (409, "urn:cancelable:finished")
    assert (exchange.status, exchange.json["message"]) == (499, "by route")


async def test_a_plain_endpoint_that_never_asks_runs_to_its_end(visit: Visit) -> None:
    """Threads cannot be stopped: the client gets the truth when the thread is done."""
    with installed() as (app, _):

        @app.get("/work")
        def work() -> str:
            with visit.here() as operation:
                operation.wait(20)  # tells that there was a cancel, and does not raise
            return "ran to its end"

        async with serving(app, Exchange("/work")) as exchange:
            await happens_soon(visit.begun)
            visit.operation.cancel_sync("enough")
    assert visit.error is None
    # whether the loop notices the cancel after the thread or the response is out first is the loop's choice
    assert (exchange.status, visit.operation.status) in {(499, "cancelled"), (200, "completed")}
    assert visit.operation.context.cancel_requested_at is not None


async def test_endpoint_that_turns_the_cancel_into_its_own_answer_is_left_alone(visit: Visit) -> None:
    with installed() as (app, _):

        @app.get("/work")
        async def work() -> str:
            with visit.here() as operation:
                try:
                    async with Cancelable("a step") as step:
                        step.cancel_sync("only this step")
                        await anyio.sleep(60)
                except OperationCancelled:
                    assert not operation.token.is_cancelled
                    return "as far as it came"
            raise AssertionError

        answer = await ask(app, "/work")
    assert (answer.status_code, answer.json()) == (200, "as far as it came")
    assert visit.operation.status == "completed"


@pytest.mark.parametrize("error", [ZeroDivisionError("no"), OperationCancelled("of something else")], ids=["error", "cancel"])
async def test_other_errors_are_the_application_s(visit: Visit, error: Exception) -> None:
    def fail(operation: Cancelable) -> None:
        raise error

    with installed() as (app, _):
        _add(app, visit, fail)
        async with serving(app, Exchange("/work")) as exchange:
            pass
    assert (exchange.status, exchange.body) == (500, b"Internal Server Error")
    assert exchange.error is error
    assert visit.operation.status == "failed"


async def test_http_exceptions_are_completed_requests(visit: Visit) -> None:
    def refuse(operation: Cancelable) -> None:
        raise HTTPException(418, "teapot")

    with installed() as (app, _):
        _add(app, visit, refuse)
        assert (await ask(app, "/work")).status_code == 418
    assert visit.operation.status == "completed"


async def test_cancelled_status_is_a_setting(visit: Visit) -> None:
    def cancel(operation: Cancelable) -> None:
        operation.cancel_sync()
        operation.check()

    with installed(cancelled_status=409) as (app, _):
        _add(app, visit, cancel)
        assert (await ask(app, "/work")).status_code == 409


async def test_the_time_limit_covers_what_comes_before_the_response(visit: Visit) -> None:
    with installed(request_timeout_seconds=0.2) as (app, _):

        @app.get("/work")
        async def work() -> StreamingResponse:
            async def chunks() -> Any:
                with visit.here() as operation:
                    yield b"first,"
                    assert operation.remaining_seconds is None
                    await anyio.sleep(0.3)  # longer than the limit
                    yield b"second"

            return StreamingResponse(chunks())

        async with serving(app, Exchange("/work")) as exchange:
            pass
    assert (exchange.status, exchange.body, exchange.is_complete) == (200, b"first,second", True)
    assert visit.operation.status == "completed"


# --- the application's own exception handlers


def _answer(error: Exception) -> JSONResponse:
    assert isinstance(error, OperationCancelled)
    return JSONResponse({"mine": type(error).__name__, "reason": error.reason}, 419)


async def _async_handler(request: Request, error: Exception) -> JSONResponse:
    return _answer(error)


async def _waiting_handler(request: Request, error: Exception) -> JSONResponse:
    await anyio.sleep(0.001)
    return _answer(error)


def _sync_handler(request: Request, error: Exception) -> JSONResponse:
    return _answer(error)


@pytest.mark.parametrize("work", ENDPOINTS, ids=_named)
@pytest.mark.parametrize("handler", [_async_handler, _waiting_handler, _sync_handler], ids=_named)
async def test_the_application_s_own_handler_wins(
    visit: Visit, work: Callable[..., Any], handler: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with installed(response_header="all") as (app, _):
        app.add_exception_handler(OperationCancelled, handler)
        _add(app, visit, work)
        async with serving(app, Exchange("/work")) as exchange:
            await happens_soon(visit.begun)
            visit.operation.cancel_sync("enough")
    assert (exchange.status, exchange.is_complete) == (419, True)
    # an operation inside that noticed it was cancelled by its parent, and says so to whoever handles its error
    reasons = {"manual", "parent"} if work is _in_child else {"manual"}
    assert exchange.json["mine"] == "OperationCancelled"
    assert exchange.json["reason"] in reasons
    assert exchange.headers["x-operation-id"] == visit.operation.id
    assert visit.operation.status == "cancelled"
    assert len(_logged(caplog)) == 1


async def test_what_follows_the_answer_of_a_handler_is_logged_no_second_time(
    visit: Visit, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({}, 419, background=BackgroundTask(anyio.sleep, 0.001))

    caplog.set_level(logging.INFO)
    with installed() as (app, _):
        app.add_exception_handler(OperationCancelled, handler)
        _add(app, visit, _check)
        async with serving(app, Exchange("/work")) as exchange:
            await happens_soon(visit.begun)
            visit.operation.cancel_sync("enough")
    assert (exchange.status, exchange.is_complete, exchange.error) == (419, True, None)
    assert len(_logged(caplog)) == 1


@pytest.mark.parametrize("work", FEW_ENDPOINTS, ids=_named)
@pytest.mark.parametrize("expected", [OperationTimedOut, OperationCancelled, TimeoutError, CancelableError])
async def test_handlers_of_base_classes_win_too(visit: Visit, work: Callable[..., Any], expected: type[Exception]) -> None:
    with installed(request_timeout_seconds=0.02) as (app, _):
        app.add_exception_handler(expected, _async_handler)
        _add(app, visit, work)
        answer = await ask(app, "/work")
    assert (answer.status_code, answer.json()) == (419, {"mine": "OperationTimedOut", "reason": "timeout"})
    assert visit.operation.status == "timed_out"


@pytest.mark.parametrize("work", FEW_ENDPOINTS, ids=_named)
@pytest.mark.parametrize("unexpected", [Exception, 500])
async def test_handlers_of_unexpected_errors_never_see_a_cancel(
    visit: Visit, work: Callable[..., Any], unexpected: Any
) -> None:
    async def handler(request: Request, error: Exception) -> JSONResponse:
        raise AssertionError("a cancel is no unexpected error")

    with installed() as (app, _):
        app.add_exception_handler(unexpected, handler)
        _add(app, visit, work)
        async with serving(app, Exchange("/work")) as exchange:
            await happens_soon(visit.begun)
            visit.operation.cancel_sync("enough")
    assert exchange.status == 499


@pytest.mark.parametrize("work", FEW_ENDPOINTS, ids=_named)
async def test_a_mounted_application_s_own_handler_comes_first(visit: Visit, work: Callable[..., Any]) -> None:
    async def of_the_outer(request: Request, error: Exception) -> JSONResponse:
        raise AssertionError("the mounted application has one of its own")

    inner = FastAPI(exception_handlers={OperationCancelled: _sync_handler})
    _add(inner, visit, work)
    with installed() as (app, _):
        app.add_exception_handler(OperationCancelled, of_the_outer)
        app.mount("/sub", inner)
        async with serving(app, Exchange("/sub/work")) as exchange:
            await happens_soon(visit.begun)
            visit.operation.cancel_sync("enough")
    assert exchange.status == 419


async def test_a_handler_that_fails_is_an_error(visit: Visit) -> None:
    async def handler(request: Request, error: Exception) -> JSONResponse:
        raise ZeroDivisionError

    with installed() as (app, _):
        app.add_exception_handler(OperationCancelled, handler)
        _add(app, visit, _async_sleep)
        async with serving(app, Exchange("/work")) as exchange:
            await happens_soon(visit.begun)
            visit.operation.cancel_sync("enough")
    assert exchange.status == 500
    assert isinstance(exchange.error, ZeroDivisionError)


# --- the name, and what counts as a request


def _remember(visit: Visit) -> Callable[..., Any]:
    def endpoint() -> None:
        with visit.here():
            pass

    return endpoint


async def test_name_is_method_and_route_template_with_all_prefixes(visit: Visit) -> None:
    years, reports = APIRouter(prefix="/{year}"), APIRouter()
    years.get("/pages/{page:int}")(_remember(visit))
    reports.include_router(years, prefix="/reports")
    with installed() as (app, _):
        app.include_router(reports, prefix="/api")
        assert (await ask(app, "/api/reports/1998/pages/7")).status_code == 200
    assert visit.operation.name == "GET /api/reports/{year}/pages/{page:int}"
    assert visit.operation.kind == "request"


async def test_name_is_known_while_the_request_runs(visit: Visit) -> None:
    with installed(policy=AllowAll()) as (app, _):
        _add(app, visit, _async_sleep)
        async with serving(app, Exchange("/work")):
            await happens_soon(visit.begun)
            (shown,) = (await ask(app, "/jobs?kind=request&status=running")).json()["operations"]
            assert (shown["name"], shown["status"], shown["owner"]) == ("GET /work", "running", None)
            assert (await ask(app, "/jobs?status=running")).json()["operations"] == []
            answer = await ask(app, "/jobs/cancel-all", "POST", json={"name": "GET /work", "kind": "request"})
            assert answer.json() == {"requested": 1}
    assert visit.operation.status == "cancelled"


async def test_name_has_the_method_asked_for(visit: Visit) -> None:
    with installed() as (app, _):
        app.api_route("/work", methods=["DELETE"])(_remember(visit))
        await ask(app, "/work", "DELETE")
    assert visit.operation.name == "DELETE /work"


@pytest.fixture(params=[False, True], ids=["no view marked", "some view marked"])
def marks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Routes are looked at for marks only where there are some."""
    monkeypatch.setattr(sys.modules[cancelable_view.__module__], "_any_is_marked", request.param)


@pytest.mark.usefixtures("marks")
async def test_layers_around_see_what_is_written_into_the_scope(visit: Visit) -> None:
    seen: list[Scope] = []

    class Around:
        def __init__(self, app: ASGIApp) -> None:
            self._app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await self._app(scope, receive, send)
            seen.append(scope)

    async def work(request: Request) -> None:
        request.scope["said"] = "hello"

    with installed() as (app, _):
        app.add_middleware(Around)
        app.get("/work/{what}")(work)
        assert (await ask(app, "/work/hard")).status_code == 200
    assert (seen[0]["path_params"], seen[0]["said"]) == ({"what": "hard"}, "hello")


@pytest.mark.usefixtures("marks")
@names_plain_routes
async def test_name_has_the_mount_prefix(visit: Visit) -> None:
    inner, deeper = FastAPI(), APIRouter()
    inner.get("/reports/{year}")(_remember(visit))
    deeper.mount("/sub", inner)
    with installed() as (app, _):
        app.include_router(deeper, prefix="/api")
        async with serving(app, Exchange("/office/api/sub/reports/1998", root_path="/office")) as exchange:
            pass
    assert exchange.status == 200
    assert visit.operation.name == "GET /office/api/sub/reports/{year}"


@pytest.mark.usefixtures("marks")
@names_plain_routes
async def test_name_of_a_plain_starlette_application_s_route(visit: Visit) -> None:
    def endpoint(request: Request) -> PlainTextResponse:
        with visit.here():
            return PlainTextResponse("")

    inner = Starlette(routes=[Mount("/reports", routes=[Route("/{year}", endpoint)])])
    with installed() as (app, _):
        app.mount("/sub", inner)
        assert (await ask(app, "/sub/reports/1998")).status_code == 200
    assert visit.operation.name == "GET /sub/reports/{year}"


@pytest.mark.usefixtures("marks")
async def test_name_of_a_mounted_asgi_application_is_its_mount(visit: Visit) -> None:
    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        with visit.here():
            await PlainTextResponse("")(scope, receive, send)
            name = visit.operation.name
        assert name == visit.operation.name

    with installed() as (app, _):
        app.mount("/sub", Starlette(routes=[Mount("/files", app=asgi)]))
        assert (await ask(app, "/sub/files/of/alice")).status_code == 200
    assert visit.operation.name == "GET /sub/files"


@pytest.mark.usefixtures("marks")
async def test_name_never_has_the_path_where_there_is_no_route(visit: Visit) -> None:
    async def not_found(request: Request, error: Exception) -> JSONResponse:
        with visit.here():
            return JSONResponse({}, 404)

    with installed() as (app, _):
        app.add_exception_handler(404, not_found)
        assert (await ask(app, "/reports/of/alice")).status_code == 404
    assert visit.operation.name == "GET (no route)"


async def test_one_operation_per_request_with_two_installations(visit: Visit) -> None:
    inner = FastAPI()
    inner.get("/work")(_remember(visit))
    with installed() as (app, suite), installed(inner):
        app.mount("/sub", inner)
        before = suite.registry.get_statistics().total_operations
        assert (await ask(app, "/sub/work")).status_code == 200
        assert suite.registry.get_statistics().total_operations == before + 1
    assert visit.operation.name == "GET /sub/work"


@pytest.mark.parametrize("root_path", ["", "/office", "/jo"])
@pytest.mark.parametrize("route", ["", "/", "/stats", "/ab12", "/ab12/cancel", "/cancel-all", "/no/such/route"])
async def test_our_own_endpoints_are_no_operations(route: str, root_path: str) -> None:
    """Neither where the server's path has the mount point in it, nor where a proxy has taken it off."""
    with installed() as (app, suite):
        before = suite.registry.get_statistics().total_operations
        for path in dict.fromkeys((f"/jobs{route}", f"{root_path}/jobs{route}")):
            async with serving(app, Exchange(path, root_path=root_path)) as exchange:
                pass
            assert exchange.status in (403, 404, 405), path
            assert "x-operation-id" not in exchange.headers
        assert suite.registry.get_statistics().total_operations == before


async def test_paths_that_only_begin_like_the_prefix_are_the_application_s(visit: Visit) -> None:
    with installed() as (app, _):
        app.get("/jobs-of-alice")(_remember(visit))
        assert (await ask(app, "/jobs-of-alice")).status_code == 200
    assert visit.operation.status == "completed"


async def test_completed_requests_are_counted_and_forgotten(visit: Visit) -> None:
    with installed() as (app, suite):
        _add(app, visit, lambda operation: None)
        before = suite.registry.get_statistics().completed_operations
        await ask(app, "/work")
        assert suite.registry.get_statistics().completed_operations == before + 1
        assert (await ask(app, f"/jobs/{visit.operation.id}")).status_code == 404
    assert visit.operation.context.owner is None
    assert visit.operation.id_is_secret


@pytest.mark.parametrize("path", ["/unused", "/used"])
async def test_a_request_is_freed_with_its_response(path: str) -> None:
    known: list[weakref.ref[Any]] = []
    with installed() as (app, _), no_collector():

        @app.get("/unused")
        async def unused(request: Request) -> None:
            known.append(weakref.ref(request.scope[REQUEST_KEY]))

        @app.get("/used")
        async def used(request: Request, operation: CurrentOperation) -> None:
            await unused(request)

        async def receive() -> dict[str, Any]:
            return {"type": "http.request"}

        async def send(message: Any) -> None:
            await anyio.lowlevel.checkpoint()

        # not by an `Exchange`, which knows its scope
        await app({"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": []}, receive, send)
        await becomes_true_soon(lambda: known[0]() is None)


@pytest.mark.parametrize("path", ["/work", "/stream"])
async def test_nothing_of_a_request_stays_in_the_task(path: str) -> None:
    """Servers and clients in the same process may serve many requests in one context."""
    known: list[weakref.ref[Cancelable]] = []

    with installed() as (app, _):

        @app.get("/work")
        async def work(operation: CurrentOperation) -> None:
            known.append(weakref.ref(operation))

        @app.get("/stream")
        async def stream(operation: CurrentOperation) -> StreamingResponse:
            async def chunks() -> AsyncIterator[bytes]:
                yield b"one"

            known.append(weakref.ref(operation))
            return StreamingResponse(chunks())

        exchange = Exchange(path)
        await exchange.serve(app)
        assert exchange.status == 200
        assert current_operation() is None
    del exchange
    await becomes_true_soon(lambda: gc.collect() >= 0 and known[0]() is None)  # the loop lets go of its last callbacks first


# --- response headers


@pytest.mark.parametrize(
    ("mode", "plain", "scoped"), [("scoped", False, True), ("all", True, True), ("never", False, False), (None, False, True)]
)
async def test_response_header_modes(mode: str | None, plain: bool, scoped: bool) -> None:
    with installed(**({} if mode is None else {"response_header": mode})) as (app, _):

        @app.get("/plain")
        async def without() -> None:
            pass

        @app.get("/asked")
        async def asked(operation: CurrentOperation) -> str:
            return operation.id

        @app.get("/step")
        def step() -> None:
            with Cancelable("a step"):
                pass

        for path, expected in (("/plain", plain), ("/asked", scoped), ("/step", scoped)):
            answer = await ask(app, path)
            assert ("x-operation-id" in answer.headers) == expected, path
            assert answer.headers.get("cache-control") == ("private" if expected else None)
            if path == "/asked" and expected:
                assert answer.headers["x-operation-id"] == answer.json()


async def test_response_header_is_not_added_to_304() -> None:
    with installed(response_header="all") as (app, _):

        @app.get("/work")
        async def work() -> Response:
            return Response(status_code=304)

        answer = await ask(app, "/work")
    assert answer.status_code == 304
    assert not {"x-operation-id", "cache-control"} & answer.headers.keys()


async def test_response_header_leaves_caching_to_an_endpoint_that_says_something_about_it() -> None:
    with installed(response_header="all") as (app, _):

        @app.get("/work")
        async def work() -> Response:
            return Response(headers={"Cache-Control": "no-cache"})

        answer = await ask(app, "/work")
    assert answer.headers["cache-control"] == "no-cache"
    assert "x-operation-id" in answer.headers


async def test_messages_of_other_applications_stay_as_they_are(visit: Visit) -> None:
    """Headers are optional in ASGI, and the message may be the same object for every request."""
    start = {"type": "http.response.start", "status": 200}

    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        await send(start)
        await send({"type": "http.response.body"})

    with installed(response_header="all") as (app, _):
        app.mount("/sub", asgi)
        answers = [await ask(app, "/sub/") for _ in range(2)]
    assert start == {"type": "http.response.start", "status": 200}
    assert len({answer.headers["x-operation-id"] for answer in answers}) == 2


# --- beside BaseHTTPMiddleware, with bodies


async def _await_first(request: Request, call_next: RequestResponseEndpoint) -> Response:
    await anyio.sleep(0.005)
    response: Response = await call_next(request)
    return response


async def _read_first(request: Request, call_next: RequestResponseEndpoint) -> Response:
    assert await request.body()
    response: Response = await call_next(request)
    return response


class _AwaitsFirst:
    """The same as a pure ASGI middleware."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await anyio.sleep(0.005)
        await self._app(scope, receive, send)


LAYERS = {
    "awaits": Middleware(BaseHTTPMiddleware, dispatch=_await_first),
    "reads": Middleware(BaseHTTPMiddleware, dispatch=_read_first),
    "pure": Middleware(_AwaitsFirst),
}


@pytest.mark.parametrize("below", [None, *LAYERS])
@pytest.mark.parametrize("above", [None, *LAYERS])
async def test_bodies_arrive_whole_whatever_other_middleware_does(
    above: str | None, below: str | None, anyio_backend_name: str
) -> None:
    skip_where_starlette_leaves_generators_open(anyio_backend_name)
    with installed() as (app, _):
        if above is not None:
            app.user_middleware.insert(0, LAYERS[above])
        if below is not None:
            app.user_middleware.append(LAYERS[below])

        @app.post("/json")
        async def take(operation: CurrentOperation, values: list[int] = Body()) -> int:
            return sum(values)

        @app.post("/upload")
        async def upload(request: Request) -> int:
            return sum([len(chunk) async for chunk in request.stream()])

        async with serving(app, Exchange("/json", method="POST", body=(b"[1,2", b",3", b"9]"))) as exchange:
            pass
        assert (exchange.status, exchange.json) == (200, 42)
        pieces = tuple(bytes(50_000) for _ in range(20))
        async with serving(app, Exchange("/upload", method="POST", body=pieces)) as exchange:
            pass
        assert (exchange.status, exchange.json) == (200, 1_000_000)


@pytest.mark.parametrize("above", [None, "awaits"])
@pytest.mark.parametrize("below", [None, "awaits"])
@pytest.mark.parametrize("work", ENDPOINTS, ids=_named)
async def test_cancels_are_answered_through_other_middleware(
    visit: Visit, work: Callable[..., Any], above: str | None, below: str | None, anyio_backend_name: str
) -> None:
    if above is not None or below is not None:
        skip_where_starlette_leaves_generators_open(anyio_backend_name)
    with installed() as (app, _):
        _add(app, visit, work)
        if above is not None:
            app.user_middleware.insert(0, LAYERS[above])
        if below is not None:
            app.user_middleware.append(LAYERS[below])
        async with serving(app, Exchange("/work")) as exchange:
            await happens_soon(visit.begun)
            visit.operation.cancel_sync("enough")
        await happens_soon(visit.over)
    assert (exchange.status, exchange.json["type"]) == (499, "urn:cancelable:cancelled")
    await becomes_true_soon(lambda: visit.operation.status == "cancelled")


@pytest.mark.parametrize("status", [401, 403])
async def test_a_client_that_the_principal_refuses_chooses_as_nobody(status: int) -> None:
    def refuse() -> None:
        raise HTTPException(status)

    with installed(accept_operation_ids=True, response_header="all", principal=refuse) as (app, _):

        @app.post("/echo")
        async def echo(request: Request) -> str:
            return (await request.body()).decode()

        answer = await ask(app, "/echo", "POST", headers={"X-Operation-ID": "c" * 22}, content=b"the body")
        assert (answer.status_code, answer.json()) == (200, "the body")
        assert answer.headers["X-Operation-ID"] == canonical_operation_id(Principal(), "c" * 22)


async def test_a_failing_principal_fails_the_choice_only_where_it_is_made() -> None:
    def fail() -> None:
        raise LookupError("no database")

    with installed(accept_operation_ids=True, principal=fail) as (app, _):

        @app.get("/page")
        async def page() -> str:
            return "a page"

        assert (await ask(app, "/page")).status_code == 200
        assert (await ask(app, "/page", headers={"X-Operation-ID": "c" * 22})).status_code == 500
