"""Every WSGI server, in a process of its own, with Flask, Django and a bare application: clients leave, time runs out.

The counts are kept small for everyday runs; ``CANCELABLE_FULL_COUNTS=1`` raises them to what the project promises.
"""

from __future__ import annotations

import random
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib import metadata
from uuid import uuid4

import pytest

from cancelable_core.testing import LeavingClient

from .launching import DEADLINE_SECONDS, WSGI_SERVERS, ServerKind, soon
from .served import (
    ANSWERS_ONE_AT_A_TIME,
    FULL,
    KEEPS_NO_CONNECTION,
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

TELLING = [server for server in WSGI_SERVERS if server.detects_disconnect]
SILENT = [server for server in WSGI_SERVERS if not server.detects_disconnect]
APPS = ["flask", "django", "bare"]
FRAMEWORKS = ["flask", "django"]

NEVER_SAYS_CONTINUE = frozenset({"uwsgi"})
"""Whatever it serves."""
NEVER_CLOSES_A_LEFT_STREAM = frozenset({"hypercorn-wsgi"})
"""It goes on to its end, and what it yields goes nowhere."""
HIDES_ENDS_BEHIND_REQUESTS = frozenset({"waitress"})
"""It reads no further than its lookahead."""
GRANIAN = tuple(int(part) for part in metadata.version("granian").split(".")[:3])
ENDS_BROKEN_STREAMS_IN_ORDER = frozenset({"granian-wsgi"} if GRANIAN < (2, 8, 9) else ())
"""It takes an error for the end, so that what was cut looks complete."""


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[ServerKind], Served]]:
    with each_once("tests.conformance.servers.apps.wsgi:app", "/flask/jobs", tmp_path_factory) as start:
        yield start


# --- clients that leave


@pytest.mark.parametrize("app", APPS)
@pytest.mark.parametrize("leave", LEAVE)
@over(TELLING)
def test_client_that_leaves_a_working_view_cancels_it(
    server: Served, app: str, leave: Callable[[LeavingClient], None], record_property: Callable[[str, object], None]
) -> None:
    delays: list[float] = []
    for _ in range(TRIALS):
        client, key = server.leaving(f"/{app}/wait")
        if FULL:
            time.sleep(0.4)  # as long as it takes a person to press a button
        left_at = time.monotonic()
        leave(client)
        assert server.event("stopped", key=key)["reason"] == "disconnect"
        delays.append(server.event("stopped", key=key)["at"] - left_at)
    ended = server.ended(key)
    assert (ended["status"], ended["reason"]) == ("cancelled", "disconnect")
    assert max(delays) < DEADLINE_SECONDS / 2
    if len(delays) > 2:
        print(f"p95 {server.kind.name} {app} {leave.__name__}: {statistics.quantiles(delays, n=20)[-1] * 1000:.1f} ms")


@over(TELLING)
def test_client_that_leaves_an_async_view_interrupts_it(server: Served) -> None:
    client, key = server.leaving("/flask/await")
    client.leave()
    server.event("finally", key=key)
    ended = server.ended(key)
    assert (ended["status"], ended["reason"]) == ("cancelled", "disconnect")


@pytest.mark.parametrize("app", FRAMEWORKS)
@over([kind for kind in TELLING if kind.name not in HIDES_ENDS_BEHIND_REQUESTS])
def test_request_that_was_sent_ahead_does_not_hide_the_client_s_end(server: Served, app: str) -> None:
    client, key = server.leaving(f"/{app}/wait")
    client.send("GET", f"/{app}/hello")
    client.leave()
    assert server.event("stopped", key=key)["reason"] == "disconnect"


@pytest.mark.parametrize("app", APPS)
@pytest.mark.parametrize("leave", LEAVE)
@over(TELLING)
def test_client_that_leaves_a_stalled_stream_cancels_it(
    server: Served, app: str, leave: Callable[[LeavingClient], None]
) -> None:
    client, key = server.leaving(f"/{app}/stalled")
    client.read_until(b"first")
    leave(client)
    server.event("finally", key=key)
    ended = server.ended(key)
    assert (ended["status"], ended["reason"]) == ("cancelled", "disconnect")


@pytest.mark.parametrize("app", FRAMEWORKS)
@over([kind for kind in WSGI_SERVERS if kind.name not in NEVER_CLOSES_A_LEFT_STREAM])
def test_client_that_leaves_a_running_stream_ends_it_wherever_the_server_closes_it(server: Served, app: str) -> None:
    """By ``close()`` (PEP 3333), which every server calls: its route does not follow the client."""
    client, key = server.leaving(f"/{app}/endless")
    client.read_until(b"chunk")
    client.reset()
    server.event("finally", key=key)
    ended = server.ended(key)
    assert (ended["status"], ended["reason"], ended["origin"]) == ("cancelled", "disconnect", "closed")


@pytest.mark.parametrize("app", FRAMEWORKS)
@over(TELLING)
def test_half_closed_connection_counts_as_left(server: Served, app: str) -> None:
    client, key = server.leaving(f"/{app}/wait")
    client.close_sending()
    assert server.event("stopped", key=key)["reason"] == "disconnect"
    client.leave()


@pytest.mark.parametrize("app", FRAMEWORKS)
@over(TELLING)
def test_route_that_does_not_follow_its_client_runs_to_its_end(server: Served, app: str) -> None:
    client, key = server.leaving(f"/{app}/unfollowed")
    client.leave()
    if server.kind.name not in ANSWERS_ONE_AT_A_TIME:
        other, other_key = server.leaving(f"/{app}/wait")
        other.leave()
        server.event("stopped", key=other_key)  # the watcher is awake, and has had its chance
    server.events.open(key)
    server.event("done", key=key)


@pytest.mark.parametrize("app", FRAMEWORKS)
@over(TELLING)
def test_client_that_leaves_is_logged_once_and_without_a_traceback(server: Served, app: str) -> None:
    for path in (f"/{app}/wait", f"/{app}/stalled"):
        before = len(server.running.log)
        client, key = server.leaving(path)
        client.leave()
        operation_id = server.ended(key)["id"]
        (line,) = soon(partial(server.cancels_logged, operation_id))
        assert "INFO" in line
        since = server.running.log[before:]
        assert "OperationCancelled" not in since
        assert "BrokenPipeError" not in since


@over(SILENT)
def test_server_that_cannot_tell_says_so_once(server: Served) -> None:
    for app in ("flask", "django", "flask"):
        client, key = server.leaving(f"/{app}/wait")
        client.leave()
        if server.kind.name == "waitress-lookahead-0":
            assert server.log_of("channel_request_lookahead=1")
        path = f"/{app}/jobs/{server.event('begun', key=key)['id']}"
        with server.running.client() as other:
            assert other.post(f"{path}/cancel", headers={"X-User": "root"}).status_code == 202
        assert server.event("stopped", key=key)["reason"] == "manual"
    assert len(server.log_of("not cancelled when their client leaves")) == 1


# --- what a client that left, or stayed, must not disturb


@pytest.mark.parametrize("app", FRAMEWORKS)
@over(TELLING)
def test_what_a_left_request_has_started_runs_to_its_end(server: Served, app: str) -> None:
    key = uuid4().hex
    client = server.running.leaving()
    client.send("GET", f"/{app}/starting/{key}?wait")
    server.event("begun", key=key)
    client.leave()
    server.event("stopped", key=key)
    if app == "flask":
        assert server.event("after", key=key)["status"] == 499
        server.event("closed", key=key)
    server.events.open(key)
    server.event("job done", key=key)


@pytest.mark.parametrize("app", FRAMEWORKS)
@over(WSGI_SERVERS)
def test_what_an_answered_request_has_started_runs_to_its_end(server: Served, app: str) -> None:
    key = uuid4().hex
    assert server.get(f"/{app}/starting/{key}").text == "started"  # and the client leaves
    server.event("closed", key=key)
    server.events.open(key)
    server.event("job done", key=key)
    path = f"/{app}/jobs/{server.event('job', key=key)['id']}"
    soon(lambda: server.get(path).json()["status"] == "completed")


@pytest.mark.parametrize("app", FRAMEWORKS)
@over(TELLING)
def test_keep_alive_pipelining_and_clients_that_leave_do_not_disturb_each_other(server: Served, app: str) -> None:
    pid = server.running.process.pid
    fill_the_pool(server, f"/{app}/wait")
    before = soon(lambda: steady(pid))
    left = load(server, f"/{app}/quick", f"/{app}/wait", REQUESTS)
    stopped = {one["key"]: one["reason"] for one in server.events.all("stopped")}
    assert {stopped[key] for key in left} == {"disconnect"}
    assert server.get(f"/{app}/hello").text == "hello"
    soon(lambda: open_files(pid) <= before[0])
    soon(lambda: threads(pid) <= before[1])


# --- time limits


@pytest.mark.parametrize("app", FRAMEWORKS)
@pytest.mark.parametrize("route", ["too-long", "limited"])
@over(WSGI_SERVERS)
def test_request_that_takes_too_long_is_answered_504(server: Served, app: str, route: str) -> None:
    key = uuid4().hex
    answer = server.get(f"/{app}/{route}/{key}")
    assert (answer.status_code, answer.json()["type"]) == (504, "urn:cancelable:timed-out")
    assert server.event("stopped", key=key)["reason"] == "timeout"
    assert server.ended(key)["status"] == "timed_out"


@pytest.mark.parametrize("app", FRAMEWORKS)
@over(WSGI_SERVERS)
def test_stalled_stream_is_cut_at_its_route_s_limit(server: Served, app: str) -> None:
    with server.running.leaving() as client:
        key = uuid4().hex
        client.send("GET", f"/{app}/limited-stream/{key}")
        if server.kind.name in ENDS_BROKEN_STREAMS_IN_ORDER:
            received = client.read_until(LAST_CHUNK)
        else:
            received = client.read_to_end()
            assert not received.endswith(LAST_CHUNK), "it would look complete"
    assert b"first" in received
    assert b"last" not in received
    server.event("finally", key=key)
    assert server.ended(key)["status"] == "timed_out"


# --- bodies


@pytest.mark.parametrize("app", FRAMEWORKS)
@over(WSGI_SERVERS)
def test_request_bodies_arrive_whole_and_in_order(server: Served, app: str) -> None:
    data = random.Random(app).randbytes(1_000_000)
    with server.running.client(headers={"Connection": "close"}) as client:
        text = data.hex()[:1000]
        assert client.post(f"/{app}/json", json={"text": text}).text == digest(text.encode())
        assert client.post(f"/{app}/upload", files={"file": ("a.bin", data)}).text == digest(data)
        assert client.post(f"/{app}/body", content=data).text == digest(data)
        slow = client.post(f"/{app}/body", content=slowly(data), headers={"Content-Length": str(len(data))})
        assert slow.text == digest(data)


@pytest.mark.parametrize("app", FRAMEWORKS)
@over([kind for kind in WSGI_SERVERS if kind.name not in NEVER_SAYS_CONTINUE])
def test_client_that_waits_to_be_told_to_continue_is_told(server: Served, app: str) -> None:
    data = b"x" * 10_000
    head = f"POST /{app}/body HTTP/1.1\r\nHost: 127.0.0.1\r\nExpect: 100-continue\r\nContent-Length: {len(data)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.running.port), timeout=DEADLINE_SECONDS) as connection:
        connection.sendall(head.encode())
        received = receive_until(connection, b"\r\n\r\n")
        assert received.startswith(b"HTTP/1.1 100 "), received
        connection.sendall(data)
        receive_until(connection, digest(data).encode())


# --- everything else is as it is without the suite


@pytest.mark.parametrize("app", FRAMEWORKS)
@over(WSGI_SERVERS)
def test_responses_are_those_of_the_application_without_the_suite(server: Served, app: str) -> None:
    assert different_answers(server, app) == []


@pytest.mark.parametrize("app", FRAMEWORKS)
@over([kind for kind in WSGI_SERVERS if kind.name not in KEEPS_NO_CONNECTION])
def test_connections_are_kept_as_without_the_suite(server: Served, app: str) -> None:
    kept = connections_kept(server, app)
    assert kept == connections_kept(server, f"plain-{app}")
    if kept[0]:
        with server.running.client() as client:
            timed_out = client.get(f"/{app}/limited/{uuid4().hex}")
            assert timed_out.status_code == 504
            assert connection_of(client.get(f"/{app}/hello")) is connection_of(timed_out)
