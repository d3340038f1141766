"""The routes, as a blueprint with one view: which route it is, and what it answers, the core decides."""

from __future__ import annotations

from flask import Blueprint, Response
from flask.blueprints import BlueprintSetupState
from werkzeug.routing import BaseConverter

from cancelable_core.servers import WebApplication

from ._translate import endpoint_request, native_response

__all__ = ["make_blueprint"]

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")


class _Anything(BaseConverter):
    """What Werkzeug's own ``path`` does not match, too: nothing at all, a leading slash, line breaks."""

    part_isolating = False
    regex = r"(?s:.*)"


def _add_converter(state: BlueprintSetupState) -> None:
    state.app.url_map.converters["cancelable"] = _Anything


def make_blueprint(application: WebApplication) -> Blueprint:
    """The blueprint ``cancelable``, under the application's ``url_prefix``."""
    blueprint = Blueprint("cancelable", __name__, url_prefix=application.settings.url_prefix)

    def endpoint(path: str = "") -> Response:
        return native_response(application.wsgi_api.respond(endpoint_request(f"/{path}", application.settings)))

    blueprint.record_once(_add_converter)
    for rule in ("", "/<cancelable:path>"):
        blueprint.add_url_rule(
            rule,
            endpoint="endpoint",
            view_func=endpoint,
            methods=_METHODS,
            provide_automatic_options=False,
            merge_slashes=False,  # no redirects: whatever else there may be is unknown in our own words
        )
    return blueprint
