"""The face of a store: one for threads, one for event loops. Both say the same things; neither keeps anything itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial
from typing import TypedDict, TypeVar, Unpack

import anyio
import anyio.to_thread

from .models import (
    CancelationReason,
    CancelRequest,
    CancelResult,
    Cursor,
    OperationContext,
    OperationKind,
    OperationQuery,
    OperationStatistics,
    OperationStatus,
)
from .store import OperationStore, default_store
from .transports.base import Transport
from .transports.local import LocalTransport
from .verdicts import reason_and_message
from .waiters import refuse_to_block

__all__ = ["Filters", "OperationRegistry", "ThreadSafeRegistry", "escape_pattern"]

T = TypeVar("T")

CANCEL_ALL_KINDS = (OperationKind.JOB, OperationKind.OPERATION)
"""What ``cancel_all`` means when no kind is named: requests are left alone unless asked for."""


class Filters(TypedDict, total=False):
    """Which operations a list is about. What is left out, or None, means any."""

    status: OperationStatus | Collection[OperationStatus] | None
    """One status or several."""
    kind: OperationKind | Collection[OperationKind] | None
    """One kind or several."""
    name_pattern: str | None
    """A glob, as `fnmatch.fnmatchcase` reads it; matches named operations only. See `escape_pattern`."""
    owner: str | None
    """The exact owner."""
    parent_id: str | None
    """The exact parent."""
    limit: int | None
    """At most so many."""
    after: Cursor | None
    """``(created_at, id)`` of the last one seen, to go on behind it."""


def escape_pattern(text: str) -> str:
    """Make ``text`` match only itself inside a name pattern.

    Use it for everything that comes from outside: ``cancel_all(f"user_{escape_pattern(user_id)}_*")`` reaches nobody else's
    operations, whatever the user calls himself.
    """
    return "".join(f"[{char}]" if char in "*?[" else char for char in text)


class _Face:
    """What both faces share: the transport and how arguments become its values."""

    __slots__ = ("_transport",)

    def __init__(self, store: OperationStore | Transport | None = None) -> None:
        if store is not None and not isinstance(store, OperationStore | Transport):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"a registry shows an OperationStore or a Transport, not {type(store).__name__}")
        self._transport = store if isinstance(store, Transport) else LocalTransport(store or default_store())

    @property
    def store(self) -> OperationStore:
        """This process's store, where operations that are given this registry register themselves."""
        return self._transport.store

    @property
    def transport(self) -> Transport:
        """What carries this registry's questions and cancels."""
        return self._transport


class ThreadSafeRegistry(_Face):
    """The registry for threads: Flask and Django views, signal handlers, anything without an event loop.

    Args:
        store: Whose operations to show: an `OperationStore`, a `Transport`, or the process's default store.

    Concurrency:
        Any thread. Nothing here needs, or touches, an event loop.
    """

    __slots__ = ()

    def cancel_operation(
        self,
        operation_id: str,
        reason: CancelationReason | str | None = None,
        message: str | None = None,
        *,
        wait_seconds: float = 0,
        origin: str | None = None,
    ) -> CancelResult:
        """Ask a running operation to stop.

        Args:
            operation_id: The operation's id; one of impossible form is unknown, never an error.
            reason: A `CancelationReason`, or plain text, which is recorded as the message of a manual cancel.
            message: The canceller's words, when ``reason`` is not plain text already.
            wait_seconds: How long to wait for the operation to end; 0 returns at once.
            origin: Who or what cancels.

        Raises:
            RuntimeError: To wait on a running event loop's thread; nothing was cancelled then.
            ValueError: ``wait_seconds`` is negative or NaN; nothing was cancelled then.

        Returns:
            What happened; truthy when the request was accepted. FINISHED, UNKNOWN or LOST when there is nothing left to stop.

        Concurrency:
            Any thread; a signal handler too when ``wait_seconds`` is 0 and the registry is local.
        """
        if _will_wait(wait_seconds):
            refuse_to_block("cancel_operation", "wait_seconds=0, or the OperationRegistry")  # before anything is cancelled
        result = self._transport.cancel(_id(operation_id), _request(reason, message, origin))
        if not result or wait_seconds <= 0:
            return result
        context = self.wait_for(operation_id, wait_seconds)
        return result if context is None else replace(result, status=context.status)

    def cancel_all(
        self,
        name_pattern: str | None = None,
        *,
        kind: OperationKind | Collection[OperationKind] = CANCEL_ALL_KINDS,
        owner: str | None = None,
        status: OperationStatus | Collection[OperationStatus] | None = None,
        reason: CancelationReason | str | None = None,
        message: str | None = None,
        origin: str | None = None,
    ) -> int:
        """Ask all matching operations to stop.

        Args:
            name_pattern: A glob, as in ``user_42_*``; use `escape_pattern` on parts from outside. None matches all.
            kind: By default jobs and operations, not requests.
            owner: Only this owner's.
            status: Only those that stand here.

        Returns:
            How many were newly told to stop.

        Concurrency:
            Any thread, but no signal handler: it takes the store's lock.
        """
        query = _query(name_pattern=name_pattern, kind=kind, owner=owner, status=status)
        return self._transport.cancel_all(query, _request(reason, message, origin))

    def get_operation(self, operation_id: str) -> OperationContext | None:
        """A snapshot of one operation, live or from the history; None when it is unknown."""
        return self._transport.get(_id(operation_id))

    def list_operations(self, **filters: Unpack[Filters]) -> list[OperationContext]:
        """Snapshots of matching operations that have not ended, newest first; see `Filters`."""
        return self._transport.list_live(_query(**filters))

    def get_history(self, **filters: Unpack[Filters]) -> list[OperationContext]:
        """The same for finished operations, as far back as the history reaches."""
        return self._transport.list_finished(_query(**filters))

    def wait_for(self, operation_id: str, timeout_seconds: float | None = None) -> OperationContext | None:
        """Block this thread until an operation has ended or the time ran out.

        Returns:
            Its snapshot then, whatever its status; None when it is unknown.

        Raises:
            RuntimeError: On a running event loop's thread.
        """
        ended = self._transport.ended(_id(operation_id))
        if ended is not None and ended.wait(timeout_seconds):
            return ended.context
        return self.get_operation(operation_id)

    def get_statistics(self, kind: OperationKind | Collection[OperationKind] | None = None) -> OperationStatistics:
        """One consistent snapshot of the counters, over all or some kinds."""
        return self._transport.statistics(_many(OperationKind, kind))


class OperationRegistry(_Face):
    """The registry for event loops: the same questions, awaited. It never blocks its loop.

    Args:
        store: Whose operations to show: an `OperationStore`, a `Transport`, or the process's default store.

    Concurrency:
        Any task of any loop.
    """

    __slots__ = ("_sync",)

    def __init__(self, store: OperationStore | Transport | None = None) -> None:
        super().__init__(store)
        self._sync = ThreadSafeRegistry(self._transport)

    async def _ask(self, question: Callable[[], T]) -> T:
        """Answer here, or in a thread where the transport may wait for another process."""
        return await anyio.to_thread.run_sync(question) if self._transport.may_block else question()

    async def cancel_operation(
        self,
        operation_id: str,
        reason: CancelationReason | str | None = None,
        message: str | None = None,
        *,
        wait_seconds: float = 0,
        origin: str | None = None,
    ) -> CancelResult:
        """See `ThreadSafeRegistry.cancel_operation`."""
        _will_wait(wait_seconds)
        cancel = partial(self._sync.cancel_operation, operation_id, reason, message, origin=origin)
        result = await self._ask(cancel)
        if not result or wait_seconds <= 0:
            return result
        context = await self.wait_for(operation_id, wait_seconds)
        return result if context is None else replace(result, status=context.status)

    async def cancel_all(
        self,
        name_pattern: str | None = None,
        *,
        kind: OperationKind | Collection[OperationKind] = CANCEL_ALL_KINDS,
        owner: str | None = None,
        status: OperationStatus | Collection[OperationStatus] | None = None,
        reason: CancelationReason | str | None = None,
        message: str | None = None,
        origin: str | None = None,
    ) -> int:
        """See `ThreadSafeRegistry.cancel_all`."""
        return await self._ask(
            partial(
                self._sync.cancel_all,
                name_pattern,
                kind=kind,
                owner=owner,
                status=status,
                reason=reason,
                message=message,
                origin=origin,
            )
        )

    async def get_operation(self, operation_id: str) -> OperationContext | None:
        """See `ThreadSafeRegistry.get_operation`."""
        return await self._ask(partial(self._sync.get_operation, operation_id))

    async def list_operations(self, **filters: Unpack[Filters]) -> list[OperationContext]:
        """See `ThreadSafeRegistry.list_operations`."""
        return await self._ask(partial(self._sync.list_operations, **filters))

    async def get_history(self, **filters: Unpack[Filters]) -> list[OperationContext]:
        """See `ThreadSafeRegistry.get_history`."""
        return await self._ask(partial(self._sync.get_history, **filters))

    async def wait_for(self, operation_id: str, timeout_seconds: float | None = None) -> OperationContext | None:
        """Sleep until an operation has ended or the time ran out; see `ThreadSafeRegistry.wait_for`."""
        ended = await self._ask(partial(self._transport.ended, _id(operation_id)))
        if ended is not None:
            with anyio.move_on_after(timeout_seconds):
                await ended.wait_for_cancel()
            if ended.is_cancelled:
                return ended.context
        return await self.get_operation(operation_id)

    async def get_statistics(self, kind: OperationKind | Collection[OperationKind] | None = None) -> OperationStatistics:
        """See `ThreadSafeRegistry.get_statistics`."""
        return await self._ask(partial(self._sync.get_statistics, kind))


def _will_wait(wait_seconds: float) -> bool:
    if math.isnan(wait_seconds) or wait_seconds < 0:
        raise ValueError(f"wait_seconds must be 0 or more, not {wait_seconds}")
    return wait_seconds > 0


def _id(operation_id: object) -> str:
    """What can be looked up at all; no operation is called by the empty text, which everything else becomes."""
    return operation_id if isinstance(operation_id, str) else ""


E = TypeVar("E", OperationKind, OperationStatus)


def _many(words: type[E], values: E | Collection[E] | None) -> Collection[E] | None:
    """One value or several, as a tuple; a word that does not exist is an error, not an empty answer."""
    if values is None:
        return None
    return (words(values),) if isinstance(values, str) else tuple(words(value) for value in values)


def _query(**filters: Unpack[Filters]) -> OperationQuery:
    limit = filters.get("limit")
    if limit is not None and limit < 0:
        raise ValueError(f"limit must be 0 or more, not {limit}")
    return OperationQuery(
        statuses=_many(OperationStatus, filters.get("status")),
        kinds=_many(OperationKind, filters.get("kind")),
        name_pattern=filters.get("name_pattern"),
        owner=filters.get("owner"),
        parent_id=filters.get("parent_id"),
        limit=limit,
        after=filters.get("after"),
    )


def _request(reason: CancelationReason | str | None, message: str | None, origin: str | None) -> CancelRequest:
    checked_reason, checked_message = reason_and_message(reason, message)
    return CancelRequest(reason=checked_reason, message=checked_message, origin=origin)
