"""The values that the suite takes and hands out: statuses, reasons, queries, snapshots. They have hardly any behaviour."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

__all__ = [
    "CancelOutcome",
    "CancelRequest",
    "CancelResult",
    "CancelationReason",
    "Cursor",
    "LatencyPercentiles",
    "OperationContext",
    "OperationKind",
    "OperationQuery",
    "OperationStatistics",
    "OperationStatus",
]


class OperationKind(StrEnum):
    """What an operation is: background work, a web request, or a block of code."""

    JOB = "job"
    REQUEST = "request"
    OPERATION = "operation"


class OperationStatus(StrEnum):
    """Where an operation stands: ``pending → running → cancelling →`` one of the final ones."""

    PENDING = "pending"
    RUNNING = "running"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    COMPLETED = "completed"
    FAILED = "failed"
    LOST = "lost"
    """Its process died; seen from other processes only."""

    @property
    def is_final(self) -> bool:
        """Whether no further status can follow."""
        return self not in _LIVE


_LIVE = frozenset({OperationStatus.PENDING, OperationStatus.RUNNING, OperationStatus.CANCELLING})


class CancelationReason(StrEnum):
    """Why something was cancelled. Closed: free text belongs in the message."""

    MANUAL = "manual"
    TIMEOUT = "timeout"
    DISCONNECT = "disconnect"
    SHUTDOWN = "shutdown"
    SIGNAL = "signal"
    CONDITION = "condition"
    PARENT = "parent"


class CancelOutcome(StrEnum):
    """What became of a request to cancel."""

    REQUESTED = "requested"
    ALREADY_REQUESTED = "already_requested"
    QUEUED = "queued"
    """Kept for a process that cannot be reached right now."""
    FINISHED = "finished"
    UNKNOWN = "unknown"
    LOST = "lost"


_ACCEPTED = frozenset({CancelOutcome.REQUESTED, CancelOutcome.ALREADY_REQUESTED, CancelOutcome.QUEUED})


@dataclass(frozen=True, slots=True)
class CancelResult:
    """The answer to a request to cancel; truthy when it was accepted.

    Attributes:
        outcome: What became of the request.
        status: The operation's status after it, where known.
    """

    outcome: CancelOutcome
    status: OperationStatus | None = None

    @property
    def accepted(self) -> bool:
        """Whether the operation has been, or will be, told to stop."""
        return self.outcome in _ACCEPTED

    def __bool__(self) -> bool:
        return self.accepted


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationContext:
    """A frozen snapshot of an operation. Instants are aware UTC datetimes; all are None until they have happened."""

    id: str
    name: str | None
    kind: OperationKind
    owner: str | None
    status: OperationStatus
    created_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    cancel_requested_at: datetime | None = None
    reason: CancelationReason | None = None
    message: str | None = None
    origin: str | None = None
    parent_id: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    progress: Mapping[str, Any] | None = None
    id_is_secret: bool = False
    """Whether the id was generated at random, so that knowing it is a capability."""

    @property
    def duration_seconds(self) -> float | None:
        """Seconds from start to end; None until it has ended, and for what never started."""
        if self.started_at is None or self.ended_at is None:
            return None
        return (self.ended_at - self.started_at).total_seconds()


@dataclass(frozen=True, slots=True)
class LatencyPercentiles:
    """Seconds from the request to cancel to the operation's end, over the last thousand cancelled ones; None without any."""

    p50: float | None = None
    p99: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationStatistics:
    """One consistent snapshot: the total is always the sum of the eight statuses.

    ``running_operations`` does not include ``cancelling_operations``.
    """

    total_operations: int = 0
    pending_operations: int = 0
    running_operations: int = 0
    cancelling_operations: int = 0
    cancelled_operations: int = 0
    timed_out_operations: int = 0
    completed_operations: int = 0
    failed_operations: int = 0
    lost_operations: int = 0
    by_reason: Mapping[CancelationReason, int] = field(default_factory=dict[CancelationReason, int])
    """Finished operations that a cancel ended, by its reason."""
    by_kind: Mapping[OperationKind, int] = field(default_factory=dict[OperationKind, int])
    """All operations counted since the start, by kind."""
    average_duration_seconds: float | None = None
    cancel_latency_seconds: LatencyPercentiles = LatencyPercentiles()
    abandoned_threads: int = 0
    """Threads that still run a call whose operation no longer waits for it."""
    failed_interruptions: int = 0
    """Interrupters that raised since the start; the log says what."""


Cursor = tuple[datetime, str]
"""Where a page ended: ``(created_at, id)`` of its last operation. Says the same in every process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelRequest:
    """One cancel on its way to the process that owns the operation."""

    reason: CancelationReason
    message: str | None = None
    origin: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationQuery:
    """Which operations are meant. None means any; an empty collection means none.

    Attributes:
        statuses: The statuses to include.
        kinds: The kinds to include.
        name_pattern: A glob as in `fnmatch.fnmatchcase`; matches named operations only.
        owner: The exact owner.
        parent_id: The exact parent.
        limit: At most so many operations.
        after: Continue behind this position, newest first.
    """

    statuses: Collection[OperationStatus] | None = None
    kinds: Collection[OperationKind] | None = None
    name_pattern: str | None = None
    owner: str | None = None
    parent_id: str | None = None
    limit: int | None = None
    after: Cursor | None = None
