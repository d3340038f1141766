"""A bare ASGI application: its requests and WebSockets are operations, and follow their clients."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from contextvars import ContextVar
from types import ModuleType
from typing import Any

import anyio
import pytest

from cancelable_core import (
    Cancelable,
    CancelationReason,
    OperationCancelled,
    OperationStatus,
    OperationStore,
    QueueFull,
    RunnerClosed,
    current_operation,
)
from cancelable_core.servers import (
    CLIENT_KEY,
    REQUEST_KEY,
    AsgiApplication,
    AsgiClient,
    CancelableAsgi,
    Receive,
    RequestOperation,
    Scope,
    Send,
    find_owner_soon,
    watching_client,
)
from tests.core.helpers import DEADLINE_SECONDS, becomes_true_soon

from .asgi_server import DISCONNECT, SOCKET_DISCONNECT, AsgiServer, body, scope, socket_scope

pytestmark = pytest.mark.anyio

START = {"type": "http.response.start", "status": 200, "headers": []}
LAST = {"type": "http.response.body", "body": b"last", "more_body": False}


def make(application: AsgiApplication, **options: Any) -> CancelableAsgi:
    return CancelableAsgi(application, registry=OperationStore(), **options)


def operation() -> RequestOperation:
    found = current_operation()
    assert isinstance(found, RequestOperation)
    return found


async def call(app: AsgiApplication, request: Scope, server: AsgiServer) -> None:
    """As a server calls it; daphne does by keyword."""
    with anyio.fail_after(DEADLINE_SECONDS):
        called: Any = app
        await called(scope=request, receive=server.receive, send=server.send)


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    """The shortest answer."""
    await send(START)
    await send(LAST)


async def wait(scope: Scope, receive: Receive, send: Send) -> None:
    """Never answers."""
    await anyio.sleep_forever()


async def stall(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers, and falls silent."""
    await send(START)
    await send({"type": "http.response.body", "body": b"first", "more_body": True})
    await anyio.sleep_forever()


def cancelling_itself(then: AsgiApplication, reason: CancelationReason = CancelationReason.MANUAL) -> AsgiApplication:
    """An application whose request is cancelled while it works."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        async with anyio.create_task_group() as tasks:
            token = operation().token
            tasks.start_soon(_cancel_once_it_waits, lambda: token.cancel_sync(reason, "enough"))
            await then(scope, receive, send)
            tasks.cancel_scope.cancel()

    async def _cancel_once_it_waits(cancel: Callable[[], object]) -> None:
        await anyio.sleep(0.01)
        cancel()

    return application


def ended(app: CancelableAsgi) -> tuple[OperationStatus, CancelationReason | None]:
    """What became of the one request."""
    assert not app.registry.list_operations()
    (context,) = app.registry.get_history()
    return context.status, context.reason


# --- a request as an operation


async def test_request_is_an_operation_until_its_last_byte() -> None:
    seen: list[RequestOperation] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope[REQUEST_KEY].made is operation()
        seen.append(operation())
        await hello(scope, receive, send)
        assert seen[0].status == "completed"

    app = make(application, route=lambda scope: "/reports/<id>")
    server = AsgiServer()
    await call(app, scope("/reports/7"), server)
    assert seen[0].name == "GET /reports/<id>"
    assert server.sent == [START, LAST]


@pytest.mark.parametrize("which", ["scoped", "all", "never"])
async def test_headers_that_can_be_read_only_once_arrive(which: Any) -> None:
    """ASGI asks for no more of them than to be iterable."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        operation().note_use()
        await send({**START, "headers": iter([(b"x-one", b"1"), (b"x-two", b"2")])})
        await send(LAST)

    server = AsgiServer()
    await call(make(application, response_header=which), scope(), server)
    assert {**server.headers, "x-operation-id": None} == {
        "x-one": "1",
        "x-two": "2",
        "x-operation-id": None,
        **({} if which == "never" else {"cache-control": "private"}),
    }


@pytest.mark.parametrize(
    ("request_scope", "name"), [(scope("/secret"), "GET (no route)"), (socket_scope("/x"), "WEBSOCKET (no route)")]
)
async def test_request_without_a_route_is_not_named_by_its_path(request_scope: Scope, name: str) -> None:
    app = make(cancelling_itself(wait))
    await call(app, dict(request_scope), AsgiServer())
    (context,) = app.registry.get_history()
    assert context.name == name


async def test_two_layers_make_one_operation() -> None:
    inner = make(cancelling_itself(wait))
    outer = make(inner)
    await call(outer, scope(), AsgiServer())
    assert ended(outer) == ("cancelled", "manual")
    assert inner.registry.get_history() == []


async def test_lifespan_passes_untouched() -> None:
    given: list[tuple[Any, ...]] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        given.append((scope, receive, send))

    server = AsgiServer()
    lifespan: Scope = {"type": "lifespan"}
    await make(application)(lifespan, server.receive, server.send)
    await watching_client(application)(lifespan, server.receive, server.send)
    assert given == [({"type": "lifespan"}, server.receive, server.send)] * 2


async def test_application_runs_in_its_caller_s_task() -> None:
    variable: ContextVar[str] = ContextVar("variable")

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        variable.set("from inside")
        await hello(scope, receive, send)

    await call(make(application), scope(), AsgiServer())
    assert variable.get() == "from inside"
    assert current_operation() is None


@pytest.mark.parametrize("error", [ZeroDivisionError("own"), OperationCancelled("another operation's")])
@pytest.mark.parametrize("has_started", [False, True])
async def test_exceptions_keep_their_type(error: Exception, has_started: bool) -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        async with Cancelable("inside", registry=OperationStore()):  # so that the client is followed
            await anyio.sleep(0.01)
        if has_started:
            await send(START)
        raise error

    server = AsgiServer()
    with pytest.raises(type(error)) as raised:
        await call(make(application), scope(), server)
    assert raised.value is error
    assert len(server.sent) == has_started


@pytest.mark.parametrize(
    ("setting", "uses_it", "status", "is_named"),
    [
        ("scoped", False, 200, False),
        ("scoped", True, 200, True),
        ("all", False, 200, True),
        ("all", False, 304, False),
        ("never", True, 200, False),
    ],
)
async def test_response_names_its_operation(setting: str, uses_it: bool, status: int, is_named: bool) -> None:
    seen: list[str] = []
    given: list[tuple[bytes, bytes]] = [(b"X-Own", b"1")]

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(operation().id)
        if uses_it:
            operation().note_use()
        await send({"type": "http.response.start", "status": status, "headers": given})
        await send(LAST)

    server = AsgiServer()
    await call(make(application, response_header=setting), scope(), server)
    expected = {"x-own": "1", "x-operation-id": seen[0], "cache-control": "private"} if is_named else {"x-own": "1"}
    assert server.headers == expected
    assert len(given) == 1, "the application's own list"


# --- its cancel


@pytest.mark.parametrize(
    ("reason", "status", "code"),
    [
        (CancelationReason.MANUAL, 499, "cancelled"),
        (CancelationReason.SHUTDOWN, 503, "shutting-down"),
        (CancelationReason.TIMEOUT, 504, "timed-out"),
    ],
)
async def test_cancel_before_the_response_is_answered(reason: CancelationReason, status: int, code: str) -> None:
    app = make(cancelling_itself(wait, reason))
    server = AsgiServer()
    await call(app, scope(), server)
    assert (server.status, server.headers["content-type"]) == (status, "application/problem+json")
    assert json.loads(server.content)["type"] == f"urn:cancelable:{code}"
    assert ("retry-after" in server.headers) is (status == 503)
    assert ended(app)[1] == reason


async def test_request_that_takes_too_long_is_answered() -> None:
    app = make(wait, request_timeout_seconds=0.02)
    server = AsgiServer()
    await call(app, scope(), server)
    assert server.status == 504
    assert ended(app) == ("timed_out", "timeout")


async def test_application_s_time_limit_ends_where_the_response_starts() -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        assert operation().remaining_seconds is None
        await send(LAST)

    await call(make(application, request_timeout_seconds=60), scope(), AsgiServer())


async def test_cancelled_status_is_the_application_s_choice() -> None:
    server = AsgiServer()
    await call(make(cancelling_itself(wait), cancelled_status=418), scope(), server)
    assert server.status == 418


async def test_stream_that_is_cancelled_is_cut() -> None:
    app = make(cancelling_itself(stall))
    server = AsgiServer()
    await call(app, scope(), server)
    assert [message.get("more_body") for message in server.sent] == [None, True]
    assert ended(app) == ("cancelled", "manual")


@pytest.fixture
def daphne(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is known by its module, and by naming no version of the specification."""
    monkeypatch.setitem(sys.modules, "daphne.server", ModuleType("daphne.server"))


@pytest.mark.usefixtures("daphne")
async def test_stream_that_is_cancelled_is_ended_where_the_client_would_wait_for_ever() -> None:
    server = AsgiServer()
    await call(make(cancelling_itself(stall)), scope(asgi={"version": "3.0"}), server)
    assert [message.get("more_body") for message in server.sent] == [None, True, False]


async def test_answer_is_given_where_the_response_was_stopped_on_its_way_out() -> None:
    server = AsgiServer()
    server.block()

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        async with anyio.create_task_group() as tasks:
            own = operation()

            async def cancel_then_let_go() -> None:
                await server.sending.wait()
                own.cancel_sync()
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(0.01)
                server.way_is_free.set()

            tasks.start_soon(cancel_then_let_go)
            await send(START)

    await call(make(application), scope(), server)
    assert server.status == 499


async def test_cancel_after_the_last_byte_changes_nothing() -> None:
    done: list[str] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        own = operation()
        await hello(scope, receive, send)
        assert not own.cancel_sync()
        await anyio.sleep(0.01)  # work in the background
        done.append("background")

    app = make(application)
    await call(app, scope(), AsgiServer())
    assert done == ["background"]
    assert app.registry.get_statistics().completed_operations == 1


@pytest.mark.parametrize(("error", "status"), [(QueueFull("full"), 503), (RunnerClosed("closed"), 503)])
async def test_job_without_room_is_answered(error: QueueFull, status: int) -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        raise error

    server = AsgiServer()
    await call(make(application), scope(), server)
    assert server.status == status
    assert "retry-after" in server.headers


async def test_job_without_room_after_the_start_is_an_error_as_any() -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        raise QueueFull("full")

    with pytest.raises(QueueFull):
        await call(make(application), scope(), AsgiServer())


# --- its client


@pytest.mark.parametrize("application", [wait, stall])
async def test_client_that_leaves_cancels_its_request(application: AsgiApplication, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "cancelable_core")
    app = make(application)
    await call(app, scope(), AsgiServer(DISCONNECT))
    assert ended(app) == ("cancelled", "disconnect")
    (record,) = caplog.records
    assert (record.levelname, record.exc_info) == ("INFO", None)


async def test_request_that_reads_hears_of_its_client_as_ever() -> None:
    """It is cancelled where it waits next."""
    read: list[Any] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        read.extend([await receive() for _ in range(3)])
        await anyio.sleep_forever()

    app = make(application)
    await call(app, scope(), AsgiServer(body(b"1"), DISCONNECT))
    assert read[:2] == [body(b"1"), DISCONNECT]
    assert ended(app) == ("cancelled", "disconnect")


async def test_client_that_leaves_a_request_that_does_not_follow_it_ends_nothing() -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        assert await receive() == DISCONNECT
        await anyio.sleep(0.01)
        await hello(scope, receive, send)

    app = make(application, cancel_on_disconnect="never")
    await call(app, scope(), AsgiServer(DISCONNECT))
    assert app.registry.get_statistics().completed_operations == 1


async def test_client_that_has_its_answer_may_leave() -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await anyio.sleep(0.01)  # the client is followed by now
        await hello(scope, receive, send)
        server.say(DISCONNECT)
        await anyio.sleep(0.01)

    server = AsgiServer()
    app = make(application)
    await call(app, scope(), server)
    assert app.registry.get_statistics().completed_operations == 1


async def test_server_that_cancels_its_application_has_lost_the_client() -> None:
    app = make(wait)
    with anyio.move_on_after(0.01):
        await app(scope(), AsgiServer().receive, AsgiServer().send)
    assert ended(app) == ("cancelled", "disconnect")


async def test_task_that_reads_ahead_ends_with_the_request() -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await becomes_true_soon(lambda: server.readers)
        await hello(scope, receive, send)

    server = AsgiServer()
    await call(make(application), scope(), server)
    await becomes_true_soon(lambda: not server.readers)


@pytest.mark.parametrize("chunks", [1, 7, 200])
async def test_body_arrives_whole_and_in_order(chunks: int) -> None:
    """Read ahead, read late, and with questions in between whether the client is still there."""
    pieces = [body(bytes([number % 256]) * 1_000) for number in range(chunks)] + [body(b"end", more=False)]
    read: list[Any] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await anyio.sleep(0.01)
        while not read or read[-1]["more_body"]:
            read.append(await receive())
            if len(read) % 50 == 49:
                await anyio.sleep(0.001)
        await hello(scope, receive, send)

    await call(make(application), scope(), AsgiServer(*pieces))
    assert read == pieces


# --- WebSockets


async def accept(scope: Scope, receive: Receive, send: Send) -> None:
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept"})


CONNECT = {"type": "websocket.connect"}


async def work_over_a_socket(scope: Scope, receive: Receive, send: Send) -> None:
    await accept(scope, receive, send)
    await anyio.sleep_forever()


@pytest.mark.parametrize(("reason", "code"), [(CancelationReason.MANUAL, 1011), (CancelationReason.SHUTDOWN, 1001)])
async def test_cancel_closes_the_websocket(reason: CancelationReason, code: int) -> None:
    app = make(cancelling_itself(work_over_a_socket, reason))
    server = AsgiServer(CONNECT)
    await call(app, socket_scope(), server)
    assert [message["type"] for message in server.sent] == ["websocket.accept", "websocket.close"]
    assert server.sent[1]["code"] == code
    assert not server.readers, "some servers close nothing while somebody reads"
    assert ended(app) == ("cancelled", reason)


@pytest.mark.parametrize("is_accepted", [False, True])
async def test_websocket_whose_job_finds_no_room_is_told_to_try_again(is_accepted: bool) -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if is_accepted:
            await accept(scope, receive, send)
        raise QueueFull("full")

    server = AsgiServer(CONNECT)
    await call(make(application), socket_scope(), server)
    assert server.sent[-1] == {"type": "websocket.close", "code": 1013}


async def test_job_without_room_after_a_websocket_s_end_is_an_error_as_any() -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.close", "code": 1000})
        raise QueueFull("full")

    server = AsgiServer(CONNECT)
    with pytest.raises(QueueFull):
        await call(make(application), socket_scope(), server)
    assert [message["type"] for message in server.sent] == ["websocket.close"]


@pytest.mark.usefixtures("daphne")
@pytest.mark.parametrize(
    ("reason", "code"), [(CancelationReason.MANUAL, 4011), (CancelationReason.SHUTDOWN, 4001), (None, 4013)]
)
async def test_websocket_is_closed_with_a_code_that_daphne_takes(reason: CancelationReason | None, code: int) -> None:
    async def find_no_room(scope: Scope, receive: Receive, send: Send) -> None:
        raise QueueFull("full")

    server = AsgiServer(CONNECT)
    app = make(find_no_room if reason is None else cancelling_itself(work_over_a_socket, reason))
    await call(app, {**socket_scope(), "asgi": {"version": "3.0"}}, server)
    assert server.sent[-1] == {"type": "websocket.close", "code": code}


async def test_websocket_that_works_ends_with_its_client() -> None:
    app = make(work_over_a_socket)
    server = AsgiServer(CONNECT, SOCKET_DISCONNECT)
    await call(app, socket_scope(), server)
    assert ended(app) == ("cancelled", "disconnect")
    assert "websocket.close" not in [message["type"] for message in server.sent], "there is nobody to close it for"


async def test_websocket_that_waits_for_a_message_is_told_by_it() -> None:
    """It may have something to put in order, with as much time as it takes."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await accept(scope, receive, send)
        assert (await receive())["type"] == "websocket.disconnect"
        await anyio.sleep(0.01)

    app = make(application)
    server = AsgiServer(CONNECT)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call, app, socket_scope(), server)
        await becomes_true_soon(lambda: server.taken and server.readers)
        await anyio.wait_all_tasks_blocked()
        server.say(SOCKET_DISCONNECT)
    assert app.registry.get_statistics().completed_operations == 1


async def test_websocket_that_the_application_closed_is_not_closed_again() -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await accept(scope, receive, send)
        own = operation()
        await send({"type": "websocket.close", "code": 1000})
        own.cancel_sync()
        await anyio.sleep(0)

    server = AsgiServer(CONNECT)
    await call(make(application), socket_scope(), server)
    assert [message["type"] for message in server.sent] == ["websocket.accept", "websocket.close"]


# --- what else is there


async def test_client_is_left_in_the_scope_for_what_runs_inside() -> None:
    told = anyio.Event()

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        assert isinstance(scope[CLIENT_KEY], AsgiClient)
        scope[CLIENT_KEY].start(told.set)
        await told.wait()

    server = AsgiServer(DISCONNECT)
    await call(watching_client(watching_client(application)), scope(), server)
    assert told.is_set()
    assert not server.readers


async def test_layers_share_one_client() -> None:
    app = make(wait)
    await call(watching_client(app), scope(), AsgiServer(DISCONNECT))
    assert ended(app) == ("cancelled", "disconnect")


async def test_file_below_a_watching_layer_is_never_given_up() -> None:
    """Its last message is on its way when the client goes: nobody must hear of it before the server has it."""
    server = AsgiServer()
    heard: list[str] = []

    async def hand_over(send: Send) -> None:
        await send({"type": "http.response.pathsend", "path": "/file"})

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await anyio.sleep(0.01)
        server.block()
        async with anyio.create_task_group() as tasks:

            async def listen() -> None:
                heard.append((await receive())["type"])
                assert server.sent, "it was heard before the last byte was out"

            tasks.start_soon(listen)
            tasks.start_soon(hand_over, send)
            await server.sending.wait()
            server.say(DISCONNECT)
            await anyio.wait_all_tasks_blocked()
            server.way_is_free.set()

    await call(watching_client(make(application)), scope(), server)
    assert heard == ["http.disconnect"]


async def test_owner_that_cannot_be_found_out_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    asked = anyio.Event()

    async def fail() -> str | None:
        asked.set()
        raise ZeroDivisionError

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        kept = find_owner_soon(operation(), fail)
        await asked.wait()
        await becomes_true_soon(lambda: caplog.records)
        assert operation().owner is None
        await hello(scope, receive, send)
        assert kept is not None

    await call(make(application), scope(), AsgiServer())
    assert "ZeroDivisionError" in caplog.text


async def test_an_error_while_a_request_ends_leaves_no_scope_behind() -> None:
    def fail(scope: Any) -> str:
        raise LookupError("no route")

    async def begin_only(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def receive() -> Any:
        await anyio.sleep_forever()

    async def send(message: Any) -> None:
        await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group():  # which would complain of a scope that was not left
        with pytest.raises(LookupError, match="no route"):
            scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
            await CancelableAsgi(begin_only, route=fail, registry=OperationStore())(scope, receive, send)
