"""The application, on FastAPI."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import FastAPI, Header
from fastapi.responses import PlainTextResponse, StreamingResponse

from cancelable_core import OwnedJobs
from cancelable_fastapi import CancelableSuite, CurrentJobs, install

from .work import ASYNC_VIEWS, SYNC_VIEWS, WORK, async_stream

__all__ = ["TEMPLATE", "make_app"]

TEMPLATE = "/sync/{what}"
"""How this framework writes the route of the plain views."""


def current_user(x_test_user: Annotated[str | None, Header()] = None) -> str | None:
    """Who is asking."""
    return x_test_user


def make_app(**settings: Any) -> tuple[FastAPI, CancelableSuite]:
    """A fresh application."""
    app = FastAPI(default_response_class=PlainTextResponse)
    cancelable = install(app, principal=current_user, staff=lambda user: user == "root", **settings)

    def submit(jobs: OwnedJobs, work: str, job_id: str, name: str | None, gate: str | None, timeout: float | None) -> str:
        chosen = None if job_id == "any" else job_id
        return jobs.submit(WORK[work], gate or job_id, name=name or work, job_id=chosen, timeout=timeout).id

    @app.post("/submit/{work}/{job_id}", status_code=202)
    def submit_sync(
        jobs: CurrentJobs,
        work: str,
        job_id: str,
        name: str | None = None,
        gate: str | None = None,
        timeout: float | None = None,
    ) -> str:
        return submit(jobs, work, job_id, name, gate, timeout)

    @app.post("/asubmit/{work}/{job_id}", status_code=202)
    async def submit_async(
        jobs: CurrentJobs,
        work: str,
        job_id: str,
        name: str | None = None,
        gate: str | None = None,
        timeout: float | None = None,
    ) -> str:
        return submit(jobs, work, job_id, name, gate, timeout)

    @app.get("/sync/{what}")
    def sync_view(what: str) -> str:
        return SYNC_VIEWS[what]()

    @app.get("/async/{what}")
    async def async_view(what: str) -> str:
        text: str = await ASYNC_VIEWS[what]()
        return text

    @app.get("/stream")
    async def streaming() -> StreamingResponse:
        return StreamingResponse(async_stream(), media_type="text/plain")

    return app, cancelable
