"""The README of the live stream: its commands, in order, against the server that it starts."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "example_projects" / "fastapi_live_stream"
README = (EXAMPLE / "README.md").read_text()
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SECONDS = 20
"""Reached by failing tests only."""


def blocks(heading: str) -> list[str]:
    """What is typed and shown below a heading."""
    section = README.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    found = BLOCK.findall(section)
    assert found, f"nothing is typed below {heading!r}"
    return found


def steps(block: str) -> list[tuple[str, str]]:
    """Each command with what it shows."""
    found: list[tuple[str, str]] = []
    for line in block.replace("\\\n", " ").splitlines():
        if line.startswith("$ "):
            found.append((line[2:], ""))
        else:
            command, shown = found[-1]
            found[-1] = (command, f"{shown}{line}\n")
    return found


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """The server, as the README starts it where the packages are installed, on a free port."""
    command = next(line for line, _ in steps(blocks("Start it")[1]) if "uvicorn" in line)
    with socket.create_server(("127.0.0.1", 0)) as free:
        number: int = free.getsockname()[1]
    words = shlex.split(command.replace("8003", str(number)))
    settings = dict(word.split("=", 1) for word in words if "=" in word)
    words = [word for word in words if "=" not in word]
    assert words[0] == "uvicorn"
    server = subprocess.Popen([sys.executable, "-m", *words], cwd=EXAMPLE, env={**os.environ, **settings})
    try:
        deadline = time.monotonic() + SECONDS
        while not _answers(number):
            assert server.poll() is None, "the server has ended"
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.02)
        yield number
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            status = server.wait(SECONDS)
        finally:
            server.kill()
            server.wait()
    assert status in (0, -signal.SIGTERM)


def _answers(port: int) -> bool:
    """Whether it writes; its model has learnt then, and the README's pauses are long enough."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/stream?max_pieces=1", timeout=SECONDS) as response:
            return b"finished" in response.read()
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="the README's commands need curl")
@pytest.mark.parametrize("heading", ["Stop a stream", "Write in the background", "Search"])
def test_commands_of_the_readme_show_what_it_says(heading: str, port: int, tmp_path: Path) -> None:
    typed = [step for block in blocks(heading) for step in steps(block)]
    script = "".join(f"{command}\nprintf '\\n%s\\n' =====\n" for command, _ in typed).replace("8003", str(port))
    done = subprocess.run(["bash", "-eu"], input=script, capture_output=True, text=True, cwd=tmp_path, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    shown = done.stdout.split("\n=====\n")
    assert len(shown) == len(typed) + 1
    for (command, expected), text in zip(typed, shown, strict=False):
        pattern = ".*".join(re.escape(part) for part in expected.strip().split("…"))
        assert re.fullmatch(pattern, text.strip(), re.DOTALL), f"{command}\n{text}"


def test_the_makefile_starts_what_the_readme_starts() -> None:
    make = shutil.which("make")
    if make is None:
        pytest.skip("GNU Make is not installed")
    by_make, by_hand = (steps(block) for block in blocks("Start it"))
    target = by_make[-1][0].split()[-1]
    # -n shows the commands and runs none of them
    told = subprocess.run([make, "-n", target], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout
    options = by_hand[-1][0].partition("uvicorn ")[2]
    assert f"uvicorn {options}\n" in told
    assert f"cd {EXAMPLE.relative_to(ROOT)} " in told
