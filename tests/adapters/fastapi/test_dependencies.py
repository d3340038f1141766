"""`CurrentOperation`, `CurrentJobs`, `CurrentRegistry`, and the dependency that says who is asking.

Annotations are not postponed here: FastAPI could not find the functions of a test by their names.
"""

import functools
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any

import anyio
import pytest
from fastapi import Cookie, Depends, FastAPI, Header, HTTPException, Query, Request, Security, WebSocket, WebSocketDisconnect
from fastapi.responses import JSONResponse
from fastapi.security import APIKeyHeader, HTTPBasic, HTTPBasicCredentials, SecurityScopes

from cancelable_core import Cancelable, CancelationReason, OperationStore
from cancelable_core.http_api import AllowAll, Principal
from cancelable_fastapi import CurrentJobs, CurrentOperation, CurrentRegistry, current_operation

from .helpers import TestClient, Visit, ask, installed


async def test_current_operation_is_the_request_in_every_kind_of_endpoint(visit: Visit) -> None:
    def depends(operation: CurrentOperation) -> Cancelable:
        return operation

    with installed() as (app, _):

        @app.get("/async")
        async def in_task(operation: CurrentOperation, same: Annotated[Cancelable, Depends(depends)]) -> str:
            assert operation is same is current_operation()
            return operation.id

        @app.get("/sync")
        def in_thread(operation: CurrentOperation, same: Annotated[Cancelable, Depends(depends)]) -> str:
            assert operation is same is current_operation()
            return operation.id

        for path in ("/async", "/sync"):
            answer = await ask(app, path)
            assert answer.headers["x-operation-id"] == answer.json()


async def test_a_dependency_with_yield_lives_inside_the_operation() -> None:
    seen: list[str] = []

    async def resource(operation: CurrentOperation) -> AsyncIterator[str]:
        seen.append(operation.status)
        try:
            yield "resource"
        except BaseException as error:
            seen.append(type(error).__name__)
            raise

    with installed() as (app, _):

        @app.get("/work")
        def work(operation: CurrentOperation, value: Annotated[str, Depends(resource)]) -> None:
            operation.cancel_sync("enough")
            operation.check()

        assert (await ask(app, "/work")).status_code == 499
    assert seen == ["running", "OperationCancelled"]


async def test_current_registry_shows_and_cancels(visit: Visit) -> None:
    store = OperationStore()
    with installed(registry=store) as (app, _):

        @app.get("/async")
        async def in_task(registry: CurrentRegistry) -> str:
            operation = current_operation()
            assert operation is not None
            assert bool(await registry.cancel_operation(operation.id, message="myself"))
            await anyio.sleep(60)
            raise AssertionError

        @app.get("/sync")
        def in_thread(registry: CurrentRegistry) -> int:
            return registry.store.statistics().running_operations

        answer = await ask(app, "/async")
        assert (answer.status_code, answer.json()["message"]) == (499, "myself")
        assert (await ask(app, "/sync")).json() == 1


@pytest.mark.parametrize("annotation", [CurrentOperation, CurrentJobs, CurrentRegistry])
async def test_without_installation_they_say_what_to_do(annotation: Any) -> None:
    app = FastAPI()

    @app.get("/work")
    async def work(value: annotation) -> None:
        raise AssertionError

    with pytest.raises(RuntimeError, match=r"call install\(app\)"):
        TestClient(app).get("/work")


def test_a_websocket_may_start_jobs() -> None:
    def who(x_user: Annotated[str, Header()]) -> str:
        return x_user

    with installed(principal=who) as (app, suite):

        @app.websocket("/start")
        async def start(websocket: WebSocket, jobs: CurrentJobs, registry: CurrentRegistry) -> None:
            await websocket.accept()
            job = jobs.submit(str)
            await job.wait()
            found = await registry.get_operation(job.id)
            assert found is not None
            await websocket.send_json([job.id, found.owner])
            await websocket.close()

        with TestClient(app).websocket_connect("/start", headers={"X-User": "alice"}) as websocket:
            job_id, owner = websocket.receive_json()
        assert owner == "alice"
        assert suite.registry.get_operation(job_id) is not None


@pytest.mark.parametrize(
    ("reason", "code"),
    [(CancelationReason.MANUAL, 1011), (CancelationReason.TIMEOUT, 1011), (CancelationReason.SHUTDOWN, 1001)],
)
def test_a_cancelled_websocket_is_closed_with_a_code_that_says_why(reason: CancelationReason, code: int) -> None:
    with installed() as (app, suite):

        @app.websocket("/rooms/{room}")
        async def room(websocket: WebSocket, room: str, operation: CurrentOperation) -> None:
            await websocket.accept()
            await websocket.send_text(operation.id)
            await websocket.receive_text()
            raise AssertionError("nobody sends anything")

        with TestClient(app).websocket_connect("/rooms/1") as websocket:
            operation_id = websocket.receive_text()
            found = suite.registry.get_operation(operation_id)
            assert found is not None
            assert (found.name, found.kind, found.status) == ("WEBSOCKET /rooms/{room}", "request", "running")
            assert suite.registry.cancel_operation(operation_id, reason)
            with pytest.raises(WebSocketDisconnect) as raised:
                websocket.receive_text()
        assert raised.value.code == code
        ended = suite.registry.wait_for(operation_id, 10)
        assert ended is not None
        assert (ended.status.is_final, ended.reason) == (True, reason)


def test_a_websocket_endpoint_that_waits_for_its_client_hears_of_its_end_as_ever() -> None:
    with installed() as (app, suite):
        heard: list[int] = []

        @app.websocket("/room")
        async def room(websocket: WebSocket, operation: CurrentOperation) -> None:
            await websocket.accept()
            await websocket.send_text(operation.id)
            try:
                await websocket.receive_text()
            except WebSocketDisconnect as error:
                heard.append(error.code)

        with TestClient(app).websocket_connect("/room") as websocket:
            operation_id = websocket.receive_text()
            websocket.close(1000)
        assert heard == [1000]
        assert suite.registry.get_operation(operation_id) is None  # it completed, and is only counted


def test_a_websocket_endpoint_that_works_is_cancelled_when_its_client_leaves() -> None:
    with installed() as (app, suite):

        @app.websocket("/room")
        async def room(websocket: WebSocket, operation: CurrentOperation) -> None:
            await websocket.accept()
            await websocket.send_text(operation.id)
            await anyio.sleep_forever()

        with TestClient(app).websocket_connect("/room") as websocket:
            operation_id = websocket.receive_text()
            websocket.close(1001)
        ended = suite.registry.wait_for(operation_id, 10)
        assert ended is not None
        assert (ended.status, ended.reason) == ("cancelled", "disconnect")  # or the test client was quicker, which cancels, too


def test_a_websocket_whose_job_finds_no_room_is_told_to_try_again() -> None:
    with installed(job_workers=1, job_queue_limit=0) as (app, suite):
        release = threading.Event()

        @app.websocket("/start")
        async def start(websocket: WebSocket, jobs: CurrentJobs) -> None:
            await websocket.accept()
            for _ in range(2):
                jobs.submit(release.wait, 10)

        with TestClient(app).websocket_connect("/start") as websocket, pytest.raises(WebSocketDisconnect) as raised:
            websocket.receive_text()
        release.set()
        assert raised.value.code == 1013
        suite.jobs.close(10)


# --- who is asking


class User:
    """As an application has them."""

    def __init__(self, id: int, is_staff: bool = False) -> None:
        self.id = id
        self.is_staff = is_staff


def _sync(x_user: Annotated[str | None, Header()] = None) -> str | None:
    return x_user


async def _async(x_user: Annotated[str | None, Header()] = None) -> Principal:
    return Principal(x_user)


async def _async_generator(x_user: Annotated[str | None, Header()] = None) -> AsyncIterator[str | None]:
    yield x_user


def _generator(x_user: Annotated[str | None, Header()] = None) -> Iterator[str | None]:
    yield x_user


def _refusing(x_user: Annotated[str | None, Header()] = None) -> str:
    if x_user is None:
        raise HTTPException(401, "who are you?", {"WWW-Authenticate": "Bearer"})
    if x_user == "mallory":
        raise HTTPException(403, "not you")
    return x_user


class _Callable:
    async def __call__(self, request: Request) -> str | None:
        return request.headers.get("x-user")


def _with_dependencies(name: Annotated[str | None, Depends(_async_generator)]) -> str | None:
    return name


def _scoped(scopes: SecurityScopes, key: Annotated[str, Security(APIKeyHeader(name="X-User"))]) -> str:
    assert scopes.scopes == ["jobs"]
    return key


def _secured(name: Annotated[str, Security(_scoped, scopes=["jobs"])]) -> str:
    return name


def _bound(prefix: str, x_user: Annotated[str | None, Header()] = None) -> str | None:
    return x_user and x_user.removeprefix(prefix)


PRINCIPALS = {
    "sync": _sync,
    "async": _async,
    "generator": _generator,
    "async generator": _async_generator,
    "refusing": _refusing,
    "callable": _Callable(),
    "with dependencies": _with_dependencies,
    "security": _secured,
    "partial": functools.partial(_bound, "nothing"),
}


@pytest.mark.parametrize("principal", PRINCIPALS)
async def test_principal_is_a_dependency_of_any_kind(principal: str) -> None:
    with installed(principal=PRINCIPALS[principal]) as (app, suite):

        @app.post("/async")
        async def in_task(jobs: CurrentJobs) -> str:
            return jobs.submit(str, name="of async").id

        @app.post("/sync")
        def in_thread(jobs: CurrentJobs) -> str:
            return jobs.submit(str, name="of sync").id

        alice = {"X-User": "alice"}
        for path in ("/async", "/sync"):
            job_id = (await ask(app, path, "POST", headers=alice)).json()
            shown = await ask(app, f"/jobs/{job_id}", headers=alice)
            assert (shown.status_code, shown.json()["owner"]) == (200, "alice")
            assert (await ask(app, f"/jobs/{job_id}", headers={"X-User": "bob"})).status_code == 404
            assert (await ask(app, f"/jobs/{job_id}")).status_code == 404
            assert (await ask(app, f"/jobs/{job_id}/cancel", "POST", headers={"X-User": "mallory"})).status_code == 404
            nobodys = (await ask(app, path, "POST")).json()
            context = suite.registry.get_operation(nobodys)
            assert context is not None
            assert context.owner is None
        assert (await ask(app, "/jobs", headers=alice)).status_code == 200
        assert (await ask(app, "/jobs")).status_code == 403


@pytest.mark.parametrize("staff", [None, lambda user: user.id == 1])
async def test_user_objects_are_understood(staff: Callable[[User], bool] | None) -> None:
    def user(x_user: Annotated[int, Header()]) -> User:
        return User(x_user, is_staff=x_user == 1 and staff is None)

    with installed(principal=user, staff=staff) as (app, _):
        assert (await ask(app, "/jobs/stats", headers={"X-User": "1"})).status_code == 200
        assert (await ask(app, "/jobs/stats", headers={"X-User": "2"})).status_code == 403


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refusal_that_the_application_answers_itself_means_nobody_too(status: int) -> None:
    class Unknown(Exception):
        pass

    async def answer(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"mine": "who?"}, status)

    def who() -> None:
        raise Unknown

    app = FastAPI(exception_handlers={Unknown: answer})
    with installed(app, principal=who):
        assert (await ask(app, "/jobs")).json()["type"] == "urn:cancelable:forbidden"


async def test_a_401_in_curly_words_of_the_application_means_nobody() -> None:
    async def answer(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"mine": "who?"}, 401)

    app = FastAPI(exception_handlers={HTTPException: answer})
    with installed(app, principal=_refusing):
        assert (await ask(app, "/jobs")).json()["type"] == "urn:cancelable:forbidden"


@pytest.mark.parametrize("status", [503, 429, 404])
async def test_other_refusals_are_answered_as_they_are(status: int) -> None:
    error = HTTPException(status, {"told": "no database"}, {"Retry-After": "7"})

    def who() -> None:
        raise error

    with installed(principal=who) as (app, _):

        @app.post("/work")
        async def work(jobs: CurrentJobs) -> None:
            raise AssertionError

        for method, path in (("GET", "/jobs"), ("POST", "/work")):
            answer = await ask(app, path, method)
            assert (answer.status_code, answer.json()) == (status, {"detail": {"told": "no database"}})
            assert answer.headers["retry-after"] == "7"


async def test_what_the_principal_misses_is_told() -> None:
    def who(x_user: Annotated[int, Header()]) -> int:
        return x_user

    with installed(principal=who) as (app, _):
        answer = await ask(app, "/jobs", headers={"X-User": "not a number"})
    assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["header", "x-user"])


async def test_the_body_is_left_to_the_endpoint() -> None:
    async def who(request: Request) -> str:
        assert not await request.body()
        return "alice"

    with installed(principal=who) as (app, _):

        @app.post("/start")
        async def start(jobs: CurrentJobs, words: list[str]) -> str:
            return "".join(words)

        assert (await ask(app, "/start", "POST", json=["a", "b"])).json() == "ab"
        assert (await ask(app, "/jobs/ab12/cancel", "POST", json={"nonsense": 1})).status_code == 422


async def test_errors_of_the_principal_are_errors() -> None:
    def who() -> None:
        raise ZeroDivisionError

    with installed(principal=who) as (app, _):
        assert (await ask(app, "/jobs")).status_code == 500


async def test_principal_is_not_asked_where_nobody_needs_to_know() -> None:
    asked: list[str] = []

    def who(request: Request) -> str:
        asked.append(request.url.path)
        return "alice"

    with installed(principal=who) as (app, _):

        @app.get("/work")
        async def work(operation: CurrentOperation, registry: CurrentRegistry) -> None:
            assert operation.owner is None

        @app.get("/start")
        async def start(jobs: CurrentJobs) -> str:
            return jobs.submit(str).id

        for path in ("/work", "/nowhere"):
            await ask(app, path)
        assert asked == []
        await ask(app, "/start")
        assert asked == ["/start"]


async def test_overridden_dependencies_are_overridden_here_too() -> None:
    """``app.dependency_overrides`` is how FastAPI's applications are tested."""
    with installed(principal=_refusing) as (app, _):
        assert (await ask(app, "/jobs")).status_code == 403
        app.dependency_overrides[_refusing] = lambda: "alice"
        assert (await ask(app, "/jobs")).status_code == 200
        app.dependency_overrides.clear()
        assert (await ask(app, "/jobs")).status_code == 403


async def test_a_mounted_application_s_own_installation_says_who_is_asking() -> None:
    inner = FastAPI()
    with installed(principal=lambda: "of the outer") as (app, _), installed(inner, principal=lambda: "of the inner"):

        async def start(jobs: CurrentJobs) -> str:
            return jobs.submit(str).id

        app.post("/start")(start)
        inner.post("/start")(start)
        app.mount("/sub", inner)
        for prefix, owner in (("/sub", "of the inner"), ("", "of the outer")):
            job_id = (await ask(app, f"{prefix}/start", "POST")).json()
            shown = await ask(app, f"{prefix}/jobs/{job_id}")
            assert (shown.status_code, shown.json()["owner"]) == (200, owner)


async def test_a_mounted_application_without_one_uses_the_outer_s() -> None:
    inner = FastAPI()

    @inner.post("/start")
    async def start(jobs: CurrentJobs, operation: CurrentOperation) -> list[str | None]:
        return [jobs.submit(str).id, operation.name]

    with installed(principal=lambda: "alice") as (app, suite):
        app.mount("/sub", inner)
        job_id, name = (await ask(app, "/sub/start", "POST")).json()
        assert name == "POST /sub/start"
        context = suite.registry.get_operation(job_id)
    assert context is not None
    assert context.owner == "alice"


async def test_who_asks_may_be_named_by_cookie_query_and_basic_credentials_together() -> None:
    """Whatever FastAPI can find in a request, the principal may be found in, without the body being read for it."""

    def who(
        request: Request,
        basic: Annotated[HTTPBasicCredentials, Depends(HTTPBasic())],
        visitor: Annotated[str, Cookie()],
        kind: Annotated[str, Query()] = "none",
    ) -> str:
        return f"{basic.username}/{visitor}/{kind}/{request.method}"

    with installed(principal=who) as (app, _):

        @app.post("/start")
        async def start(jobs: CurrentJobs, words: list[str]) -> dict[str, str]:
            return {jobs.submit(str).context.owner or "": "".join(words)}

        answer = await ask(
            app, "/start?kind=any", "POST", json=["a", "b"], auth=("alice", "secret"), headers={"Cookie": "visitor=7"}
        )
    assert answer.json() == {"alice/7/any/POST": "ab"}


async def test_foreign_owners_can_be_set_where_the_application_says_so() -> None:
    with installed(principal=lambda: "alice", policy=AllowAll()) as (app, suite):

        @app.post("/start")
        async def start(jobs: CurrentJobs) -> str:
            return jobs.submit(str, owner="bob").id

        job_id = (await ask(app, "/start", "POST")).json()
        assert (await ask(app, f"/jobs/{job_id}")).json()["owner"] == "bob"
        job = suite.jobs.submit(str)
        assert job.context.owner is None
