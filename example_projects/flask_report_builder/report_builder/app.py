"""The application factory."""

from __future__ import annotations

import secrets
import sysconfig
from collections.abc import Mapping
from typing import Any

from flask import Response

from cancelable_flask import CancelableFlask

from .extensions import cancelable
from .reports import Reports
from .views import blueprint

__all__ = ["create_app"]


def create_app(config: Mapping[str, Any] | None = None) -> CancelableFlask:
    """Make the application.

    Args:
        config: Goes before the environment, where ``REPORT_OPERATOR_KEY`` becomes ``OPERATOR_KEY`` and so on; see the README.
    """
    app = CancelableFlask(__name__)
    app.config.from_mapping(
        CORPUS=sysconfig.get_path("stdlib"),
        OPERATOR_KEY=None,
        REPORTS_KEPT=100,
        MAX_CONTENT_LENGTH=16_384,
        SESSION_COOKIE_SAMESITE="Lax",
        # Reports are work for the processor: more than a few at once would only slow each other, and the pages, down.
        CANCELABLE_JOB_WORKERS=2,
        CANCELABLE_JOB_QUEUE_LIMIT=50,
    )
    app.config.from_prefixed_env("REPORT", loads=str)
    app.config.from_mapping(config)
    app.config["SECRET_KEY"] = app.config["SECRET_KEY"] or secrets.token_hex()
    app.register_extension(cancelable)
    app.extensions["reports"] = Reports(app.config["REPORTS_KEPT"])
    app.register_blueprint(blueprint)
    app.after_request(_keep_strangers_out)
    return app


def _keep_strangers_out(response: Response) -> Response:
    """Nothing on a page may come from elsewhere, and no foreign page may put a Cancel button of ours under its own."""
    policy = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    response.headers.setdefault("Content-Security-Policy", policy)
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    return response
