"""On Flask."""

from __future__ import annotations

from cancelable_flask import CancelableExtension, CancelableFlask, cancelable_view

from .engine import query
from .sqlite import sqlite_query

app = CancelableFlask(__name__)
app.register_extension(CancelableExtension())
app.add_url_rule("/query/<name>", view_func=cancelable_view(query))
app.add_url_rule("/sqlite", view_func=cancelable_view(sqlite_query))
