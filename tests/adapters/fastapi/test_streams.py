"""Responses that take their time: the operation ends with the last byte, and says what became of the rest."""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from fastapi import BackgroundTasks, FastAPI, Request
from fastapi.responses import FileResponse, Response, StreamingResponse
from starlette.background import BackgroundTask
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint

from cancelable_core import Cancelable, CancelationReason
from cancelable_core.http_api import AllowAll
from cancelable_fastapi import CancelableSuite, CurrentOperation, current_operation

from .helpers import (
    Exchange,
    Visit,
    ask,
    becomes_true_soon,
    happens_soon,
    installed,
    serving,
    skip_where_starlette_leaves_generators_open,
)

# --- streams: one chunk, then nothing more until something happens


async def _stalls(visit: Visit) -> AsyncIterator[bytes]:
    with visit.here():
        yield b"first,"
        await anyio.sleep(60)


def _plain(visit: Visit) -> Iterator[bytes]:
    with visit.here() as operation:
        yield b"first,"
        operation.sleep(60)


async def _of_operation(visit: Visit) -> AsyncIterator[bytes]:
    operation = current_operation()
    assert operation is not None
    async with operation.stream(_stalls(visit)) as chunks:
        async for chunk in chunks:
            yield chunk


SOURCES: tuple[Callable[[Visit], Any], ...] = (_stalls, _plain, _of_operation)


def _streaming(visit: Visit, source: Callable[[Visit], Any], **options: Any) -> FastAPI:
    app = FastAPI(**options)

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        return StreamingResponse(source(visit), media_type="text/plain")

    return app


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("spec_version", ["2.3", "2.4"])
async def test_cancelled_stream_is_cut(
    visit: Visit, source: Callable[[Visit], Any], spec_version: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with installed(_streaming(visit, source)) as (app, _):
        async with serving(app, Exchange("/stream", spec_version=spec_version)) as exchange:
            await exchange.received(b"first,")
            answer = await ask(app, f"/jobs/{visit.operation.id}/cancel", "POST", json={"wait_seconds": 20})
            assert (answer.status_code, answer.json()["operation"]["status"]) == (200, "cancelled")
        await happens_soon(visit.over)
    assert (exchange.status, exchange.is_complete, exchange.error) == (200, False, None)
    assert exchange.body.startswith(b"first,")
    assert visit.operation.status == "cancelled"
    assert [record for record in caplog.records if record.exc_info] == []


@pytest.mark.parametrize("source", SOURCES)
async def test_cancelled_stream_is_cut_below_other_middleware_too(
    visit: Visit, source: Callable[[Visit], Any], anyio_backend_name: str
) -> None:
    """BaseHTTPMiddleware completes every stream that ends early, even one that raised; the operation knows better."""
    skip_where_starlette_leaves_generators_open(anyio_backend_name)

    async def dispatch(request: Request, call_next: RequestResponseEndpoint) -> Response:
        response: Response = await call_next(request)
        return response

    app = _streaming(visit, source)
    app.add_middleware(BaseHTTPMiddleware, dispatch=dispatch)
    with installed(app):
        async with serving(app, Exchange("/stream")) as exchange:
            await exchange.received(b"first,")
            visit.operation.cancel_sync("enough")
        await happens_soon(visit.over)
    assert exchange.error is None
    assert visit.operation.status == "cancelled"


@pytest.mark.parametrize("source", SOURCES)
async def test_a_stream_whose_client_left_is_no_completed_one(visit: Visit, source: Callable[[Visit], Any]) -> None:
    with installed(_streaming(visit, source), policy=AllowAll()) as (app, _):
        async with serving(app, Exchange("/stream")) as exchange:
            await exchange.received(b"first,")
            exchange.leave()
            if source is _plain:  # its thread is not interrupted; Starlette waits for it
                visit.operation.cancel_sync(CancelationReason.DISCONNECT)
        operation = visit.operation
        shown = (await ask(app, f"/jobs/{operation.id}")).json()
    assert (exchange.is_complete, exchange.error) == (False, None)
    assert (shown["status"], shown["reason"]) == ("cancelled", "disconnect")
    assert operation.token.is_cancelled  # so that threads it left behind hear of it


async def test_a_client_that_leaves_in_the_middle_of_its_body(visit: Visit) -> None:
    with installed() as (app, _):

        @app.post("/upload")
        async def upload(request: Request) -> int:
            with visit.here():
                return sum([len(chunk) async for chunk in request.stream()])

        exchange = Exchange("/upload", method="POST", body=(b"some", b"never comes"), pieces_sent=1)
        exchange.leave()
        async with serving(app, exchange):
            pass
    assert type(exchange.error).__name__ == "ClientDisconnect"
    assert (visit.operation.status, visit.operation.token.reason) == ("cancelled", "disconnect")


async def test_a_stream_that_fails_is_failed(visit: Visit) -> None:
    async def breaks(visit: Visit) -> AsyncIterator[bytes]:
        with visit.here():
            yield b"first,"
            raise ZeroDivisionError

    with installed(_streaming(visit, breaks)) as (app, _):
        async with serving(app, Exchange("/stream")) as exchange:
            pass
    assert isinstance(exchange.error, ZeroDivisionError)
    assert (visit.operation.status, exchange.is_complete) == ("failed", False)


async def test_the_operation_runs_until_the_stream_has_ended(visit: Visit) -> None:
    async def two(visit: Visit) -> AsyncIterator[bytes]:
        with visit.here():
            yield b"first,"
            await happens_soon(go_on)
            yield b"second"

    go_on = threading.Event()
    with installed(_streaming(visit, two), policy=AllowAll()) as (app, _):
        async with serving(app, Exchange("/stream")) as exchange:
            await exchange.received(b"first,")
            assert (await ask(app, f"/jobs/{visit.operation.id}")).json()["status"] == "running"
            go_on.set()
    assert (exchange.body, exchange.is_complete) == (b"first,second", True)
    assert visit.operation.status == "completed"
    assert not visit.operation.token.is_cancelled


async def test_server_sent_events_of_fastapi_s_own_kind_are_cut(visit: Visit) -> None:
    sse = pytest.importorskip("fastapi.sse", reason="FastAPI has server-sent events of its own since 0.135")
    with installed() as (app, _):

        @app.get("/events", response_class=sse.EventSourceResponse)
        async def events(operation: CurrentOperation) -> AsyncIterator[dict[str, str]]:
            with visit.here():
                yield {"id": operation.id}
                await anyio.sleep(60)

        async with serving(app, Exchange("/events")) as exchange:
            await exchange.received(b"data: ")
            visit.operation.cancel_sync("enough")
        await happens_soon(visit.over)
    assert visit.operation.id.encode() in exchange.body
    assert exchange.headers["content-type"].startswith("text/event-stream")
    assert (exchange.is_complete, visit.operation.status) == (False, "cancelled")


async def test_a_file_is_one_operation_to_its_last_byte(visit: Visit, tmp_path: Path) -> None:
    path = tmp_path / "large.bin"
    path.write_bytes(bytes(300_000))
    with installed(response_header="all") as (app, _):

        @app.get("/file")
        async def file() -> FileResponse:
            with visit.here():
                return FileResponse(path)

        async with serving(app, Exchange("/file")) as exchange:
            pass
    assert (len(exchange.body), exchange.is_complete, visit.operation.status) == (300_000, True, "completed")
    assert exchange.headers["x-operation-id"] == visit.operation.id


@pytest.mark.parametrize(
    ("messages", "status"),
    [
        ([{"type": "http.response.pathsend", "path": "/x"}], "completed"),
        ([{"type": "http.response.zerocopysend", "file": 3}], "completed"),
        ([{"type": "http.response.zerocopysend", "file": 3, "more_body": True}, {"type": "http.response.body"}], "completed"),
        ([{"type": "http.response.zerocopysend", "file": 3, "more_body": True}], "cancelled"),
        ([{"type": "http.response.body", "body": b"x", "more_body": True}], "cancelled"),
        ([], "cancelled"),
    ],
)
async def test_what_the_last_message_is(visit: Visit, messages: list[dict[str, Any]], status: str) -> None:
    """The extensions of ASGI for files end a response too; one that never ends nobody waits for any more."""

    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        with visit.here():
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for message in messages:
                await send(message)

    with installed() as (app, _):
        app.mount("/sub", asgi)
        async with serving(app, Exchange("/sub/")):
            pass
    assert visit.operation.status == status


# --- after the last byte


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "sync"])
@pytest.mark.parametrize("client_leaves", [True, False])
async def test_background_tasks_live_on_after_the_response(visit: Visit, is_async: bool, client_leaves: bool) -> None:
    """A finished response never counts as a disconnect, and a cancel that comes later finds the request finished."""
    begun, go_on, done = threading.Event(), threading.Event(), threading.Event()
    seen: list[Cancelable | None] = []

    async def async_background() -> None:
        seen.append(current_operation())
        begun.set()
        await happens_soon(go_on)
        await anyio.sleep(0)
        done.set()

    def background() -> None:
        seen.append(current_operation())
        begun.set()
        assert go_on.wait(10)
        done.set()

    with installed() as (app, _):

        @app.get("/work")
        async def work(tasks: BackgroundTasks) -> str:
            with visit.here():
                tasks.add_task(async_background if is_async else background)
                return "done"

        async with serving(app, Exchange("/work")) as exchange:
            await happens_soon(begun)
            assert (exchange.body, exchange.is_complete) == (b'"done"', True)
            assert visit.operation.status == "completed"
            if client_leaves:
                exchange.leave()
            assert not visit.operation.cancel_sync("too late")
            assert (await ask(app, f"/jobs/{visit.operation.id}/cancel", "POST")).status_code == 404  # only counted
            go_on.set()
        await happens_soon(done)
    assert seen == [None]
    assert visit.operation.status == "completed"
    assert not visit.operation.token.is_cancelled


async def test_a_background_task_may_open_an_operation_of_its_own(visit: Visit) -> None:
    inside: list[Cancelable] = []

    async def background() -> None:
        async with Cancelable("after the response") as operation:
            inside.append(operation)

    async def chunks() -> AsyncIterator[bytes]:
        with visit.here():
            yield b"all of it"

    with installed() as (app, _):

        @app.get("/work")
        async def work() -> StreamingResponse:
            return StreamingResponse(chunks(), background=BackgroundTask(background))

        async with serving(app, Exchange("/work")):
            pass
    assert (inside[0].status, inside[0].parent) == ("completed", None)
    assert visit.operation.status == "completed"


async def test_a_background_task_that_fails_does_not_change_what_the_request_was(visit: Visit) -> None:
    async def background() -> None:
        raise ZeroDivisionError

    with installed() as (app, _):

        @app.get("/work")
        async def work(tasks: BackgroundTasks) -> str:
            with visit.here():
                tasks.add_task(background)
                return "done"

        async with serving(app, Exchange("/work")) as exchange:
            pass
    assert isinstance(exchange.error, ZeroDivisionError)
    assert (exchange.body, visit.operation.status) == (b'"done"', "completed")


async def test_a_cancel_while_the_last_byte_goes_out_is_visible(visit: Visit) -> None:
    """Too late to change anything on the wire: the body was whole."""
    with installed() as (app, _):

        @app.get("/work")
        async def work() -> str:
            with visit.here():
                return "whole"

        class CancelsWhenSent(Exchange):
            async def _send(self, message: dict[str, Any]) -> None:
                self.sent.append(message)
                if message["type"] == "http.response.body":
                    assert visit.operation.cancel_sync("too late")

        async with serving(app, CancelsWhenSent("/work")) as exchange:
            pass
    assert (exchange.status, exchange.body, exchange.is_complete) == (200, b'"whole"', True)
    assert visit.operation.status == "completed"
    assert visit.operation.context.cancel_requested_at is not None


async def test_a_response_that_was_interrupted_before_it_began_gets_an_answer(visit: Visit) -> None:
    """Other middleware may await before it passes the first message on: then nothing of it was sent."""
    with installed() as (app, _):

        @app.get("/work")
        async def work() -> str:
            with visit.here() as operation:
                operation.cancel_sync("at the last moment")
                return "never sent"

        class WaitsFirst(Exchange):
            waited = False

            async def _send(self, message: dict[str, Any]) -> None:
                if not self.waited:
                    self.waited = True
                    await anyio.sleep(60)
                self.sent.append(message)

        async with serving(app, WaitsFirst("/work")) as exchange:
            pass
    assert [message["type"] for message in exchange.sent] == ["http.response.start", "http.response.body"]
    assert (exchange.status, exchange.json["message"]) == (499, "at the last moment")
    assert visit.operation.status == "cancelled"


async def test_many_streams_at_once_end_each_as_it_should() -> None:
    suite: CancelableSuite

    async def chunks(operation: Cancelable, how: str) -> AsyncIterator[bytes]:
        yield b"first,"
        if how != "completed":
            await anyio.sleep(60)
        yield b"second"

    with installed() as (app, suite):
        operations: dict[int, Cancelable] = {}

        @app.get("/stream/{number}/{how}")
        async def stream(number: int, how: str, operation: CurrentOperation) -> StreamingResponse:
            operations[number] = operation
            return StreamingResponse(chunks(operation, how))

        exchanges = {}
        async with anyio.create_task_group() as tasks:
            for number in range(60):
                how = ("completed", "cancelled", "left")[number % 3]
                exchanges[number] = Exchange(f"/stream/{number}/{how}")
                tasks.start_soon(exchanges[number].serve, app)
            for number, exchange in exchanges.items():
                await exchange.received(b"first,")
                if number % 3 == 1:
                    assert suite.registry.cancel_operation(operations[number].id)
                elif number % 3 == 2:
                    exchange.leave()
        await becomes_true_soon(lambda: suite.registry.get_statistics().running_operations == 0)
    for number, operation in operations.items():
        assert operation.status == ("completed", "cancelled", "cancelled")[number % 3]
        assert operation.token.reason == (None, "manual", "disconnect")[number % 3]
        assert exchanges[number].is_complete == (number % 3 == 0)
