"""A server in a process of its own, one kept connection to it, and the processor time that its requests cost."""

from __future__ import annotations

import ctypes
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from _harness import Comparison

__all__ = ["Worker", "compare_ways"]

FOLDER = Path(__file__).resolve().parent
ROUNDS = 41
REQUESTS = 150


class Worker:
    """The one process of a server that serves, and a connection to it.

    Processor time rather than time on the clock: client and server share the machine, and most of a request is spent between
    them.

    Args:
        command: What follows ``python -m``, with ``{port}`` in it; run in this folder.
        path: One that is answered.
    """

    def __init__(self, command: Sequence[str], path: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        self._process = subprocess.Popen([sys.executable, "-m", *(part.format(port=port) for part in command)], cwd=FOLDER)
        self._connection = self._connect(port)
        self._clock: int | None = None
        self.seconds(path, 1)  # whoever serves is there when it has answered
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        self._clock = _clock_of(int(children[0]) if children else pid)

    @staticmethod
    def _connect(port: int) -> socket.socket:
        until = time.monotonic() + 30
        while True:
            try:
                connection = socket.create_connection(("127.0.0.1", port), timeout=30)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return connection
            except ConnectionRefusedError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)

    def seconds(self, path: str, requests: int) -> float:
        """The processor time of so many requests, each."""
        before = self._used()
        request = f"GET /{path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
        for _ in range(requests):
            self._connection.sendall(request)
            answer = b""
            while not answer.endswith(b"hello"):
                received = self._connection.recv(65_536)
                if not received:
                    raise ConnectionError(f"no hello at /{path}, but {answer!r}")
                answer += received
        return (self._used() - before) / requests

    def _used(self) -> float:
        return 0.0 if self._clock is None else time.clock_gettime(self._clock)

    def stop(self) -> None:
        self._connection.close()
        self._process.terminate()
        self._process.wait()


def _clock_of(pid: int) -> int:
    """The clock of all that a process has used, in threads that have ended, too: Django has one for each request under ASGI."""
    clock = ctypes.c_int()
    error = ctypes.CDLL(None).clock_getcpuclockid(pid, ctypes.byref(clock))
    if error:
        raise OSError(error, f"the processor time of {pid} cannot be read")
    return clock.value


def compare_ways(worker: Worker, framework: str, ways: Mapping[str, str]) -> None:
    """Print what each way to serve ``framework`` costs over the bare one.

    All of them take turns within the same process, so that what the machine does falls on each.

    Args:
        ways: What to call them, by the second part of their path.
    """
    paths = [f"{framework}/{way}" for way in ("bare", *ways)]
    for path in paths:
        worker.seconds(path, REQUESTS)  # warms up
    taken: dict[str, list[float]] = {path: [] for path in paths}
    for number in range(ROUNDS):
        for path in paths if number % 2 else reversed(paths):  # what one leaves to be collected falls on the next
            taken[path].append(worker.seconds(path, REQUESTS))
    floor, *candidates = taken.values()
    for words, candidate in zip(ways.values(), candidates, strict=True):
        print(Comparison(f"{framework}: {words} over bare", candidate, floor), flush=True)
    if "least" in ways:
        unused, least = (taken[f"{framework}/{way}"] for way in ("unused", "least"))
        print(Comparison(f"{framework}: ours, unused by the view over the least", unused, least), flush=True)
