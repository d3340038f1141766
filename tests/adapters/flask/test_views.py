"""What a route asks for itself, by `cancelable_view` on its view: a limit of its own, an owner, a name."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest
from flask import Blueprint, views

from cancelable_core import CancelationReason
from cancelable_flask import CancelableFlask, cancelable_view, current_operation

from .helpers import Exchange, Visit, ask, happens, make_app

ALICE = {"X-User": "alice"}


def _patient(visit: Visit) -> Callable[[], str]:
    """A view that works until it is told to stop."""

    def view() -> str:
        with visit.view() as operation:
            operation.sleep(60)
        return ""

    return view


def _remember(visit: Visit) -> Callable[[], str]:
    def view() -> str:
        with visit.view():
            return ""

    return view


def _add(app: CancelableFlask, view: Callable[..., Any], path: str = "/work") -> None:
    app.add_url_rule(path, endpoint=path, view_func=view)


def test_a_routes_limit_goes_before_the_applications(visit: Visit) -> None:
    app, _ = make_app(request_timeout_seconds=600)
    _add(app, cancelable_view(timeout_seconds=0.05)(_patient(visit)))
    answer = ask(app, "/work").result()
    assert (answer.status_code, answer.json["reason"]) == (504, "timeout")


def test_a_route_may_opt_out_of_the_applications_limit(visit: Visit) -> None:
    app, _ = make_app(request_timeout_seconds=0.3)
    limits: list[float | None] = []

    @cancelable_view(timeout_seconds=None)
    def view() -> str:
        operation = current_operation()
        assert operation is not None
        limits.append(operation.remaining_seconds)
        assert not operation.wait(0.5)
        return "done"

    _add(app, view)
    assert ask(app, "/work").result().text == "done"
    assert limits == [None]


def test_an_async_view_has_its_routes_limit_too() -> None:
    app, _ = make_app()

    @cancelable_view(timeout_seconds=0.05)
    async def view() -> None:
        await anyio.sleep_forever()

    _add(app, view)
    assert ask(app, "/work").result().status_code == 504


def test_what_is_left_of_the_limit_can_be_handed_on(visit: Visit) -> None:
    app, _ = make_app()
    left: list[float | None] = []

    @cancelable_view(timeout_seconds=30)
    def view() -> str:
        with visit.view() as operation:
            left.append(operation.remaining_seconds)
        return ""

    _add(app, view)
    ask(app, "/work").result()
    assert left[0] is not None
    assert 0 < left[0] <= 30


def _stream(visit: Visit, chunks: Iterator[str]) -> Callable[[], Iterator[str]]:
    def view() -> Iterator[str]:
        operation = current_operation()
        assert operation is not None
        visit._operation = operation
        return chunks

    return view


def test_a_routes_limit_covers_the_stream_which_is_cut(visit: Visit) -> None:
    app, _ = make_app()

    def chunks() -> Iterator[str]:
        yield "first"
        visit.operation.wait(60)
        yield "second"

    _add(app, cancelable_view(timeout_seconds=0.5)(_stream(visit, chunks())))
    exchange = Exchange(app, "/work")
    assert next(exchange.chunks) == b"first"
    with pytest.raises(TimeoutError):
        next(exchange.chunks)
    exchange.close()
    assert visit.operation.status == "timed_out"


def test_the_applications_limit_ends_where_the_stream_begins(visit: Visit) -> None:
    app, _ = make_app(request_timeout_seconds=0.3)

    def chunks() -> Iterator[str]:
        yield "first"
        assert not visit.operation.wait(0.5)
        yield "second"

    _add(app, _stream(visit, chunks()))
    exchange = Exchange(app, "/work")
    assert list(exchange.chunks) == [b"first", b"second"]
    exchange.close()
    assert visit.operation.status == "completed"


def test_a_cancelled_stream_is_cut_between_two_chunks(visit: Visit) -> None:
    app, _ = make_app()
    _add(app, _stream(visit, iter(["first", "second", "third"])))
    exchange = Exchange(app, "/work")
    assert next(exchange.chunks) == b"first"
    visit.operation.cancel_sync("enough")
    with pytest.raises(Exception, match="enough"):
        next(exchange.chunks)
    exchange.close()
    assert visit.operation.status == "cancelled"
    assert visit.operation.token.reason is CancelationReason.MANUAL


def test_a_response_of_one_chunk_is_not_cut(visit: Visit) -> None:
    app, _ = make_app()
    _add(app, _remember(visit))
    exchange = Exchange(app, "/work")
    visit.operation.cancel_sync("too late")
    assert list(exchange.chunks) == [b""]
    exchange.close()


def test_a_marked_view_belongs_to_whoever_asks_where_it_says_so(visit: Visit) -> None:
    app, _ = make_app()
    _add(app, cancelable_view(owner=True)(_patient(visit)))
    asking = ask(app, "/work", X_User="alice")
    happens(visit.begun)
    client = app.test_client()
    path = f"/jobs/{visit.operation.id}"
    assert client.get(path, headers={"X-User": "bob"}).status_code == 404
    assert client.get(path, headers=ALICE).json["owner"] == "alice"
    assert client.post(f"{path}/cancel", headers=ALICE).status_code == 202
    assert asking.result().status_code == 499


def test_nobody_is_asked_where_the_route_does_not_want_an_owner(visit: Visit) -> None:
    asked: list[object] = []
    app, _ = make_app(principal=asked.append)
    _add(app, cancelable_view(_remember(visit)))
    ask(app, "/work").result()
    assert (asked, visit.operation.context.owner) == ([], None)


def test_the_name_may_be_the_routes_choice(visit: Visit) -> None:
    app, _ = make_app()
    _add(app, cancelable_view(name="the report")(_remember(visit)))
    ask(app, "/work").result()
    assert visit.operation.name == "the report"


def test_a_marked_view_names_its_operation_in_the_response(visit: Visit) -> None:
    app, _ = make_app()
    _add(app, cancelable_view(_remember(visit)))
    answer = ask(app, "/work").result()
    assert answer.headers["X-Operation-ID"] == visit.operation.id
    assert answer.headers["Cache-Control"] == "private"


def test_class_based_views_are_marked_as_classes(visit: Visit) -> None:
    app, _ = make_app()

    @cancelable_view(name="the class")
    class Report(views.MethodView):
        def get(self) -> str:
            with visit.view():
                return ""

    _add(app, Report.as_view("report"))
    ask(app, "/work").result()
    assert visit.operation.name == "the class"


def test_views_of_blueprints_and_decorated_views_are_found(visit: Visit) -> None:
    app, _ = make_app()
    blueprint = Blueprint("office", __name__, url_prefix="/office")
    marked = cancelable_view(name="the report")(_remember(visit))
    blueprint.add_url_rule("/work", endpoint="work", view_func=functools.wraps(marked)(lambda: marked()))
    app.register_blueprint(blueprint)
    ask(app, "/office/work").result()
    assert visit.operation.name == "the report"
