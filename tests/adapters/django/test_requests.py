"""A request as an operation: what it is called, how its cancel is answered, what is added to responses."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model
from django.core.cache import caches
from django.db import connections
from django.http import HttpRequest, HttpResponse, HttpResponseNotModified, StreamingHttpResponse
from django.test import Client
from django.urls import include, path, re_path
from django.views.decorators.cache import cache_page

from cancelable_core import (
    Cancelable,
    CancelationReason,
    CancelationToken,
    OperationCancelled,
    OperationKind,
    QueueFull,
)
from cancelable_core.servers import REQUEST_KEY
from cancelable_django import cancelable_view, current_operation, jobs
from cancelable_django.conf import registry
from tests.collector import no_collector
from tests.django_project import MIDDLEWARE, close_connections

from .helpers import Answer, Exchange, Running, Visit, ask_asgi, ask_client, ended, happens, site, start_wsgi, urlconf

Ask = Callable[..., Running[Answer]]


@pytest.fixture
def visit() -> Visit:
    return Visit()


# --- cancelled views


def _check(operation: Cancelable) -> None:
    while True:
        operation.check()
        operation.wait(0.001)


def _sleep(operation: Cancelable) -> None:
    operation.sleep(60)


def _iterate(operation: Cancelable) -> None:
    for _ in operation.iterate(iter(int, 1)):
        threading.Event().wait(0.001)


def _sync_view(visit: Visit, work: Callable[[Cancelable], None]) -> Callable[..., Any]:
    def view(request: HttpRequest) -> HttpResponse:
        with visit.view() as operation:
            work(operation)
        return HttpResponse("ran to its end")

    return view


def _async_view(visit: Visit) -> Callable[..., Any]:
    async def view(request: HttpRequest) -> HttpResponse:
        with visit.view() as operation:
            while True:
                await operation.checkpoint()
                await asyncio.sleep(0.001)

    return view


VIEWS = {
    "check": partial(_sync_view, work=_check),
    "sleep": partial(_sync_view, work=_sleep),
    "iterate": partial(_sync_view, work=_iterate),
    "checkpoint": _async_view,
}


@pytest.mark.parametrize("kind", VIEWS)
@pytest.mark.parametrize(
    ("reason", "status", "code"),
    [
        (CancelationReason.MANUAL, 499, "cancelled"),
        (CancelationReason.TIMEOUT, 504, "timed-out"),
        (CancelationReason.SHUTDOWN, 503, "shutting-down"),
    ],
)
def test_cancelled_view_is_answered_with_a_problem_and_logged_once(
    ask: Ask,
    visit: Visit,
    kind: str,
    reason: CancelationReason,
    status: int,
    code: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    limit = {"REQUEST_TIMEOUT_SECONDS": 0.05} if reason is CancelationReason.TIMEOUT else {}
    with site(path("work", VIEWS[kind](visit)), CANCELABLE=limit):
        asking = ask("/work")
        happens(visit.begun)
        if reason is not CancelationReason.TIMEOUT:
            assert visit.operation.cancel_sync(reason, "enough")
        answer = asking.result()
        happens(visit.over)
    operation = visit.operation
    assert answer.status == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    assert ("retry-after" in answer.headers) == (status == 503)
    problem = answer.json
    assert (problem["type"], problem["status"]) == (f"urn:cancelable:{code}", status)
    assert (problem["operation_id"], problem["reason"]) == (operation.id, str(reason))
    assert isinstance(visit.error, (OperationCancelled, asyncio.CancelledError))
    assert ended(operation).status == ("timed_out" if status == 504 else "cancelled")
    assert ended(operation).reason is reason
    ours = [record for record in caplog.records if record.name == "cancelable_core"]
    assert [record.levelno for record in ours] == [logging.INFO]
    assert ours[0].exc_info is None
    # AdminEmailHandler writes to ADMINS whatever django.request logs as an error
    assert [record for record in caplog.records if record.name == "django.request"] == []


def test_other_errors_are_django_s(ask: Ask, visit: Visit, caplog: pytest.LogCaptureFixture) -> None:
    def fail(operation: Cancelable) -> None:
        raise ZeroDivisionError

    with site(path("work", _sync_view(visit, fail))):
        assert ask("/work").result().status == 500
    assert ended(visit.operation).status == "failed"
    assert [record.levelno for record in caplog.records if record.name == "django.request"] == [logging.ERROR]


def test_exit_passes_through_a_request_and_ends_it(visit: Visit) -> None:
    """What Django does not catch either: SystemExit from a server's own signal handler, for one."""

    def leave(operation: Cancelable) -> None:
        raise SystemExit(3)

    with site(path("work", _sync_view(visit, leave))), pytest.raises(SystemExit):
        ask_client("/work")
    assert ended(visit.operation).status == "failed"


def test_cancel_of_something_else_is_an_ordinary_error(ask: Ask, visit: Visit) -> None:
    def work(operation: Cancelable) -> None:
        token = CancelationToken()
        token.cancel_sync("not the request")
        token.check()

    with site(path("work", _sync_view(visit, work))):
        assert ask("/work").result().status == 500
    assert ended(visit.operation).status == "failed"


def test_cancel_noticed_by_a_child_is_the_request_s_own(ask: Ask, visit: Visit) -> None:
    def work(operation: Cancelable) -> None:
        with Cancelable("a step") as step:
            step.sleep(60)

    with site(path("work", _sync_view(visit, work))):
        asking = ask("/work")
        happens(visit.begun)
        visit.operation.cancel_sync("enough")
        assert asking.result().json["operation_id"] == visit.operation.id
        happens(visit.over)
    assert ended(visit.operation).status == "cancelled"


def test_view_that_finishes_anyway_is_completed(visit: Visit) -> None:
    """Only in sync code, where nothing is interrupted: True from the cancel, completed all the same, and both are visible."""

    def work(operation: Cancelable) -> None:
        operation.cancel_sync("too late")

    with site(path("work", _sync_view(visit, work))):
        assert ask_client("/work").body == b"ran to its end"
    assert visit.operation.status == "completed"
    assert visit.operation.context.cancel_requested_at is not None


def test_view_that_turns_the_cancel_into_its_own_answer_is_left_alone(visit: Visit) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        try:
            with visit.view() as operation:
                operation.cancel_sync("enough")
                operation.check()
        except OperationCancelled:
            return HttpResponse("as far as it came", status=200)
        raise AssertionError

    with site(path("work", view)):
        assert ask_client("/work").body == b"as far as it came"


def test_cancelled_status_is_a_setting(visit: Visit) -> None:
    def work(operation: Cancelable) -> None:
        operation.cancel_sync()
        operation.check()

    with site(path("work", _sync_view(visit, work)), CANCELABLE={"CANCELLED_STATUS": 409}):
        assert ask_client("/work").status == 409


def test_full_queue_is_answered_with_503(ask: Ask, caplog: pytest.LogCaptureFixture) -> None:
    begun, release = threading.Event(), threading.Event()

    def occupy() -> None:
        begun.set()
        happens(release)

    def view(request: HttpRequest) -> HttpResponse:
        jobs.submit(print, owner=None)
        return HttpResponse()

    with site(path("work", view), CANCELABLE={"JOB_WORKERS": 1, "JOB_QUEUE_LIMIT": 1}):
        running = jobs.submit(occupy, owner=None)
        happens(begun)
        pending = jobs.submit(int, owner=None)
        answer = ask("/work").result()
        release.set()
        running.result(10)
        assert pending.result(10) == 0
    assert answer.status == 503
    assert int(answer.headers["retry-after"]) > 0
    assert answer.json["type"] == "urn:cancelable:queue-full"
    assert [record for record in caplog.records if record.name == "django.request" and record.exc_info] == []


# --- the name, and what counts as a request


def _remember(visit: Visit) -> Callable[..., HttpResponse]:
    def view(request: HttpRequest, **arguments: Any) -> HttpResponse:
        with visit.view():
            return HttpResponse()

    return view


def test_name_is_method_and_route_template(ask: Ask, visit: Visit) -> None:
    with site(path("api/", include([path("reports/<int:year>", _remember(visit))]))):
        assert ask("/api/reports/1998").result().status == 200
    assert visit.operation.name == "GET /api/reports/<int:year>"
    assert visit.operation.kind == "request"


def test_name_has_the_method_asked_for(visit: Visit) -> None:
    with site(path("reports", _remember(visit))):
        Client().delete("/reports")
    assert visit.operation.name == "DELETE /reports"


def test_name_of_a_regular_expression_is_its_text(visit: Visit) -> None:
    with site(re_path(r"^reports/(?P<year>\d+)$", _remember(visit))):
        ask_client("/reports/1998")
    assert visit.operation.name == r"GET /reports/(?P<year>\d+)$"


def test_name_has_the_mount_prefix_under_wsgi(visit: Visit) -> None:
    with site(path("reports/<int:year>", _remember(visit))):
        answer, chunks, close = start_wsgi("/reports/1998", SCRIPT_NAME="/office")
        assert (answer.status, list(chunks)) == (200, [b""])
        close()
    assert visit.operation.name == "GET /office/reports/<int:year>"


@pytest.mark.anyio
async def test_name_has_the_mount_prefix_under_asgi(visit: Visit) -> None:
    with site(path("reports/<int:year>", _remember(visit))):
        answer = await Exchange("/office/reports/1998", root_path="/office").answer()
    assert answer.status == 200
    assert visit.operation.name == "GET /office/reports/<int:year>"


def test_name_never_has_the_path_where_there_is_no_route(ask: Ask, visit: Visit) -> None:
    def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
        with visit.view():
            return HttpResponse(status=404)

    with site(ROOT_URLCONF=urlconf(handler404=not_found)):
        assert ask("/reports/of/alice").result().status == 404
    assert visit.operation.name == "GET (no route)"


def test_one_operation_per_request_even_with_two_layers(ask: Ask, visit: Visit) -> None:
    with site(path("work", _remember(visit)), MIDDLEWARE=[*MIDDLEWARE, MIDDLEWARE[-1]]):
        before = registry().get_statistics().total_operations
        assert ask("/work").result().status == 200
        assert registry().get_statistics().total_operations == before + 1


@pytest.mark.parametrize("route", ["", "stats", "ab12", "ab12/cancel", "cancel-all", "no/such/route"])
def test_our_own_endpoints_are_no_operations(ask: Ask, route: str) -> None:
    before = registry().get_statistics().total_operations
    answer = ask(f"/jobs/{route}").result()
    assert answer.status in (403, 404, 405)
    assert registry().get_statistics().total_operations == before
    assert "x-operation-id" not in answer.headers


def test_our_own_endpoints_are_no_operations_under_a_mount_prefix() -> None:
    before = registry().get_statistics().total_operations
    answer, _, close = start_wsgi("/jobs/ab12", SCRIPT_NAME="/office")
    close()
    assert answer.status == 404
    assert registry().get_statistics().total_operations == before


def test_request_has_no_owner_and_a_secret_id(visit: Visit) -> None:
    with site(path("work", _remember(visit))):
        ask_client("/work")
    assert visit.operation.context.owner is None
    assert visit.operation.id_is_secret


def test_completed_requests_are_counted_and_forgotten(visit: Visit) -> None:
    with site(path("work", _remember(visit))):
        ask_client("/work")
        assert ask_client(f"/jobs/{visit.operation.id}").status == 404


def test_nothing_of_a_request_stays_in_the_thread() -> None:
    with site(path("work", _remember(Visit()))):
        answer, chunks, close = start_wsgi("/work")
        assert answer.status == 200
        list(chunks)
        close()
    assert current_operation() is None


# --- response headers


def _plain(request: HttpRequest) -> HttpResponse:
    return HttpResponse("plain")


def _with_a_step(request: HttpRequest) -> HttpResponse:
    with Cancelable("a step"):
        return HttpResponse("scoped")


@pytest.mark.parametrize(
    ("mode", "plain", "scoped"), [("scoped", False, True), ("all", True, True), ("never", False, False), (None, False, True)]
)
def test_response_header_modes(ask: Ask, mode: str | None, plain: bool, scoped: bool) -> None:
    setting = {} if mode is None else {"RESPONSE_HEADER": mode}
    with site(path("plain", _plain), path("scoped", _with_a_step), CANCELABLE=setting):
        for name, expected in (("plain", plain), ("scoped", scoped)):
            headers = ask(f"/{name}").result().headers
            assert ("x-operation-id" in headers) == expected
            assert headers.get("cache-control") == ("private" if expected else None)


def test_response_header_is_not_added_to_304(ask: Ask) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        with Cancelable("a step"):
            return HttpResponseNotModified()

    with site(path("work", view), CANCELABLE={"RESPONSE_HEADER": "all"}):
        answer = ask("/work").result()
    assert answer.status == 304
    assert not {"x-operation-id", "cache-control"} & answer.headers.keys()


def test_response_header_leaves_caching_to_a_view_that_says_something_about_it() -> None:
    def view(request: HttpRequest) -> HttpResponse:
        return HttpResponse(headers={"Cache-Control": "no-cache"})

    with site(path("work", view), CANCELABLE={"RESPONSE_HEADER": "all"}):
        answer = ask_client("/work")
    assert answer.headers["cache-control"] == "no-cache"
    assert "x-operation-id" in answer.headers


@pytest.mark.parametrize("caching", ["public", "max-age=600", "s-maxage=60, must-revalidate", ""])
def test_what_is_marked_cacheable_names_no_operation(ask: Ask, caching: str) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        return HttpResponse(headers={"Cache-Control": caching})

    with site(path("work", view), CANCELABLE={"RESPONSE_HEADER": "all"}):
        answer = ask("/work").result()
    assert answer.headers["cache-control"] == caching
    assert "x-operation-id" not in answer.headers


CACHE = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": "tests of requests"}}
CACHE_LAYERS = ["django.middleware.cache.UpdateCacheMiddleware", "django.middleware.cache.FetchFromCacheMiddleware"]


@pytest.mark.parametrize("which", ["site", "view", "marked view", "site below ours"])
def test_no_cached_page_carries_the_id_of_another_request(ask: Ask, which: str) -> None:
    made: list[str] = []

    def page(request: HttpRequest) -> HttpResponse:
        operation = current_operation()
        assert operation is not None
        made.append(operation.id)
        return HttpResponse("a page")

    view: Any = cache_page(60)(page) if "view" in which else page
    view = cancelable_view(view) if which == "marked view" else view
    layers = {"site": [CACHE_LAYERS[0], *MIDDLEWARE[:-1], CACHE_LAYERS[1], MIDDLEWARE[-1]]}
    layers["site below ours"] = [MIDDLEWARE[-1], *CACHE_LAYERS]
    caches["default"].clear()
    with site(
        path("work", view), CACHES=CACHE, MIDDLEWARE=layers.get(which, MIDDLEWARE), CANCELABLE={"RESPONSE_HEADER": "all"}
    ):
        caches["default"].clear()
        answers = [ask("/work").result() for _ in range(3)]
        caches["default"].clear()
    assert {answer.body for answer in answers} == {b"a page"}
    named = [answer.headers["x-operation-id"] for answer in answers if "x-operation-id" in answer.headers]
    assert len(set(named)) == len(named), "one id in two answers"
    assert not set(named[1:]) & set(made[:1])
    for answer in answers:
        assert "x-operation-id" not in answer.headers or "private" in answer.headers["cache-control"]


class _Mailer(logging.Handler):
    """Takes what `AdminEmailHandler` would mail: all that Django logs as an error."""

    def __init__(self) -> None:
        super().__init__(level=logging.ERROR)
        self.subjects: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.subjects.append(record.getMessage())


@pytest.fixture
def mailer() -> Iterator[_Mailer]:
    handler = _Mailer()
    logging.getLogger("django").addHandler(handler)
    yield handler
    logging.getLogger("django").removeHandler(handler)


@pytest.mark.parametrize("reason", [*CancelationReason, None], ids=str)
def test_no_answer_of_ours_mails_the_admins(ask: Ask, visit: Visit, mailer: _Mailer, reason: CancelationReason | None) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        if reason is None:
            raise QueueFull("no room", limit=3)
        with visit.view() as operation:
            operation.cancel_sync(reason)
            operation.check()
        return HttpResponse()

    with site(path("work", view)):
        assert ask("/work").result().status in (499, 503, 504)
    assert mailer.subjects == []


def test_an_error_of_the_application_does_mail_them(mailer: _Mailer) -> None:
    """Otherwise the test above could not fail."""

    def view(request: HttpRequest) -> HttpResponse:
        raise ZeroDivisionError

    with site(path("work", view)):
        assert ask_client("/work").status == 500
    assert len(mailer.subjects) == 1


def test_pages_that_do_not_use_the_suite_stay_free_of_sessions(ask: Ask) -> None:
    asked: list[HttpRequest] = []

    def view(request: HttpRequest) -> HttpResponse:
        asked.append(request)
        return HttpResponse()

    with site(path("work", view)):
        answer = ask("/work").result()
    assert not {"vary", "set-cookie", "cache-control", "x-operation-id"} & answer.headers.keys()
    assert not asked[0].session.accessed


# --- where the middleware stands


def _sync_only(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    def middleware(request: HttpRequest) -> HttpResponse:
        return get_response(request)

    return middleware


SYNC_ONLY = f"{__name__}.{_sync_only.__name__}"


@pytest.mark.parametrize("layers", [[SYNC_ONLY, *MIDDLEWARE], [*MIDDLEWARE, SYNC_ONLY]], ids=["above", "below"])
@pytest.mark.parametrize("kind", VIEWS)
def test_sync_only_middleware_may_stand_above_or_below(ask: Ask, visit: Visit, layers: list[str], kind: str) -> None:
    with site(path("work", VIEWS[kind](visit)), MIDDLEWARE=layers):
        asking = ask("/work")
        happens(visit.begun)
        visit.operation.cancel_sync("enough")
        assert asking.result().status == 499
        happens(visit.over)
    assert ended(visit.operation).status == "cancelled"


def test_async_view_under_asgi_runs_on_the_loop_s_own_thread() -> None:
    """Ours alone never makes Django change threads."""
    threads: list[int] = []

    async def view(request: HttpRequest) -> HttpResponse:
        threads.append(threading.get_ident())
        return HttpResponse()

    with site(path("work", view)):
        assert ask_asgi("/work").status == 200
    assert threads == [threading.get_ident()]


def test_sync_view_under_wsgi_runs_in_the_server_s_own_thread(visit: Visit) -> None:
    with site(path("work", _remember(visit))):
        start_wsgi("/work")[2]()
    assert visit.thread == threading.get_ident()


# --- ATOMIC_REQUESTS


@pytest.mark.parametrize("is_cancelled", [True, False])
def test_a_cancelled_view_is_rolled_back_where_requests_are_atomic(
    ask: partial[Any], visit: Visit, monkeypatch: pytest.MonkeyPatch, is_cancelled: bool
) -> None:
    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)
    submitted: list[str] = []

    def view(request: HttpRequest) -> HttpResponse:
        with visit.view() as operation:
            get_user_model().objects.create(username="written")
            submitted.append(jobs.submit_on_commit(int, owner=None))
            if is_cancelled:
                operation.cancel_sync("enough")
            operation.check()
        return HttpResponse("done")

    def ask_and_close() -> Answer:
        try:
            answer: Answer = ask.args[0]("/work")
            return answer
        finally:
            close_connections()  # those of this thread, which test clients leave open

    written = get_user_model().objects.filter(username="written")
    with site(path("work", view)):
        answer = Running(ask_and_close).result()
        assert (answer.status, written.exists()) == ((499, False) if is_cancelled else (200, True))
        job = registry().wait_for(submitted[0], 0 if is_cancelled else 10)
    assert (job is None) == is_cancelled, "a job of what was rolled back"
    written.delete()


@pytest.mark.parametrize("asks", ["nothing", "its operation", "to follow its client"])
def test_a_request_is_freed_with_its_response(asks: str) -> None:
    known: list[weakref.ref[Any]] = []

    def view(request: HttpRequest) -> HttpResponse:
        response = HttpResponse("hello")
        known.extend(map(weakref.ref, (request, request.META[REQUEST_KEY], response)))
        if asks == "its operation":
            assert current_operation() is not None
        return response

    marked = cancelable_view(view) if asks == "to follow its client" else view
    ours = "cancelable_django.middleware.CancelableMiddleware"
    with site(path("", marked), MIDDLEWARE=[ours]), no_collector():  # of Django's, some know the request for ever
        _, chunks, close = start_wsgi("/")
        assert list(chunks) == [b"hello"]
        close()
        del chunks, close
        assert [reference() for reference in known] == [None, None, None]


def test_a_request_under_asgi_waits_for_a_look() -> None:
    async def unseen(request: HttpRequest) -> HttpResponse:
        made.append(request.META[REQUEST_KEY].made)
        return HttpResponse("hello")

    made: list[object] = []
    before = registry().get_statistics(OperationKind.REQUEST).completed_operations
    with site(path("work", unseen)):
        assert ask_asgi("/work").status == 200
    assert made == [None]
    assert registry().get_statistics(OperationKind.REQUEST).completed_operations == before + 1


@pytest.mark.parametrize("looks", [False, True])
def test_an_async_view_is_interrupted_where_it_waits_whoever_looks_first(looks: bool) -> None:
    begun = threading.Event()
    interrupted: list[BaseException] = []

    async def view(request: HttpRequest) -> HttpResponse:
        if looks:
            assert current_operation() is not None
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as error:
            interrupted.append(error)
        await asyncio.Event().wait()  # it does not come once only
        raise AssertionError

    with site(path("work", view)):
        answer = Running(ask_asgi, "/work")
        happens(begun)
        assert registry().cancel_all(kind=OperationKind.REQUEST, message="enough") == 1
        assert answer.result().status == 499
    assert len(interrupted) == 1


def test_a_thread_that_a_cancelled_request_left_behind_hears_of_it_though_nobody_had_looked() -> None:
    begun, answered, over = threading.Event(), threading.Event(), threading.Event()
    heard: list[BaseException | None] = []

    def view(request: HttpRequest) -> HttpResponse:
        begun.set()
        happens(answered)
        operation = current_operation()
        try:
            if operation is not None:
                operation.check()
            heard.append(None)
        except OperationCancelled as error:
            heard.append(error)
        finally:
            over.set()
        return HttpResponse("ran to its end")

    async def leave_behind(request: HttpRequest) -> HttpResponse:
        task = asyncio.create_task(sync_to_async(view, thread_sensitive=False)(request))
        kept.append(task)
        await asyncio.shield(task)
        raise AssertionError

    async def ask() -> Answer:
        answer = await Exchange("/work").answer()
        answered.set()
        await asyncio.gather(*kept)
        return answer

    kept: list[asyncio.Task[HttpResponse]] = []
    with site(path("work", leave_behind)):
        answer = Running(asyncio.run, ask())
        happens(begun)
        assert registry().cancel_all(kind=OperationKind.REQUEST, message="enough") == 1
        assert answer.result().status == 499
    happens(over)
    assert [getattr(error, "message", None) for error in heard] == ["enough"]


def test_pages_are_cached_for_the_whole_site(ask: Ask) -> None:
    made: list[object] = []

    def page(request: HttpRequest) -> HttpResponse:
        made.append(request)
        return HttpResponse("a page")

    layers = [CACHE_LAYERS[0], *MIDDLEWARE[:-1], CACHE_LAYERS[1], MIDDLEWARE[-1]]
    with site(path("work", page), CACHES=CACHE, MIDDLEWARE=layers):
        caches["default"].clear()
        answers = [ask("/work").result() for _ in range(3)]
        caches["default"].clear()
    assert [(answer.status, answer.body) for answer in answers] == [(200, b"a page")] * 3
    assert len(made) == 1


@pytest.mark.parametrize("streams", [False, True])
def test_a_layer_may_wrap_the_close_of_a_response_and_take_that_back(streams: bool) -> None:
    closed: list[str] = []

    def wrapping(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
        def layer(request: HttpRequest) -> Any:
            response = get_response(request)
            inner = response.close

            def close() -> None:
                inner()
                closed.append("outer")
                del response.close

            response.close = close
            return response

        return layer

    def view(request: HttpRequest) -> Any:
        operations.append(current_operation())
        return StreamingHttpResponse(iter([b"hello"])) if streams else HttpResponse("hello")

    operations: list[Any] = []
    this = sys.modules[__name__]
    vars(this)["wrapping"] = wrapping
    with site(path("", view), MIDDLEWARE=[f"{__name__}.wrapping", MIDDLEWARE[-1]]):
        _, chunks, close = start_wsgi("/")
        assert list(chunks) == [b"hello"]
        close()
    assert (closed, operations[0].status) == (["outer"], "completed")
