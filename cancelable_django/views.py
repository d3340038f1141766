"""The one view behind all routes: which route it is, and what it answers, the core decides."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, urlencode

from asgiref.sync import sync_to_async
from django.conf import settings as django_settings
from django.contrib.auth.decorators import login_not_required
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import CsrfViewMiddleware
from django.utils.module_loading import import_string
from django.views.decorators.csrf import csrf_exempt

from cancelable_core.http_api import ProblemCode, problem_response

from ._translate import aprincipal_of, bounded_body, endpoint_request, native_response
from .conf import get_application

__all__ = ["endpoint"]

_TOKEN_FIELD = "csrfmiddlewaretoken"


@login_not_required  # the policy decides, and answers in JSON rather than by a redirect
@csrf_exempt  # it makes the check itself, after a bounded read, and answers a failure like every other problem
async def endpoint(
    request: HttpRequest, path: str = "", operation_id: str = "", action: str = "", **mount: object
) -> HttpResponse:
    """Answer any request under the prefix.

    Args:
        path: What follows the prefix, for the catch-all route.
        operation_id: The same in parts, for the routes that have names.
        action: What comes behind the id, or alone.
        mount: What the project's own part of the route captures, as ``<slug:tenant>/jobs/`` does.
    """
    application = get_application()
    is_asgi = isinstance(request, ASGIRequest)
    body = await sync_to_async(bounded_body)(request) if not is_asgi else bounded_body(request)
    body, refusal = _check_csrf(request, body)
    if refusal is not None:
        return native_response(problem_response(ProblemCode.CSRF, refusal))
    principal = await aprincipal_of(request, application.settings)
    path = "/" + (path or "/".join(part for part in (operation_id, action) if part))
    api = application.asgi_api if is_asgi else application.wsgi_api
    return native_response(await api.arespond(endpoint_request(request, path, body, principal)))


class _CsrfCheck(CsrfViewMiddleware):
    """Django's own check, with its reason in place of its HTML page."""

    def _reject(self, request: HttpRequest, reason: str) -> Any:
        return reason


def _check_csrf(request: HttpRequest, body: bytes) -> tuple[bytes, str | None]:
    """The body without a form's token, and why the request is refused, if it is.

    Only what a browser sends by itself can be forged: a request without cookies and credentials needs no token, nor does one
    with a bearer token, which no browser adds.
    """
    if request.content_type == "application/x-www-form-urlencoded" and _TOKEN_FIELD.encode() in body:
        pairs = parse_qsl(body.decode("utf-8", "surrogateescape"), keep_blank_values=True, errors="surrogateescape")
        tokens = [value for name, value in pairs if name == _TOKEN_FIELD]
        if tokens and tokens[-1]:  # as for other forms: its own token counts before a header's
            request.META[django_settings.CSRF_HEADER_NAME] = tokens[-1]
        rest = [(name, value) for name, value in pairs if name != _TOKEN_FIELD]
        body = urlencode(rest, errors="surrogateescape").encode()
    authorization = request.headers.get("Authorization", "")
    if not _uses_csrf() or authorization.lower().startswith("bearer ") or not (request.COOKIES or authorization):
        return body, None
    check = _CsrfCheck(lambda request: HttpResponse())
    check.process_request(request)
    reason: Any = check.process_view(request, _ordinary_view, (), {})
    return body, None if reason is None else str(reason)


def _ordinary_view(request: HttpRequest) -> HttpResponse:
    raise AssertionError("only looked at, for its missing csrf_exempt mark")


def _uses_csrf() -> bool:
    return _has_csrf_check(tuple(django_settings.MIDDLEWARE))


@lru_cache(maxsize=8)
def _has_csrf_check(layers: Sequence[str]) -> bool:
    classes = [layer for layer in map(import_string, layers) if isinstance(layer, type)]
    return any(issubclass(layer, CsrfViewMiddleware) for layer in classes)
