"""The application, on Flask."""

from __future__ import annotations

from typing import Any

from flask import Flask, Response, after_this_request, request, send_file

from cancelable_flask import CancelableExtension, cancelable_view

from . import work
from .events import tell

__all__ = ["make_app"]

patient = cancelable_view(timeout_seconds=None)
limited = cancelable_view(timeout_seconds=work.LIMIT_SECONDS)


def make_app(*, with_suite: bool = True) -> Flask:
    """A fresh application. Without the suite it has the views that do not need it, for comparison."""
    app = Flask(__name__)
    cancelable = None
    if with_suite:
        cancelable = CancelableExtension(
            app, request_timeout_seconds=work.LIMIT_SECONDS, principal=lambda request: request.headers.get("X-User"), staff=bool
        )

    @app.get("/hello")
    def hello() -> str:
        return "hello"

    @app.get("/status/<int:status>")
    def with_status(status: int) -> Response:
        return Response(status=status, headers={"ETag": '"one"'})

    @app.get("/file")
    def file() -> Response:
        return send_file(work.FILE, conditional=True)

    @app.get("/error")
    def error() -> str:
        raise ZeroDivisionError

    @app.before_request
    def fail_on_demand() -> None:
        if "fail" in request.args:
            raise ZeroDivisionError

    if cancelable is not None:
        _add_cancelable_views(app, cancelable)
    return app


def _add_cancelable_views(app: Flask, cancelable: CancelableExtension) -> None:
    @app.get("/wait/<key>")
    @patient
    def wait(key: str) -> str:
        return work.wait(key)

    @app.get("/await/<key>")
    @patient
    async def await_(key: str) -> str:
        return await work.await_(key)

    @app.get("/unfollowed/<key>")
    @cancelable_view(timeout_seconds=None, cancel_on_disconnect=False)
    def unfollowed(key: str) -> str:
        return work.wait_for_gate(key)

    @app.get("/quick/<key>")
    @patient
    def quick(key: str) -> str:
        return work.quick(key)

    @app.get("/too-long/<key>")
    def too_long(key: str) -> str:
        return work.wait(key)

    @app.get("/limited/<key>")
    @limited
    def limited_view(key: str) -> str:
        return work.wait(key)

    @app.get("/limited-stream/<key>")
    @limited
    def limited_stream(key: str) -> Response:
        return Response(work.stalled_chunks(key))

    @app.get("/stalled/<key>")
    @patient
    def stalled(key: str) -> Response:
        return Response(work.stalled_chunks(key))

    @app.get("/endless/<key>")
    @cancelable_view(cancel_on_disconnect=False)  # so that only the closing of the response tells
    def endless(key: str) -> Response:
        return Response(work.endless_chunks(key))

    @app.post("/body")
    @patient
    def body() -> str:
        return work.digest(work.pieces(request.stream))

    @app.post("/json")
    @patient
    def json_body() -> str:
        return work.digest([str(request.get_json()["text"]).encode()])

    @app.post("/upload")
    @patient
    def uploaded() -> str:
        return work.digest(work.pieces(request.files["file"].stream))

    @app.get("/starting/<key>")
    @patient
    def starting(key: str) -> Any:
        work.started_job(cancelable.jobs.submit, key)

        @after_this_request
        def note(response: Response) -> Response:
            tell("after", key=key, status=response.status_code)
            response.call_on_close(lambda: tell("closed", key=key))
            return response

        return work.wait(key) if "wait" in request.args else "started"
