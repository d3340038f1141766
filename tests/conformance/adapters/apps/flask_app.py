"""The application, on Flask."""

from __future__ import annotations

from typing import Any

from flask import Flask, Response, request

from cancelable_flask import CancelableExtension, CancelableFlask

from .work import ASYNC_VIEWS, SYNC_VIEWS, WORK, stream

__all__ = ["TEMPLATE", "make_app"]

TEMPLATE = "/sync/<what>"
"""How this framework writes the route of the plain views."""


def make_app(**settings: Any) -> tuple[Flask, CancelableExtension]:
    """A fresh application."""
    app = CancelableFlask(__name__)
    cancelable = app.register_extension(
        CancelableExtension(
            principal=lambda request: request.headers.get("X-Test-User"), staff=lambda user: user == "root", **settings
        )
    )

    def submit(work: str, job_id: str) -> tuple[str, int]:
        job = cancelable.jobs.submit(
            WORK[work],
            request.args.get("gate", job_id),
            name=request.args.get("name", work),
            job_id=None if job_id == "any" else job_id,
            timeout=request.args.get("timeout", type=float),
        )
        return job.id, 202

    @app.post("/submit/<work>/<job_id>")
    def submit_sync(work: str, job_id: str) -> tuple[str, int]:
        return submit(work, job_id)

    @app.post("/asubmit/<work>/<job_id>")
    async def submit_async(work: str, job_id: str) -> tuple[str, int]:
        return submit(work, job_id)

    @app.get("/sync/<what>")
    def sync_view(what: str) -> str:
        return SYNC_VIEWS[what]()

    @app.get("/async/<what>")
    async def async_view(what: str) -> str:
        text: str = await ASYNC_VIEWS[what]()
        return text

    @app.get("/stream")
    def streaming() -> Response:
        return Response(stream(), content_type="text/plain")

    return app, cancelable
