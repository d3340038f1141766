"""Cancelable operations for threads, event loops and web applications.

This package loads anyio and the standard library, nothing else. The adapters for Flask, Django and FastAPI stand on it.
"""

from .bridges import AnyioBridge, BridgeStatistics, ContextBridge
from .decorator import cancelable
from .errors import (
    BridgeClosed,
    BridgeFull,
    CancelableError,
    ConfigurationError,
    DuplicateOperation,
    InvalidOperationId,
    OperationCancelled,
    OperationTimedOut,
    QueueFull,
    RunnerClosed,
)
from .interrupters import interrupting
from .jobs import Job, JobRunner, OwnedJobs
from .models import (
    CancelationReason,
    CancelOutcome,
    CancelResult,
    LatencyPercentiles,
    OperationContext,
    OperationKind,
    OperationStatistics,
    OperationStatus,
)
from .operation import Cancelable, current_operation
from .regions import Interrupter, InterruptibleRegion
from .registry import OperationRegistry, ThreadSafeRegistry, escape_pattern
from .store import OperationStore, default_store, replace_default_store
from .streams import OperationStream
from .token import CancelationToken, CompositeToken, Registration

__all__ = [
    "AnyioBridge",
    "BridgeClosed",
    "BridgeFull",
    "BridgeStatistics",
    "CancelOutcome",
    "CancelResult",
    "Cancelable",
    "CancelableError",
    "CancelationReason",
    "CancelationToken",
    "CompositeToken",
    "ConfigurationError",
    "ContextBridge",
    "DuplicateOperation",
    "Interrupter",
    "InterruptibleRegion",
    "InvalidOperationId",
    "Job",
    "JobRunner",
    "LatencyPercentiles",
    "OperationCancelled",
    "OperationContext",
    "OperationKind",
    "OperationRegistry",
    "OperationStatistics",
    "OperationStatus",
    "OperationStore",
    "OperationStream",
    "OperationTimedOut",
    "OwnedJobs",
    "QueueFull",
    "Registration",
    "RunnerClosed",
    "ThreadSafeRegistry",
    "cancelable",
    "current_operation",
    "default_store",
    "escape_pattern",
    "interrupting",
    "replace_default_store",
]
