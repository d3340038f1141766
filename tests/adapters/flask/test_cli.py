"""``flask cancelable`` asks a server that really runs."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from click.testing import Result
from flask import Request
from werkzeug.serving import make_server

from cancelable_core import Job, OperationStore
from cancelable_core.http_api import Principal
from cancelable_flask import CancelableFlask, current_operation

from .helpers import make_app


@pytest.fixture
def app() -> CancelableFlask:
    def principal(request: Request) -> Principal:
        name = request.headers.get("X-User")
        return Principal(name, is_staff=name is not None)

    return make_app(principal=principal, registry=OperationStore())[0]


@pytest.fixture
def url(app: CancelableFlask) -> Iterator[str]:
    server = make_server("127.0.0.1", 0, app)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.port}/jobs"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def job(app: CancelableFlask) -> Iterator[Job[None]]:
    job = app.extensions["cancelable"].jobs.submit(lambda: current_operation().sleep(60), name="report", owner="alice")  # type: ignore[union-attr]
    yield job
    job.cancel_sync()


def run(app: CancelableFlask, *arguments: str, **environment: str) -> Result:
    return app.test_cli_runner().invoke(args=["cancelable", *arguments], env=environment)


def test_list_shows_what_runs(app: CancelableFlask, url: str, job: Job[None]) -> None:
    result = run(app, "list", "--url", url, "--header", "X-User: alice", "--kind", "job", "--name", "rep*")
    assert result.exit_code == 0, result.output
    heading, line = result.output.splitlines()
    assert heading.startswith("id")
    assert line.split()[0] == job.id


def test_cancel_cancels(app: CancelableFlask, url: str, job: Job[None]) -> None:
    result = run(app, "cancel", job.id, "--url", url, "--header", "X-User: alice", "--message", "enough", "--wait", "10")
    assert (result.exit_code, result.output) == (0, f"requested: {job.id} is cancelled\n")
    assert job.context.message == "enough"


def test_stats_counts_and_may_be_told_the_address_by_the_environment(app: CancelableFlask, url: str, job: Job[None]) -> None:
    result = run(app, "stats", "--header", "X-User: root", CANCELABLE_URL=url)
    assert result.exit_code == 0, result.output
    assert "running: 1" in result.output.splitlines()


def test_a_refusal_is_one_line_and_a_failure(app: CancelableFlask, url: str) -> None:
    result = run(app, "cancel", "nobody", "--url", url)
    assert result.exit_code == 1
    assert result.output.startswith("Error: 404 ")
    assert len(result.output.splitlines()) == 1


def test_the_address_is_asked_for(app: CancelableFlask) -> None:
    result = run(app, "stats")
    assert result.exit_code == 2
    assert "--url" in result.output


def test_a_header_that_is_none_is_refused(app: CancelableFlask, url: str) -> None:
    result = run(app, "stats", "--url", url, "--header", "nonsense")
    assert result.exit_code == 1
    assert "Name: value" in result.output
