"""The endpoints that change nothing: list, one operation, statistics."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..models import OperationKind, OperationStatus
from .cursors import cursor_after
from .fields import FieldReader
from .parsing import query_fields
from .payloads import json_response, statistics_payload
from .policy import Action

if TYPE_CHECKING:
    from ..models import Cursor, OperationContext
    from ..registry import ThreadSafeRegistry
    from .access import Access
    from .exchange import EndpointRequest, EndpointResponse
    from .policy import Decision

__all__ = [
    "ALL_KINDS",
    "DEFAULT_KINDS",
    "LIVE",
    "NAME_LIMIT",
    "OWNER_LIMIT",
    "list_operations",
    "reaches_nobody",
    "show_operation",
    "show_statistics",
]

ALL_KINDS = tuple(OperationKind)
ALL_STATUSES = tuple(OperationStatus)

DEFAULT_KINDS = (OperationKind.JOB, OperationKind.OPERATION)
"""What is meant where no kind is named: requests come and go by the thousand."""

NAME_LIMIT = 500
OWNER_LIMIT = 500
_PAGE_SIZE = 50
_PAGE_LIMIT = 500

LIVE = tuple(status for status in ALL_STATUSES if not status.is_final)
_FINAL = tuple(status for status in ALL_STATUSES if status.is_final)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Page:
    """Which operations a client wants to see."""

    statuses: Collection[OperationStatus]
    kinds: Collection[OperationKind]
    name: str | None
    owner: str | None
    limit: int
    after: Cursor | None


def list_operations(access: Access, request: EndpointRequest) -> EndpointResponse:
    """``GET /``"""
    decision = access.require(request.principal, Action.LIST)
    page = _read_page(request)
    found: list[OperationContext] = []
    if not reaches_nobody(decision, page.owner):
        found = _newest(access.registry, page, owner=decision.owner_filter or page.owner)
    shown = found[: page.limit]
    payload = {
        "operations": [access.describe(request.principal, context) for context in shown],
        "next": cursor_after(shown[-1]) if len(found) > len(shown) else None,
    }
    return json_response(200, payload)


def show_operation(access: Access, request: EndpointRequest, operation_id: str) -> EndpointResponse:
    """``GET /<id>``"""
    FieldReader(query_fields(request)).finish()
    context = access.find(request.principal, operation_id, Action.VIEW)
    return json_response(200, access.describe(request.principal, context))


def show_statistics(access: Access, request: EndpointRequest) -> EndpointResponse:
    """``GET /stats``"""
    access.require(request.principal, Action.STATISTICS)
    fields = FieldReader(query_fields(request))
    kinds = fields.choices("kind", ALL_KINDS)
    fields.finish()
    return json_response(200, statistics_payload(access.registry.get_statistics(kind=kinds)))


def reaches_nobody(decision: Decision, owner: str | None) -> bool:
    """Whether the asker named an owner that is out of reach. Nobody's operations are meant then, never the asker's own."""
    return owner is not None and decision.owner_filter is not None and owner != decision.owner_filter


def _read_page(request: EndpointRequest) -> _Page:
    fields = FieldReader(query_fields(request))
    page = _Page(
        statuses=fields.choices("status", ALL_STATUSES, default=ALL_STATUSES) or (),
        kinds=fields.choices("kind", ALL_KINDS, default=DEFAULT_KINDS) or (),
        name=fields.text("name", max_length=NAME_LIMIT),
        owner=fields.text("owner", max_length=OWNER_LIMIT),
        limit=fields.integer("limit", default=_PAGE_SIZE, minimum=1, maximum=_PAGE_LIMIT),
        after=fields.cursor("after"),
    )
    fields.finish()
    return page


def _newest(registry: ThreadSafeRegistry, page: _Page, *, owner: str | None) -> list[OperationContext]:
    """One more than the page's limit, live and finished ones together.

    The live ones are asked for first: what ends in between is then in both lists rather than in none, and its end counts.
    """
    found: dict[str, OperationContext] = {}
    for statuses, select in ((LIVE, registry.list_operations), (_FINAL, registry.get_history)):
        wanted = [status for status in statuses if status in page.statuses]
        if wanted:
            contexts = select(
                status=wanted,
                kind=page.kinds,
                name_pattern=page.name,
                owner=owner,
                limit=page.limit + 1,
                after=page.after,
            )
            found |= {context.id: context for context in contexts}
    newest = sorted(found.values(), key=lambda context: (context.created_at, context.id), reverse=True)
    return newest[: page.limit + 1]
