"""What a request costs uvicorn with the suite installed: processor time of its process, over the bare application."""

from __future__ import annotations

import sys

from _harness import print_header
from _worker import Worker, compare_ways

SERVER = "uvicorn --http httptools --loop asyncio --lifespan off --log-level error --port {port} _served_asgi:app"
NO_OP = {"no-op": "a middleware that does nothing"}
LEAST = {"least": "the least that an operation needs"}
UNUSED = {"unused": "ours, unused by the view"}
WAYS = {
    "function": {**NO_OP, **LEAST, **UNUSED, "used": "ours, following the client"},
    "fastapi": {**NO_OP, **LEAST, "dependency": "a trivial dependency", **UNUSED, "used": "ours, with CurrentOperation"},
    "django": {**NO_OP, **UNUSED, "used": "ours, with cancelable_view"},
}


def main() -> None:
    """Print the ratios."""
    if sys.platform != "linux":
        print("needs Linux, to read another process's clock")
        return
    versions = ("uvicorn", "httptools", "fastapi", "starlette", "django")
    print_header("hello, processor time of a uvicorn process (httptools, asyncio), interleaved", *versions)
    worker = Worker(SERVER.split(), "function/bare")
    try:
        for framework, ways in WAYS.items():
            compare_ways(worker, framework, ways)
    finally:
        worker.stop()


if __name__ == "__main__":
    main()
