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
    "success",
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


_OPERATION: dict[str, Any] = {
    "id": "6f1c0a5be8d94a7b9d3c2e1f00a4b5c6",
    "name": "report",
    "kind": "job",
    "status": "running",
    "owner": "alice",
    "parent_id": None,
    "created_at": "2026-11-22T10:41:18.123456Z",
    "started_at": "2026-11-22T10:41:18.123789Z",
    "ended_at": None,
    "duration_seconds": None,
    "reason": None,
    "message": None,
    "progress": {"message": "counting", "current": 3, "total": 12},
}

EXAMPLES: dict[type[BaseModel], dict[str, Any]] = {
    CancelableOperation: _OPERATION,
    CancelableOperationList: {"operations": [_OPERATION], "next": None},
    CancelableStatistics: {
        "total": 12,
        "pending": 1,
        "running": 2,
        "cancelling": 0,
        "cancelled": 3,
        "timed_out": 1,
        "completed": 5,
        "failed": 0,
        "lost": 0,
        "by_reason": {reason: 3 if reason == "manual" else int(reason == "timeout") for reason in CancelationReason},
        "by_kind": {kind: 12 if kind == "job" else 0 for kind in OperationKind},
        "average_duration_seconds": 4.25,
        "cancel_latency_seconds": {"p50": 0.002, "p99": 0.031},
        "abandoned_threads": 0,
    },
    CancelableCancelAnswer: {
        "outcome": "requested",
        "operation": {**_OPERATION, "status": "cancelling", "reason": "manual", "message": "not needed any more"},
    },
    CancelableRequested: {"requested": 3},
}
"""One answer of each kind, as a server gives it."""

_BODY_EXAMPLES = {
    "/{operation_id}/cancel": {"message": "not needed any more", "wait_seconds": 5},
    "/cancel-all": {"name": "report-*"},
}

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
        schema = {"type": "object", "properties": BODIES[path], "additionalProperties": False}
        media = {"schema": schema, "example": _BODY_EXAMPLES[path]}
        content = {"application/json": media, "application/x-www-form-urlencoded": media}
        described["requestBody"] = {"required": False, "content": content}
    return described


def success(model: type[BaseModel], description: str | None = None) -> dict[str, Any]:
    """A success of a route, as one of its OpenAPI responses."""
    described = {} if description is None else {"description": description}
    return {"model": model, "content": {"application/json": {"example": EXAMPLES[model]}}, **described}


def problems(statuses: Iterable[int]) -> dict[int | str, dict[str, Any]]:
    """The refusals (RFC 9457) of a route, as its OpenAPI responses."""
    return {status: {"description": _REFUSALS[status], "content": _problem(status)} for status in statuses}


def _problem(status: int) -> dict[str, Any]:
    code, title, detail = _PROBLEMS[status]
    example: dict[str, Any] = {"type": f"urn:cancelable:{code}", "title": title, "status": status, "detail": detail}
    if status == 422:
        example["errors"] = [{"field": "limit", "message": "must be a whole number from 1 to 500"}]
    if status in (409, 410):
        example["operation"] = {**_OPERATION, "status": "completed" if status == 409 else "lost"}
    return {"application/problem+json": {"schema": _PROBLEM, "example": example}}


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

_PROBLEMS = {
    400: ("malformed", "The body cannot be read", "It must be a JSON object."),
    403: ("forbidden", "Not allowed", "It is not known who is asking."),
    404: ("not-found", "There is nothing here", "There is no such operation, or it is not yours."),
    409: ("finished", "The operation has finished", "It had ended before it could be cancelled."),
    410: ("lost", "The operation was lost with its process", "Its process died; nobody can say how far it came."),
    413: ("too-large", "The body is too large", "At most 65536 bytes are read."),
    415: (
        "unsupported-media-type",
        "The body's type is not supported",
        "Send application/json or application/x-www-form-urlencoded.",
    ),
    422: ("invalid", "Some fields are not valid", "1 field is not valid; see errors."),
}
