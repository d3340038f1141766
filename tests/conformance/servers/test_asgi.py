"""Every ASGI server, in a process of its own, with FastAPI, Django and a bare application: clients leave, time runs out.

The counts are kept small for everyday runs; ``CANCELABLE_FULL_COUNTS=1`` raises them to what the project promises.
"""

from __future__ import annotations

import random
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from cancelable_core.testing import LeavingClient

from .launching import ASGI_SERVERS, DEADLINE_SECONDS, ServerKind, soon
from .served import (
    FULL,
    LAST_CHUNK,
    LEAVE,
    REQUESTS,
    TRIALS,
    Served,
    connection_of,
    connections_kept,
    different_answers,
    digest,
    each_once,
    fill_the_pool,
    load,
    open_files,
    over,
    receive_until,
    slowly,
    steady,
    threads,
)

pytestmark = pytest.mark.slow

VIEWS = [
    "fastapi/await",
    "fastapi/wait",
    "layered/await",
    "layered/wait",
    "django/await",
    "django/wait",
    "old-django/await",
    "old-django/wait",
    "older-django/await",
    "older-django/wait",
    "bare/await",
]
STREAMS = ["fastapi/stalled", "fastapi/await-stalled", "fastapi/managed-stalled", "django/await-stalled", "bare/await-stalled"]
FRAMEWORKS = ["fastapi", "django"]
UPLOAD_BYTES = 400_000_000 if FULL else 40_000_000

RUNS_ON_TRIO = frozenset({"hypercorn-trio"})
"""Django's ASGI handler and a2wsgi need asyncio."""
HIDES_ENDS_BEHIND_REQUESTS = frozenset(
    {"uvicorn-h11", "uvicorn-httptools", "hypercorn-asyncio", "hypercorn-trio", "granian-asgi"}
)
"""They read no further than the next request, until it is its turn."""
READS_BODIES_FIRST = frozenset({"daphne"})
"""The application is called when all of the body has come."""
ENDS_CUT_STREAMS_IN_ORDER = frozenset({"daphne"})
"""Its client would wait for ever, so that we end them."""
HAS_CLOSE_CODES_OF_ITS_OWN = frozenset({"daphne"})
"""What is beyond 3000 in the others' place: applications may use no other."""
KEEPS_FILES_CONNECTIONS_OPEN = frozenset({"hypercorn-trio"})
"""Now and then, after the last byte, and whatever it serves."""


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[ServerKind], Served]]:
    with each_once("tests.conformance.servers.apps.asgi:app", "/fastapi/jobs", tmp_path_factory) as start:
        yield start


def needs_asyncio(server: Served, path: str) -> None:
    if server.kind.name in RUNS_ON_TRIO and ("django" in path or "flask" in path):
        pytest.skip("Django and a2wsgi need asyncio")


# --- clients that leave


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("leave", LEAVE)
@over(ASGI_SERVERS)
def test_client_that_leaves_a_working_view_cancels_it(
    server: Served, view: str, leave: Callable[[LeavingClient], None]
) -> None:
    needs_asyncio(server, view)
    delays: list[float] = []
    for _ in range(TRIALS):
        client, key = server.leaving(f"/{view}")
        time.sleep(0.4 if FULL else 0.01)  # into the view's work, past the time in which nobody is followed
        left_at = time.monotonic()
        leave(client)
        delays.append(server.event("finally", key=key)["at"] - left_at)
    ended = server.ended(key)
    assert (ended["status"], ended["reason"]) == ("cancelled", "disconnect")
    assert max(delays) < DEADLINE_SECONDS / 2
    if FULL:
        p95 = statistics.quantiles(delays, n=20)[-1]
        print(f"\n{server.kind.name} {view} {leave.__name__}: p95 {p95 * 1e3:.1f} ms, worst {max(delays) * 1e3:.1f} ms")


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("leave", LEAVE)
@over(ASGI_SERVERS)
def test_client_that_leaves_a_stalled_stream_closes_its_source(
    server: Served, stream: str, leave: Callable[[LeavingClient], None]
) -> None:
    needs_asyncio(server, stream)
    client, key = server.leaving(f"/{stream}")
    client.read_until(b"first")
    leave(client)
    server.event("finally", key=key)
    ended = server.ended(key)
    assert (ended["status"], ended["reason"]) == ("cancelled", "disconnect")


@pytest.mark.parametrize("stream", STREAMS)
@over(ASGI_SERVERS)
def test_stalled_stream_that_is_cancelled_is_cut(server: Served, stream: str) -> None:
    needs_asyncio(server, stream)
    client, key = server.leaving(f"/{stream}")
    with client:
        client.read_until(b"first")
        asked_at = time.monotonic()
        server.cancel(key)
        delay = server.event("finally", key=key)["at"] - asked_at
        received = _what_is_left(client, server)
        assert b"last" not in received
    assert server.ended(key)["reason"] == "manual"
    if FULL:
        print(f"\n{server.kind.name} {stream}: closed {delay * 1e3:.1f} ms after the cancel was asked for")


def _what_is_left(client: LeavingClient, server: Served) -> bytes:
    """All of a stream that was cut; it must not look complete."""
    if server.kind.name in ENDS_CUT_STREAMS_IN_ORDER:
        return client.read_until(LAST_CHUNK)
    try:
        received = client.read_to_end()
    except ConnectionError:
        return b""
    assert not received.endswith(LAST_CHUNK), "it would look complete"
    return received


@pytest.mark.parametrize("app", FRAMEWORKS)
@over([kind for kind in ASGI_SERVERS if kind.name not in HIDES_ENDS_BEHIND_REQUESTS])
def test_request_that_was_sent_ahead_does_not_hide_the_client_s_end(server: Served, app: str) -> None:
    client, key = server.leaving(f"/{app}/await")
    client.send("GET", f"/{app}/hello")
    client.leave()
    server.event("finally", key=key)
    assert server.ended(key)["reason"] == "disconnect"


@pytest.mark.parametrize("app", FRAMEWORKS)
@over(ASGI_SERVERS)
def test_half_closed_connection_counts_as_left(server: Served, app: str) -> None:
    needs_asyncio(server, app)
    client, key = server.leaving(f"/{app}/await")
    client.close_sending()
    server.event("finally", key=key)
    assert server.ended(key)["reason"] == "disconnect"
    client.leave()


@pytest.mark.parametrize("app", ["fastapi", "layered", "old-django"])
@over(ASGI_SERVERS)
def test_route_that_does_not_follow_its_client_runs_to_its_end(server: Served, app: str) -> None:
    needs_asyncio(server, app)
    client, key = server.leaving(f"/{app}/unfollowed")
    client.leave()
    other, other_key = server.leaving(f"/{app}/await")
    other.leave()
    server.event("finally", key=other_key)  # the server has had its chance
    server.events.open(key)
    server.event("done", key=key)


@pytest.mark.parametrize("view", ["fastapi/ask", "django/ask", "old-django/ask", "older-django/ask"])
@over(ASGI_SERVERS)
def test_view_that_the_server_has_left_behind_still_finds_its_operation(server: Served, view: str) -> None:
    needs_asyncio(server, view)
    client, key = server.leaving(f"/{view}")
    client.leave()
    assert server.event("stopped", key=key)["reason"] == "disconnect"
    assert server.ended(key)["status"] == "cancelled"


@pytest.mark.parametrize("stream", ["old-django/stalled", "older-django/stalled"])
@over([kind for kind in ASGI_SERVERS if kind.name not in RUNS_ON_TRIO])
def test_client_that_leaves_a_plain_stream_on_django_ends_it(server: Served, stream: str) -> None:
    """Django takes all of it before it sends any; only `wrap` tells of the client meanwhile."""
    client, key = server.leaving(f"/{stream}")
    client.leave()
    server.event("finally", key=key)
    ended = server.ended(key)
    assert (ended["status"], ended["reason"]) == ("cancelled", "disconnect")


@pytest.mark.parametrize(
    "view",
    [
        "fastapi/await",
        "fastapi/await-stalled",
        "django/await",
        "django/wait",
        "old-django/wait",
        "older-django/await",
        "older-django/wait",
    ],
)
@over(ASGI_SERVERS)
def test_client_that_leaves_is_logged_once_and_without_a_traceback(server: Served, view: str) -> None:
    needs_asyncio(server, view)
    before = _log_until_now(server)
    client, key = server.leaving(f"/{view}")
    client.leave()
    operation_id = server.ended(key)["id"]
    (line,) = soon(partial(server.cancels_logged, operation_id))
    assert "INFO" in line
    after = _log_until_now(server)
    since, since_nothing = after[len(before) :], _log_until_now(server)[len(after) :]
    assert _errors(since) == _errors(since_nothing), since


def _log_until_now(server: Served) -> str:
    """The log up to an error that is made here: daphne says only after a while what became of a request."""
    key = uuid4().hex
    server.get(f"/bare/fail/{key}")
    error = f"LookupError: {key}"
    soon(lambda: error in server.running.log)
    return server.running.log.partition(error)[0]


def _errors(log: str) -> tuple[int, int]:
    return log.count("Traceback"), log.count("ERROR")


@pytest.mark.parametrize("way", ["flask", "wrapped-flask"])
@over(ASGI_SERVERS)
def test_client_that_leaves_flask_behind_a2wsgi_cancels_its_view(server: Served, way: str) -> None:
    needs_asyncio(server, way)
    client, key = server.leaving(f"/{way}/wait")
    client.leave()
    assert server.event("stopped", key=key)["reason"] == "disconnect"
    assert server.ended(key)["status"] == "cancelled"


# --- what a client that left, or stayed, must not disturb


@pytest.mark.parametrize("app", FRAMEWORKS)
@over(ASGI_SERVERS)
def test_keep_alive_pipelining_and_clients_that_leave_do_not_disturb_each_other(server: Served, app: str) -> None:
    needs_asyncio(server, app)
    pid = server.running.process.pid
    most_threads = fill_the_pool(server, f"/{app}/wait")  # those of plain views come and go
    files, _ = soon(lambda: steady(pid))
    cancelled_before = _cancelled(server)
    left = load(server, f"/{app}/await-quick", f"/{app}/await", REQUESTS)
    assert server.get(f"/{app}/hello").text == "hello"
    soon(lambda: _cancelled(server)["disconnect"] - cancelled_before.get("disconnect", 0) >= len(left))
    since = {reason: count - cancelled_before.get(reason, 0) for reason, count in _cancelled(server).items()}
    assert {reason for reason, count in since.items() if count} == {"disconnect"}
    soon(lambda: open_files(pid) <= files)
    # without us as well, Django's threads for requests that were sent ahead stay until garbage is collected: uvicorn and daphne
    # start those in the context of the one before, whose place for threads asgiref has closed by then
    server.get(f"/bare/collect/{uuid4().hex}")
    soon(lambda: threads(pid) <= most_threads)


def _cancelled(server: Served) -> dict[str, int]:
    """How many requests were cancelled, by reason."""
    found: dict[str, int] = server.get(f"{server.jobs}/stats?kind=request").json()["by_reason"]
    return found


@pytest.mark.parametrize("app", ["fastapi", "layered"])
@over(ASGI_SERVERS)
def test_background_tasks_run_to_their_end(server: Served, app: str) -> None:
    """Of whom the client takes the answer from and leaves; of whom it stays connected to the server."""
    for leaves in (True, False):
        key = uuid4().hex
        with server.running.leaving() as client:
            client.send("GET", f"/{app}/background/{key}")
            client.read_until(b"started")
            if leaves:
                client.leave()
                other, other_key = server.leaving(f"/{app}/await")
                other.leave()
                server.event("finally", key=other_key)  # the server has had its chance
            server.events.open(key)
            server.event("background", key=key)


@pytest.mark.parametrize("app", ["fastapi", "layered"])
@over(ASGI_SERVERS)
def test_files_are_never_truncated(server: Served, app: str) -> None:
    with server.running.client() as client:
        for _ in range(3):
            assert len(client.get(f"/{app}/late-file").content) == 1_000_000
            assert len(client.get(f"/{app}/late-file", headers={"Range": "bytes=5-100004"}).content) == 100_000


# --- time limits


@pytest.mark.parametrize("view", ["fastapi/await-too-long", "fastapi/too-long", "django/await-too-long", "django/too-long"])
@over(ASGI_SERVERS)
def test_request_that_takes_too_long_is_answered_504(server: Served, view: str) -> None:
    needs_asyncio(server, view)
    key = uuid4().hex
    answer = server.get(f"/{view}/{key}")
    assert (answer.status_code, answer.json()["type"]) == (504, "urn:cancelable:timed-out")
    server.event("finally", key=key)
    assert server.ended(key)["status"] == "timed_out"


@pytest.mark.parametrize("stream", ["fastapi/limited-stream", "django/await-limited-stream"])
@over(ASGI_SERVERS)
def test_stalled_stream_is_cut_at_its_route_s_limit(server: Served, stream: str) -> None:
    needs_asyncio(server, stream)
    client, key = server.leaving(f"/{stream}")
    with client:
        received = _what_is_left(client, server)
        assert b"last" not in received
    server.event("finally", key=key)
    assert server.ended(key)["status"] == "timed_out"


@over([kind for kind in ASGI_SERVERS if kind.name not in RUNS_ON_TRIO])
def test_plain_stream_on_django_is_cut_before_any_of_it_was_sent(server: Served) -> None:
    """Django takes all of it first: nothing was sent but the start, and that not by every server."""
    key = uuid4().hex
    with server.running.leaving() as client:
        client.send("GET", f"/django/limited-stream/{key}", headers={"Connection": "close"})
        received = _what_is_left(client, server)
        assert (b"first" in received) is (server.kind.name in ENDS_CUT_STREAMS_IN_ORDER)
        assert b"last" not in received
    server.event("finally", key=key)
    assert server.ended(key)["status"] == "timed_out"


# --- bodies


@pytest.mark.parametrize("app", ["fastapi", "layered"])
@over(ASGI_SERVERS)
def test_request_bodies_arrive_whole_and_in_order(server: Served, app: str) -> None:
    data = random.Random(app).randbytes(1_000_000)
    with server.running.client() as client:
        text = data.hex()[:1000]
        assert client.post(f"/{app}/json", json={"text": text}).text == digest(text.encode())
        assert client.post(f"/{app}/upload", files={"file": ("a.bin", data)}).text == digest(data)
        for path in ("body", "asking"):
            assert client.post(f"/{app}/{path}", content=data).text == digest(data)
            slow = client.post(f"/{app}/{path}", content=slowly(data), headers={"Content-Length": str(len(data))})
            assert slow.text == digest(data)
            assert client.post(f"/{app}/{path}", content=slowly(data)).text == digest(data)  # in chunks


@pytest.mark.parametrize("app", ["django", "old-django"])
@over([kind for kind in ASGI_SERVERS if kind.name not in RUNS_ON_TRIO])
def test_request_bodies_arrive_whole_and_in_order_on_django(server: Served, app: str) -> None:
    data = random.Random(app).randbytes(1_000_000)
    with server.running.client() as client:
        text = data.hex()[:1000]
        assert client.post(f"/{app}/json", json={"text": text}).text == digest(text.encode())
        assert client.post(f"/{app}/upload", files={"file": ("a.bin", data)}).text == digest(data)
        for path in ("body", "await-body"):
            assert client.post(f"/{app}/{path}", content=data).text == digest(data)
            assert client.post(f"/{app}/{path}", content=slowly(data)).text == digest(data)


@pytest.mark.parametrize("app", ["fastapi", "django"])
@over(ASGI_SERVERS)
def test_client_that_waits_to_be_told_to_continue_is_told(server: Served, app: str) -> None:
    needs_asyncio(server, app)
    data = b"x" * 10_000
    head = f"POST /{app}/body HTTP/1.1\r\nHost: 127.0.0.1\r\nExpect: 100-continue\r\nContent-Length: {len(data)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.running.port), timeout=DEADLINE_SECONDS) as connection:
        connection.sendall(head.encode())
        received = receive_until(connection, b"\r\n\r\n")
        assert received.startswith(b"HTTP/1.1 100 "), received
        connection.sendall(data)
        receive_until(connection, digest(data).encode())


@over([kind for kind in ASGI_SERVERS if kind.name not in READS_BODIES_FIRST])
def test_large_body_that_nobody_reads_costs_no_memory(server: Served) -> None:
    key = uuid4().hex
    pid = _worker(server)
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak starts anew
    before = _peak_bytes(pid)
    with _uploading(server, f"/fastapi/late/{key}", UPLOAD_BYTES) as connection:
        sending = threading.Thread(target=_send_zeros, args=(connection, UPLOAD_BYTES), daemon=True)
        sending.start()
        server.event("begun", key=key)
        sending.join(0.3)  # long enough to send all of it, if somebody took it
        assert sending.is_alive()
        server.events.open(key)
        receive_until(connection, str(UPLOAD_BYTES).encode())
        sending.join(DEADLINE_SECONDS)
    growth = _peak_bytes(pid) - before
    if FULL:
        print(f"\n{server.kind.name}: {UPLOAD_BYTES / 1e6:.0f} MB, {growth / 1e6:.1f} MB more at most")
    assert growth < 20_000_000


@over([kind for kind in ASGI_SERVERS if kind.name not in READS_BODIES_FIRST])
def test_client_that_leaves_in_the_middle_of_a_body_is_noticed_once_it_is_read(server: Served) -> None:
    key = uuid4().hex
    with _uploading(server, f"/fastapi/late/{key}", 1_000_000) as connection:
        server.event("begun", key=key)
        _send_zeros(connection, 500_000)
    server.events.open(key)
    assert server.ended(key)["reason"] == "disconnect"


def _uploading(server: Served, path: str, length: int) -> socket.socket:
    """A connection on which a body of this length is announced."""
    connection = socket.create_connection(("127.0.0.1", server.running.port), timeout=DEADLINE_SECONDS)
    connection.sendall(f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {length}\r\n\r\n".encode())
    return connection


def _send_zeros(connection: socket.socket, length: int) -> None:
    piece = bytes(100_000)
    for _ in range(length // len(piece)):
        connection.sendall(piece)


def _worker(server: Served) -> int:
    """The process that serves: the only child, where there is one."""
    pid = server.running.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[-1]) if children else pid


def _peak_bytes(pid: int) -> int:
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


# --- everything else is as it is without the suite


@pytest.mark.parametrize("app", FRAMEWORKS)
@over(ASGI_SERVERS)
def test_responses_are_those_of_the_application_without_the_suite(server: Served, app: str) -> None:
    needs_asyncio(server, app)
    without = {"file"} if server.kind.name in KEEPS_FILES_CONNECTIONS_OPEN else set[str]()
    assert different_answers(server, app, without) == []


@pytest.mark.parametrize("app", FRAMEWORKS)
@over(ASGI_SERVERS)
def test_connections_are_kept_as_without_the_suite(server: Served, app: str) -> None:
    needs_asyncio(server, app)
    kept = connections_kept(server, app)
    assert kept == connections_kept(server, f"plain-{app}")
    assert kept[0]
    with server.running.client() as client:
        timed_out = client.get(f"/{app}/limited/{uuid4().hex}")
        assert timed_out.status_code == 504
        assert connection_of(client.get(f"/{app}/hello")) is connection_of(timed_out)


# --- WebSockets


def _socket(server: Served, path: str) -> ClientConnection:
    return connect(f"ws://127.0.0.1:{server.running.port}{path}", close_timeout=1)


@pytest.mark.parametrize("how", ["client leaves", "cancelled"])
@pytest.mark.parametrize("app", ["fastapi", "layered"])
@over(ASGI_SERVERS)
def test_websocket_that_works_is_cancelled(server: Served, app: str, how: str) -> None:
    key = uuid4().hex
    with _socket(server, f"/{app}/working/{key}") as connection:
        assert connection.recv() == "accepted"
        server.event("begun", key=key)
        if how == "cancelled":
            server.cancel(key)
            with pytest.raises(ConnectionClosed) as closed:
                connection.recv(DEADLINE_SECONDS)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == (4011 if server.kind.name in HAS_CLOSE_CODES_OF_ITS_OWN else 1011)
    server.event("finally", key=key)
    assert server.ended(key)["reason"] == ("disconnect" if how == "client leaves" else "manual")


@over(ASGI_SERVERS)
def test_websocket_that_waits_for_a_message_is_told_by_it(server: Served) -> None:
    key = uuid4().hex
    with _socket(server, f"/fastapi/echo/{key}") as connection:
        server.event("begun", key=key)
        for number in range(50):
            connection.send(str(number))
        assert [connection.recv(DEADLINE_SECONDS) for _ in range(50)] == [str(number) for number in range(50)]
    assert server.event("disconnected", key=key)["code"] in {1000, 1005, 1006}
