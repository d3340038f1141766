"""``make demo`` as a process of its own: it tells the story of three cancels, or says why it fails. Nothing stays behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_SECONDS = 90
"""Reached by failing tests only."""

pytestmark = pytest.mark.slow


class Demo:
    """The demo while it runs, and its servers, which are known by a variable of their environment."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        self._mark = f"DEMO_OF_TEST={uuid.uuid4().hex}"
        name, _, value = self._mark.partition("=")
        self.process = subprocess.Popen(
            [sys.executable, "example_projects/demo.py", *arguments],
            cwd=ROOT,
            env={**os.environ, **environment, name: value},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def output_until(self, text: str) -> str:
        """What it says up to the line that has this text."""
        assert self.process.stdout is not None
        said = ""
        for line in self.process.stdout:
            said += line
            if text in line:
                return said
        raise AssertionError(f"it never said {text!r}: {said}{self.process.communicate()[1]}")

    def end(self) -> tuple[int, str, str]:
        """Wait for its end: exit code, rest of the output, errors."""
        output, errors = self.process.communicate(timeout=DEADLINE_SECONDS)
        return self.process.returncode, output, errors

    def processes(self) -> list[str]:
        """The processes of this demo that are there."""
        return [path.parent.name for path in Path("/proc").glob("[0-9]*/environ") if self._has_mark(path)]

    def _has_mark(self, environment: Path) -> bool:
        try:
            return self._mark.encode() in environment.read_bytes()
        except OSError:  # it has ended, or is another's
            return False

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=DEADLINE_SECONDS)


@pytest.fixture
def demos() -> Iterator[list[Demo]]:
    """The demos of one test; none of their processes outlives it."""
    if not Path("/proc/self/environ").exists():
        pytest.skip("finds processes by /proc, which only Linux has")
    started: list[Demo] = []
    yield started
    for demo in started:
        demo.close()
    assert [demo.processes() for demo in started] == [[] for _ in started]


@pytest.fixture
def files_before() -> Iterator[None]:
    """What is written at run time goes elsewhere."""

    def status() -> str:
        command = ["git", "status", "--porcelain", "--ignored", "example_projects"]
        files = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.splitlines()
        return "\n".join(line for line in files if line[:2] in ("??", "!!") and "__pycache__" not in line)

    before = status()
    yield
    assert status() == before


@pytest.mark.usefixtures("files_before")
def test_it_tells_of_a_job_on_each_framework(demos: list[Demo]) -> None:
    demos.append(Demo())
    code, said, errors = demos[0].end()
    assert (code, errors) == (0, ""), said
    stories = said.split("\n\n")[1:-1]
    assert [story.partition(",")[0] for story in stories] == ["Flask", "Django", "FastAPI"]
    for story in stories:
        headline, *lines = story.splitlines()
        assert re.search(r"http://127\.0\.0\.1:\d+", headline)
        words = [line.split()[0] for line in lines]
        assert words[:5] == ["started", "at", "at", "at", "cancelled"], story
        assert words[5] in ("kept", "left")
        assert words[6:] == ["status", "numbers"]
        done = [int(number.replace(",", "")) for number in re.findall(r"at work +([\d,]+) of", story)]
        assert done == sorted(set(done)), story
        assert re.search(r"POST /jobs/[0-9a-f]{32}/cancel", story)
        assert "cancelled, reason manual, after" in story
        assert "GET /jobs/stats: 0 running, 0 completed, 1 cancelled" in story


def test_the_servers_stay_until_ctrl_c_if_asked_to(demos: list[Demo]) -> None:
    demos.append(Demo("--keep"))
    said = demos[0].output_until("Press Ctrl-C")
    addresses = re.findall(r"\((http://127\.0\.0\.1:\d+)\)", said)
    assert len(addresses) == 3
    for address in addresses:
        assert httpx.get(address, follow_redirects=True, trust_env=False).status_code == 200
    listed = demos[0].output_until("The operator of")
    assert all(address in listed for address in addresses)
    demos[0].process.send_signal(signal.SIGINT)
    code, said, errors = demos[0].end()
    assert (code, errors) == (0, "")
    assert "told to end" in said
    for address in addresses:
        with pytest.raises(httpx.TransportError):
            httpx.get(address, trust_env=False)


def test_a_server_that_cannot_start_fails_it_with_the_end_of_its_log(demos: list[Demo]) -> None:
    demos.append(Demo(REPORT_CANCELABLE_JOB_WORKER="2"))
    code, _, errors = demos[0].end()
    assert code == 1
    assert "The demo failed. Flask: " in errors
    assert "there is no setting CANCELABLE_JOB_WORKER; the nearest is CANCELABLE_JOB_WORKERS" in errors
    assert "Traceback" not in errors.partition("\n    ")[0]


def test_a_preparation_that_fails_fails_it_too(demos: list[Demo]) -> None:
    demos.append(Demo(DJANGO_SETTINGS_MODULE="no_such_settings"))
    code, _, errors = demos[0].end()
    assert code == 1
    assert "The demo failed. " in errors
    assert "no_such_settings" in errors


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_whoever_interrupts_it_ends_its_servers(demos: list[Demo], number: signal.Signals, expected: int) -> None:
    demos.append(Demo())
    demos[0].output_until("at work")
    assert len(demos[0].processes()) > 1
    demos[0].process.send_signal(number)
    code, _, _ = demos[0].end()
    assert code == expected
