"""Werkzeug's development server: ``python -m tests.conformance.servers.werkzeug_server <port> <module:attribute>``."""

from __future__ import annotations

import sys

from werkzeug.serving import run_simple
from werkzeug.utils import import_string

if __name__ == "__main__":
    _, port, app = sys.argv
    run_simple("127.0.0.1", int(port), import_string(app), threaded=True)
