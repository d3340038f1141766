"""What needs no framework: a WSGI application as PEP 3333 has it, in `CancelableWsgi`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from cancelable_core.servers import CancelableWsgi

from . import work

__all__ = ["make_app"]


def make_app() -> CancelableWsgi:
    """A fresh application."""
    return CancelableWsgi(_application, route=lambda environ: str(environ["PATH_INFO"]).rpartition("/")[0])


def _application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    what, _, key = environ["PATH_INFO"].strip("/").partition("/")
    if what == "stalled":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return map(str.encode, work.stalled_chunks(key))
    body = {"wait": work.wait, "quick": work.quick, "hello": lambda key: "hello"}[what](key).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
