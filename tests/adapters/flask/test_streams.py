"""A request ends with its last byte, or when the server closes the stream (PEP 3333): not when its view returns."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask import Response, abort, send_file, stream_with_context
from flask.testing import FlaskClient

from cancelable_core import Cancelable, OperationCancelled
from cancelable_core.servers import REQUEST_KEY, LatentRequest
from cancelable_flask import CancelableFlask, current_operation

from .helpers import Exchange, make_app


@pytest.fixture
def app() -> CancelableFlask:
    app, _ = make_app()

    @app.get("/stream")
    def stream() -> Response:
        def chunks() -> Iterator[str]:
            operation = current_operation()
            assert operation is not None
            for number in operation.iterate(range(3)):
                yield f"{number},"

        return Response(stream_with_context(chunks()))

    @app.get("/broken")
    def broken() -> Response:
        def chunks() -> Iterator[str]:
            yield "first"
            raise ZeroDivisionError

        return Response(chunks())

    return app


def operation_of(exchange: Exchange) -> Cancelable:
    latent: LatentRequest = exchange.environ[REQUEST_KEY]
    found = latent.make()
    assert found is not None
    return found


def test_request_runs_until_the_last_chunk_was_taken(app: CancelableFlask) -> None:
    exchange = Exchange(app, "/stream")
    operation = operation_of(exchange)
    for number in range(3):
        assert next(exchange.chunks) == b"%d," % number
        assert operation.status == "running"
        assert current_operation() is operation
    assert list(exchange.chunks) == []
    assert operation.status == "completed"
    assert current_operation() is None
    exchange.close()
    assert operation.status == "completed"


def test_plain_answer_runs_until_it_was_sent(app: CancelableFlask) -> None:
    app.add_url_rule("/plain", view_func=lambda: "plain", endpoint="plain")
    exchange = Exchange(app, "/plain")
    assert next(exchange.chunks) == b"plain"
    assert operation_of(exchange).status == "running"
    assert list(exchange.chunks) == []
    exchange.close()
    assert operation_of(exchange).status == "completed"


def test_server_that_stops_reading_says_that_the_client_has_left(app: CancelableFlask) -> None:
    exchange = Exchange(app, "/stream")
    next(exchange.chunks)
    exchange.close()
    context = operation_of(exchange).context
    assert (context.status, context.reason, context.origin) == ("cancelled", "disconnect", "closed")
    assert current_operation() is None


def test_answer_that_is_closed_unread_is_complete(app: CancelableFlask) -> None:
    """HEAD, for instance."""
    exchange = Exchange(app, "/stream", REQUEST_METHOD="HEAD")
    operation = operation_of(exchange)
    exchange.close()
    assert operation.status == "completed"


def test_stream_that_checks_is_cut_by_a_cancel(app: CancelableFlask) -> None:
    exchange = Exchange(app, "/stream")
    next(exchange.chunks)
    assert operation_of(exchange).cancel_sync("enough")
    with pytest.raises(OperationCancelled, match="enough"):
        next(exchange.chunks)
    exchange.close()
    assert operation_of(exchange).status == "cancelled"


def test_stream_that_raises_makes_the_request_fail(app: CancelableFlask) -> None:
    exchange = Exchange(app, "/broken")
    next(exchange.chunks)
    with pytest.raises(ZeroDivisionError):
        next(exchange.chunks)
    exchange.close()
    assert operation_of(exchange).status == "failed"


def test_file_is_sent_whole_and_closed(app: CancelableFlask) -> None:
    app.add_url_rule("/file", view_func=lambda: send_file(__file__), endpoint="file")
    exchange = Exchange(app, "/file")
    operation = operation_of(exchange)
    body = b"".join(exchange.chunks)
    exchange.close()
    assert exchange.headers["content-length"] == str(len(body))
    assert operation.status == "completed"


def test_test_client_that_closes_a_stream_cancels_it(app: CancelableFlask) -> None:
    app.test_client_class = FlaskClient
    with app.test_client().get("/stream") as answer:
        assert next(answer.iter_encoded()) == b"0,"
        operation = current_operation()
        assert operation is not None
    assert operation.status == "cancelled"


@pytest.mark.parametrize(("path", "is_seen"), [("/nowhere", False), ("/broken", False), ("/refused", False), ("/looks", True)])
def test_an_answer_of_flask_s_own_is_no_look_at_the_request(app: CancelableFlask, path: str, is_seen: bool) -> None:
    app.add_url_rule("/refused", view_func=lambda: abort(403), endpoint="refused")
    app.add_url_rule("/looks", view_func=lambda: str(current_operation()), endpoint="looks")
    exchange = Exchange(app, path)
    latent: LatentRequest = exchange.environ[REQUEST_KEY]
    assert (latent.made is not None) == is_seen
    exchange.close()
