"""The transport of one process: straight to its store."""

from __future__ import annotations

from collections.abc import Collection

from ..models import (
    CancelOutcome,
    CancelRequest,
    CancelResult,
    OperationContext,
    OperationKind,
    OperationQuery,
    OperationStatistics,
)
from ..store import EndToken, OperationStore
from .base import Transport

__all__ = ["LocalTransport"]


class LocalTransport(Transport):
    """Reaches the operations of one store in this process.

    Concurrency:
        Any thread; nothing here waits. `cancel` is lock-free and safe in a signal handler.
    """

    def __init__(self, store: OperationStore) -> None:
        self.store = store

    def cancel(self, operation_id: str, request: CancelRequest) -> CancelResult:
        entry = self.store.find(operation_id)
        if entry is None:
            finished = self.store.finished(operation_id)
            if finished is None:
                return CancelResult(CancelOutcome.UNKNOWN)
            return CancelResult(CancelOutcome.FINISHED, finished.status)
        if entry.cancel_sync(request.reason, request.message, origin=request.origin):
            return CancelResult(CancelOutcome.REQUESTED, entry.status)
        status = entry.status
        outcome = CancelOutcome.FINISHED if status.is_final else CancelOutcome.ALREADY_REQUESTED
        return CancelResult(outcome, status)

    def cancel_all(self, query: OperationQuery, request: CancelRequest) -> int:
        return sum(
            entry.cancel_sync(request.reason, request.message, origin=request.origin)
            for entry, _ in self.store.select_live(query)
        )

    def get(self, operation_id: str) -> OperationContext | None:
        entry = self.store.find(operation_id)
        return self.store.finished(operation_id) if entry is None else entry.context

    def list_live(self, query: OperationQuery) -> list[OperationContext]:
        return [context for _, context in self.store.select_live(query)]

    def list_finished(self, query: OperationQuery) -> list[OperationContext]:
        return self.store.select_finished(query)

    def statistics(self, kinds: Collection[OperationKind] | None = None) -> OperationStatistics:
        return self.store.statistics(kinds)

    def ended(self, operation_id: str) -> EndToken | None:
        return self.store.end_token(operation_id)
