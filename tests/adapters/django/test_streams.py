"""Streaming responses: the operation lives as long as the stream, and ends as the stream ended."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.http import FileResponse, HttpRequest, HttpResponse, StreamingHttpResponse
from django.test import AsyncClient, Client
from django.urls import path
from django.utils.decorators import async_only_middleware

from cancelable_core import Cancelable, CancelationReason, OperationCancelled
from cancelable_django import current_operation
from cancelable_django.conf import registry
from tests.django_project import MIDDLEWARE

from .helpers import Exchange, Visit, becomes_true_soon, ended, happens, site, start_wsgi

CHUNKS = [b"one,", b"two,", b"three"]


@pytest.fixture
def visit() -> Visit:
    return Visit()


def _response(
    visit: Visit, content: Callable[[], Any], response_class: type[Any] = StreamingHttpResponse
) -> Callable[..., Any]:
    def view(request: HttpRequest) -> HttpResponse:
        with visit.view():
            return response_class(content())

    return view


def _endless() -> Iterator[bytes]:
    while True:
        yield b"more,"


# --- under WSGI


def test_sync_stream_ends_with_its_last_byte_not_with_the_view(visit: Visit) -> None:
    with site(path("stream", _response(visit, lambda: iter(CHUNKS)))):
        answer, chunks, close = start_wsgi("/stream")
        assert answer.status == 200
        happens(visit.over)
        assert [(next(chunks), visit.operation.status) for _ in CHUNKS] == [(chunk, "running") for chunk in CHUNKS]
        assert list(chunks) == []
        close()
    assert visit.operation.status == "completed"
    assert visit.operation.context.reason is None


def test_stream_finds_its_operation(visit: Visit) -> None:
    found: list[Cancelable | None] = []

    def content() -> Iterator[bytes]:
        found.append(current_operation())
        yield b"all"

    with site(path("stream", _response(visit, content))):
        _, chunks, close = start_wsgi("/stream")
        assert b"".join(chunks) == b"all"
        close()
    assert found == [visit.operation]


@pytest.mark.parametrize("read", [1, 2])
def test_sync_stream_that_the_server_closes_was_left_by_its_client(visit: Visit, read: int) -> None:
    closed = threading.Event()

    def content() -> Iterator[bytes]:
        try:
            yield from _endless()
        finally:
            closed.set()

    with site(path("stream", _response(visit, content))):
        _, chunks, close = start_wsgi("/stream")
        for _ in range(read):
            next(chunks)
        assert visit.operation.status == "running"
        close()
    assert closed.is_set()
    assert ended(visit.operation).status == "cancelled"
    assert ended(visit.operation).reason is CancelationReason.DISCONNECT


def test_stream_that_is_never_begun_ends_when_it_is_closed(visit: Visit) -> None:
    """As for HEAD: there was nothing to be cut off."""
    with site(path("stream", _response(visit, _endless))):
        _, _, close = start_wsgi("/stream", REQUEST_METHOD="HEAD")
        assert visit.operation.status == "running"
        close()
    assert visit.operation.status == "completed"


def test_sync_stream_is_cancelled_between_two_chunks(visit: Visit, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "cancelable_core")
    with site(path("stream", _response(visit, _endless))):
        _, chunks, close = start_wsgi("/stream")
        next(chunks)
        visit.operation.cancel_sync("enough")
        with pytest.raises(OperationCancelled):  # so that the server cuts the connection, and nobody takes half for the whole
            next(chunks)
        close()
    assert ended(visit.operation).status == "cancelled"
    assert ended(visit.operation).message == "enough"
    assert len(caplog.records) == 1


def test_stream_that_fails_is_a_failed_request(visit: Visit) -> None:
    def content() -> Iterator[bytes]:
        yield b"one"
        raise ZeroDivisionError

    with site(path("stream", _response(visit, content))):
        _, chunks, close = start_wsgi("/stream")
        next(chunks)
        with pytest.raises(ZeroDivisionError):
            next(chunks)
        close()
    assert ended(visit.operation).status == "failed"


def test_application_s_time_limit_ends_with_the_start_of_the_response(visit: Visit) -> None:
    def content() -> Iterator[bytes]:
        operation = current_operation()
        assert operation is not None
        assert operation.remaining_seconds is None
        assert not operation.wait(0.05)
        yield b"all"

    with site(path("stream", _response(visit, content)), CANCELABLE={"REQUEST_TIMEOUT_SECONDS": 0.04}):
        _, chunks, close = start_wsgi("/stream")
        assert list(chunks) == [b"all"]
        close()
    assert visit.operation.status == "completed"


def test_file_response_stays_one(visit: Visit, tmp_path: Path) -> None:
    """Servers send its file by themselves, which a generator around it would prevent."""
    file = tmp_path / "file"
    file.write_bytes(b"content")
    seen: list[object] = []

    class Wrapper:
        def __init__(self, filelike: Any, block_size: int) -> None:
            seen.append(filelike)
            self._filelike = filelike

        def __iter__(self) -> Iterator[bytes]:
            return iter(lambda: self._filelike.read(3), b"")

        def close(self) -> None:
            self._filelike.close()

    with site(path("file", _response(visit, lambda: file.open("rb"), FileResponse))):
        answer, chunks, close = start_wsgi("/file", **{"wsgi.file_wrapper": Wrapper})
        assert (answer.headers["content-length"], b"".join(chunks)) == ("7", b"content")
        assert visit.operation.status == "running"
        close()
    assert len(seen) == 1
    assert visit.operation.status == "completed"


def test_plain_response_ends_when_it_is_closed(visit: Visit) -> None:
    with site(path("work", _response(visit, lambda: b"all", HttpResponse))):
        _, chunks, close = start_wsgi("/work")
        assert (list(chunks), visit.operation.status) == ([b"all"], "running")
        close()
    assert visit.operation.status == "completed"


def test_error_on_closing_ends_the_operation_all_the_same(visit: Visit) -> None:
    class Broken:
        def __iter__(self) -> Iterator[bytes]:
            return iter(CHUNKS)

        def close(self) -> None:
            raise ZeroDivisionError

    with site(path("stream", _response(visit, Broken))):
        _, chunks, close = start_wsgi("/stream")
        list(chunks)
        close()  # Django looks away: see HttpResponseBase.close
    assert visit.operation.status == "completed"


# --- under ASGI


async def _aendless() -> AsyncIterator[bytes]:
    while True:
        yield b"more,"
        await asyncio.sleep(0)


async def _achunks() -> AsyncIterator[bytes]:
    for chunk in CHUNKS:
        yield chunk


async def _stalls() -> AsyncIterator[bytes]:
    yield b"one,"
    await asyncio.Event().wait()


@pytest.mark.anyio
async def test_async_stream_ends_with_its_last_byte(visit: Visit) -> None:
    statuses: list[str] = []

    async def content() -> AsyncIterator[bytes]:
        for chunk in CHUNKS:
            yield chunk
            statuses.append(visit.operation.status)

    with site(path("stream", _response(visit, content))):
        answer = await Exchange("/stream").answer()
    assert answer.body == b"".join(CHUNKS)
    assert statuses == ["running"] * 3
    assert visit.operation.status == "completed"


@pytest.mark.anyio
async def test_sync_stream_under_asgi_is_collected_by_django_and_still_an_operation(visit: Visit) -> None:
    with site(path("stream", _response(visit, lambda: iter(CHUNKS)))), pytest.warns(Warning, match="synchronous iterators"):
        answer = await Exchange("/stream").answer()
    assert answer.body == b"".join(CHUNKS)
    assert visit.operation.status == "completed"


@pytest.mark.anyio
async def test_stalled_stream_is_interrupted_where_it_waits(visit: Visit) -> None:
    respond = _response(visit, _stalls)

    def view(request: HttpRequest) -> HttpResponse:
        vars(request)["_stream"].close()  # Django 5.2 leaves it open when a stream fails
        response: HttpResponse = respond(request)
        return response

    with site(path("stream", view)):
        exchange = Exchange("/stream")
        await becomes_true_soon(lambda: b"one" in exchange.body_so_far)
        visit.operation.cancel_sync("enough")
        assert isinstance(await exchange.over(), OperationCancelled)
    assert not any(message.get("more_body") is False for message in exchange.sent)  # cut off, not completed
    assert ended(visit.operation).status == "cancelled"
    assert ended(visit.operation).message == "enough"


@pytest.mark.anyio
@pytest.mark.parametrize("content", [_stalls, _aendless])
async def test_client_that_leaves_an_async_stream_cancels_it(visit: Visit, content: Callable[[], Any]) -> None:
    with site(path("stream", _response(visit, content))):
        exchange = Exchange("/stream")
        await becomes_true_soon(lambda: exchange.body_so_far)
        exchange.leave()
        assert await exchange.over() is None
    assert ended(visit.operation).status == "cancelled"
    assert ended(visit.operation).reason is CancelationReason.DISCONNECT


@pytest.mark.anyio
async def test_client_that_leaves_while_a_chunk_is_sent_cancels_the_stream(visit: Visit) -> None:
    """The stream itself stands still then, and nothing is raised in it."""
    with site(path("stream", _response(visit, _achunks))):
        exchange = Exchange("/stream", takes_chunks=0)
        await becomes_true_soon(lambda: exchange.waits_to_send)
        exchange.leave()
        assert await exchange.over() is None
        assert ended(visit.operation).status == "cancelled"
        assert ended(visit.operation).reason is CancelationReason.DISCONNECT


@pytest.mark.anyio
async def test_async_view_whose_client_leaves_is_interrupted(visit: Visit) -> None:
    async def view(request: HttpRequest) -> HttpResponse:
        with visit.view():
            await asyncio.Event().wait()
        raise AssertionError

    with site(path("work", view)):
        exchange = Exchange("/work")
        await becomes_true_soon(visit.begun.is_set)
        exchange.leave()
        assert await exchange.over() is None
    assert isinstance(visit.error, asyncio.CancelledError)
    assert ended(visit.operation).status == "cancelled"
    assert ended(visit.operation).reason is CancelationReason.DISCONNECT


@pytest.mark.anyio
async def test_sync_view_under_asgi_learns_that_its_client_has_left(visit: Visit) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        with visit.view() as operation:
            operation.sleep(60)
        raise AssertionError

    with site(path("work", view)):
        exchange = Exchange("/work")
        await becomes_true_soon(visit.begun.is_set)
        exchange.leave()
        assert await exchange.over() is None
        happens(visit.over)
    assert isinstance(visit.error, OperationCancelled)
    assert ended(visit.operation).reason is CancelationReason.DISCONNECT


@pytest.mark.anyio
async def test_client_that_leaves_after_the_response_cancels_nothing(visit: Visit) -> None:
    with site(path("stream", _response(visit, _achunks))):
        exchange = Exchange("/stream")
        assert (await exchange.answer()).status == 200
        exchange.leave()
    assert visit.operation.status == "completed"


@async_only_middleware
def cancels_while_an_error_is_handled(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """A middleware whose `process_exception` takes long enough for the request to be cancelled meanwhile."""
    interrupted = threading.Event()

    async def middleware(request: HttpRequest) -> HttpResponse:
        try:
            response: HttpResponse = await get_response(request)
        except asyncio.CancelledError:
            interrupted.set()
            raise
        return response

    def process_exception(request: HttpRequest, exception: Exception) -> None:
        operation = current_operation()
        assert operation is not None
        operation.cancel_sync("while an error is handled")
        happens(interrupted)

    vars(middleware)["process_exception"] = process_exception
    return middleware


@pytest.mark.anyio
async def test_cancel_while_django_handles_an_error_is_answered_all_the_same(visit: Visit) -> None:
    """Django does so in a thread, from where asgiref brings a cancelation that no scope takes for its own."""

    async def view(request: HttpRequest) -> HttpResponse:
        with visit.view():
            raise ZeroDivisionError

    layers = [MIDDLEWARE[-1], f"{__name__}.{cancels_while_an_error_is_handled.__name__}"]
    with site(path("work", view), MIDDLEWARE=layers):
        answer = await Exchange("/work").answer()
    assert answer.status == 499
    assert ended(visit.operation).status == "cancelled"


# --- Django's own clients


def test_test_client_ends_the_operation_when_the_stream_was_read(visit: Visit) -> None:
    with site(path("stream", _response(visit, lambda: iter(CHUNKS)))):
        response = Client().get("/stream")
        assert visit.operation.status == "running"
        assert response.getvalue() == b"".join(CHUNKS)
        response.close()
    assert visit.operation.status == "completed"


@pytest.mark.anyio
async def test_async_client_ends_the_operation_when_the_stream_was_read(visit: Visit) -> None:
    with site(path("stream", _response(visit, _achunks))):
        response: Any = await AsyncClient().get("/stream")
        assert visit.operation.status == "running"
        assert [chunk async for chunk in response.streaming_content] == CHUNKS
        response.close()
    assert visit.operation.status == "completed"
    assert registry().get_operation(visit.operation.id) is None
