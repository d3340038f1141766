"""A server in a process of its own, kept connections to it, and what its requests cost, in processor time and on the clock."""

from __future__ import annotations

import ctypes
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from _harness import Comparison

__all__ = ["Cost", "Worker", "compare_ways", "costs_of"]

FOLDER = Path(__file__).resolve().parent
ROUNDS = 41
REQUESTS = 150


@dataclass(frozen=True, slots=True)
class Cost:
    """What one request took of many, in seconds."""

    processor: float
    """Of the process that serves. Client and server share the machine, and most of a request is spent between them."""
    clock: float
    """Where the client keeps the server busy, its inverse is the throughput."""


class Worker:
    """The one process of a server that serves, and connections to it.

    Args:
        command: What follows ``python -m``, with ``{port}`` in it; run in this folder.
        path: One that is answered.
        connections: How many there are; each has one request under way.
    """

    def __init__(self, command: Sequence[str], path: str, *, connections: int = 1) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        self._process = subprocess.Popen([sys.executable, "-m", *(part.format(port=port) for part in command)], cwd=FOLDER)
        self._selector = selectors.DefaultSelector()
        for _ in range(connections):
            self._selector.register(self._connect(port), selectors.EVENT_READ)
        self._clock: int | None = None
        self.cost(path, 1)  # whoever serves is there when it has answered
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

    def cost(self, path: str, requests: int) -> Cost:
        """Make so many requests, over all connections; what each cost."""
        began, used = time.perf_counter(), self._used()
        request = f"GET /{path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
        answers: dict[socket.socket, bytes] = {}
        for connection in self._connections()[:requests]:
            connection.sendall(request)
            answers[connection] = b""
        left = requests - len(answers)
        while answers:
            ready = self._selector.select(30)
            if not ready:
                raise TimeoutError(f"no answer at /{path}")
            for key, _ in ready:
                connection = key.fileobj
                assert isinstance(connection, socket.socket)
                received = connection.recv(65_536)
                if not received:
                    raise ConnectionError(f"no hello at /{path}, but {answers[connection]!r}")
                answers[connection] += received
                if answers[connection].endswith(b"hello"):
                    del answers[connection]
                    if left:
                        left -= 1
                        connection.sendall(request)
                        answers[connection] = b""
        return Cost((self._used() - used) / requests, (time.perf_counter() - began) / requests)

    def _connections(self) -> list[socket.socket]:
        return [key.fileobj for key in self._selector.get_map().values() if isinstance(key.fileobj, socket.socket)]

    def _used(self) -> float:
        return 0.0 if self._clock is None else time.clock_gettime(self._clock)

    def stop(self) -> None:
        for connection in self._connections():
            connection.close()
        self._selector.close()
        self._process.terminate()
        self._process.wait()


def _clock_of(pid: int) -> int:
    """The clock of all that a process has used, in threads that have ended, too: Django has one for each request under ASGI."""
    clock = ctypes.c_int()
    error = ctypes.CDLL(None).clock_getcpuclockid(pid, ctypes.byref(clock))
    if error:
        raise OSError(error, f"the processor time of {pid} cannot be read")
    return clock.value


def compare_ways(worker: Worker, framework: str, ways: Mapping[str, str], *, requests: int = REQUESTS) -> None:
    """Print what each way to serve ``framework`` costs over the bare one, in processor time.

    All of them take turns within the same process, so that what the machine does falls on each.

    Args:
        ways: What to call them, by the second part of their path.
    """
    costs = costs_of(worker, framework, ("bare", *ways), requests)
    processor = {way: [cost.processor for cost in each] for way, each in costs.items()}
    for way, words in ways.items():
        print(Comparison(f"{framework}: {words} over bare", processor[way], processor["bare"]), flush=True)
    if "least" in ways:
        title = f"{framework}: ours, unused by the view over the least"
        print(Comparison(title, processor["unused"], processor["least"]), flush=True)


def costs_of(worker: Worker, framework: str, ways: Sequence[str], requests: int) -> dict[str, list[Cost]]:
    """What ``requests`` requests by each way cost in each round."""
    for way in ways:
        worker.cost(f"{framework}/{way}", requests)  # warms up
    taken: dict[str, list[Cost]] = {way: [] for way in ways}
    for number in range(ROUNDS):
        for way in ways if number % 2 else reversed(ways):  # what one leaves to be collected falls on the next
            taken[way].append(worker.cost(f"{framework}/{way}", requests))
    return taken
