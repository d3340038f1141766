"""What happens inside a server, told to the test through a file: also by servers that can do one thing at a time only."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

__all__ = ["EVENTS_FILE", "Events", "is_open", "tell"]

EVENTS_FILE = "CANCELABLE_TEST_EVENTS"
"""The environment variable that names the file."""


def tell(event: str, **details: Any) -> None:
    """Write one event down. Lines are short: what several processes append does not mix."""
    line = json.dumps({"event": event, "at": time.monotonic(), **details}) + "\n"
    descriptor = os.open(os.environ[EVENTS_FILE], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def is_open(gate: str) -> bool:
    """Whether the test has opened a gate."""
    return Path(f"{os.environ[EVENTS_FILE]}.{gate}").exists()


class Events:
    """The test's side of the file."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._seen: list[dict[str, Any]] = []
        self._read = 0
        self._lock = threading.Lock()

    def all(self, event: str, **details: Any) -> list[dict[str, Any]]:
        """Those of a kind, oldest first, with these details."""
        with self._lock:
            self._look()
            return [one for one in self._seen if one["event"] == event and details.items() <= one.items()]

    def _look(self) -> None:
        if not self.file.exists():
            return
        with self.file.open("rb") as file:
            file.seek(self._read)
            lines = file.read()
        whole = lines[: lines.rfind(b"\n") + 1]
        self._read += len(whole)
        self._seen += map(json.loads, whole.splitlines())

    def open(self, gate: str) -> None:
        """Let whoever waits at the gate go on."""
        Path(f"{self.file}.{gate}").touch()
