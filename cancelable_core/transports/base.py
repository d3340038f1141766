"""The contract between a registry and whatever knows its operations: this process's store, or a directory shared by many.

The process that runs an operation is its only arbiter: it decides, in one place, whether a cancel or the finish came first.
A transport carries cancels in and views out, and never decides. `LocalTransport` fulfils the contract for one process.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from ..models import (
        CancelRequest,
        CancelResult,
        OperationContext,
        OperationKind,
        OperationQuery,
        OperationStatistics,
    )
    from ..store import EndToken, OperationStore

__all__ = ["Transport"]


class Transport(ABC):
    """What a registry asks of the place where operations are known."""

    may_block: ClassVar[bool] = False
    """Whether a call may wait for another process; then the async face makes it in a thread."""

    spans_processes: ClassVar[bool] = False
    """Whether operations of other processes are reached."""

    store: OperationStore
    """The operations that this process itself runs and decides about."""

    @abstractmethod
    def cancel(self, operation_id: str, request: CancelRequest) -> CancelResult:
        """Carry one cancel to the owner of the operation. Never waits for the operation to end."""

    @abstractmethod
    def cancel_all(self, query: OperationQuery, request: CancelRequest) -> int:
        """Carry a cancel to every live operation that matches; returns how many were newly told to stop."""

    @abstractmethod
    def get(self, operation_id: str) -> OperationContext | None:
        """The operation's newest view, live or from the history."""

    @abstractmethod
    def list_live(self, query: OperationQuery) -> list[OperationContext]:
        """Matching operations that have not ended, newest first."""

    @abstractmethod
    def list_finished(self, query: OperationQuery) -> list[OperationContext]:
        """Matching operations of the bounded history, newest first."""

    @abstractmethod
    def statistics(self, kinds: Collection[OperationKind] | None = None) -> OperationStatistics:
        """One consistent snapshot over the given kinds."""

    @abstractmethod
    def ended(self, operation_id: str) -> EndToken | None:
        """A token that is cancelled once the operation has ended; None when it is not live here."""
