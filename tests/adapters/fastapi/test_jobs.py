"""Jobs: async ones on the server's loop, plain ones in the pool, and both beyond the request that started them.

Annotations are not postponed here: FastAPI could not find the functions of a test by their names.
"""

import contextvars
import threading
from typing import Any

import anyio
import pytest
from fastapi import FastAPI, Request

from cancelable_core import Cancelable, Job, OperationCancelled
from cancelable_core.http_api import AllowAll
from cancelable_core.wakeup import running_port
from cancelable_fastapi import CancelableSuite, CurrentJobs, CurrentOperation, current_operation

from .helpers import DEADLINE_SECONDS, Exchange, TestClient, ask, happens, happens_soon, installed, serving

who: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")


def _whereabouts() -> dict[str, Any]:
    operation = current_operation()
    assert operation is not None
    port = running_port()
    return {
        "loop": None if port is None else port.native,
        "thread": threading.get_ident(),
        "who": who.get(),
        "kind": operation.kind,
        "parent": operation.parent,
    }


async def _async_whereabouts() -> dict[str, Any]:
    return _whereabouts()


class Work:
    """Stands still until it is told to go on."""

    def __init__(self) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()

    def sync(self) -> str:
        operation = current_operation()
        assert operation is not None
        self.begun.set()
        while not self.go_on.is_set():
            operation.check()
            operation.wait(0.001)
        return "done"

    async def in_task(self) -> str:
        self.begun.set()
        while not self.go_on.is_set():
            await anyio.sleep(0.001)
        return "done"

    async def forever(self) -> None:
        self.begun.set()
        await anyio.sleep(60)


@pytest.fixture
def work() -> Work:
    return Work()


def _application(func: Any) -> tuple[FastAPI, list[Job[Any]]]:
    app, started = FastAPI(), []

    @app.post("/async")
    async def from_task(jobs: CurrentJobs) -> str:
        who.set("alice")
        started.append(jobs.submit(func, name="export"))
        return str(started[-1].id)

    @app.post("/sync")
    def from_thread(jobs: CurrentJobs) -> str:
        who.set("alice")
        started.append(jobs.submit(func, name="export"))
        return str(started[-1].id)

    return app, started


async def _ended(job: Job[Any]) -> None:
    with anyio.fail_after(DEADLINE_SECONDS):
        await job.wait()


async def test_async_job_of_an_async_endpoint_runs_on_the_server_s_loop() -> None:
    app, started = _application(_async_whereabouts)
    with installed(app):
        await ask(app, "/async", "POST")
        await _ended(started[0])
    found = started[0].result()
    port = running_port()
    assert port is not None
    assert found["loop"] is port.native
    assert (found["thread"], found["who"]) == (threading.get_ident(), "alice")
    assert (found["kind"], found["parent"]) == ("job", None)


async def test_async_job_of_a_plain_endpoint_runs_on_a_loop_of_the_runner_s() -> None:
    """In a thread there is no loop to stay on."""
    app, started = _application(_async_whereabouts)
    with installed(app):
        await ask(app, "/sync", "POST")
        await _ended(started[0])
    found = started[0].result()
    assert found["loop"] is not None
    assert (found["thread"] != threading.get_ident(), found["who"]) == (True, "alice")


@pytest.mark.parametrize("path", ["/async", "/sync"])
async def test_plain_job_runs_in_the_pool(path: str) -> None:
    app, started = _application(_whereabouts)
    with installed(app):
        await ask(app, path, "POST")
        await _ended(started[0])
    found = started[0].result()
    assert found["loop"] is None
    assert (found["thread"] != threading.get_ident(), found["who"]) == (True, "alice")


@pytest.mark.parametrize("path", ["/async", "/sync"])
@pytest.mark.parametrize("kind", ["sync", "in_task"])
async def test_a_job_outlives_its_request_and_a_client_that_leaves(work: Work, path: str, kind: str) -> None:
    app, started = _application(getattr(work, kind))
    with installed(app):
        async with serving(app, Exchange(path, method="POST")) as exchange:
            await happens_soon(work.begun)
            exchange.leave()
        assert exchange.status == 200
        assert started[0].status == "running"
        work.go_on.set()
        await _ended(started[0])
    assert (started[0].status, started[0].result()) == ("completed", "done")


@pytest.mark.parametrize("path", ["/async", "/sync"])
@pytest.mark.parametrize("kind", ["sync", "in_task", "forever"])
async def test_a_job_is_cancelled_by_route(work: Work, path: str, kind: str) -> None:
    app, started = _application(getattr(work, kind))
    with installed(app, policy=AllowAll()):
        job_id = (await ask(app, path, "POST")).json()
        await happens_soon(work.begun)
        answer = await ask(app, f"/jobs/{job_id}/cancel", "POST", json={"message": "enough", "wait_seconds": 20})
        assert (answer.status_code, answer.json()["operation"]["status"]) == (200, "cancelled")
        again = await ask(app, f"/jobs/{job_id}/cancel", "POST")
        assert again.status_code == 409
        work.go_on.set()
        await _ended(started[0])
    with pytest.raises(OperationCancelled, match="enough"):
        started[0].result()


async def test_a_job_may_follow_its_request(work: Work) -> None:
    jobs_started: list[Job[Any]] = []
    requests: list[Cancelable] = []
    with installed() as (app, _):

        @app.get("/work")
        async def endpoint(jobs: CurrentJobs, operation: CurrentOperation) -> None:
            requests.append(operation)
            jobs_started.append(jobs.submit(work.sync, follow_request=True))
            await anyio.sleep(60)

        async with serving(app, Exchange("/work")) as exchange:
            await happens_soon(work.begun)
            requests[0].cancel_sync("both")
        await _ended(jobs_started[0])
    assert exchange.status == 499
    assert (jobs_started[0].status, jobs_started[0].context.reason) == ("cancelled", "parent")


async def test_jobs_of_the_suite_are_nobody_s_unless_told() -> None:
    with installed(principal=lambda: "alice") as (app, _):

        @app.post("/start")
        async def start(request: Request) -> list[str | None]:
            jobs = request.app.state.cancelable.jobs
            return [jobs.submit(str).context.owner, jobs.submit(str, owner="bob").context.owner]

        assert (await ask(app, "/start", "POST")).json() == [None, "bob"]
        assert isinstance(app.state.cancelable, CancelableSuite)


# --- Starlette's test client: a loop for each request, or one for all of them


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_test_client_with_a_context_keeps_its_loop_for_jobs(work: Work, backend: Any) -> None:
    app, started = _application(work.in_task)
    with installed(app, principal=lambda: "alice"), TestClient(app, backend=backend) as client:
        job_id = client.post("/async").json()
        happens(work.begun)
        assert client.get(f"/jobs/{job_id}").json()["status"] == "running"
        answer = client.post(f"/jobs/{job_id}/cancel", json={"wait_seconds": 20})
        assert (answer.status_code, answer.json()["operation"]["status"]) == (200, "cancelled")
        work.go_on.set()
    assert started[0].status == "cancelled"


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_test_client_without_a_context_ends_async_jobs_with_their_loop(work: Work, backend: Any) -> None:
    """Its loop ends with the request; the job says so rather than run for ever in the lists."""
    app, started = _application(work.forever)
    with installed(app, principal=lambda: "alice"):
        client = TestClient(app, backend=backend)
        job_id = client.post("/async").json()
        shown = client.get(f"/jobs/{job_id}").json()
    assert (shown["status"], shown["reason"]) == ("cancelled", "parent")
    assert started[0].status == "cancelled"


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_test_client_without_a_context_leaves_plain_jobs_alone(work: Work, backend: Any) -> None:
    app, started = _application(work.sync)
    with installed(app, principal=lambda: "alice"):
        client = TestClient(app, backend=backend)
        client.post("/async")
        happens(work.begun)
        work.go_on.set()
        assert started[0].result(DEADLINE_SECONDS) == "done"


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("in_context", [True, False])
def test_test_client_sees_cancels_answered(backend: Any, in_context: bool) -> None:
    with installed() as (app, _):

        @app.get("/async")
        async def in_task(operation: CurrentOperation) -> None:
            operation.cancel_sync("enough")
            await anyio.sleep(60)

        @app.get("/sync")
        def in_thread(operation: CurrentOperation) -> None:
            operation.cancel_sync("enough")
            operation.check()

        client = TestClient(app, backend=backend)
        if in_context:
            client.__enter__()
        try:
            for path in ("/async", "/sync"):
                answer = client.get(path)
                assert (answer.status_code, answer.json()["message"]) == (499, "enough")
        finally:
            if in_context:
                client.__exit__(None, None, None)
