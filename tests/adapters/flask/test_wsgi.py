"""What the adapter stands on: a request's operation around any WSGI application, and around streams."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any

import anyio
import pytest

from cancelable_core import Cancelable, OperationCancelled
from cancelable_core.http_api import Settings
from cancelable_core.servers import (
    REQUEST_KEY,
    RequestOperation,
    WebApplication,
    WsgiRequest,
    current_request,
)
from cancelable_core.store import OperationStore
from tests.servers.latent import made, wsgi_application

from .helpers import Exchange

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def new_request(**settings: Any) -> RequestOperation:
    application = WebApplication(Settings(registry=OperationStore(), **settings))
    return application.new_request("GET", lambda: "/route", native=None)


def exchange_with(application: Wsgi, seen: list[WsgiRequest]) -> Exchange:
    return Exchange(wsgi_application(application, None, seen=seen, response_header="all"), "/")


def test_operation_is_found_in_the_environ_and_in_the_header() -> None:
    found: list[object] = []

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        found.append(environ[REQUEST_KEY])
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"body"]

    seen: list[WsgiRequest] = []
    exchange = exchange_with(application, seen)
    operation = made(seen[0])
    assert found == seen
    assert (exchange.status, exchange.headers["x-operation-id"]) == (200, operation.id)
    assert list(exchange.chunks) == [b"body"]
    assert operation.status == "completed"


def test_application_that_raises_makes_the_request_fail() -> None:
    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        raise ZeroDivisionError

    seen: list[WsgiRequest] = []
    with pytest.raises(ZeroDivisionError):
        exchange_with(application, seen)
    assert made(seen[0]).status == "failed"


def test_application_that_gives_up_because_of_the_cancel_is_cancelled() -> None:
    seen: list[WsgiRequest] = []

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        made(seen[0]).cancel_sync("enough")
        made(seen[0]).check()
        return []

    with pytest.raises(OperationCancelled):
        exchange_with(application, seen)
    assert made(seen[0]).status == "cancelled"


def test_body_that_fails_to_close_ends_the_request_all_the_same() -> None:
    class Body:
        def __iter__(self) -> Iterator[bytes]:
            return iter([b"body"])

        def close(self) -> None:
            raise ZeroDivisionError

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Body:
        start_response("200 OK", [])
        return Body()

    seen: list[WsgiRequest] = []
    exchange = exchange_with(application, seen)
    with pytest.raises(ZeroDivisionError):
        exchange.close()
    assert made(seen[0]).status == "completed"


def test_first_end_counts() -> None:
    operation = new_request()
    operation.begin()
    operation.end()
    operation.end(ZeroDivisionError())
    assert operation.status == "completed"


def test_request_is_the_nearest_among_the_ancestors() -> None:
    operation = new_request()
    operation.begin()
    try:
        with Cancelable("outer") as outer, Cancelable("inner") as inner:
            assert current_request(inner) is current_request(outer) is current_request(operation) is operation
        with Cancelable("detached", parent=None) as detached:
            assert current_request(detached) is None
        assert current_request(None) is None
    finally:
        operation.end()


def test_plain_stream_is_cut_between_two_chunks() -> None:
    operation = new_request()
    operation.begin()
    body = operation.iterate_body(iter([b"first", b"second"]))
    assert next(body) == b"first"
    operation.cancel_sync("enough")
    with pytest.raises(OperationCancelled):
        next(body)
    assert operation.status == "cancelled"


@pytest.mark.parametrize("makes_room", ["cancelled", "closed", "complete"])
async def test_async_stream_ends_with_its_request(makes_room: str) -> None:
    operation = new_request()
    operation.begin()

    async def chunks() -> AsyncIterator[bytes]:
        yield b"first"
        if makes_room == "cancelled":
            await anyio.sleep_forever()

    body: Any = operation.stream_body(chunks())
    assert await anext(body) == b"first"
    if makes_room == "cancelled":
        operation.cancel_sync("enough")
        with pytest.raises(OperationCancelled):
            await anext(body)
    elif makes_room == "closed":
        await body.aclose()
    else:
        with pytest.raises(StopAsyncIteration):
            await anext(body)
        operation.end()
    context = operation.context
    expected = {"cancelled": ("cancelled", "manual"), "closed": ("cancelled", "disconnect"), "complete": ("completed", None)}
    assert (context.status, context.reason) == expected[makes_room]


async def test_running_a_call_raises_the_request_s_own_cancel() -> None:
    operation = new_request()
    operation.begin()

    async def call() -> None:
        operation.cancel_sync("enough")
        await anyio.sleep_forever()

    with pytest.raises(OperationCancelled) as caught:
        await operation.run(call)
    operation.end(caught.value)
    assert (caught.value.operation_id, operation.status) == (operation.id, "cancelled")
