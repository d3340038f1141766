"""The three example projects on real servers: a real job is started on each, watched, and cancelled while it works."""

from __future__ import annotations

import argparse
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Any, Self

import httpx
from demo_servers import DemoFailed, Server

HERE = Path(__file__).resolve().parent
LOOKS = 3
SECONDS_BETWEEN_LOOKS = 0.7
PATIENCE_SECONDS = 15
OPERATOR_KEY = secrets.token_hex(8)
DJANGO_PASSWORD = "export"

Progress = Mapping[str, Any]


def main() -> int:
    """Tell the story. Returns the exit code: 0 if all of it happened."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave the servers up until Ctrl-C")
    keep: bool = parser.parse_args().keep
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where whoever started the demo ignores it
    began = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="cancelable-demo-") as data, ExitStack() as running:
            flask, django, fastapi = start_servers(Path(data), running)
            for server, story in ((flask, report_on_flask), (django, export_on_django), (fastapi, text_on_fastapi)):
                with server.answering_for_itself():
                    server.wait_until_it_answers()
                    story(server)
            seconds = time.monotonic() - began
            say(f"Three frameworks, three jobs, each stopped by the same route. All of it took {seconds:.0f} seconds.")
            if keep:
                keep_up(flask, django, fastapi)
    except DemoFailed as failure:
        print(f"\nThe demo failed. {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        say("\nStopped before the end of the story. The servers have ended.")
        return 128 + signal.SIGINT
    return 0


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)  # by way of every `finally`, so that no server is left behind


def say(text: str = "") -> None:
    """One line of the story, at once."""
    print(text, flush=True)


# --- the servers


def start_servers(data: Path, running: ExitStack) -> tuple[Server, Server, Server]:
    """Start all three. Whatever they write goes into ``data``."""
    gunicorn = (sys.executable, "-m", "gunicorn", "--worker-class", "gthread", "--threads", "8", "-b", "127.0.0.1:{port}")
    flask = Server(
        "Flask",
        (*gunicorn, "report_builder:create_app()"),
        HERE / "flask_report_builder",
        {"REPORT_OPERATOR_KEY": OPERATOR_KEY},
    )
    django = Server(
        "Django",
        (*gunicorn, "bulk_export.wsgi"),
        HERE / "django_bulk_export",
        {"BULK_EXPORT_DATA": str(data)},
    )
    fastapi = Server(
        "FastAPI",
        (sys.executable, "-m", "uvicorn", "--port", "{port}", "--timeout-graceful-shutdown", "3", "live_stream:app"),
        HERE / "fastapi_live_stream",
        {"LIVE_STREAM_OPERATOR_KEY": OPERATOR_KEY},
    )
    say("Three example projects start, each on a real server. (Django first fills a table with all of Unicode.)\n")
    running.enter_context(flask)
    running.enter_context(fastapi)
    for command in ("migrate", "seed"):
        django.prepare(sys.executable, "manage.py", command)
    running.enter_context(django)
    return flask, django, fastapi


def keep_up(flask: Server, django: Server, fastapi: Server) -> None:
    """Leave the servers up until Ctrl-C."""
    say("\nThe servers stay up. Press Ctrl-C to end them.")
    say(f"  Flask    {flask.address}")
    say(f"  Django   {django.address}    log in as alice, bob or admin (staff), password {DJANGO_PASSWORD}")
    say(f"  FastAPI  {fastapi.address}")
    say(f"  The operator of Flask and FastAPI: curl -H 'Authorization: Bearer {OPERATOR_KEY}' {flask.address}/jobs/stats")
    try:
        while True:
            for server in (flask, django, fastapi):
                with server.answering_for_itself():
                    server.must_run()
            time.sleep(1)
    except KeyboardInterrupt:
        say("\nThe servers have been told to end. Goodbye.")


# --- the three stories


def report_on_flask(server: Server) -> None:
    """A report, and what it had found when it was cancelled."""
    say(f"Flask, on gunicorn with threads ({server.address})")
    with Client(server) as visitor, Client(server, key=OPERATOR_KEY) as operator:
        job_id = visitor.ask("POST", "/reports", 202, json={}).json()["id"]
        say("  started    a report about the source code of Python's standard library")
        watch(visitor, job_id, lambda seen: f"{seen['current']:,} of {seen['total']:,} steps, {seen['words_found']:,} words")
        cancel(visitor, job_id, "I have seen enough")
        report = visitor.ask("GET", f"/reports/{job_id}", 200).json()
        found = report["passes"]["words"]["findings"]
        must(found["top"], f"the report kept nothing: {report}")
        first = found["top"][0]
        say(f"  kept       {found['distinct_words']:,} words; most often {first['word']!r}, {first['occurrences']:,} times")
        show_end(visitor, operator, job_id)


def export_on_django(server: Server) -> None:
    """An export, of which nothing may be left."""
    say(f"Django, on gunicorn with threads ({server.address})")
    with Client(server) as alice, Client(server) as admin:
        log_in(alice, "alice")
        log_in(admin, "admin")
        job_id = alice.ask("POST", "/exports", 202).json()["id"]
        say("  started    alice exports the table of all Unicode characters to a CSV file")
        watch(alice, job_id, lambda seen: f"{seen['current']:,} of {seen['total']:,} rows written")
        ended = cancel(alice, job_id, "the wrong table")
        alice.ask("GET", f"/exports/{job_id}/file", 404)
        rows = ended["progress"]["current"]
        say(f"  left       no file: the {rows:,} rows are gone, since half a table looks like a whole one")
        show_end(alice, admin, job_id)


def text_on_fastapi(server: Server) -> None:
    """A text that is written in the background, and stays readable as far as it came."""
    say(f"FastAPI, on uvicorn ({server.address})")
    with Client(server) as visitor, Client(server, key=OPERATOR_KEY) as operator:
        job_id = visitor.ask("POST", "/generations", 202, json={"prompt": "The class"}).json()["id"]
        say("  started    a small language model writes a text that begins with 'The class'")
        watch(visitor, job_id, lambda seen: f"{seen['current']:,} of {seen['total']:,} pieces, {seen['words']:,} words")
        cancel(visitor, job_id, "it makes no sense")
        text = " ".join(visitor.ask("GET", f"/generations/{job_id}", 200).json()["text"].split())
        must(text, "nothing of the text was kept")
        say(f"  kept       The class {text[:70]} ...")
        show_end(visitor, operator, job_id)


def log_in(client: Client, name: str) -> None:
    """Become one of the users that ``manage.py seed`` makes."""
    client.ask("GET", "/login", 200)
    client.ask("POST", "/login", 302, data={"username": name, "password": DJANGO_PASSWORD})


# --- what is the same everywhere


class Client:
    """Asks one server, and insists on the answer. Keeps cookies, as a browser does."""

    def __init__(self, server: Server, *, key: str | None = None) -> None:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._http = httpx.Client(base_url=server.address, headers=headers, timeout=PATIENCE_SECONDS, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._http.close()

    def ask(self, method: str, path: str, expected: int, **arguments: Any) -> httpx.Response:
        """Ask; any other status than the expected one ends the demo."""
        csrf_token = self._http.cookies.get("csrftoken")  # Django's
        headers = {} if csrf_token is None else {"X-CSRFToken": csrf_token}
        answer = self._http.request(method, path, headers=headers, **arguments)
        must(
            answer.status_code == expected,
            f"{method} {path} was answered with {answer.status_code} instead of {expected}: {answer.text[:500]}",
        )
        return answer


def must(condition: object, otherwise: str) -> None:
    """What the story promises."""
    if not condition:
        raise DemoFailed(otherwise)


def watch(client: Client, job_id: str, tell: Callable[[Progress], str]) -> None:
    """Look at a job several times, further on each time."""
    before = 0
    for _ in range(LOOKS):
        time.sleep(SECONDS_BETWEEN_LOOKS)
        progress = further_than(before, client, job_id)
        before = progress["current"]
        say(f"  at work    {tell(progress)}")


def further_than(before: int, client: Client, job_id: str) -> Progress:
    """The progress of a job, once it is beyond ``before``."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        job = client.ask("GET", f"/jobs/{job_id}", 200).json()
        must(job["status"] in ("pending", "running"), f"the job should be at work, and is {job['status']}")
        progress: Progress = job["progress"] or {"current": 0}
        if progress["current"] > before:
            return progress
        time.sleep(0.05)
    raise DemoFailed(f"the job came no further than {before} in {PATIENCE_SECONDS} seconds")


def cancel(client: Client, job_id: str, message: str) -> dict[str, Any]:
    """Cancel a job by the route, and wait there until it has ended."""
    answer = client.ask("POST", f"/jobs/{job_id}/cancel", 200, json={"message": message, "wait_seconds": 5})
    milliseconds = answer.elapsed.total_seconds() * 1000
    say(f"  cancelled  POST /jobs/{job_id}/cancel: it had stopped after {milliseconds:.0f} ms")
    ended: dict[str, Any] = answer.json()["operation"]
    return ended


def show_end(client: Client, staff: Client, job_id: str) -> None:
    """How the job ended, to its owner; the numbers, to staff."""
    job = client.ask("GET", f"/jobs/{job_id}", 200).json()
    must(job["status"] == "cancelled", f"the job should be cancelled, and is {job['status']}")
    say(f"  status     {job['status']}, reason {job['reason']}, after {job['duration_seconds']:.1f} s: {job['message']!r}")
    numbers = staff.ask("GET", "/jobs/stats?kind=job", 200).json()
    must((numbers["cancelled"], numbers["running"]) == (1, 0), f"the statistics do not add up: {numbers}")
    counted = ", ".join(f"{numbers[name]} {name}" for name in ("running", "completed", "cancelled"))
    say(f"  numbers    GET /jobs/stats: {counted}\n")


if __name__ == "__main__":
    sys.exit(main())
