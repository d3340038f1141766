"""What of a busy server's throughput the suite costs, unused by the view, beside what a middleware costs that does nothing."""

from __future__ import annotations

import sys

from _harness import Comparison, print_header
from _worker import Worker, costs_of

CONNECTIONS = 8
REQUESTS = 400
WAYS = ("bare", "no-op", "unused")
SERVERS = {
    "gunicorn --worker-class gthread --threads 4 --log-level error -b 127.0.0.1:{port} _served_wsgi:app": ("flask", "django"),
    "uvicorn --http httptools --loop asyncio --lifespan off --log-level error --port {port} _served_asgi:app": (
        "fastapi",
        "django",
    ),
}


def main() -> None:
    """Print the ratios."""
    if sys.platform != "linux":
        print("needs Linux, to find the process that serves, and to read its clock")
        return
    versions = ("gunicorn", "uvicorn", "httptools", "flask", "fastapi", "starlette", "django")
    print_header(f"hello, time per request with {CONNECTIONS} connections kept busy, interleaved", *versions)
    for command, frameworks in SERVERS.items():
        server, *_ = command.split()
        worker = Worker(command.split(), f"{frameworks[0]}/bare", connections=CONNECTIONS)
        try:
            for framework in frameworks:
                _compare(worker, framework, f"{framework} on {server}")
        finally:
            worker.stop()


def _compare(worker: Worker, framework: str, title: str) -> None:
    costs = costs_of(worker, framework, WAYS, REQUESTS)
    clock = {way: [cost.clock for cost in each] for way, each in costs.items()}
    processor = {way: [cost.processor for cost in each] for way, each in costs.items()}
    print(Comparison(f"{title}: no-op over bare", clock["no-op"], clock["bare"]), flush=True)
    print(Comparison(f"{title}: ours over bare", clock["unused"], clock["bare"]), flush=True)
    print(Comparison(f"{title}: ours over no-op", clock["unused"], clock["no-op"]), flush=True)
    print(Comparison("  in processor time: ours over no-op", processor["unused"], processor["no-op"]), flush=True)


if __name__ == "__main__":
    main()
