"""What a request costs a WSGI server with the suite installed: processor time of a gunicorn worker, over the bare application.

Processor time rather than time on the clock: client and server share the machine, and most of a request is spent between them.
The four ways take turns within the same worker, so that what the machine does falls on all of them.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

from _harness import Comparison, print_header

FOLDER = Path(__file__).resolve().parent
ROUNDS = 41
REQUESTS = 150
FRAMEWORKS = ("function", "flask", "django")
WAYS = {
    "no-op": "a middleware that does nothing",
    "unused": "ours, unused by the view",
    "watched": "ours, following the client",
}


class Worker:
    """gunicorn with one worker, one connection to it, and the processor time that it has used."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        options = ["--worker-class", "gthread", "--threads", "1", "--log-level", "error", "-b", f"127.0.0.1:{port}"]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", *options, "--chdir", str(FOLDER), "_served_wsgi:app"]
        )
        self._connection = self._connect(port)
        self.seconds("function/bare", 1)  # the worker is there when it has answered
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        self._tasks = Path(f"/proc/{children[0]}/task")

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
                answer += self._connection.recv(65_536)
        return (self._used() - before) / requests

    def _used(self) -> float:
        if not hasattr(self, "_tasks"):
            return 0.0
        nanoseconds = sum(int((task / "schedstat").read_text().split()[0]) for task in self._tasks.iterdir())
        return nanoseconds / 1e9

    def stop(self) -> None:
        self._connection.close()
        self._process.terminate()
        self._process.wait()


def main() -> None:
    """Print the ratios."""
    if not Path("/proc/self/schedstat").exists():
        print("needs Linux: the processor time of each thread is read from /proc")
        return
    print_header("hello, processor time of a gunicorn worker (gthread), interleaved", "gunicorn", "flask", "django")
    worker = Worker()
    try:
        for framework in FRAMEWORKS:
            paths = [f"{framework}/{way}" for way in ("bare", *WAYS)]
            for path in paths:
                worker.seconds(path, REQUESTS)  # warms up
            rounds = [[worker.seconds(path, REQUESTS) for path in paths] for _ in range(ROUNDS)]
            floor, *candidates = zip(*rounds, strict=True)
            for words, candidate in zip(WAYS.values(), candidates, strict=True):
                print(Comparison(f"{framework}: {words} over bare", candidate, floor), flush=True)
    finally:
        worker.stop()


if __name__ == "__main__":
    main()
