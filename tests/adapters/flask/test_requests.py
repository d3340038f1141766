"""A request as an operation: how its cancel is answered, whatever error handlers there are; its name; what is added."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any
from wsgiref.util import setup_testing_defaults, shift_path_info

import anyio
import pytest
from flask import Blueprint, Flask, Response, abort, current_app, g, request
from flask.views import MethodView
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import run_wsgi_app

from cancelable_core import (
    Cancelable,
    CancelationReason,
    CancelationToken,
    OperationCancelled,
    OperationTimedOut,
    QueueFull,
    ThreadSafeRegistry,
)
from cancelable_core.http_api import Principal, canonical_operation_id
from cancelable_core.servers import REQUEST_KEY
from cancelable_core.store import OperationStore
from cancelable_flask import CancelableExtension, CancelableFlask, cancelable_view, current_operation
from tests.collector import no_collector

from .helpers import Exchange, Visit, ask, happens, make_app

# --- cancelled views


def _check(operation: Cancelable) -> None:
    while True:
        operation.check()
        operation.wait(0.001)


def _sleep(operation: Cancelable) -> None:
    operation.sleep(60)


def _iterate(operation: Cancelable) -> None:
    for _ in operation.iterate(iter(int, 1)):
        operation.wait(0.001)


def _sync_view(visit: Visit, work: Callable[[Cancelable], object]) -> Callable[..., Any]:
    def view(**arguments: Any) -> str:
        with visit.view() as operation:
            work(operation)
        return "ran to its end"

    return view


def _async_view(visit: Visit) -> Callable[..., Any]:
    async def view(**arguments: Any) -> str:
        with visit.view():
            await anyio.sleep(60)
        return "ran to its end"

    return view


def _async_method(visit: Visit) -> Callable[..., Any]:
    class View(MethodView):
        async def get(self) -> str:
            return await _async_view(visit)()  # type: ignore[no-any-return]

    return View.as_view("view")


VIEWS = {
    "check": partial(_sync_view, work=_check),
    "sleep": partial(_sync_view, work=_sleep),
    "iterate": partial(_sync_view, work=_iterate),
    "async": _async_view,
    "async method of a class": _async_method,
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
    visit: Visit, kind: str, reason: CancelationReason, status: int, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    app, _ = make_app(**({"request_timeout_seconds": 0.05} if reason is CancelationReason.TIMEOUT else {}))
    app.add_url_rule("/work", view_func=VIEWS[kind](visit), endpoint="work")
    asking = ask(app, "/work")
    happens(visit.begun)
    if reason is not CancelationReason.TIMEOUT:
        assert visit.operation.cancel_sync(reason, "enough")
    answer = asking.result()
    operation = visit.operation
    assert answer.status_code == status
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["Cache-Control"] == "no-store"
    assert ("Retry-After" in answer.headers) == (status == 503)
    problem = answer.get_json(force=True)
    assert (problem["type"], problem["status"]) == (f"urn:cancelable:{code}", status)
    assert (problem["operation_id"], problem["reason"]) == (operation.id, str(reason))
    assert visit.error is not None
    assert operation.status == ("timed_out" if status == 504 else "cancelled")
    ours = [record for record in caplog.records if record.name == "cancelable_core"]
    assert [(record.levelno, record.exc_info) for record in ours] == [(logging.INFO, None)]
    assert [record for record in caplog.records if record.name == app.name] == []


def test_cancel_in_a_child_is_the_request_s_own(visit: Visit) -> None:
    def work(operation: Cancelable) -> None:
        with Cancelable("a step") as step:
            operation.cancel_sync("enough")
            step.check()

    app, _ = make_app()
    app.add_url_rule("/work", view_func=_sync_view(visit, work), endpoint="work")
    answer = app.test_client().get("/work")
    assert (answer.status_code, answer.get_json(force=True)["operation_id"]) == (499, visit.operation.id)
    assert visit.operation.status == "cancelled"


def test_view_that_finishes_anyway_is_completed(visit: Visit) -> None:
    app, _ = make_app()
    app.add_url_rule("/work", view_func=_sync_view(visit, lambda operation: operation.cancel_sync("too late")), endpoint="work")
    assert app.test_client().get("/work").text == "ran to its end"
    assert visit.operation.status == "completed"
    assert visit.operation.context.cancel_requested_at is not None


def test_cancelled_status_is_a_setting(visit: Visit) -> None:
    app, _ = make_app(cancelled_status=409)
    app.add_url_rule("/work", view_func=_sync_view(visit, _cancel_itself), endpoint="work")
    assert app.test_client().get("/work").status_code == 409


def _cancel_itself(operation: Cancelable) -> None:
    operation.cancel_sync("enough")
    operation.check()


async def _cancel_itself_async() -> str:
    operation = current_operation()
    assert operation is not None
    operation.cancel_sync("enough")
    await anyio.sleep(60)
    return "ran to its end"


# --- error handlers


@pytest.mark.parametrize("where", ["application", "blueprint"])
@pytest.mark.parametrize("kind", [Exception, 500, TimeoutError])
def test_handler_for_errors_does_not_get_the_request_s_own_cancel(visit: Visit, where: str, kind: Any) -> None:
    app, _ = make_app(request_timeout_seconds=0.01)
    blueprint = Blueprint("part", __name__)
    (app if where == "application" else blueprint).register_error_handler(kind, lambda error: ("an error", 500))
    blueprint.add_url_rule("/work", view_func=_sync_view(visit, _sleep), endpoint="work")
    app.register_blueprint(blueprint)
    assert app.test_client().get("/work").status_code == 504
    assert visit.operation.status == "timed_out"


@pytest.mark.parametrize("where", ["application", "blueprint"])
@pytest.mark.parametrize("kind", [OperationCancelled, OperationTimedOut])
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_handler_for_cancels_goes_before_ours(visit: Visit, where: str, kind: Any, is_async: bool) -> None:
    app, _ = make_app(request_timeout_seconds=0.01)
    blueprint = Blueprint("part", __name__)

    def handle(error: OperationCancelled) -> tuple[str, int]:
        return f"{type(error).__name__} of {error.operation_id}", 418

    async def handle_async(error: OperationCancelled) -> tuple[str, int]:
        await anyio.sleep(0)  # must not be interrupted by what it handles
        return handle(error)

    (app if where == "application" else blueprint).register_error_handler(kind, handle_async if is_async else handle)
    blueprint.add_url_rule("/work", view_func=_sync_view(visit, _sleep), endpoint="work")
    app.register_blueprint(blueprint)
    answer = app.test_client().get("/work")
    assert (answer.status_code, answer.text) == (418, f"OperationTimedOut of {visit.operation.id}")
    assert visit.operation.status == "timed_out"


def _another_s_cancel(operation: Cancelable) -> None:
    token = CancelationToken()
    token.cancel_sync("not the request")
    token.check()


@pytest.mark.parametrize("path", ["/work", "/jobs-of-others"])
def test_cancel_of_something_else_is_an_error_like_any_other(visit: Visit, path: str) -> None:
    app, _ = make_app()
    app.add_url_rule(path, view_func=_sync_view(visit, _another_s_cancel), endpoint="work")
    assert app.test_client().get(path).status_code == 500
    assert visit.operation.status == "failed"
    app.config["PROPAGATE_EXCEPTIONS"] = True
    with pytest.raises(OperationCancelled):
        app.test_client().get(path)


def test_handler_for_errors_gets_the_cancel_of_something_else(visit: Visit) -> None:
    app, _ = make_app()
    app.register_error_handler(Exception, lambda error: (type(error).__name__, 500))
    app.add_url_rule("/work", view_func=_sync_view(visit, _another_s_cancel), endpoint="work")
    assert app.test_client().get("/work").text == "OperationCancelled"


def test_error_of_a_view_makes_the_request_fail(visit: Visit) -> None:
    app, _ = make_app()
    app.add_url_rule("/work", view_func=_sync_view(visit, lambda operation: 1 / 0), endpoint="work")
    assert app.test_client().get("/work").status_code == 500
    assert visit.operation.status == "failed"


def test_error_that_the_application_answers_is_no_failure(visit: Visit) -> None:
    app, _ = make_app()
    app.register_error_handler(ZeroDivisionError, lambda error: ("a number, please", 400))
    app.add_url_rule("/work", view_func=_sync_view(visit, lambda operation: 1 / 0), endpoint="work")
    assert app.test_client().get("/work").text == "a number, please"
    assert visit.operation.status == "completed"


def test_http_errors_are_the_application_s(visit: Visit) -> None:
    app, _ = make_app()
    app.add_url_rule("/work", view_func=_sync_view(visit, lambda operation: abort(418)), endpoint="work")
    assert app.test_client().get("/work").status_code == 418
    assert visit.operation.status == "completed"


@pytest.mark.parametrize("where", ["nowhere", "application", "blueprint"])
def test_full_queue_is_answered_with_503_unless_the_application_answers_it(where: str) -> None:
    app, cancelable = make_app(job_workers=1, job_queue_limit=1)
    blueprint = Blueprint("part", __name__)
    blueprint.register_error_handler(Exception, lambda error: ("an error", 500))
    if where != "nowhere":
        (app if where == "application" else blueprint).register_error_handler(QueueFull, lambda error: ("come back", 429))

    @blueprint.get("/work")
    def work() -> str:
        return cancelable.jobs.submit(int).id

    app.register_blueprint(blueprint)
    begun, release = threading.Event(), threading.Event()
    jobs = [cancelable.jobs.submit(lambda: (begun.set(), happens(release)))]
    happens(begun)
    jobs.append(cancelable.jobs.submit(int))
    answer = app.test_client().get("/work")
    release.set()
    for job in jobs:
        job.result(10)
    if where == "nowhere":
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) > 0
        assert answer.get_json(force=True)["type"] == "urn:cancelable:queue-full"
    else:
        assert answer.status_code == (429 if where == "blueprint" else 500), "Flask prefers a blueprint's handler"


# --- what comes before and after the view


def test_async_function_before_the_view_is_interrupted(visit: Visit) -> None:
    app, _ = make_app()
    app.before_request(_cancel_itself_async)
    app.add_url_rule("/work", view_func=_sync_view(visit, _check), endpoint="work")
    assert app.test_client().get("/work").status_code == 499
    assert not visit.begun.is_set()


@pytest.mark.parametrize("work", [_cancel_itself, lambda operation: operation.cancel_sync("too late")])
def test_async_functions_after_the_view_are_not_interrupted(visit: Visit, work: Callable[[Cancelable], object]) -> None:
    app, _ = make_app()
    torn_down = threading.Event()

    @app.after_request
    async def after(response: Response) -> Response:
        await anyio.sleep(0.001)
        response.headers["X-After"] = "ran"
        return response

    @app.teardown_request
    async def tear_down(error: BaseException | None) -> None:
        await anyio.sleep(0.001)
        torn_down.set()

    app.add_url_rule("/work", view_func=_sync_view(visit, work), endpoint="work")
    answer = app.test_client().get("/work")
    assert answer.status_code == (499 if work is _cancel_itself else 200)
    assert answer.headers["X-After"] == "ran"
    assert torn_down.is_set()


def test_error_after_the_view_makes_the_request_fail(visit: Visit) -> None:
    app, _ = make_app()

    @app.after_request
    def after(response: Response) -> Response:
        raise ZeroDivisionError

    app.add_url_rule("/work", view_func=_sync_view(visit, lambda operation: None), endpoint="work")
    assert app.test_client().get("/work").status_code == 500
    assert visit.operation.status == "failed"


def test_async_function_outside_a_request_runs_as_ever() -> None:
    app, _ = make_app()

    async def work() -> str:
        return current_app.name

    with app.app_context():
        assert app.ensure_sync(work)() == app.name


# --- the name, and what counts as a request


def test_name_is_method_and_route_template_with_the_mount_prefix(visit: Visit) -> None:
    app, _ = make_app()
    blueprint = Blueprint("part", __name__, url_prefix="/reports")
    blueprint.add_url_rule("/<int:year>", view_func=_sync_view(visit, lambda operation: None), endpoint="work")
    app.register_blueprint(blueprint, url_prefix="/office/reports")
    assert app.test_client().get("/office/reports/1998").status_code == 200
    assert (visit.operation.name, visit.operation.kind) == ("GET /office/reports/<int:year>", "request")
    assert app.test_client().get("/office/reports/1998", base_url="http://localhost/mounted/").status_code == 200
    assert visit.operation.name == "GET /mounted/office/reports/<int:year>"


@pytest.mark.parametrize(("method", "path"), [("GET", "/nowhere/secret"), ("POST", "/only-get/secret")])
def test_name_never_has_the_path_where_there_is_no_route(method: str, path: str) -> None:
    store = OperationStore()
    app, _ = make_app(registry=store)
    app.add_url_rule("/only-get/<what>", view_func=lambda what: what, endpoint="work")
    exchange = Exchange(app, path, REQUEST_METHOD=method)
    assert exchange.status in (404, 405)
    assert [found.name for found in ThreadSafeRegistry(store).list_operations()] == [f"{method} (no route)"]
    exchange.close()


def test_one_operation_per_request_even_with_two_layers(visit: Visit) -> None:
    store = OperationStore()
    outer, _ = make_app(registry=store)
    inner, _ = make_app(registry=store)
    inner.add_url_rule("/<what>", view_func=_sync_view(visit, _cancel_itself), endpoint="work")
    outer.wsgi_app = DispatcherMiddleware(outer.wsgi_app, {"/inner": inner})  # type: ignore[method-assign]
    twice = Flask("both in one")
    twice.wsgi_app = DispatcherMiddleware(outer, {})  # type: ignore[method-assign]
    answer = outer.test_client().get("/inner/x")
    assert answer.status_code == 499
    assert visit.operation.name == "GET /inner/<what>"
    assert ThreadSafeRegistry(store).get_statistics().total_operations == 1


def test_layer_around_the_layer_adds_no_second_operation(visit: Visit) -> None:
    store = OperationStore()
    app, _ = make_app(registry=store)
    around, _ = make_app(registry=store)
    app.add_url_rule("/work", view_func=_sync_view(visit, _cancel_itself), endpoint="work")
    around_wsgi = around.wsgi_app
    vars(around_wsgi)["_wsgi_app"] = app.wsgi_app
    exchange = Exchange(around_wsgi, "/work")
    assert exchange.status == 499
    exchange.close()
    assert ThreadSafeRegistry(store).get_statistics().total_operations == 1


def test_request_has_no_owner_and_no_parent(visit: Visit) -> None:
    app, _ = make_app()
    app.add_url_rule("/work", view_func=_sync_view(visit, lambda operation: None), endpoint="work")
    with Cancelable("around", owner="alice"):
        app.test_client().get("/work", headers={"X-User": "alice"})
    context = visit.operation.context
    assert (context.owner, context.parent_id, context.id_is_secret) == (None, None, True)


def test_nothing_of_a_request_stays_in_the_thread(visit: Visit) -> None:
    app, _ = make_app()
    app.add_url_rule("/work", view_func=_sync_view(visit, _cancel_itself), endpoint="work")
    app.test_client().get("/work")
    assert current_operation() is None


# --- X-Operation-ID


@pytest.mark.parametrize(
    ("mode", "plain", "scoped"), [(None, False, True), ("scoped", False, True), ("all", True, True), ("never", False, False)]
)
def test_response_header_modes(mode: str | None, plain: bool, scoped: bool) -> None:
    app, _ = make_app(**({} if mode is None else {"response_header": mode}))
    app.add_url_rule("/plain", view_func=lambda: "plain", endpoint="plain")

    @app.get("/scoped")
    def view() -> str:
        with Cancelable("a step"):
            return "scoped"

    for path, expected in (("/plain", plain), ("/scoped", scoped)):
        answer = app.test_client().get(path)
        assert ("X-Operation-ID" in answer.headers) == expected
        assert (answer.headers.get("Cache-Control") == "private") == expected


def test_response_header_leaves_304_and_caching_rules_alone() -> None:
    app, _ = make_app(response_header="all")
    app.add_url_rule("/same", view_func=lambda: Response(status=304), endpoint="same")
    app.add_url_rule("/ruled", view_func=lambda: Response("x", headers={"Cache-Control": "no-cache"}), endpoint="ruled")
    assert "X-Operation-ID" not in app.test_client().get("/same").headers
    answer = app.test_client().get("/ruled")
    assert (answer.headers["Cache-Control"], "X-Operation-ID" in answer.headers) == ("no-cache", True)


def test_time_limit_covers_what_comes_before_the_response_only(visit: Visit) -> None:
    app, _ = make_app(request_timeout_seconds=60)

    @app.get("/stream")
    def stream() -> Response:
        def chunks() -> Any:
            with visit.view() as operation:
                yield str(operation.remaining_seconds)

        assert current_operation().remaining_seconds is not None  # type: ignore[union-attr]
        return Response(chunks())

    assert app.test_client().get("/stream").text == "None"


def test_view_finds_the_environ_behind_its_operation(visit: Visit) -> None:
    app, _ = make_app()
    found: list[bool] = []
    look = lambda operation: found.append(operation.native is request.environ)  # noqa: E731
    app.add_url_rule("/work", view_func=_sync_view(visit, look), endpoint="work")
    app.test_client().get("/work")
    assert found == [True]
    assert visit.operation.native is None, "what has ended lets go of the request"  # type: ignore[attr-defined]


def test_a_client_s_choice_costs_the_view_no_body() -> None:
    app, _ = make_app(accept_operation_ids=True, response_header="all", principal=lambda request: request.form.get("user"))

    @app.post("/upload")
    def upload() -> str:
        return request.get_data(as_text=True)

    headers = {"X-Operation-ID": "c" * 22, "Content-Type": "application/x-www-form-urlencoded"}
    answer = app.test_client().post("/upload", data="user=alice", headers=headers)
    assert answer.text == "user=alice"
    assert answer.headers["X-Operation-ID"] == canonical_operation_id(Principal(), "c" * 22)


def test_a_client_that_the_principal_refuses_chooses_as_nobody() -> None:
    app, _ = make_app(accept_operation_ids=True, response_header="all", principal=lambda request: abort(401))
    app.add_url_rule("/page", view_func=lambda: "a page")
    answer = app.test_client().get("/page", headers={"X-Operation-ID": "c" * 22})
    assert (answer.status_code, answer.text) == (200, "a page")
    assert answer.headers["X-Operation-ID"] == canonical_operation_id(Principal(), "c" * 22)


def test_nobody_is_asked_where_nothing_was_chosen() -> None:
    asked: list[object] = []
    app, _ = make_app(accept_operation_ids=True, principal=asked.append)
    app.add_url_rule("/page", view_func=lambda: "a page")
    app.test_client().get("/page", headers={"X-Operation-ID": "too short"})
    assert asked == []


@pytest.mark.parametrize("asks", ["nothing", "its operation", "to follow its client"])
def test_a_request_is_freed_with_its_response(asks: str) -> None:
    app, _ = make_app()
    known: list[weakref.ref[Any]] = []

    def view() -> str:
        this: Any = request
        known.extend(map(weakref.ref, (this._get_current_object(), this.environ[REQUEST_KEY])))
        if asks == "its operation":
            assert current_operation() is not None
        return "hello"

    app.add_url_rule("/", view_func=cancelable_view(view) if asks == "to follow its client" else view)
    with no_collector():
        environ: dict[str, Any] = {}
        setup_testing_defaults(environ)
        body: Any = app(environ, lambda *response: None)
        assert list(body) == [b"hello"]
        body.close()
        del environ, body
        assert [reference() for reference in known] == [None, None]


def test_a_name_keeps_to_its_route_whatever_becomes_of_the_environ() -> None:
    app, _ = make_app()
    inner, _ = make_app()
    operations: list[Any] = []

    @app.get("/tenants/<tenant>/<path:rest>")
    def hand_on(tenant: str, rest: str) -> str:
        operations.append(current_operation())
        shift_path_info(request.environ)
        shift_path_info(request.environ)
        return str(run_wsgi_app(inner, request.environ)[1])

    assert app.test_client().get("/tenants/acme/nowhere").text.startswith("404")
    assert operations[0].name == "GET /tenants/<tenant>/<path:rest>"


def test_the_owner_is_asked_for_after_what_an_application_finds_out_first() -> None:
    app = CancelableFlask("app_of_this_test")

    @app.url_value_preprocessor  # type: ignore[untyped-decorator,unused-ignore]
    def take_tenant(endpoint: str | None, values: dict[str, Any] | None) -> None:
        g.tenant = (values or {}).pop("tenant", None)

    app.register_extension(CancelableExtension(principal=lambda request: g.tenant))

    @app.get("/<tenant>/work")
    @cancelable_view(owner=True)
    def work() -> str:
        operation = current_operation()
        return "" if operation is None else str(operation.owner)

    assert app.test_client().get("/acme/work").text == "acme"
