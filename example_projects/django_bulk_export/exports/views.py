"""The pages. Nothing here cancels anything: that is what the routes under /jobs/ are for."""

from __future__ import annotations

from django.core.handlers.asgi import ASGIRequest
from django.db import transaction
from django.db.models import QuerySet
from django.http import FileResponse, Http404, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET, require_POST, require_safe

from cancelable_django import jobs
from cancelable_django.conf import registry

from .models import Character, Export
from .writing import acsv_lines, csv_lines, write_export

SHOWN = 50


@require_safe
def index(request: HttpRequest) -> HttpResponse:
    """The exports this user may see, newest first; a script keeps the unfinished ones up to date."""
    exports = list(_exports_of(request).select_related("owner").order_by("-created_at")[:SHOWN])
    rows = [{"export": export, "status": _status(export)} for export in exports]
    return render(request, "exports/index.html", {"rows": rows, "table_size": Character.objects.count()})


@require_POST
def start_export(request: HttpRequest) -> HttpResponse:
    """Start an export in the background: 202 with its id, or, to a browser's form, back to the list."""
    with transaction.atomic():  # the job finds its Export in the database: it must not start before that is committed
        export_id = jobs.submit_on_commit(write_export, name="export characters")
        Export.objects.create(id=export_id, owner=request.user)
    if request.get_preferred_type(["application/json", "text/html"]) == "text/html":
        return redirect("index")
    return JsonResponse({"id": export_id}, status=202)


@require_GET
def stream_export(request: HttpRequest) -> StreamingHttpResponse:
    """The same table at once, as it is made. The response's X-Operation-ID is what cancels it."""
    lines = acsv_lines() if isinstance(request, ASGIRequest) else csv_lines()
    response = StreamingHttpResponse(lines, content_type="text/csv; charset=utf-8")
    response.headers["Content-Disposition"] = 'attachment; filename="characters.csv"'
    return response


@require_safe
def download_export(request: HttpRequest, export_id: str) -> HttpResponseBase:
    """The finished file."""
    export = get_object_or_404(_exports_of(request), pk=export_id)
    try:
        file = export.file.open("rb")
    except FileNotFoundError:
        raise Http404("This export has no file.") from None
    return FileResponse(file, as_attachment=True, filename="characters.csv", content_type="text/csv; charset=utf-8")


def _exports_of(request: HttpRequest) -> QuerySet[Export]:
    exports = Export.objects.all()
    return exports if request.user.is_staff else exports.filter(owner=request.user)


def _status(export: Export) -> str:
    """How an export ended, or how its job stands; an unfinished one without a job went down with its server."""
    if export.outcome:
        return export.outcome
    operation = registry().get_operation(export.id)
    return "lost" if operation is None else str(operation.status)
