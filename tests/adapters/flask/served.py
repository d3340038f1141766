"""An application that a real server serves: ``gunicorn 'tests.adapters.flask.served:create_app()'``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import repeat

import anyio
from flask import Flask, Response

from cancelable_core import Cancelable
from cancelable_flask import CancelableExtension, CancelableFlask, current_operation

__all__ = ["create_app"]


def _operation() -> Cancelable:
    operation = current_operation()
    assert operation is not None
    return operation


def _check() -> None:
    while True:
        _operation().check()
        _operation().wait(0.001)


def _sleep() -> None:
    _operation().sleep(60)


def _iterate() -> None:
    for _ in _operation().iterate(repeat(None)):
        _operation().wait(0.001)


WORK: dict[str, Callable[[], None]] = {"check": _check, "sleep": _sleep, "iterate": _iterate}


def create_app() -> Flask:
    """What the tests ask for."""
    app = CancelableFlask("served")
    cancelable = app.register_extension(
        CancelableExtension(
            principal=lambda request: request.headers.get("X-User"),
            staff=lambda user: user == "root",
            response_header="all",
        )
    )

    @app.get("/hello")
    def hello() -> str:
        return "hello"

    @app.get("/view/<what>")
    def view(what: str) -> str:
        _operation().report_progress("begun")
        WORK[what]()
        return "ran to its end"

    @app.get("/async")
    async def async_view() -> str:
        _operation().report_progress("begun")
        await anyio.sleep(60)
        return "ran to its end"

    @app.get("/stream")
    def stream() -> Response:
        def chunks() -> Iterator[str]:
            for number in _operation().iterate(range(100_000)):
                yield f"chunk {number}\n"
                _operation().wait(0.01)

        return Response(chunks())

    @app.post("/jobs-of/<what>")
    def start(what: str) -> tuple[dict[str, str], int]:
        return {"id": cancelable.jobs.submit(WORK[what], name=what).id}, 202

    return app
