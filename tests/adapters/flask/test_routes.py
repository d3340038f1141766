"""Our routes as a part of a Flask application: what others read before them, size limits, who asks, other sites' pages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask, abort, request

from cancelable_core import Job
from cancelable_flask import CancelableFlask, current_operation

from .helpers import make_app

ALICE = {"X-User": "alice"}
WORDS = {"message": "Grüße & mehr"}


@pytest.fixture
def app() -> CancelableFlask:
    return make_app()[0]


@pytest.fixture
def job(app: CancelableFlask) -> Iterator[Job[None]]:
    job = app.extensions["cancelable"].jobs.submit(lambda: current_operation().sleep(60), owner="alice")  # type: ignore[union-attr]
    yield job
    job.cancel_sync()


def cancel(app: Flask, job: Job[Any], headers: dict[str, str] | None = None, **sent: Any) -> Any:
    return app.test_client().post(f"/jobs/{job.id}/cancel", headers={**ALICE, **(headers or {})}, **sent)


def test_test_client_cancels_a_job(app: CancelableFlask, job: Job[None]) -> None:
    answer = cancel(app, job, json={"message": "enough", "wait_seconds": 10})
    assert (answer.status_code, answer.json["operation"]["status"]) == (200, "cancelled")
    assert job.context.message == "enough"
    assert app.test_client().get(f"/jobs/{job.id}", headers=ALICE).json["message"] == "enough"


@pytest.mark.parametrize("reads", ["form", "data", "json", "nothing"])
@pytest.mark.parametrize(
    "sent", [{"data": {"message": "Grüße & mehr"}}, {"json": {"message": "Grüße & mehr"}}], ids=["form", "json"]
)
def test_body_that_was_read_before_is_not_lost(app: CancelableFlask, job: Job[None], reads: str, sent: dict[str, Any]) -> None:
    """CSRF extensions, for instance, look into the form of every request."""

    @app.before_request
    def look() -> None:
        if reads == "form":
            request.form.get("csrf_token")
        elif reads == "data":
            request.get_data()
        elif reads == "json":
            request.get_json(silent=True)

    assert cancel(app, job, **sent).status_code == 202
    assert job.context.message == WORDS["message"]


@pytest.mark.parametrize("limit", [None, 10, 100_000])
def test_large_body_is_a_problem_whatever_the_application_allows(
    app: CancelableFlask, job: Job[None], limit: int | None
) -> None:
    app.config["MAX_CONTENT_LENGTH"] = limit
    answer = cancel(app, job, data=b"message=" + b"x" * 70_000, content_type="application/x-www-form-urlencoded")
    assert (answer.status_code, answer.get_json(force=True)["type"]) == (413, "urn:cancelable:too-large")
    assert not job.operation.token.is_cancelled


def test_who_may_not_ask_is_not_told_about_sizes(app: CancelableFlask) -> None:
    app.config["MAX_CONTENT_LENGTH"] = 10
    answer = app.test_client().post("/jobs/cancel-all", data=b"x" * 20, content_type="application/json")
    assert (answer.status_code, answer.get_json(force=True)["type"]) == (403, "urn:cancelable:forbidden")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 202),
        ({"Sec-Fetch-Site": "same-origin"}, 202),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": "http://localhost"}, 202),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_page_of_another_site_cannot_cancel(app: CancelableFlask, job: Job[None], headers: dict[str, str], status: int) -> None:
    assert cancel(app, job, headers=headers).status_code == status
    assert job.operation.token.is_cancelled == (status == 202)


def test_principal_may_refuse_by_flask_s_own_means() -> None:
    app, _ = make_app(principal=lambda request: abort(401))
    assert app.test_client().get("/jobs").status_code == 401


def test_application_s_guard_keeps_strangers_from_the_routes(app: CancelableFlask, job: Job[None]) -> None:
    app.before_request(lambda: abort(401) if request.blueprint == "cancelable" else None)
    assert cancel(app, job).status_code == 401
    assert not job.operation.token.is_cancelled


def test_answers_come_as_the_core_makes_them(app: CancelableFlask) -> None:
    answer = app.test_client().get("/jobs/unknown", headers=ALICE)
    assert answer.status_code == 404
    assert set(answer.headers.keys()) == {"Content-Type", "Content-Length", "Cache-Control", "X-Content-Type-Options"}
