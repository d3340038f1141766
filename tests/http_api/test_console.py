"""The console talks to a real server over a socket: the JSON API behind the standard library's own."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from cancelable_core.http_api import EndpointResponse, Principal
from cancelable_core.http_api.console import Console, ConsoleError, parse_headers
from cancelable_core.models import OperationStatus

from .world import World

PREFIX = "/jobs"
STAFF_KEY = {"X-Key": "staff"}


class Site:
    """A world behind a socket; an ``X-Key`` makes one staff."""

    def __init__(self) -> None:
        self.world = World()
        self.asked: list[tuple[str, str]] = []
        self.answer_with: EndpointResponse | None = None
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                path, _, query = self.path.removeprefix(PREFIX).partition("?")
                site.asked.append((self.command, path))
                headers = {name.lower(): value for name, value in self.headers.items()}
                body = self.rfile.read(int(headers.get("content-length", 0)))
                principal = Principal("root", is_staff=True) if headers.get("x-key") == "staff" else Principal()
                response = site.answer_with or site.world.api.respond(
                    site.world.request(
                        self.command, path, query=query, headers=headers, body=body, principal=principal, origin=None
                    )
                )
                self.send_response(response.status)
                for name, value in response.headers:
                    self.send_header(name, value)
                if "content-length" not in {name.lower() for name, _ in response.headers}:
                    self.send_header("Content-Length", str(len(response.body)))
                self.end_headers()
                self.wfile.write(response.body)

            do_GET = do_POST = answer

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}{PREFIX}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.close()


@pytest.fixture
def console(site: Site) -> Console:
    return Console(site.url, STAFF_KEY)


def test_list_has_one_line_per_operation_under_the_names_of_the_columns(site: Site, console: Console) -> None:
    operation = site.world.pending("report", owner="ann")
    operation.report_progress("counting", current=3, total=12)
    heading, line = console.list()
    assert heading.split() == ["id", "status", "kind", "owner", "created_at", "progress", "name"]
    assert line.split("  ")[:4] == [operation.id, "pending", "operation", "ann"]
    assert line.endswith("3/12 counting  report")


def test_list_reads_all_pages(site: Site, console: Console) -> None:
    ids = [site.world.pending().id for _ in range(501)]
    assert [line.split()[0] for line in console.list()][1:] == ids[::-1]
    assert len(site.asked) == 2


def test_list_passes_filters_on(site: Site, console: Console) -> None:
    site.world.pending("other")
    wanted = site.world.finished(OperationStatus.CANCELLED, "report-1")
    lines = list(console.list(name="report-*", status=["cancelled", "failed"], owner=None))
    assert [line.split()[0] for line in lines[1:]] == [wanted.id]


def test_cancel_tells_what_came_of_it(site: Site, console: Console) -> None:
    operation = site.world.pending()
    assert list(console.cancel(operation.id, message="enough")) == [f"requested: {operation.id} is cancelling"]
    assert operation.token.message == "enough"
    assert list(console.cancel(operation.id)) == [f"already_requested: {operation.id} is cancelling"]


def test_cancel_can_wait_for_the_end(site: Site, console: Console) -> None:
    operation = site.world.pending()
    assert list(console.cancel(operation.id, wait_seconds=0.01)) == [f"requested: {operation.id} is cancelling"]


def test_cancel_of_a_finished_operation_is_an_error_in_the_servers_words(site: Site, console: Console) -> None:
    operation = site.world.finished(OperationStatus.COMPLETED)
    with pytest.raises(ConsoleError, match=r"409 The operation has finished: It had ended"):
        list(console.cancel(operation.id))


@pytest.mark.parametrize("operation_id", ["nobody", "a/b", "../stats", "", "%00", "a b?c#d", "ü"])
def test_ids_are_never_taken_for_other_routes(site: Site, console: Console, operation_id: str) -> None:
    with pytest.raises(ConsoleError, match="404"):
        list(console.cancel(operation_id))


def test_stats_has_a_line_per_counter(site: Site, console: Console) -> None:
    site.world.pending()
    assert {"total: 1", "pending: 1", "lost: 0"} <= set(console.stats())


def test_a_refusal_says_what_to_do(site: Site) -> None:
    with pytest.raises(ConsoleError, match=r"403 Not allowed: .+"):
        list(Console(site.url).stats())


def test_nothing_that_a_terminal_obeys_is_shown(site: Site, console: Console) -> None:
    site.world.pending("\x1b[2Jreport\u202e")
    line = list(console.list())[-1]
    assert line.isprintable()
    assert "\\x1b[2Jreport\\u202e" in line


@pytest.mark.parametrize("url", ["", "jobs", "file:///etc/hostname", "ftp://127.0.0.1/jobs", "http://", "http:///jobs"])
def test_an_address_that_is_none_is_refused_in_words(url: str) -> None:
    with pytest.raises(ConsoleError, match="such as http://"):
        Console(url)


def test_a_server_that_is_not_there_is_an_error_in_words() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    with pytest.raises(ConsoleError, match="gives no answer"):
        list(Console(f"http://127.0.0.1:{port}{PREFIX}").stats())


@pytest.mark.parametrize("body", [b"<html>", b"", b"\xff"])
def test_an_answer_that_is_no_json_is_an_error_in_words(site: Site, console: Console, body: bytes) -> None:
    site.answer_with = EndpointResponse(200, (("Content-Type", "text/html"),), body)
    with pytest.raises(ConsoleError, match="gives no answer that can be read"):
        list(console.stats())
    site.answer_with = EndpointResponse(502, (("Content-Type", "text/html"),), body)
    with pytest.raises(ConsoleError, match="502 Bad Gateway"):
        list(console.stats())


def test_a_redirect_is_not_followed(site: Site, console: Console) -> None:
    site.answer_with = EndpointResponse(302, (("Location", f"{site.url}/elsewhere"),), b"")
    with pytest.raises(ConsoleError, match=r"302 redirected to .+/elsewhere"):
        list(console.stats())
    assert site.asked == [("GET", "/stats")]


def test_headers_are_read_as_they_are_written_on_the_wire() -> None:
    assert parse_headers(["X-User: ann", "Authorization:Bearer a:b "]) == {"X-User": "ann", "Authorization": "Bearer a:b"}


@pytest.mark.parametrize("line", ["", "X-User", ": ann"])
def test_what_is_no_header_is_refused(line: str) -> None:
    with pytest.raises(ConsoleError, match="Name: value"):
        parse_headers([line])


def test_a_header_that_cannot_be_sent_is_an_error_in_words(site: Site) -> None:
    with pytest.raises(ConsoleError, match="gives no answer"):
        list(Console(site.url, {"X-User": "ann\r\nX-Key: staff"}).stats())
    assert site.asked == []
