"""What a request costs gunicorn with the suite installed: processor time of its worker, over the bare application."""

from __future__ import annotations

import sys

from _harness import print_header
from _worker import Worker, compare_ways

SERVER = "gunicorn --worker-class gthread --threads 1 --log-level error -b 127.0.0.1:{port} _served_wsgi:app"
FRAMEWORKS = ("function", "flask", "django")
WAYS = {
    "no-op": "a middleware that does nothing",
    "least": "the least that an operation needs",
    "unused": "ours, unused by the view",
    "watched": "ours, following the client",
}


def main() -> None:
    """Print the ratios."""
    if sys.platform != "linux":
        print("needs Linux, to find the worker and to read its clock")
        return
    print_header("hello, processor time of a gunicorn worker (gthread), interleaved", "gunicorn", "flask", "django")
    worker = Worker(SERVER.split(), "function/bare")
    try:
        for framework in FRAMEWORKS:
            compare_ways(worker, framework, WAYS)
    finally:
        worker.stop()


if __name__ == "__main__":
    main()
