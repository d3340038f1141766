"""What a route asks for itself, by `cancelable_view` on its view, whatever kind of view it is."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, cast

import anyio
import pytest
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.test import override_settings
from django.urls import path
from django.utils.decorators import method_decorator
from django.views import View
from rest_framework.decorators import action, api_view
from rest_framework.response import Response
from rest_framework.views import APIView
from rest_framework.viewsets import ViewSet

from cancelable_core import CancelationReason, OperationCancelled
from cancelable_django import cancelable_view, current_operation
from cancelable_django.conf import registry
from tests.django_project import MIDDLEWARE

from .helpers import Answer, Exchange, Running, Visit, ask_asgi, ask_async_client, ask_client, happens, site, start_wsgi

Ask = Callable[..., Running[Answer]]
ASKED_BY_HEADER = {"PRINCIPAL": lambda request: request.headers.get("X-User")}


@pytest.fixture
def visit() -> Visit:
    return Visit()


def _sync_view(visit: Visit) -> Callable[..., Any]:
    def view(request: HttpRequest) -> HttpResponse:
        with visit.view() as operation:
            operation.sleep(60)
        return HttpResponse("slept")

    return view


def _async_view(visit: Visit) -> Callable[..., Any]:
    async def view(request: HttpRequest) -> HttpResponse:
        with visit.view():
            await asyncio.sleep(60)  # knows nothing of operations
        return HttpResponse("slept")

    return view


def _class_based_view(visit: Visit) -> Any:
    class Work(View):
        def get(self, request: HttpRequest) -> HttpResponse:
            answer: HttpResponse = _sync_view(visit)(request)
            return answer

    return Work


def _async_class_based_view(visit: Visit) -> Any:
    class Work(View):
        async def get(self, request: HttpRequest) -> HttpResponse:
            answer: HttpResponse = await _async_view(visit)(request)
            return answer

    return Work


KINDS = pytest.mark.parametrize(
    "kind", [_sync_view, _async_view, _class_based_view, _async_class_based_view], ids=lambda kind: kind.__name__[1:]
)


def _marked(view: Any, **options: Any) -> Any:
    marked = cancelable_view(**options)(view)
    return marked.as_view() if isinstance(marked, type) else marked


@KINDS
def test_a_routes_limit_stops_every_kind_of_view(ask: Ask, visit: Visit, kind: Callable[[Visit], Any]) -> None:
    with site(path("work", _marked(kind(visit), timeout_seconds=0.05)), CANCELABLE={"REQUEST_TIMEOUT_SECONDS": 600}):
        answer = ask("/work").result()
        happens(visit.over)
    assert (answer.status, answer.json["reason"]) == (504, "timeout")
    assert isinstance(visit.error, (OperationCancelled, asyncio.CancelledError))


@KINDS
def test_a_cancel_stops_every_kind_of_marked_view(ask: Ask, visit: Visit, kind: Callable[[Visit], Any]) -> None:
    with site(path("work", _marked(kind(visit)))):
        asking = ask("/work")
        happens(visit.begun)
        visit.operation.cancel_sync("enough")
        assert asking.result().status == 499
        assert visit.operation.status == "cancelled"


def _sync_only(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    return lambda request: get_response(request)  # a layer for sync only, like most


@pytest.mark.parametrize("ask_by", [ask_async_client, ask_asgi])
def test_a_marked_async_view_below_a_layer_for_sync_only(visit: Visit, ask_by: Callable[..., Answer]) -> None:
    layers = [*MIDDLEWARE, f"{__name__}.{_sync_only.__name__}"]
    with site(path("work", _marked(_async_view(visit), timeout_seconds=0.05)), MIDDLEWARE=layers):
        assert Running(ask_by, "/work").result().status == 504


def test_a_route_may_opt_out_of_the_applications_limit(ask: Ask, visit: Visit) -> None:
    limits: list[float | None] = []

    @cancelable_view(timeout_seconds=None)
    def view(request: HttpRequest) -> HttpResponse:
        with visit.view() as operation:
            limits.append(operation.remaining_seconds)
            assert not operation.wait(0.1)
        return HttpResponse("done")

    with site(path("work", view), CANCELABLE={"REQUEST_TIMEOUT_SECONDS": 0.05}):
        assert ask("/work").result().body == b"done"
    assert limits == [None]


def test_what_is_left_of_the_limit_can_be_handed_on(ask: Ask, visit: Visit) -> None:
    left: list[float | None] = []

    @cancelable_view(timeout_seconds=30)
    def view(request: HttpRequest) -> HttpResponse:
        with visit.view() as operation:
            left.append(operation.remaining_seconds)
        return HttpResponse()

    with site(path("work", view)):
        ask("/work").result()
    assert left[0] is not None
    assert 0 < left[0] <= 30


def test_a_routes_limit_covers_a_stream_under_wsgi_which_is_cut(visit: Visit) -> None:
    def chunks() -> Iterator[str]:
        yield "first"
        visit.operation.wait(60)
        yield "second"

    @cancelable_view(timeout_seconds=0.5)
    def view(request: HttpRequest) -> StreamingHttpResponse:
        with visit.view():
            return StreamingHttpResponse(chunks())

    with site(path("work", view)):
        _, body, close = start_wsgi("/work")
        assert next(body) == b"first"
        with pytest.raises(TimeoutError):
            list(body)
        close()
    assert visit.operation.status == "timed_out"


@pytest.mark.anyio
async def test_a_routes_limit_covers_a_stream_under_asgi_which_is_cut(visit: Visit) -> None:
    bodies: list[Any] = []

    async def chunks() -> AsyncIterator[str]:
        yield "first"
        await anyio.sleep_forever()

    @cancelable_view(timeout_seconds=0.5)
    async def view(request: HttpRequest) -> StreamingHttpResponse:
        bodies.append(cast(Any, request)._stream)
        with visit.view():
            return StreamingHttpResponse(chunks())

    with site(path("work", view)):
        exchange = Exchange("/work")
        error = await exchange.over()
    assert exchange.body_so_far == b"first"
    assert isinstance(error, TimeoutError)
    assert not any(message.get("more_body") is False for message in exchange.sent), "it must not seem to be complete"
    assert visit.operation.status == "timed_out"
    bodies[0].close()  # Django 5.2 leaves it open then


@KINDS
def test_a_marked_view_belongs_to_whoever_asks_where_it_says_so(
    ask: functools.partial[Any], visit: Visit, kind: Callable[[Visit], Any]
) -> None:
    with site(path("work", _marked(kind(visit), owner=True)), CANCELABLE=ASKED_BY_HEADER):
        asking = Running(lambda: ask.args[0]("/work", **{"X-User": "alice"}))
        happens(visit.begun)
        place = f"/jobs/{visit.operation.id}"
        assert ask_client(place, **{"X-User": "bob"}).status == 404
        assert ask_client(place, **{"X-User": "alice"}).json["owner"] == "alice"
        visit.operation.cancel_sync()
        assert asking.result().status == 499


def test_nobody_is_asked_where_the_route_does_not_want_an_owner(ask: Ask, visit: Visit) -> None:
    asked: list[object] = []

    @cancelable_view
    def view(request: HttpRequest) -> HttpResponse:
        with visit.view():
            return HttpResponse()

    with site(path("work", view), CANCELABLE={"PRINCIPAL": asked.append}):
        ask("/work").result()
    assert (asked, visit.operation.context.owner) == ([], None)


def _named_view(visit: Visit) -> Any:
    @cancelable_view(name="the report")
    def view(request: HttpRequest) -> HttpResponse:
        with visit.view():
            return HttpResponse()

    return view


def _decorated_view(visit: Visit) -> Any:
    marked = _named_view(visit)
    return functools.wraps(marked)(lambda request: marked(request))


def _partial_view(visit: Visit) -> Any:
    return functools.partial(_named_view(visit))


def _callable_instance(visit: Visit) -> Any:
    @cancelable_view(name="the report")
    class Report:  # as Django's feeds are
        def __call__(self, request: HttpRequest) -> HttpResponse:
            with visit.view():
                return HttpResponse()

    return Report()


def _named_class(visit: Visit) -> Any:
    @cancelable_view(name="the report")
    class Report(View):
        def get(self, request: HttpRequest) -> HttpResponse:
            with visit.view():
                return HttpResponse()

    return Report.as_view()


def _named_dispatch(visit: Visit) -> Any:
    @method_decorator(cancelable_view(name="the report"), name="dispatch")
    class Report(View):
        def get(self, request: HttpRequest) -> HttpResponse:
            with visit.view():
                return HttpResponse()

    return Report.as_view()


def _drf_class(visit: Visit) -> Any:
    @cancelable_view(name="the report")
    class Report(APIView):
        authentication_classes = ()

        def get(self, request: Any) -> Response:
            with visit.view():
                return Response({})

    return Report.as_view()


def _drf_function(visit: Visit) -> Any:
    @cancelable_view(name="the report")
    @api_view(["GET"])
    def report(request: Any) -> Response:
        with visit.view():
            return Response({})

    return report


def _drf_viewset(visit: Visit) -> Any:
    @cancelable_view(name="the report")
    class Reports(ViewSet):
        authentication_classes = ()

        def list(self, request: Any) -> Response:
            with visit.view():
                return Response({})

    return Reports.as_view({"get": "list"})


def _drf_action(visit: Visit) -> Any:
    class Reports(ViewSet):
        authentication_classes = ()

        @action(detail=False)
        @cancelable_view(name="the report")
        def yearly(self, request: Any) -> Response:
            with visit.view():
                return Response({})

    return Reports.as_view({"get": "yearly"})


MARKED = [
    _named_view,
    _decorated_view,
    _partial_view,
    _callable_instance,
    _named_class,
    _named_dispatch,
    _drf_class,
    _drf_function,
    _drf_viewset,
    _drf_action,
]


@pytest.mark.parametrize("kind", MARKED, ids=lambda kind: kind.__name__[1:])
@override_settings(REST_FRAMEWORK={"DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"]})
def test_the_mark_is_found_on_every_kind_of_view(ask: Ask, visit: Visit, kind: Callable[[Visit], Any]) -> None:
    with site(path("work", kind(visit))):
        answer = ask("/work").result()
    assert (answer.status, visit.operation.name) == (200, "the report")
    assert answer.headers["x-operation-id"] == visit.operation.id
    assert answer.headers["cache-control"] == "private"


def test_a_marked_async_view_called_outside_a_request_runs_as_ever() -> None:
    @cancelable_view
    async def view(request: HttpRequest) -> str:
        return "ran"

    assert asyncio.run(view(HttpRequest())) == "ran"


def test_a_drf_view_is_stopped_and_answered_in_our_words(ask: Ask, visit: Visit) -> None:
    class Work(APIView):
        authentication_classes = ()

        def get(self, request: Any) -> Response:
            with visit.view() as operation:
                operation.sleep(60)
            return Response({})

    with site(path("work", _marked(Work))):
        asking = ask("/work")
        happens(visit.begun)
        visit.operation.cancel_sync(CancelationReason.SHUTDOWN)
        answer = asking.result()
    assert (answer.status, answer.json["type"]) == (503, "urn:cancelable:shutting-down")
    assert registry().get_operation(visit.operation.id).status == "cancelled"  # type: ignore[union-attr]


def test_nothing_runs_twice_where_marks_add_up(ask: Ask) -> None:
    runs: list[str] = []

    @cancelable_view(name="outer")
    @cancelable_view(name="inner")
    async def view(request: HttpRequest) -> HttpResponse:
        operation = current_operation()
        assert operation is not None
        runs.append(str(operation.name))
        return HttpResponse()

    with site(path("work", view)):
        assert ask("/work").result().status == 200
    assert runs == ["outer"]
