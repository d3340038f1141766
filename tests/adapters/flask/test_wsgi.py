"""What the adapter stands on: a request's operation around any WSGI application, and around streams."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any

import anyio
import pytest

from cancelable_core import Cancelable, CancelationReason, OperationCancelled
from cancelable_core.http_api import Settings
from cancelable_core.servers import OPERATION_KEY, RequestOperation, WebApplication, current_request, run_wsgi
from cancelable_core.store import OperationStore

from .helpers import Exchange

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def new_request(**settings: Any) -> RequestOperation:
    application = WebApplication(Settings(registry=OperationStore(), **settings))
    return application.new_request("GET", lambda: "/route", native=None, outside_reason=CancelationReason.DISCONNECT)


def exchange_with(application: Wsgi, operation: RequestOperation) -> Exchange:
    def whole(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        return run_wsgi(application, environ, start_response, operation, response_header="all")

    return Exchange(whole, "/")


def test_operation_is_found_in_the_environ_and_in_the_header() -> None:
    seen: list[object] = []

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        seen.append(environ[OPERATION_KEY])
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"body"]

    operation = new_request()
    exchange = exchange_with(application, operation)
    assert seen == [operation]
    assert (exchange.status, exchange.headers["x-operation-id"]) == (200, operation.id)
    assert list(exchange.chunks) == [b"body"]
    assert operation.status == "completed"


def test_application_that_raises_makes_the_request_fail() -> None:
    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        raise ZeroDivisionError

    operation = new_request()
    with pytest.raises(ZeroDivisionError):
        exchange_with(application, operation)
    assert operation.status == "failed"


def test_application_that_gives_up_because_of_the_cancel_is_cancelled() -> None:
    operation = new_request()

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        operation.cancel_sync("enough")
        operation.check()
        return []

    with pytest.raises(OperationCancelled):
        exchange_with(application, operation)
    assert operation.status == "cancelled"


def test_body_that_fails_to_close_ends_the_request_all_the_same() -> None:
    class Body:
        def __iter__(self) -> Iterator[bytes]:
            return iter([b"body"])

        def close(self) -> None:
            raise ZeroDivisionError

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Body:
        start_response("200 OK", [])
        return Body()

    operation = new_request()
    exchange = exchange_with(application, operation)
    with pytest.raises(ZeroDivisionError):
        exchange.close()
    assert operation.status == "completed"


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
