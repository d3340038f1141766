"""Every error of the suite: one base, few leaves, each carrying its data as attributes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .models import CancelationReason

__all__ = [
    "BridgeClosed",
    "BridgeFull",
    "CancelableError",
    "ConfigurationError",
    "DuplicateOperation",
    "InvalidOperationId",
    "OperationCancelled",
    "OperationTimedOut",
    "QueueFull",
    "RunnerClosed",
]


class CancelableError(Exception):
    """Base of all errors raised by the suite.

    Every subclass passes one string to ``Exception.__init__`` and keeps its data in keyword-only attributes with defaults,
    so that each of them pickles and copies without help.
    """


class OperationCancelled(CancelableError):
    """The operation was cancelled.

    An ``Exception``, not a ``BaseException``: framework error handlers, WSGI servers and task engines expect one.

    Attributes:
        operation_id: The operation that was cancelled; None when a bare token was checked.
        name: The operation's name, if it has one.
        reason: Why it was cancelled.
        message: The canceller's own words, if any.
        origin: Who or what cancelled, if known.
    """

    def __init__(
        self,
        text: str = "operation was cancelled",
        *,
        operation_id: str | None = None,
        name: str | None = None,
        reason: CancelationReason | None = None,
        message: str | None = None,
        origin: str | None = None,
        lineage: object = None,
    ) -> None:
        super().__init__(text)
        self.operation_id = operation_id
        self.name = name
        self.reason = reason
        self.message = message
        self.origin = origin
        # The live operation, so that an enclosing one can tell its descendants' errors from a stranger's. Stays in the process.
        self._lineage = lineage

    @property
    def lineage(self) -> object:
        """The live operation, where the error has not left its process."""
        return self._lineage

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.args, {**self.__dict__, "_lineage": None}


class OperationTimedOut(OperationCancelled, TimeoutError):
    """The operation's deadline passed; also a ``TimeoutError``."""


class DuplicateOperation(CancelableError):
    """An operation with this id is live already."""

    def __init__(self, text: str, *, operation_id: str | None = None) -> None:
        super().__init__(text)
        self.operation_id = operation_id


class InvalidOperationId(CancelableError, ValueError):
    """The given operation id has a form that the routes could not carry, or is one of their words."""

    def __init__(self, text: str, *, operation_id: str | None = None) -> None:
        super().__init__(text)
        self.operation_id = operation_id


class BridgeClosed(CancelableError):
    """The bridge was closed before the call could be accepted or could finish."""


class BridgeFull(CancelableError):
    """The bridge holds ``buffer_size`` unfinished calls and the caller did not want to, or could not, wait."""


class QueueFull(CancelableError):
    """The job queue is at its limit; try again later.

    Attributes:
        limit: The queue's limit, in pending jobs.
    """

    def __init__(self, text: str, *, limit: int | None = None) -> None:
        super().__init__(text)
        self.limit = limit


class RunnerClosed(QueueFull, RuntimeError):
    """The job runner was closed, as at the end of its process: another process may take the job."""


class ConfigurationError(CancelableError, ValueError):
    """A setting is unknown or has a value that cannot work."""

    def __init__(self, text: str, *, setting: str | None = None) -> None:
        super().__init__(text)
        self.setting = setting
