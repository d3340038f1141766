"""The application on Flask; with ``SHUTDOWN_EXPLICIT`` the hook is installed here, as where the server has none for it."""

from __future__ import annotations

import os

from flask import Flask, Response

from cancelable_core.servers import install_shutdown_hook
from cancelable_flask import CancelableExtension

from .shutdown_work import DRAIN_SECONDS, async_work, store, stream, work

app = Flask(__name__)
cancelable = CancelableExtension(app, registry=store, drain_seconds=DRAIN_SECONDS)
app.add_url_rule("/sync", view_func=work)
app.add_url_rule("/async", view_func=async_work)


@app.get("/quick")
def quick() -> str:
    return "quick"


@app.get("/stream")
def streaming() -> Response:
    return Response(stream(), mimetype="text/event-stream")


@app.post("/jobs-of/<kind>")
def submit(kind: str) -> tuple[str, int]:
    return cancelable.jobs.submit(async_work if kind == "async" else work).id, 202


if os.environ.get("SHUTDOWN_EXPLICIT"):
    install_shutdown_hook(exits=True)
