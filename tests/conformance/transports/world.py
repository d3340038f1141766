"""Operations in every state, behind a transport."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Any, Self

from cancelable_core import Cancelable, CancelationReason, OperationCancelled, OperationContext, OperationKind, OperationStatus
from cancelable_core.models import CancelRequest, OperationQuery

from .engines import Engine, becomes_true

__all__ = ["ENDINGS", "EVERYTHING", "MANUAL", "World"]

MANUAL = CancelRequest(reason=CancelationReason.MANUAL)

EVERYTHING = OperationQuery()

ENDINGS = (OperationStatus.COMPLETED, OperationStatus.FAILED, OperationStatus.CANCELLED, OperationStatus.TIMED_OUT)
"""How an operation can end while its process lives."""


class _Job(Cancelable):
    __slots__ = ()
    kind = OperationKind.JOB


class _Request(Cancelable):
    __slots__ = ()
    kind = OperationKind.REQUEST


_CLASSES: dict[OperationKind, type[Cancelable]] = {
    OperationKind.OPERATION: Cancelable,
    OperationKind.JOB: _Job,
    OperationKind.REQUEST: _Request,
}


class World:
    """An engine, and operations that end with the test."""

    def __init__(self, engine: Engine) -> None:
        self.transport = engine.transport
        self.store = engine.store
        self._pending: list[Cancelable] = []
        self._running = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._running.close()
        for operation in self._pending:
            with suppress(OperationCancelled, RuntimeError), operation:  # RuntimeError: the test has entered it
                pass

    def make(
        self, operation_id: str | None = None, *, kind: OperationKind = OperationKind.OPERATION, **options: Any
    ) -> Cancelable:
        """An operation that nobody knows yet."""
        options = {"parent": None, "registry": self.store, **options}
        return _CLASSES[kind](options.pop("name", None), operation_id=operation_id, **options)

    def pending(self, operation_id: str | None = None, **options: Any) -> Cancelable:
        """One that is known, and has not started."""
        operation = self.make(operation_id, **options)
        operation.announce()
        self._pending.append(operation)
        return self._seen(operation)

    def running(self, operation_id: str | None = None, **options: Any) -> Cancelable:
        """One that runs in this thread until the test is over; coroutine tests enter theirs themselves."""
        operation = self.make(operation_id, raise_on_cancel=False, **options)
        self._running.enter_context(operation)
        return self._seen(operation)

    def finished(self, status: OperationStatus, operation_id: str | None = None, **options: Any) -> OperationContext:
        """One that has ended in this way."""
        operation = self.make(operation_id, **options)
        with suppress(OperationCancelled, ZeroDivisionError), operation:
            if status is OperationStatus.FAILED:
                raise ZeroDivisionError
            if status is not OperationStatus.COMPLETED:
                timed_out = status is OperationStatus.TIMED_OUT
                operation.cancel_sync(CancelationReason.TIMEOUT if timed_out else CancelationReason.MANUAL, "enough")
                operation.check()
        assert operation.status is status
        return operation.context

    def _seen(self, operation: Cancelable) -> Cancelable:
        becomes_true(lambda: self.transport.get(operation.id) is not None)
        return operation

    def live(self, query: OperationQuery = EVERYTHING) -> list[str]:
        return [context.id for context in self.transport.list_live(query)]

    def history(self, query: OperationQuery = EVERYTHING) -> list[str]:
        return [context.id for context in self.transport.list_finished(query)]
