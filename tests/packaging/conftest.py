"""The wheel, built once, and environments that hold nothing but what a user's ``pip install`` would put there."""

from __future__ import annotations

import subprocess
import sys
import venv
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.packaging.source import ROOT

INSTALL_TIMEOUT_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Environment:
    """A virtual environment of its own, with this project's tree out of sight."""

    home: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.home / "bin" / "python"

    def run(self, code: str) -> subprocess.CompletedProcess[str]:
        """Run ``code`` in a fresh process there."""
        return subprocess.run(
            [self.python, "-I", "-c", code], cwd=self.home, capture_output=True, text=True, timeout=60, check=False
        )


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the tree as it is."""
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", str(ROOT), "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder))
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def environment_with(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Environment]:
    """Makes, once each, the environment in which the suite was installed with one extra, or with none (``""``)."""

    @cache
    def make(extra: str) -> Environment:
        environment = Environment(tmp_path_factory.mktemp(f"environment-{extra or 'bare'}"))
        venv.create(environment.home, symlinks=True, with_pip=False)
        pip("--python", str(environment.python), "install", f"{wheel}[{extra}]" if extra else str(wheel))
        return environment

    return make


def pip(*arguments: str) -> None:
    """Run this interpreter's pip and show its words when it fails."""
    result = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments],
        capture_output=True,
        text=True,
        timeout=INSTALL_TIMEOUT_SECONDS,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
