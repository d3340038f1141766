"""What a token was told: written once, read by everybody, raised as an error."""

from __future__ import annotations

from typing import NamedTuple

from .errors import OperationCancelled, OperationTimedOut
from .models import CancelationReason

__all__ = ["SEAL", "Verdict", "cancelation_error", "reason_and_message"]


class Verdict(NamedTuple):
    """What a token was told, written once."""

    reason: CancelationReason
    message: str | None
    origin: str | None
    at: float
    """Seconds since the epoch."""


SEAL = Verdict(CancelationReason.MANUAL, None, None, 0.0)
"""Stands first in the list of a token that can no longer be cancelled."""


def reason_and_message(reason: CancelationReason | str | None, message: str | None) -> tuple[CancelationReason, str | None]:
    """Read the two arguments of every cancel: a `CancelationReason`, or plain text as the message of a manual one."""
    if reason is None:
        reason = CancelationReason.MANUAL
    elif not isinstance(reason, CancelationReason):
        if not isinstance(reason, str):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers without a type checker
            raise TypeError(f"reason must be a CancelationReason or text, not {type(reason).__name__}")
        if message is not None:
            raise TypeError("give the message once: either as plain text in place of the reason, or as message=")
        reason, message = CancelationReason.MANUAL, reason
    if message is not None and not isinstance(message, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"message must be text, not {type(message).__name__}")
    return reason, message


def cancelation_error(
    verdict: Verdict, *, operation_id: str | None = None, name: str | None = None, lineage: object = None
) -> OperationCancelled:
    """The error that tells the truth about a verdict."""
    subject = "operation" if operation_id is None else f"operation {name or operation_id!r}"
    timed_out = verdict.reason is CancelationReason.TIMEOUT
    text = f"{subject} timed out" if timed_out else f"{subject} was cancelled ({verdict.reason})"
    if verdict.message:
        text += f": {verdict.message}"
    return (OperationTimedOut if timed_out else OperationCancelled)(
        text,
        operation_id=operation_id,
        name=name,
        reason=verdict.reason,
        message=verdict.message,
        origin=verdict.origin,
        lineage=lineage,
    )
