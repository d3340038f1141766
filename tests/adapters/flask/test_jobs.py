"""Jobs in Flask: their application context, their owner, and the request that submits them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask, current_app, g, has_request_context, request, session
from flask_login import LoginManager, UserMixin, login_user

from cancelable_core import OperationCancelled
from cancelable_core.http_api import Principal
from cancelable_flask import CancelableExtension, CancelableFlask, current_operation

from .helpers import ReadingClient, happens, make_app


def _seen() -> tuple[str, bool, str | None]:
    return current_app.name, has_request_context(), g.get("mark")


async def _seen_async() -> tuple[str, bool, str | None]:
    return _seen()


@pytest.mark.parametrize("work", [_seen, _seen_async])
@pytest.mark.parametrize("is_async", [False, True], ids=["sync view", "async view"])
def test_job_has_an_application_context_of_its_own_and_no_request(work: Callable[[], Any], is_async: bool) -> None:
    app, cancelable = make_app()
    jobs: list[Any] = []
    torn_down = threading.Event()

    @app.teardown_appcontext
    def tear_down(error: BaseException | None) -> None:
        if g.get("mark") is None:  # the job's, not the request's
            torn_down.set()

    def start() -> str:
        g.mark = "the request's"
        jobs.append(cancelable.jobs.submit(work))
        return "started"

    async def start_async() -> str:
        return start()

    app.add_url_rule("/start", view_func=start_async if is_async else start, endpoint="start")
    assert app.test_client().get("/start").text == "started"
    assert jobs[0].result(10) == (app.name, False, None)
    happens(torn_down)


def test_job_outlives_the_request_that_started_it() -> None:
    app, cancelable = make_app()
    release = threading.Event()
    jobs: list[Any] = []

    @app.get("/start")
    def start() -> str:
        jobs.append(cancelable.jobs.submit(lambda: happens(release)))
        current_operation().cancel_sync("the client has left")  # type: ignore[union-attr]
        current_operation().check()  # type: ignore[union-attr]
        return "never"

    assert app.test_client().get("/start").status_code == 499
    assert jobs[0].status in ("pending", "running")
    release.set()
    jobs[0].result(10)
    assert jobs[0].status == "completed"


def test_job_that_follows_its_request_does_not() -> None:
    app, cancelable = make_app()
    jobs: list[Any] = []

    @app.get("/start")
    def start() -> str:
        job = cancelable.jobs.submit(lambda: current_operation().sleep(60), follow_request=True)  # type: ignore[union-attr]
        jobs.append(job)
        current_operation().cancel_sync("enough")  # type: ignore[union-attr]
        current_operation().check()  # type: ignore[union-attr]
        return "never"

    assert app.test_client().get("/start").status_code == 499
    with pytest.raises(OperationCancelled):
        jobs[0].result(10)
    assert jobs[0].context.reason == "parent"


# --- whose it is


class User(UserMixin):
    def __init__(self, name: str) -> None:
        self.id = name
        self.is_staff = name == "root"


def with_login(**settings: Any) -> tuple[Flask, CancelableExtension]:
    app = CancelableFlask("app_with_login")
    app.test_client_class = ReadingClient
    app.secret_key = "a secret"
    LoginManager(app).user_loader(User)
    cancelable = app.register_extension(CancelableExtension(**settings))

    @app.get("/login/<name>")
    def login(name: str) -> str:
        login_user(User(name))
        return name

    @app.post("/start")
    def start() -> dict[str, Any]:
        job = cancelable.jobs.submit(lambda: current_operation().sleep(60))  # type: ignore[union-attr]
        return {"id": job.id, "owner": job.context.owner}

    return app, cancelable


def logged_in(app: Flask, name: str) -> Any:
    client = app.test_client()
    assert client.get(f"/login/{name}").status_code == 200
    return client


def test_flask_login_s_current_user_is_asking() -> None:
    app, _ = with_login()
    alice, bob, root, nobody = (*(logged_in(app, name) for name in ("alice", "bob", "root")), app.test_client())
    started = alice.post("/start").json
    path = f"/jobs/{started['id']}"
    assert started["owner"] == "alice"
    assert [client.get(path).status_code for client in (alice, bob, root, nobody)] == [200, 404, 200, 404]
    assert [client.get("/jobs/stats").status_code for client in (alice, root, nobody)] == [403, 200, 403]
    assert bob.post(f"{path}/cancel").status_code == 404
    answer = alice.post(f"{path}/cancel", json={"wait_seconds": 10})
    assert answer.json["operation"]["status"] == "cancelled"


def test_nobody_s_job_belongs_to_nobody() -> None:
    app, cancelable = with_login()
    started = app.test_client().post("/start").json
    assert started["owner"] is None
    with app.app_context():
        cancelable.registry.cancel_operation(started["id"], wait_seconds=10)


def test_staff_is_a_setting() -> None:
    app, _ = with_login(staff=lambda user: user.get_id() == "alice")
    assert [logged_in(app, name).get("/jobs/stats").status_code for name in ("alice", "root")] == [200, 403]


def test_flask_login_on_another_application_changes_nothing() -> None:
    with_login()
    app = CancelableFlask("without login")
    app.test_client_class = ReadingClient
    app.register_extension(CancelableExtension())
    assert app.test_client().get("/jobs").status_code == 403


@pytest.mark.parametrize(
    "principal",
    [
        lambda request: request.args.get("user"),
        lambda request: Principal(request.args.get("user")),
        lambda request: User(request.args["user"]),
        lambda request: Principal(session.get("user", request.args["user"])),
    ],
    ids=["text", "principal", "user", "from the session"],
)
def test_principal_callable_gets_flask_s_request(principal: Callable[..., Any]) -> None:
    app, cancelable = make_app(principal=principal)
    app.secret_key = "a secret"
    app.add_url_rule("/start", view_func=lambda: cancelable.jobs.submit(int).context.owner, endpoint="start")
    assert app.test_client().get("/start?user=alice").text == "alice"


def test_principal_is_not_asked_by_views_that_start_nothing() -> None:
    asked: list[str] = []
    app, cancelable = make_app(principal=lambda request: asked.append(request.path))
    app.add_url_rule("/plain", view_func=lambda: "plain", endpoint="plain")
    app.test_client().get("/plain")
    cancelable.jobs.submit(int).result(10)
    assert asked == []
    app.test_client().get("/jobs")
    assert asked == ["/jobs"]


def test_owner_given_goes_before_whoever_asks() -> None:
    app, cancelable = make_app()
    app.add_url_rule("/start", view_func=lambda: cancelable.jobs.submit(int, owner="bob").context.owner, endpoint="start")
    assert app.test_client().get("/start", headers={"X-User": "alice"}).text == "bob"


def test_job_reads_no_request_by_accident() -> None:
    app, cancelable = make_app()

    def work() -> str:
        return request.path

    @app.get("/start")
    def start() -> str:
        with pytest.raises(RuntimeError, match="outside of request context"):
            cancelable.jobs.submit(work).result(10)
        return "refused"

    assert app.test_client().get("/start").text == "refused"
