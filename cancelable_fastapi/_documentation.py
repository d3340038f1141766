"""What the OpenAPI document says about the routes. Nothing here is used to answer: that the core does, with plain values."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from cancelable_core import CancelationReason, CancelOutcome, OperationKind, OperationStatus

__all__ = [
    "CancelableCancelAnswer",
    "CancelableOperation",
    "CancelableOperationList",
    "CancelableRequested",
    "CancelableStatistics",
    "problems",
    "takes",
]

# The models' names become schemas of the application's document: one that it has too would rename both.


class CancelableProgress(BaseModel):
    """How far an operation is. What else it reports stands beside these."""

    model_config = ConfigDict(extra="allow")

    message: str | None
    current: float | None
    total: float | None


class CancelableOperation(BaseModel):
    """One operation. Staff sees more of it."""

    model_config = ConfigDict(extra="allow")

    id: str
    name: str | None
    kind: OperationKind
    status: OperationStatus
    owner: str | None
    parent_id: str | None
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    duration_seconds: float | None
    reason: CancelationReason | None
    message: str | None
    progress: CancelableProgress | None


class CancelableOperationList(BaseModel):
    """One page of operations, newest first."""

    operations: list[CancelableOperation]
    next: str | None


class CancelableLatency(BaseModel):
    """Seconds from a cancel to the operation's end."""

    p50: float | None
    p99: float | None


class CancelableStatistics(BaseModel):
    """How many operations there were, and what became of them."""

    total: int
    pending: int
    running: int
    cancelling: int
    cancelled: int
    timed_out: int
    completed: int
    failed: int
    lost: int
    by_reason: dict[CancelationReason, int]
    by_kind: dict[OperationKind, int]
    average_duration_seconds: float | None
    cancel_latency_seconds: CancelableLatency
    abandoned_threads: int


class CancelableCancelAnswer(BaseModel):
    """What a cancel did, and the operation as it is now."""

    outcome: CancelOutcome
    operation: CancelableOperation


class CancelableRequested(BaseModel):
    """How many operations were told to stop."""

    requested: int


_KINDS = {"type": "array", "items": {"type": "string", "enum": [*OperationKind]}}
_STATUSES = {"type": "array", "items": {"type": "string", "enum": [*OperationStatus]}}
_LIVE = {"type": "array", "items": {"type": "string", "enum": [status for status in OperationStatus if not status.is_final]}}
_SHORT_TEXT = {"type": "string", "minLength": 1, "maxLength": 500}

QUERIES: dict[str, dict[str, Any]] = {
    "/": {
        "status": _STATUSES,
        "kind": _KINDS,
        "name": _SHORT_TEXT,
        "owner": _SHORT_TEXT,
        "limit": {"type": "integer", "minimum": 1, "maximum": 500, "default": 50},
        "after": {"type": "string", "minLength": 1, "maxLength": 400},
    },
    "/stats": {"kind": _KINDS},
}
"""The query parameters by the route's path; all of them may be left out."""

BODIES: dict[str, dict[str, Any]] = {
    "/{operation_id}/cancel": {
        "message": {"type": "string", "maxLength": 500},
        "wait_seconds": {"type": "number", "minimum": 0, "default": 0},
    },
    "/cancel-all": {
        "name": _SHORT_TEXT,
        "owner": _SHORT_TEXT,
        "kind": _KINDS,
        "status": _LIVE,
        "all": {"type": "boolean", "default": False},
    },
}
"""The fields of the bodies by the route's path; all of them, and the body, may be left out."""


def takes(path: str) -> dict[str, Any]:
    """What a route takes, as a part of its OpenAPI operation."""
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "query", "required": False, "schema": schema} for name, schema in QUERIES.get(path, {}).items()
    ]
    if "{operation_id}" in path:
        parameters.append({"name": "operation_id", "in": "path", "required": True, "schema": {"type": "string"}})
    described: dict[str, Any] = {"parameters": parameters} if parameters else {}
    if path in BODIES:
        media = {"schema": {"type": "object", "properties": BODIES[path], "additionalProperties": False}}
        content = {"application/json": media, "application/x-www-form-urlencoded": media}
        described["requestBody"] = {"required": False, "content": content}
    return described


def problems(statuses: Iterable[int]) -> dict[int | str, dict[str, Any]]:
    """The refusals (RFC 9457) of a route, as its OpenAPI responses."""
    media = {"application/problem+json": {"schema": _PROBLEM}}
    return {status: {"description": _REFUSALS[status], "content": media} for status in statuses}


_PROBLEM = {
    "type": "object",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
    },
    "required": ["type", "title", "status", "detail"],
}

_REFUSALS = {
    400: "The body cannot be read",
    403: "Not allowed, or sent by a page of another origin",
    404: "There is no such operation, or it is not the asker's",
    409: "It had ended before it could be cancelled",
    410: "It was lost with its process",
    413: "The body is too large",
    415: "The body is neither JSON nor a form",
    422: "Some fields are not valid; `errors` names them",
}
