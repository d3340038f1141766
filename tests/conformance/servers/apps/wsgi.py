"""All WSGI applications in one process: ``tests.conformance.servers.apps.wsgi:app``. Each server has to start only once."""

from __future__ import annotations

import logging
from typing import Any

from werkzeug.exceptions import NotFound
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from . import bare_wsgi, django_app, flask_app

__all__ = ["app"]

logging.basicConfig(level=logging.INFO)

app: Any = DispatcherMiddleware(
    NotFound(),
    {
        "/flask": flask_app.make_app(),
        "/django": django_app.make_wsgi_app(),
        "/bare": bare_wsgi.make_app(),
        "/plain-flask": flask_app.make_app(with_suite=False),
        "/plain-django": django_app.make_wsgi_app(with_suite=False),
    },
)
