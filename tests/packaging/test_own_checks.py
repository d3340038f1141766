"""The checks that surround every test (tests/conftest.py) must be able to fail."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.packaging.source import ROOT


def outcome_of(test: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run one test in a fresh pytest that has our conftest, with a shorter patience."""
    shim = "import tests.conftest as ours\nfrom tests.conftest import *\nours.DEADLINE_SECONDS = 0.2\n"
    (folder / "conftest.py").write_text(shim)
    (folder / "test_it.py").write_text(test)
    settings = ["-c", str(ROOT / "pyproject.toml"), f"--rootdir={ROOT}", "-p", "no:cacheprovider"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *settings, str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_a_test_that_leaves_nothing_passes(tmp_path: Path) -> None:
    result = outcome_of("import cancelable_core\ndef test_it():\n    with cancelable_core.Cancelable(): pass\n", tmp_path)
    assert "1 passed" in result.stdout, result.stdout


def test_a_test_that_leaves_an_operation_fails_and_the_next_is_not_blamed(tmp_path: Path) -> None:
    result = outcome_of(
        "import cancelable_core, threading\n"
        "def work(name):\n"
        "    started = threading.Event()\n"
        "    def body():\n"
        "        with cancelable_core.Cancelable(name, raise_on_cancel=False) as operation:\n"
        "            started.set()\n"
        "            operation.wait(60)\n"
        "    threading.Thread(target=body, daemon=True).start()\n"
        "    assert started.wait(5)\n"
        "def test_it(): work('forgotten')\n"
        "def test_next(): pass\n",
        tmp_path,
    )
    assert "left behind by this test: operation forgotten (running)" in result.stdout, result.stdout
    assert "2 passed, 1 error" in result.stdout


def test_a_test_that_leaves_a_thread_fails(tmp_path: Path) -> None:
    result = outcome_of(
        "import threading\n"
        "def test_it():\n"
        "    threading.Thread(target=threading.Event().wait, args=(2,), name='forgotten').start()\n",
        tmp_path,
    )
    assert "left behind by this test: thread forgotten" in result.stdout, result.stdout


@pytest.mark.parametrize("loop", ["asyncio", "uvloop", "trio"])
def test_a_coroutine_test_runs_on_every_loop(loop: str, tmp_path: Path) -> None:
    result = outcome_of(
        "import asyncio\n"
        "async def test_it():\n"
        "    try: loop = type(asyncio.get_running_loop()).__module__.partition('.')[0]\n"
        "    except RuntimeError: loop = 'trio'\n"
        f"    if loop == {loop!r}: raise LookupError('seen ' + loop)\n",
        tmp_path,
    )
    assert "2 passed" in result.stdout, result.stdout
    assert f"seen {loop}" in result.stdout
