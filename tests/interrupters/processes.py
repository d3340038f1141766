"""What the tests of child processes share: scripts that say when they are where they should be, and who is still there."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from cancelable_core import Cancelable
from tests.core.helpers import Running, becomes_true

__all__ = ["Canceller", "cancel_when", "is_running", "number_in", "our_zombies", "wait_for"]

Canceller = Callable[[Cancelable], object]


def cancel_when(operation: Cancelable, file: Path, cancel: Canceller = Cancelable.cancel_sync) -> Running[float]:
    """Cancel from another thread once a script has written the file; the result is when."""

    def wait_and_cancel() -> float:
        wait_for(file)
        now = time.monotonic()
        cancel(operation)
        return now

    return Running(wait_and_cancel)


def wait_for(file: Path) -> None:
    """Until it was written, all of it."""
    becomes_true(lambda: file.exists() and file.read_text().endswith("\n"))


def number_in(file: Path) -> int:
    """The process id that a script wrote."""
    return int(file.read_text())


def is_running(pid: int) -> bool:
    """Whether the process does anything still: an orphan that its init has not reaped yet does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def our_zombies() -> list[int]:
    """Children of this process that ended and that nobody has reaped."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, parent, *_ = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if state == "Z" and int(parent) == os.getpid():
                found.append(int(entry.name))
    return found
