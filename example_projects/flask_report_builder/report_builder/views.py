"""The pages, and the endpoints that start, show and cancel reports. The routes below ``/jobs`` are the extension's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from flask import Blueprint, abort, current_app, jsonify, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response

from cancelable_core import OperationContext, OperationKind, escape_pattern
from cancelable_core.http_api import Action

from .extensions import cancelable
from .forms import InvalidFields, ReportForm
from .identity import remember_visitor, who_is_asking
from .passes import PASSES
from .reports import Report, Reports, build_report

__all__ = ["blueprint"]

ROWS_SHOWN = 20

blueprint = Blueprint("reports", __name__)


@blueprint.get("/")
def show_page() -> ResponseReturnValue:
    """The page: a form, and the visitor's reports."""
    remember_visitor()
    return _page()


@blueprint.post("/reports")
def start_report() -> ResponseReturnValue:
    """Start building a report. Whoever asks owns it; his unfinished one about the same files makes room for it."""
    if request.authorization is None:
        remember_visitor()
    owner = who_is_asking(request).id
    if owner is None:
        abort(401, "This key is not the operator's.", www_authenticate=WWWAuthenticate("bearer"))
    corpus = Path(current_app.config["CORPUS"])
    try:
        form = ReportForm.read(_fields(), corpus)
    except InvalidFields as invalid:
        return (_page(invalid.errors) if _wants_page() else jsonify(errors=invalid.errors)), 422
    # the name holds a glob: unescaped, "report *.py" would reach "report asyncio/*.py", too
    same_files = f"report {escape_pattern(form.pattern)}"
    cancelable.registry.cancel_all(same_files, kind=OperationKind.JOB, owner=owner, message="started anew")
    report = Report(corpus, form.pattern, form.files, form.passes)
    report.job = cancelable.jobs.submit(build_report, report, name=f"report {form.pattern}")
    _reports().add(report)
    return redirect(url_for(".show_page"), 303) if _wants_page() else (jsonify(id=report.job.id), 202)


@blueprint.get("/reports/<report_id>")
def show_report(report_id: str) -> ResponseReturnValue:
    """What a report has found: until now, until it was cancelled, or in the end."""
    found = _find(report_id, Action.VIEW).as_json()
    return render_template("report.html", report=found) if _wants_page() else jsonify(found)


@blueprint.post("/reports/<report_id>/cancel")
def cancel_report(report_id: str) -> ResponseReturnValue:
    """The page's *Cancel* button without JavaScript: as ``POST /jobs/<id>/cancel``, and back to the page."""
    _find(report_id, Action.CANCEL).job.cancel_sync("cancelled on the page", origin="page")
    return redirect(url_for(".show_page"), 303)


@blueprint.before_request
def _refuse_foreign_pages() -> None:
    """A foreign page must not post our forms. Browsers say where a request comes from; other clients say nothing."""
    if request.method == "POST" and request.headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none"):
        abort(403, "This comes from a page of another site.")


@blueprint.app_errorhandler(HTTPException)
def _show_error(error: HTTPException) -> ResponseReturnValue:
    """Errors as JSON, unless a browser asks for a page."""
    response = error.get_response()
    if error.code is not None and error.code >= 400 and isinstance(response, Response) and not _wants_page():
        response.data = json.dumps({"error": error.description})
        response.content_type = "application/json"
    return response


def _page(errors: dict[str, str] | None = None) -> str:
    return render_template(
        "page.html",
        passes=PASSES,
        pattern=request.form.get("pattern", "*.py"),
        chosen=request.form.getlist("passes") or list(PASSES),
        errors=errors or {},
        jobs_url=request.script_root + cancelable.settings.url_prefix,
        operations=_own_operations(),
    )


def _own_operations() -> list[OperationContext]:
    owner = who_is_asking(request).id
    if owner is None:
        return []
    registry = cancelable.registry
    live = registry.list_operations(kind=OperationKind.JOB, owner=owner, limit=ROWS_SHOWN)
    ended = registry.get_history(kind=OperationKind.JOB, owner=owner, limit=ROWS_SHOWN)
    found = {context.id: context for context in (*live, *ended)}  # one that ends in between is in both
    return sorted(found.values(), key=lambda context: context.created_at, reverse=True)[:ROWS_SHOWN]


def _find(report_id: str, action: Action) -> Report:
    """The report, by the same rules as the routes': somebody else's is as unknown as one that never was."""
    report = _reports().get(report_id)
    if report is not None:
        policy = cancelable.settings.policy
        if policy.decide(who_is_asking(request), action, report.job.context).allowed:
            return report
    abort(404, "There is no such report, or it is not yours.")


def _fields() -> dict[str, Any]:
    if request.is_json:
        fields = request.get_json()
        if not isinstance(fields, dict):
            abort(400, "The body must be a JSON object.")
        return fields
    if request.mimetype != "application/x-www-form-urlencoded":
        abort(415, "Send application/json or a form.")
    sent = request.form.to_dict(flat=False)
    return {name: values if name == "passes" or len(values) > 1 else values[0] for name, values in sent.items()}


def _reports() -> Reports:
    reports: Reports = current_app.extensions["reports"]
    return reports


def _wants_page() -> bool:
    return request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html"
