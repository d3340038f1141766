"""What type checkers make of the public names, as a user in strict mode sees it."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys

import pytest

from tests.packaging.source import ROOT

FILES = ("accepted.py", "rejected.py")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def run_checker(checker: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    if importlib.util.find_spec(checker) is None:
        reason = f"{checker} is not installed; it comes with the dependency group 'lint'"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    return subprocess.run(
        [sys.executable, "-m", checker, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=280, check=False
    )


@pytest.mark.parametrize("file", FILES)
def test_mypy_agrees(file: str) -> None:
    result = run_checker("mypy", "--strict", "--python-version=3.11", f"tests/packaging/typing/{file}")
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("file", FILES)
def test_pyright_agrees(file: str) -> None:
    result = run_checker("pyright", "--outputjson", "--pythonpath", sys.executable, f"tests/packaging/typing/{file}")
    report = json.loads(result.stdout)
    found = [f"{one['range']['start']['line'] + 1}: {one['message']}" for one in report["generalDiagnostics"]]
    assert not found, "\n".join(found)
    assert report["summary"]["filesAnalyzed"] == 1
    assert result.returncode == 0
