"""``manage.py cancelable`` asks a server that really runs."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import pytest
from django.core.management import CommandError, call_command
from django.core.wsgi import get_wsgi_application

from cancelable_core import Job, OperationStore
from cancelable_core.http_api import Principal
from cancelable_django import current_operation, jobs

from .helpers import site


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Nothing on the terminal."""


@pytest.fixture
def url() -> Iterator[str]:
    def principal(request: object) -> Principal:
        name = request.headers.get("X-User")  # type: ignore[attr-defined]
        return Principal(name, is_staff=name is not None)

    with site(CANCELABLE={"PRINCIPAL": principal, "REGISTRY": OperationStore()}):
        server = make_server("127.0.0.1", 0, get_wsgi_application(), server_class=_Server, handler_class=_Quiet)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/jobs"
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def job(url: str) -> Iterator[Job[None]]:
    job = jobs.submit(lambda: current_operation().sleep(60), name="export", owner="alice")  # type: ignore[union-attr]
    yield job
    job.cancel_sync()
    jobs.close()


def run(*arguments: str) -> str:
    output = io.StringIO()
    call_command("cancelable", *arguments, stdout=output)
    return output.getvalue()


def test_list_shows_what_runs(url: str, job: Job[None]) -> None:
    lines = run("list", "--url", url, "--header", "X-User: alice", "--kind", "job", "--name", "exp*").splitlines()
    assert lines[0].startswith("id")
    assert lines[1].split()[0] == job.id
    assert len(lines) == 2


def test_cancel_cancels(url: str, job: Job[None]) -> None:
    said = run("cancel", job.id, "--url", url, "--header", "X-User: alice", "--message", "enough", "--wait", "10")
    assert said == f"requested: {job.id} is cancelled\n"
    assert job.context.message == "enough"


def test_stats_counts_and_may_be_told_the_address_by_the_environment(
    url: str, job: Job[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANCELABLE_URL", url)
    assert "cancelling: 0" in run("stats", "--header", "X-User: root").splitlines()


def test_a_refusal_is_one_line_and_a_failure(url: str) -> None:
    with pytest.raises(CommandError, match=r"^404 "):
        run("cancel", "nobody", "--url", url)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["stats"], "--url"),
        (["stats", "--url", "nowhere"], "not the address"),
        (["stats", "--url", "http://127.0.0.1:9/jobs", "--header", "nonsense"], "Name: value"),
        (["cancel", "--url", "http://127.0.0.1:9/jobs"], "operation_id"),
        (["explode"], "explode"),
        ([], "list"),
    ],
)
def test_what_cannot_be_asked_is_said_in_words(arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CANCELABLE_URL", raising=False)
    with pytest.raises(CommandError, match=said):
        run(*arguments)
