"""Who reads a request's messages, in which order, and what they say about the client."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import pytest

from cancelable_core.servers import AsgiClient, asgi_client
from cancelable_core.servers.asgi_client import LOOK_AHEAD_BYTES, Message, is_last_message
from tests.core.helpers import becomes_true_soon, in_thread

from .asgi_server import DISCONNECT, SOCKET_DISCONNECT, AsgiServer, body

pytestmark = pytest.mark.anyio

KIBI = 1024


@contextmanager
def client_of(server: AsgiServer, *, is_websocket: bool = False) -> Iterator[AsgiClient]:
    """The client of one request, until the application has returned."""
    client = AsgiClient(server.receive, is_websocket=is_websocket)
    try:
        yield client
    finally:
        client.close()


async def follow(client: AsgiClient, server: AsgiServer) -> list[str]:
    """Follow a client, and wait until its messages are read ahead; what is returned tells of its end."""
    told: list[str] = []
    client.start(lambda: told.append("gone"))
    await becomes_true_soon(lambda: server.readers or told)
    return told


async def settled() -> None:
    """Everything that can happen by itself has happened."""
    await anyio.wait_all_tasks_blocked()


async def read_cancelled(client: AsgiClient) -> Message | None:
    """Read as Starlette's ``is_disconnected()`` does: what is not there already is not waited for."""
    message = None
    with anyio.CancelScope() as scope:
        scope.cancel()
        message = await client.receive()
    return message


# --- the body


async def test_nothing_is_read_ahead_until_somebody_wants_to_follow() -> None:
    first, second = body(b"1"), body(b"2", more=False)
    server = AsgiServer(first, second)
    with client_of(server) as client:
        await settled()
        assert server.taken == 0
        assert await client.receive() is first
        await settled()
        assert server.taken == 1
        assert await client.receive() is second


@pytest.mark.parametrize("read_before", range(6))
async def test_body_is_whole_and_in_order_however_much_of_it_was_read_before(read_before: int) -> None:
    messages = [body(bytes([number])) for number in range(5)] + [body(more=False)]
    server = AsgiServer(*messages)
    with client_of(server) as client:
        read = [await client.receive() for _ in range(read_before)]
        await follow(client, server)
        assert server.taken == 6
        read += [await client.receive() for _ in range(6 - read_before)]
        assert read == messages


async def test_read_that_is_under_way_is_not_joined_by_another() -> None:
    server = AsgiServer()
    read: list[Message] = []
    with client_of(server) as client:

        async def application() -> None:
            read.append(await client.receive())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(application)
            await becomes_true_soon(lambda: server.readers)
            client.start(lambda: None)
            await becomes_true_soon(lambda: client._is_due)
            server.say(body(b"1"))  # the server fails the test where two read
        assert read == [body(b"1")]
        server.say(body(b"2"))
        await becomes_true_soon(lambda: server.taken == 2)
        assert await client.receive() == body(b"2")


async def test_read_that_was_under_way_may_be_given_up() -> None:
    server = AsgiServer()
    with client_of(server) as client:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.receive)
            await becomes_true_soon(lambda: server.readers)
            client.start(lambda: None)
            await becomes_true_soon(lambda: client._is_due)
            tasks.cancel_scope.cancel()
        server.say(body(b"1"), body(b"2", more=False))
        await becomes_true_soon(lambda: server.taken == 2)
        assert [await client.receive() for _ in range(2)] == [body(b"1"), body(b"2", more=False)]


@pytest.mark.parametrize("is_followed", [False, True])
async def test_question_whether_the_client_is_there_costs_no_part_of_the_body(is_followed: bool) -> None:
    server = AsgiServer()
    with client_of(server) as client:
        if is_followed:
            await follow(client, server)
        assert await read_cancelled(client) is None
        server.say(body(b"1"), body(b"2", more=False))
        assert [await client.receive() for _ in range(2)] == [body(b"1"), body(b"2", more=False)]


async def test_message_that_lies_ready_is_handed_out_without_a_checkpoint() -> None:
    server = AsgiServer(body(b"1"), DISCONNECT)
    with client_of(server) as client:
        client.start(lambda: None)
        await becomes_true_soon(lambda: client.has_gone)
        assert [await read_cancelled(client) for _ in range(3)] == [body(b"1"), DISCONNECT, DISCONNECT]


async def test_server_is_not_asked_for_more_than_the_look_ahead() -> None:
    pieces = [body(bytes([number]) * (16 * KIBI)) for number in range(12)]
    server = AsgiServer(*pieces, DISCONNECT)
    told: list[str] = []
    with client_of(server) as client:
        client.start(lambda: told.append("gone"))
        await becomes_true_soon(lambda: server.taken == LOOK_AHEAD_BYTES // (16 * KIBI))
        await settled()
        assert server.taken == LOOK_AHEAD_BYTES // (16 * KIBI)
        for number, piece in enumerate(pieces):
            assert not told or number > 7
            assert await client.receive() == piece
            await settled()
            assert server.taken == min(number + 5, 13)
        assert told == ["gone"]  # as soon as there was room for it
        assert await client.receive() == DISCONNECT


async def test_single_message_may_be_larger_than_the_look_ahead() -> None:
    large = body(b"x" * (1024 * KIBI))
    server = AsgiServer(large, body(b"1"), body(more=False))
    with client_of(server) as client:
        client.start(lambda: None)
        await becomes_true_soon(lambda: server.taken == 1)
        await settled()
        assert server.taken == 1
        assert [await client.receive() for _ in range(3)] == [large, body(b"1"), body(more=False)]


@pytest.mark.parametrize(
    "message", [body(), {"type": "websocket.receive", "text": ""}, {"type": "websocket.receive", "bytes": b""}]
)
async def test_messages_without_content_weigh_something_too(message: Message) -> None:
    server = AsgiServer(*([message] * 10_000))
    with client_of(server) as client:
        client.start(lambda: None)
        await becomes_true_soon(lambda: server.taken)
        await settled()
        assert server.taken <= 1_000


# --- the client that leaves


async def test_client_that_leaves_is_told_of_once() -> None:
    server = AsgiServer()
    with client_of(server) as client:
        told = await follow(client, server)
        assert not client.has_gone
        server.say(DISCONNECT)
        await becomes_true_soon(lambda: told)
        client.start(lambda: told.append("again"))
        await settled()
        assert (told, client.has_gone) == (["gone"], True)


@pytest.mark.parametrize("is_followed", [False, True])
async def test_what_the_server_said_once_is_said_again(is_followed: bool) -> None:
    server = AsgiServer(body(b"1"), DISCONNECT)
    with client_of(server) as client:
        if is_followed:
            client.start(lambda: None)
            await becomes_true_soon(lambda: client.has_gone)
        assert [await client.receive() for _ in range(4)] == [body(b"1"), DISCONNECT, DISCONNECT, DISCONNECT]


async def test_read_of_the_application_s_own_tells_too() -> None:
    server = AsgiServer()
    told: list[str] = []
    with client_of(server) as client:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.receive)
            await becomes_true_soon(lambda: server.readers)
            client.start(lambda: told.append("gone"))
            await settled()
            server.say(DISCONNECT)
        await becomes_true_soon(lambda: told)


async def test_start_after_it_was_seen_tells_at_once() -> None:
    server = AsgiServer(DISCONNECT)
    told: list[str] = []
    with client_of(server) as client:
        await client.receive()
        client.start(lambda: told.append("gone"))
        assert told == ["gone"]


async def test_start_comes_from_any_thread() -> None:
    server = AsgiServer()
    told: list[str] = []
    with client_of(server) as client:
        in_thread(client.start, lambda: told.append("gone"))
        server.say(DISCONNECT)
        await becomes_true_soon(lambda: told)


@pytest.mark.parametrize("from_a_thread", [False, True])
async def test_stop_is_for_good(from_a_thread: bool) -> None:
    server = AsgiServer(body(b"1"))
    with client_of(server) as client:
        told = await follow(client, server)
        if from_a_thread:
            in_thread(client.stop)
        else:
            client.stop()
        client.start(lambda: told.append("started again"))
        server.say(DISCONNECT)
        await becomes_true_soon(lambda: client.has_gone)
        await settled()
        assert told == []
        assert [await client.receive() for _ in range(2)] == [body(b"1"), DISCONNECT]  # what was read ahead is not lost


@pytest.mark.parametrize("from_a_thread", [False, True])
async def test_what_was_stopped_before_does_not_start(from_a_thread: bool) -> None:
    server = AsgiServer(DISCONNECT)
    with client_of(server) as client:
        client.stop()
        if from_a_thread:
            in_thread(client.start, pytest.fail)
        else:
            client.start(pytest.fail)
        await settled()
        assert server.taken == 0


# --- the end of the response


async def test_client_that_has_its_answer_may_leave() -> None:
    server = AsgiServer()
    with client_of(server) as client:
        told = await follow(client, server)
        client.sending_last()
        server.say(DISCONNECT)
        await becomes_true_soon(lambda: server.taken)
        client.sent_last()
        await settled()
        assert (told, client.has_gone) == ([], False)


@pytest.mark.parametrize("is_followed", [False, True])
async def test_application_hears_of_the_end_only_once_the_last_bytes_are_out(is_followed: bool) -> None:
    server = AsgiServer()
    read: list[Message] = []
    with client_of(server) as client:

        async def listen() -> None:
            read.append(await client.receive())

        if is_followed:
            await follow(client, server)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listen)
            await settled()
            client.sending_last()
            server.say(DISCONNECT)
            await becomes_true_soon(lambda: server.taken)
            await settled()
            assert read == [], "the rest of a file would be given up"
            client.sent_last()
        assert read == [DISCONNECT]


async def test_messages_before_the_last_end_nothing() -> None:
    server = AsgiServer()
    with client_of(server) as client:
        told = await follow(client, server)
        server.say(DISCONNECT)
        await becomes_true_soon(lambda: told)


async def test_server_that_has_nothing_to_say_after_a_response_keeps_nobody_waiting() -> None:
    server = AsgiServer(body(more=False))
    with client_of(server) as client:
        await follow(client, server)
        client.sending_last()
        client.sent_last()
        assert [await client.receive() for _ in range(3)] == [body(more=False), DISCONNECT, DISCONNECT]


@pytest.mark.parametrize(
    ("message", "is_last"),
    [
        ({"type": "http.response.start", "status": 200}, False),
        ({"type": "http.response.body", "body": b"x", "more_body": True}, False),
        ({"type": "http.response.body", "body": b"x", "more_body": False}, True),
        ({"type": "http.response.body"}, True),
        ({"type": "http.response.zerocopysend", "file": 3, "more_body": True}, False),
        ({"type": "http.response.zerocopysend", "file": 3}, True),
        ({"type": "http.response.pathsend", "path": "/x"}, True),
        ({"type": "http.response.debug"}, False),
        ({"type": "websocket.accept"}, False),
        ({"type": "websocket.send", "text": ""}, False),
        ({"type": "websocket.close"}, True),
        ({"type": "websocket.http.response.start", "status": 403}, False),
        ({"type": "websocket.http.response.body", "body": b""}, True),
    ],
)
def test_last_message(message: Message, is_last: bool) -> None:
    assert is_last_message(message) is is_last


# --- the task that reads ahead


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # trio has no cheap timer
async def test_request_that_ends_soon_starts_no_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi_client, "GRACE_SECONDS", 0.0)
    server = AsgiServer(DISCONNECT)
    for end in (lambda client: client.sending_last(), AsgiClient.close, AsgiClient.stop):
        with client_of(server) as client:
            client.start(pytest.fail)
            end(client)
            await anyio.sleep(0.001)  # the time of grace is over
            await settled()
            assert server.taken == 0


async def test_nothing_is_read_ahead_during_the_time_of_grace(monkeypatch: pytest.MonkeyPatch, anyio_backend_name: str) -> None:
    monkeypatch.setattr(asgi_client, "GRACE_SECONDS", 3_600.0)
    server = AsgiServer(body(b"1"))
    with client_of(server) as client:
        client.start(lambda: None)
        await settled()
        assert server.taken == (1 if anyio_backend_name == "trio" else 0)


async def test_close_frees_the_server() -> None:
    server = AsgiServer(body(b"1"))
    with client_of(server) as client:
        await follow(client, server)
        client.close()
        await becomes_true_soon(lambda: not server.readers)
        server.say(body(b"2"))
        assert [await client.receive() for _ in range(2)] == [body(b"1"), body(b"2")]


async def test_close_before_the_task_has_begun_reads_nothing() -> None:
    server = AsgiServer(body(b"1"))
    with client_of(server) as client:
        client.start(pytest.fail)
        client._is_due_now()  # in this very step of the loop
        client.close()
        await settled()
        assert server.taken == 0


async def test_stop_reading_waits_until_the_server_is_free() -> None:
    server = AsgiServer()
    with client_of(server) as client:
        await follow(client, server)
        await client.stop_reading()
        assert not server.readers
        await client.stop_reading()  # nothing to wait for


async def test_server_that_lets_no_read_go_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi_client, "LAST_SECONDS", 0.01)
    server = AsgiServer()

    async def receive() -> Message:
        with anyio.CancelScope(shield=True):
            return await server.receive()

    client = AsgiClient(receive)
    await follow(client, server)
    with anyio.fail_after(10):
        await client.stop_reading()
    assert server.readers
    server.say(DISCONNECT)
    await becomes_true_soon(lambda: not server.readers)


async def test_error_of_the_server_is_the_application_s_to_meet() -> None:
    server = AsgiServer(body(b"1"), ZeroDivisionError("the server's"))
    with client_of(server) as client:
        client.start(pytest.fail)
        await becomes_true_soon(lambda: server.taken == 2)
        assert await client.receive() == body(b"1")
        for _ in range(2):
            with pytest.raises(ZeroDivisionError, match="the server's"):
                await client.receive()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_task_that_a_server_ends_loses_nothing() -> None:
    """asyncio servers may cancel whatever runs on their loop, and futures of theirs."""
    server = AsgiServer(body(b"1"))
    with client_of(server) as client:
        await follow(client, server)
        assert await client.receive() == body(b"1")
        read = asyncio.ensure_future(client.receive())
        await settled()
        server.say(asyncio.CancelledError(), body(b"2"))
        assert await read == body(b"2")


# --- WebSockets

TEXT: Message = {"type": "websocket.receive", "text": "x"}


async def test_websocket_s_application_that_works_is_told() -> None:
    server = AsgiServer(TEXT)
    with client_of(server, is_websocket=True) as client:
        told = await follow(client, server)
        server.say(SOCKET_DISCONNECT)
        await becomes_true_soon(lambda: told)
        assert [await client.receive() for _ in range(3)] == [TEXT, SOCKET_DISCONNECT, SOCKET_DISCONNECT]


@pytest.mark.parametrize("is_followed", [False, True])
async def test_websocket_s_application_that_waits_hears_by_the_message(is_followed: bool) -> None:
    server = AsgiServer()
    read: list[Message] = []
    with client_of(server, is_websocket=True) as client:

        async def application() -> None:
            read.append(await client.receive())

        if is_followed:
            await follow(client, server)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(application)
            await settled()
            if not is_followed:
                client.start(pytest.fail)
            server.say(SOCKET_DISCONNECT)
        await settled()
        assert read == [SOCKET_DISCONNECT]


async def test_websocket_that_we_close_waits_for_the_server_s_last_word() -> None:
    server = AsgiServer()
    read: list[Message] = []
    with client_of(server, is_websocket=True) as client:

        async def application() -> None:
            read.append(await client.receive())

        await follow(client, server)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(application)
            client.sending_last()
            client.sent_last()
            await settled()
            assert not read
            server.say({"type": "websocket.disconnect", "code": 1000})
        assert read == [{"type": "websocket.disconnect", "code": 1000}]
        assert not client.has_gone
