"""The report builder by its README: the server as it says, and every command as it stands there."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("curl") is None, reason="the README's commands need curl"),
]

PROJECT = Path(__file__).resolve().parents[2] / "example_projects" / "flask_report_builder"
README = (PROJECT / "README.md").read_text(encoding="utf-8")
DEADLINE_SECONDS = 30
"""Reached by failing tests only."""


def commands(after: str) -> list[str]:
    """The commands of the first console block below some text, each without its prompt."""
    block = re.search(r"^```console\n(.*?)^```$", README[README.index(after) :], re.MULTILINE | re.DOTALL)
    assert block is not None
    return [line.removeprefix("$ ") for line in block[1].splitlines() if line.startswith("$ ")]


def run(folder: Path, *lines: str) -> list[str]:
    """What each of the commands prints."""
    script = "\n".join(f"{line}; printf '\\036'" for line in lines)
    done = subprocess.run(
        ["sh", "-euc", script], cwd=folder, capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\036")[:-1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the server that the README's own command starts, on another port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    [command] = commands("where the packages are installed, here")
    assert ":8001" in command
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    log = tmp_path_factory.mktemp("server") / "log"
    with log.open("wb") as output:
        environment, _, program = command.partition(" ")
        process = subprocess.Popen(
            ["sh", "-c", f"{environment} exec {program.replace(':8001', f':{port}')}"],
            cwd=PROJECT,
            env={**os.environ, "PATH": path},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not _is_open(port):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(DEADLINE_SECONDS)


def _is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_the_commands_of_the_readme_do_what_it_says(site: str, tmp_path: Path) -> None:
    where, start, show, cancel, fetch = commands("answer browsers with pages")
    assert where == "site=http://127.0.0.1:8001"
    statistics, cancel_all = commands("404, for the report as for the job")
    until_it_works = f"until {show} | grep -q words_found; do sleep 0.1; done"
    shown, ended, report, numbers, none_left = run(
        tmp_path, f"site={site}; {start}; {until_it_works}; {show}", cancel, fetch, statistics, cancel_all
    )
    progress = json.loads(shown)["progress"]
    assert progress["message"].startswith("word index: ")
    assert 0 < progress["current"] < progress["total"]
    operation = json.loads(ended)["operation"]
    assert (operation["status"], operation["message"]) == ("cancelled", "enough")
    assert 0 < json.loads(report)["passes"]["words"]["files_read"] < json.loads(report)["files"]
    assert json.loads(numbers)["cancelled"] >= 1
    assert json.loads(none_left) == {"requested": 0}


def test_the_operator_cancels_everybody_s(site: str, tmp_path: Path) -> None:
    _, start, *_ = commands("answer browsers with pages")
    _, cancel_all = commands("404, for the report as for the job")
    [answer] = run(tmp_path, f"site={site}; {start}; {cancel_all}")
    assert json.loads(answer) == {"requested": 1}


def test_pages_and_their_script_are_served(site: str, tmp_path: Path) -> None:
    page, script = run(tmp_path, f"curl -sf -H 'Accept: text/html' {site}/", f"curl -sf {site}/static/page.js")
    assert "<h1>Report builder</h1>" in page
    assert "fetch(" in script
