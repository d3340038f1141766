"""A bare WSGI application: its requests are operations, and a response that is complete is never a client that left."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from cancelable_core import (
    CancelationReason,
    OperationCancelled,
    OperationStore,
    QueueFull,
    ThreadSafeRegistry,
    current_operation,
)
from cancelable_core.servers import REQUEST_KEY, CancelableWsgi, RequestOperation, WsgiRequest
from tests.adapters.flask.helpers import Exchange

from .latent import Request, made, wsgi_application
from .test_following_the_client import Client

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def cancelled(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    """Notices that somebody cancelled its request."""
    operation = current_operation()
    assert operation is not None
    operation.cancel_sync("enough")
    operation.check()
    raise AssertionError


def make(application: Application, **options: Any) -> CancelableWsgi:
    return CancelableWsgi(application, registry=OperationStore(), **options)


def test_request_is_an_operation_named_by_its_route() -> None:
    seen: list[RequestOperation] = []

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        operation = current_operation()
        assert isinstance(operation, RequestOperation)
        seen.append(operation)
        start_response("200 OK", [])
        return [b"body"]

    app = make(application, route=lambda environ: "/reports/<id>")
    exchange = Exchange(app, "/reports/7")
    (operation,) = seen
    assert operation.name == "GET /reports/<id>"
    assert [one.id for one in app.registry.list_operations()] == [operation.id]
    assert list(exchange.chunks) == [b"body"]
    exchange.close()
    assert operation.status == "completed"


def test_request_without_a_route_is_not_named_by_its_path() -> None:
    app = make(cancelled)
    Exchange(app, "/secret/7").close()
    (context,) = app.registry.get_history()
    assert context.name == "GET (no route)"


def test_own_cancel_is_answered_as_everywhere() -> None:
    app = make(cancelled, cancelled_status=418)
    exchange = Exchange(app, "/")
    body = b"".join(exchange.chunks)
    exchange.close()
    assert (exchange.status, exchange.headers["content-type"]) == (418, "application/problem+json")
    assert b'"message":"enough"' in body
    (context,) = app.registry.get_history()
    assert context.status == "cancelled"


def test_cancel_after_the_response_was_begun_replaces_it() -> None:
    """As PEP 3333 has it: with ``exc_info``, so that a server that has sent something already can refuse."""
    given: list[tuple[Any, ...]] = []

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        start_response("200 OK", [])
        return cancelled(environ, start_response)

    app = make(application)
    exchange = Exchange(lambda environ, _: app(environ, lambda *response: given.append(response)), "/")
    assert b"enough" in b"".join(exchange.chunks)
    exchange.close()
    (status, _), (replaced, _, exc_info) = given
    assert (status, replaced) == ("200 OK", "499 Cancelled")
    assert exc_info[0] is OperationCancelled


def test_cancel_of_another_operation_is_an_error_like_any_other() -> None:
    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        raise OperationCancelled("somebody else's")

    app = make(application)
    with pytest.raises(OperationCancelled, match="somebody else"):
        Exchange(app, "/")
    (context,) = app.registry.get_history()
    assert context.status == "failed"


def test_job_that_finds_no_room_is_answered_503() -> None:
    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        raise QueueFull("no room", limit=7)

    exchange = Exchange(make(application), "/")
    body = b"".join(exchange.chunks)
    exchange.close()
    assert (exchange.status, exchange.headers["retry-after"]) == (503, "5")
    assert b"All 7 places" in body


def test_application_inside_another_has_one_operation_per_request() -> None:
    store = OperationStore()

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        start_response("200 OK", [])
        return []

    exchange = Exchange(CancelableWsgi(CancelableWsgi(application, registry=store), registry=store), "/")
    assert len(ThreadSafeRegistry(store).list_operations()) == 1
    exchange.close()


def test_application_behind_an_asgi_layer_works_inside_that_layer_s_operation() -> None:
    outer = Request(OperationStore())
    seen: list[object] = []

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        seen.append(environ[REQUEST_KEY])
        start_response("200 OK", [])
        return []

    app = make(application)
    Exchange(app, "/", **{"asgi.scope": {REQUEST_KEY: outer}}).close()
    assert seen == [outer]
    assert app.registry.get_statistics().total_operations == 0


# --- when the client has everything


def followed(application: Application, client: Client, method: str = "GET") -> tuple[RequestOperation, Exchange]:
    seen: list[WsgiRequest] = []
    whole = wsgi_application(application, client, seen=seen, cancel_on_disconnect="all", response_header="never")
    exchange = Exchange(whole, "/", REQUEST_METHOD=method)
    return made(seen[0]), exchange


def chunks(*headers: tuple[str, str], status: str = "200 OK") -> Application:
    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
        start_response(status, list(headers))
        yield b"first,"
        yield b"last"

    return application


def test_client_that_leaves_with_the_last_byte_of_a_known_length_has_not_left() -> None:
    client = Client()
    request, exchange = followed(chunks(("Content-Length", "10")), client)
    assert next(exchange.chunks) == b"first,"
    assert client.is_watched
    assert next(exchange.chunks) == b"last"
    client.leave()  # before the server asks for more, and closes
    assert not request.token.is_cancelled
    exchange.close()
    assert request.status == "completed"


def test_client_that_leaves_with_the_last_of_a_known_number_of_chunks_has_not_left() -> None:
    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        start_response("200 OK", [])
        return [b"first,", b"last"]

    client = Client()
    request, exchange = followed(application, client)
    assert len(exchange._body) == 2, "servers make a Content-Length of a single one"  # type: ignore[arg-type]
    next(exchange.chunks)
    assert client.is_watched
    next(exchange.chunks)
    client.leave()
    exchange.close()
    assert (request.status, request.token.is_cancelled) == ("completed", False)


@pytest.mark.parametrize(("method", "status"), [("HEAD", "200 OK"), ("GET", "204 No Content"), ("GET", "304 Not Modified")])
def test_client_that_leaves_after_a_head_without_a_body_has_not_left(method: str, status: str) -> None:
    client = Client()
    request, exchange = followed(chunks(status=status), client, method)
    next(exchange.chunks)
    client.leave()
    exchange.close()
    assert (request.status, request.token.is_cancelled) == ("completed", False)


def test_client_that_leaves_a_stream_of_unknown_length_has_left_until_its_end() -> None:
    client = Client()
    request, exchange = followed(chunks(), client)
    assert list(exchange.chunks) == [b"first,", b"last"]
    client.leave()
    assert request.status == "completed"
    client = Client()
    request, exchange = followed(chunks(), client)
    next(exchange.chunks)
    client.leave()
    assert request.token.reason is CancelationReason.DISCONNECT
    exchange.close()
    assert request.status == "cancelled"


@pytest.mark.parametrize("key", ["gunicorn.socket", "werkzeug.socket", "waitress.client_disconnected"])
def test_left_stream_ends_in_the_server_s_own_terms(key: str) -> None:
    """No traceback in its log, and no orderly end where it can be avoided."""
    client = Client()

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
        operation = current_operation()
        assert operation is not None
        start_response("200 OK", [])
        yield b"first"
        operation.check()
        raise AssertionError

    seen: list[WsgiRequest] = []
    whole = wsgi_application(application, client, seen=seen, cancel_on_disconnect="all", response_header="never")
    exchange = Exchange(whole, "/", **{key: sys.stdout})
    request = made(seen[0])
    next(exchange.chunks)
    client.leave()
    with pytest.raises(StopIteration if key.startswith("waitress") else BrokenPipeError):
        next(exchange.chunks)
    assert (request.status, request.token.reason) == ("cancelled", "disconnect")  # without waiting for `close`
    exchange.close()


def test_stream_that_another_reason_cut_raises_so_that_it_does_not_look_complete() -> None:
    request, exchange = followed(chunks(), Client())
    next(exchange.chunks)
    request.cancel_sync("enough")
    with pytest.raises(OperationCancelled):
        next(exchange.chunks)
    exchange.close()
    assert request.status == "cancelled"
