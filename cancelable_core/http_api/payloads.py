"""The JSON that is answered: its fields, in their order, and its exact bytes."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from ..models import CancelationReason, OperationKind
from .exchange import EndpointResponse

if TYPE_CHECKING:
    from ..models import OperationContext, OperationStatistics

__all__ = [
    "METADATA_FIELD",
    "OPERATION_FIELDS",
    "STAFF_FIELDS",
    "STATISTICS_FIELDS",
    "instant",
    "json_response",
    "operation_payload",
    "plain_response",
    "statistics_payload",
    "to_json",
]

OPERATION_FIELDS = (
    "id",
    "name",
    "kind",
    "status",
    "owner",
    "parent_id",
    "created_at",
    "started_at",
    "ended_at",
    "duration_seconds",
    "reason",
    "message",
    "progress",
)
"""What everybody sees of an operation: always all of them, null when unknown."""

METADATA_FIELD = "metadata"
"""Follows where the ``expose_metadata`` setting says so."""

STAFF_FIELDS = ("host", "pid", "role", "origin")
"""Follow for staff."""

_COUNTS = ("total", "pending", "running", "cancelling", "cancelled", "timed_out", "completed", "failed", "lost")

STATISTICS_FIELDS = (
    *_COUNTS,
    "by_reason",
    "by_kind",
    "average_duration_seconds",
    "cancel_latency_seconds",
    "abandoned_threads",
)
"""What the statistics have."""

_COMMON_HEADERS = (("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff"))


def operation_payload(context: OperationContext, *, for_staff: bool = False, with_metadata: bool = False) -> dict[str, Any]:
    """An operation as its JSON object.

    Args:
        for_staff: Add `STAFF_FIELDS`.
        with_metadata: Add the metadata; values that JSON cannot carry are shown as text.
    """
    payload = {name: getattr(context, name) for name in OPERATION_FIELDS}
    if with_metadata:
        payload[METADATA_FIELD] = {str(key): _carried(value) for key, value in context.metadata.items()}
    if for_staff:
        # Only this process's own operations are known to this version, and it has no roles.
        payload |= {"host": socket.gethostname(), "pid": os.getpid(), "role": None, "origin": context.origin}
    return payload


def statistics_payload(statistics: OperationStatistics) -> dict[str, Any]:
    """Statistics as their JSON object; every reason and every kind is there, if need be with 0."""
    latency = statistics.cancel_latency_seconds
    return {
        **{name: getattr(statistics, f"{name}_operations") for name in _COUNTS},
        "by_reason": {reason: statistics.by_reason.get(reason, 0) for reason in CancelationReason},
        "by_kind": {kind: statistics.by_kind.get(kind, 0) for kind in OperationKind},
        "average_duration_seconds": statistics.average_duration_seconds,
        "cancel_latency_seconds": {"p50": latency.p50, "p99": latency.p99},
        "abandoned_threads": statistics.abandoned_threads,
    }


def instant(moment: datetime) -> str:
    """A point in time as ``2026-11-22T10:41:18.123456Z``; always with six decimals, so that text sorts as time does."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def to_json(value: object) -> bytes:
    """The exact bytes: ASCII, no spaces, no NaN.

    Raises:
        ValueError: For NaN, infinity, or a value that contains itself.
        TypeError: For a value that JSON cannot carry.
    """
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False, default=_plain).encode("ascii")


def json_response(
    status: int,
    payload: Mapping[str, Any],
    *,
    media_type: str = "application/json",
    headers: Sequence[tuple[str, str]] = (),
) -> EndpointResponse:
    """An answer with a JSON body."""
    body = to_json(payload)
    about_body = (("Content-Type", media_type), ("Content-Length", str(len(body))))
    return EndpointResponse(status, (*about_body, *_COMMON_HEADERS, *headers), body)


def plain_response(status: int, *, headers: Sequence[tuple[str, str]] = ()) -> EndpointResponse:
    """An answer without a body."""
    return EndpointResponse(status, (*_COMMON_HEADERS, *headers))


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return instant(value)
    if isinstance(value, Mapping):
        return dict(cast("Mapping[object, object]", value))
    raise TypeError(f"{type(value).__name__} is not JSON")


def _carried(value: object) -> object:
    try:
        to_json(value)
    except (TypeError, ValueError, RecursionError):
        return repr(value)
    return value
