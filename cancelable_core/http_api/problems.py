"""What went wrong, as problem details (RFC 9457)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from enum import StrEnum
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from ..errors import OperationTimedOut, QueueFull
from ..models import CancelationReason
from .payloads import json_response

if TYPE_CHECKING:
    from ..errors import OperationCancelled
    from .exchange import EndpointResponse
    from .settings import Settings

__all__ = [
    "MEDIA_TYPE",
    "RETRY_AFTER_SECONDS",
    "ProblemCode",
    "Refusal",
    "cancelled_response",
    "invalid_fields",
    "problem_response",
    "queue_full_response",
    "websocket_close_code",
]

logger = logging.getLogger("cancelable_core")

MEDIA_TYPE = "application/problem+json"

RETRY_AFTER_SECONDS = 5
"""When to come back after a 503: another process has taken over by then, or the queue is shorter."""

_ERRORS_SHOWN = 20
_FIELD_NAME_SHOWN = 100


class ProblemCode(StrEnum):
    """What comes after ``urn:cancelable:`` in a problem's ``type``."""

    MALFORMED = "malformed"
    FORBIDDEN = "forbidden"
    CROSS_ORIGIN = "cross-origin"
    CSRF = "csrf"
    NOT_FOUND = "not-found"
    METHOD_NOT_ALLOWED = "method-not-allowed"
    FINISHED = "finished"
    LOST = "lost"
    LENGTH_REQUIRED = "length-required"
    TOO_LARGE = "too-large"
    UNSUPPORTED_MEDIA_TYPE = "unsupported-media-type"
    INVALID = "invalid"
    CANCELLED = "cancelled"
    SHUTTING_DOWN = "shutting-down"
    QUEUE_FULL = "queue-full"
    TIMED_OUT = "timed-out"


_MEANINGS: dict[ProblemCode, tuple[int, str]] = {
    ProblemCode.MALFORMED: (HTTPStatus.BAD_REQUEST, "The body cannot be read"),
    ProblemCode.FORBIDDEN: (HTTPStatus.FORBIDDEN, "Not allowed"),
    ProblemCode.CROSS_ORIGIN: (HTTPStatus.FORBIDDEN, "The request comes from another origin"),
    ProblemCode.CSRF: (HTTPStatus.FORBIDDEN, "The CSRF check failed"),
    ProblemCode.NOT_FOUND: (HTTPStatus.NOT_FOUND, "There is nothing here"),
    ProblemCode.METHOD_NOT_ALLOWED: (HTTPStatus.METHOD_NOT_ALLOWED, "The method is not allowed here"),
    ProblemCode.FINISHED: (HTTPStatus.CONFLICT, "The operation has finished"),
    ProblemCode.LOST: (HTTPStatus.GONE, "The operation was lost with its process"),
    ProblemCode.LENGTH_REQUIRED: (HTTPStatus.LENGTH_REQUIRED, "The body's length is required"),
    ProblemCode.TOO_LARGE: (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The body is too large"),
    ProblemCode.UNSUPPORTED_MEDIA_TYPE: (HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "The body's type is not supported"),
    ProblemCode.INVALID: (HTTPStatus.UNPROCESSABLE_ENTITY, "Some fields are not valid"),
    ProblemCode.CANCELLED: (499, "The operation was cancelled"),
    ProblemCode.SHUTTING_DOWN: (HTTPStatus.SERVICE_UNAVAILABLE, "The server is shutting down"),
    ProblemCode.QUEUE_FULL: (HTTPStatus.SERVICE_UNAVAILABLE, "Too many jobs are waiting"),
    ProblemCode.TIMED_OUT: (HTTPStatus.GATEWAY_TIMEOUT, "The operation timed out"),
}


class Refusal(Exception):
    """Ends the handling of a request with an answer; never leaves this package."""

    def __init__(self, response: EndpointResponse) -> None:
        super().__init__("the request is refused")
        self.response = response


def problem_response(
    code: ProblemCode,
    detail: str,
    *,
    status: int | None = None,
    headers: Sequence[tuple[str, str]] = (),
    **members: Any,
) -> EndpointResponse:
    """One problem as the answer.

    Args:
        code: Which kind of problem; fixes type, title and status.
        detail: What happened this time and what to do about it.
        status: Another status than the usual one.
        headers: Further headers.
        members: Further members of the object.
    """
    usual, title = _MEANINGS[code]
    status = int(usual if status is None else status)
    payload = {"type": f"urn:cancelable:{code}", "title": title, "status": status, "detail": detail, **members}
    return json_response(status, payload, media_type=MEDIA_TYPE, headers=headers)


def invalid_fields(errors: Mapping[str, str]) -> Refusal:
    """Name the fields that are not valid, with what each of them must be."""
    listed = [{"field": _shortened(field), "message": message} for field, message in errors.items()]
    detail = f"{len(listed)} {'field is' if len(listed) == 1 else 'fields are'} not valid; see errors."
    return Refusal(problem_response(ProblemCode.INVALID, detail, errors=listed[:_ERRORS_SHOWN]))


def _shortened(field: str) -> str:
    return field if len(field) <= _FIELD_NAME_SHOWN else f"{field[:_FIELD_NAME_SHOWN]}…"


def cancelled_response(error: OperationCancelled, settings: Settings) -> EndpointResponse:
    """The answer to a request whose own operation was cancelled: 504 after a timeout, 503 at shutdown, else the setting's.

    The log gets its one line where the operation ends, whether there was still an answer to give or not.
    """
    reason = error.reason
    headers: tuple[tuple[str, str], ...] = ()
    status = None
    if reason is CancelationReason.TIMEOUT or isinstance(error, OperationTimedOut):
        code, detail = ProblemCode.TIMED_OUT, "It took longer than it may."
    elif reason is CancelationReason.SHUTDOWN:
        code, detail, headers = ProblemCode.SHUTTING_DOWN, "Try again.", (_retry_after(),)
    else:
        code, detail, status = ProblemCode.CANCELLED, "It ended before it had an answer.", settings.cancelled_status
    about = {"operation_id": error.operation_id, "reason": reason, "message": error.message}
    return problem_response(code, detail, status=status, headers=headers, **about)


def queue_full_response(error: QueueFull) -> EndpointResponse:
    """The answer to a request whose job found no room: 503 with ``Retry-After``; logged here, once."""
    logger.warning("a job was refused: %s", error)
    limit = "" if error.limit is None else f" All {error.limit} places are taken."
    detail = f"The job was not accepted; try again.{limit}"
    return problem_response(ProblemCode.QUEUE_FULL, detail, headers=(_retry_after(),))


def websocket_close_code(error: OperationCancelled | QueueFull) -> int:
    """The code that closes a WebSocket instead (RFC 6455 §7.4.1, and IANA's registry of close codes).

    1001 "going away" at shutdown, 1013 "try again later" where a job found no room, else 1011 "internal error": the endpoint
    did not come to its end.
    """
    if isinstance(error, QueueFull):
        return 1013
    return 1001 if error.reason is CancelationReason.SHUTDOWN else 1011


def _retry_after() -> tuple[str, str]:
    return ("Retry-After", str(RETRY_AFTER_SECONDS))
