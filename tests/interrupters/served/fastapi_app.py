"""On FastAPI, in an endpoint that runs in a thread."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse

from cancelable_fastapi import cancelable_view, install

from .engine import query
from .sqlite import sqlite_query

app = FastAPI(default_response_class=PlainTextResponse)
install(app)
app.get("/query/{name}")(cancelable_view(query))
app.get("/sqlite")(cancelable_view(sqlite_query))
