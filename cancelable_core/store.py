"""This process's entries: index by id and name, counters in O(1), bounded history.

Whoever registers, cancels or ends an operation takes no lock: he leaves a note in a deque. Those who look take the one lock and
first turn the notes into counter moves; so does whoever ends something while nobody is inside. The lock is held for dictionary
steps; never while user code, logging or input and output runs.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Collection, Iterable
from types import TracebackType
from typing import Final, Protocol

from . import forks
from .errors import DuplicateOperation
from .instances import Instances
from .models import (
    CancelationReason,
    LatencyPercentiles,
    OperationContext,
    OperationKind,
    OperationQuery,
    OperationStatistics,
    OperationStatus,
)
from .names import NameIndex, name_matcher
from .token import CancelationToken

__all__ = ["UNSEEN", "EndToken", "OperationStore", "default_store", "every_store", "replace_default_store"]

_LATENCIES_KEPT = 1_000
_UNSEEN_KEPT = 100
"""So many entries that completed unseen are left to whoever looks next."""

_NOTES_KEPT = 1_000
"""With more notes than these lying about, whoever is inside is not given his turn, and the others pause for him."""

_PAUSE_SECONDS = 0.000_5

UNSEEN: Final = object()
"""Claims a latent entry for an end that came before any look. Only the first claim in its list counts."""

_COUNTED: Final = object()
"""What the store makes of `UNSEEN`, once it has counted the entry."""


class Entry(Protocol):
    """What the store asks of an operation."""

    counted_as: OperationStatus | None
    """In which counter it stands, if it is counted yet; written by the store only, under its lock."""

    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str | None: ...
    @property
    def kind(self) -> OperationKind: ...
    @property
    def context(self) -> OperationContext: ...
    @property
    def duration_seconds(self) -> float | None: ...
    def cancel_sync(
        self, reason: CancelationReason | str | None = None, message: str | None = None, *, origin: str | None = None
    ) -> bool: ...
    @property
    def status(self) -> OperationStatus: ...


class Latent(Protocol):
    """An entry that is not made before somebody looks."""

    def make(self) -> object:
        """Be there, registered, from now on; nothing if it ended unseen. Any thread."""


class EndToken(CancelationToken):
    """Cancelled when an operation has ended; ``context`` is then its final snapshot."""

    __slots__ = ("context",)

    def __init__(self) -> None:
        super().__init__()
        self.context: OperationContext | None = None


class _Tally:
    """The counters of one kind."""

    __slots__ = ("by_reason", "by_status", "duration_seconds", "durations", "latencies", "total")

    def __init__(self) -> None:
        self.total = 0
        self.by_status: Counter[OperationStatus] = Counter()
        self.by_reason: Counter[CancelationReason] = Counter()
        self.duration_seconds = 0.0
        self.durations = 0
        self.latencies: deque[float] = deque(maxlen=_LATENCIES_KEPT)

    def count_duration(self, seconds: float | None) -> None:
        if seconds is not None:
            self.duration_seconds += seconds
            self.durations += 1

    def count_cancel(self, context: OperationContext) -> None:
        if context.status in (OperationStatus.CANCELLED, OperationStatus.TIMED_OUT) and context.reason is not None:
            self.by_reason[context.reason] += 1
            if context.ended_at is not None and context.cancel_requested_at is not None:
                self.latencies.append(max(0.0, (context.ended_at - context.cancel_requested_at).total_seconds()))


class _Room:
    """The store's lock. Whoever leaves tidies up what was left at the door meanwhile."""

    __slots__ = ("_lock", "_tidy")

    def __init__(self, tidy: Callable[[], object]) -> None:
        self._lock = threading.Lock()
        self._tidy = tidy

    def enter_if_free(self) -> bool:
        """Enter without waiting; `leave` then leaves without tidying."""
        return self._lock.acquire(blocking=False)

    def leave(self) -> None:
        """Leave after `enter_if_free`."""
        self._lock.release()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._lock.release()
        self._tidy()


class OperationStore:
    """The operations of this process, live and recently finished.

    Args:
        history_limit: How many finished operations to keep of each kind; 0 keeps none. Completed requests are only counted.

    Concurrency:
        Every method: any thread. `register`, `note`, `finish`, `find`, `finished` and `count_unseen` wait for no lock.
        A forked child starts with an empty store.
    """

    def __init__(self, history_limit: int = 1_000) -> None:
        self.history_limit = history_limit
        self._reset()
        _stores.add(self)

    def _reset(self) -> None:
        self._lock = _Room(self._tidy)
        self._live: dict[str, Entry] = {}
        self._names: NameIndex[Entry] = NameIndex()
        self._notes: deque[tuple[Entry, OperationStatus | None]] = deque()  # what an entry has become; None: it ended
        self.latent: dict[Latent, bool] = {}
        """Entries to be made as soon as somebody looks at what is live. They come and go by themselves."""
        self._unseen: deque[tuple[list[object], float]] = deque()  # claims and duration of latent requests
        self._end_tokens_due: deque[EndToken] = deque()
        self._tallies = {kind: _Tally() for kind in OperationKind}
        self._history: dict[OperationKind, OrderedDict[str, OperationContext]] = {kind: OrderedDict() for kind in OperationKind}
        self._end_tokens: dict[str, EndToken] = {}
        self._abandoned_threads = 0
        self._failed_interruptions = 0

    @property
    def history_limit(self) -> int:
        """How many finished operations are kept of each kind."""
        return self._history_limit

    @history_limit.setter
    def history_limit(self, limit: int) -> None:
        if limit < 0:
            raise ValueError(f"history_limit must be 0 or more, not {limit}")
        self._history_limit = limit

    # --- the life of an entry

    def register(self, entry: Entry, status: OperationStatus) -> None:
        """Count and show an entry from now on.

        Raises:
            DuplicateOperation: An entry with this id is live; nothing was changed.
        """
        other = self._live.setdefault(entry.id, entry)
        if other is not entry and other.status.is_final:
            with self._lock:
                self._catch_up()  # it has ended, and leaves
            other = self._live.setdefault(entry.id, entry)
        if other is not entry:
            raise DuplicateOperation(f"an operation with id {entry.id!r} is running already", operation_id=entry.id)
        self._notes.append((entry, status))

    def note(self, entry: Entry, status: OperationStatus) -> None:
        """An entry runs now, or was told to stop."""
        self._notes.append((entry, status))

    def finish(self, entry: Entry) -> None:
        """An entry has its final status: move it to the history and tell those who wait. Unknown entries are ignored.

        Never waits for the lock. The collector may close a generator, and so end the operation in it, in the very thread that
        is inside; that one, like any other thread found there, sees to it on the way out.
        """
        self._notes.append((entry, None))
        self._tidy()
        if len(self._notes) > _NOTES_KEPT:
            time.sleep(_PAUSE_SECONDS)  # and goes on in any case: the one inside may be this very thread

    def count_unseen(self, claims: list[object], seconds: float) -> None:
        """A latent request completes after so long, if nobody has looked. Call it before that is claimed, and `latent` left.

        So whoever looks finds the request here or there. Its claims tell whether it counts, and that it does so once.
        """
        self._unseen.append((claims, seconds))
        if len(self._unseen) >= _UNSEEN_KEPT:
            self._tidy()

    def _look_at_latent(self) -> None:
        for latent in list(self.latent):
            latent.make()

    def count_abandoned_threads(self, change: int) -> None:
        """A thread was left behind by its operation (+1), or such a thread ended (-1)."""
        with self._lock:
            self._abandoned_threads += change

    def count_failed_interruption(self) -> None:
        """An interrupter raised."""
        with self._lock:
            self._failed_interruptions += 1

    def _tidy(self) -> None:
        """See to the notes, unless somebody is inside, who does it then."""
        while (self._notes or len(self._unseen) >= _UNSEEN_KEPT) and self._lock.enter_if_free():
            try:
                self._catch_up()
            finally:
                self._lock.leave()
        while self._end_tokens_due:
            try:
                end_token = self._end_tokens_due.popleft()
            except IndexError:  # another thread was quicker
                break
            end_token.cancel_sync()

    def _catch_up(self) -> None:
        """Turn the notes into what they say. Called inside the lock, and first wherever the answer depends on them."""
        notes = self._notes
        while notes:
            entry, status = notes.popleft()
            if self._live.get(entry.id) is not entry:
                continue
            if status is None:
                self._end(entry)
            elif entry.counted_as is None:
                self._begin(entry, status)
            elif entry.counted_as.is_final:  # it ended in the middle of a registration, which it had interrupted
                del self._live[entry.id]
            elif entry.counted_as is not OperationStatus.CANCELLING:  # a job may be told to stop before it starts
                self._move(entry, status)
        if self._unseen:
            self._count_all_unseen()

    def _count_all_unseen(self) -> None:
        unseen, count, total_seconds = self._unseen, 0, 0.0
        try:
            while unseen:
                claims, seconds = unseen.popleft()
                claims.append(UNSEEN)  # whoever ends it may not have come to that
                if claims[0] is UNSEEN:
                    claims[0] = _COUNTED
                    count += 1
                    total_seconds += seconds
        finally:  # a signal handler may raise in between
            tally = self._tallies[OperationKind.REQUEST]
            tally.total += count
            tally.by_status[OperationStatus.COMPLETED] += count
            tally.duration_seconds += total_seconds
            tally.durations += count

    def _begin(self, entry: Entry, status: OperationStatus) -> None:
        if _has_fixed_name(entry) and entry.name is not None:
            self._names.add(entry.name, entry)
        tally = self._tallies[entry.kind]
        tally.total += 1
        tally.by_status[status] += 1
        entry.counted_as = status

    def _move(self, entry: Entry, status: OperationStatus) -> None:
        by_status = self._tallies[entry.kind].by_status
        if entry.counted_as is not None:
            by_status[entry.counted_as] -= 1
        by_status[status] += 1
        entry.counted_as = status

    def _end(self, entry: Entry) -> None:
        status, kind = entry.status, entry.kind
        self._move(entry, status)
        tally = self._tallies[kind]
        tally.count_duration(entry.duration_seconds)
        end_token = self._end_tokens.pop(entry.id, None)
        # most of all entries are of this kind, and nobody will ask for them
        is_only_counted = kind is OperationKind.REQUEST and status is OperationStatus.COMPLETED
        if not is_only_counted or end_token is not None:
            context = entry.context
            tally.count_cancel(context)
            if not is_only_counted:
                self._remember(context)
            if end_token is not None:
                end_token.context = context
                self._end_tokens_due.append(end_token)
        del self._live[entry.id]  # after it is in the history: a reader without the lock finds it in one of the two
        if _has_fixed_name(entry) and entry.name is not None:
            self._names.remove(entry.name, entry)

    def _remember(self, context: OperationContext) -> None:
        history = self._history[context.kind]
        history.pop(context.id, None)
        history[context.id] = context
        while len(history) > self._history_limit:
            history.popitem(last=False)

    # --- looking

    def find(self, operation_id: str) -> Entry | None:
        """The live entry with this id. Lock-free."""
        return self._live.get(operation_id)

    def finished(self, operation_id: str) -> OperationContext | None:
        """The history's snapshot of this id. Lock-free."""
        for history in self._history.values():
            context = history.get(operation_id)
            if context is not None:
                return context
        return None

    def end_token(self, operation_id: str) -> EndToken | None:
        """A token that is cancelled when the live operation with this id ends; None when there is none."""
        with self._lock:
            self._catch_up()
            if operation_id not in self._live:
                return None
            return self._end_tokens.setdefault(operation_id, EndToken())

    def select_live(self, query: OperationQuery) -> list[tuple[Entry, OperationContext]]:
        """Matching live entries with their snapshots, newest first; the pattern is matched outside the lock."""
        self._look_at_latent()
        found = {entry.id: (entry, entry.context) for entry in self._candidates(query)}
        # those that ended meanwhile are left out first: they must not take room on a page
        kept = _page([context for _, context in found.values() if not context.status.is_final], query)
        return [found[context.id] for context in kept]

    def select_finished(self, query: OperationQuery) -> list[OperationContext]:
        """Matching snapshots of the history, newest first."""
        kinds = OperationKind if query.kinds is None else query.kinds
        with self._lock:
            self._catch_up()
            contexts = [context for kind in kinds for context in self._history[kind].values()]
        return _page(contexts, query)

    def _candidates(self, query: OperationQuery) -> list[Entry]:
        pattern = query.name_pattern
        kinds = query.kinds
        if pattern is None:
            with self._lock:
                self._catch_up()
                entries = list(self._live.values())
            return entries if kinds is None else [entry for entry in entries if entry.kind in kinds]
        matcher = name_matcher(pattern)
        with self._lock:
            self._catch_up()
            names = self._names.candidates(pattern)
        names = [name for name in names if matcher.match(name)]
        with self._lock:
            entries = self._names.entries(names)
            if kinds is None or OperationKind.REQUEST in kinds:
                entries += [entry for entry in list(self._live.values()) if not _has_fixed_name(entry)]
        return entries

    # --- counting

    def statistics(self, kinds: Collection[OperationKind] | None = None) -> OperationStatistics:
        """One consistent snapshot over the given kinds; costs the same whatever is live, once everything was looked at."""
        self._look_at_latent()
        wanted = list(OperationKind if kinds is None else dict.fromkeys(kinds))
        with self._lock:
            self._catch_up()
            tallies = [self._tallies[kind] for kind in wanted]
            total = sum(tally.total for tally in tallies)
            by_kind = {kind: self._tallies[kind].total for kind in wanted}
            by_status = sum((tally.by_status for tally in tallies), Counter[OperationStatus]())
            by_reason = sum((tally.by_reason for tally in tallies), Counter[CancelationReason]())
            seconds = sum(tally.duration_seconds for tally in tallies)
            durations = sum(tally.durations for tally in tallies)
            latencies = [seconds for tally in tallies for seconds in tally.latencies]
            abandoned_threads = self._abandoned_threads
            failed_interruptions = self._failed_interruptions
        return OperationStatistics(
            total_operations=total,
            **{f"{status}_operations": by_status[status] for status in OperationStatus},
            by_reason=dict(by_reason),
            by_kind=by_kind,
            average_duration_seconds=seconds / durations if durations else None,
            cancel_latency_seconds=_percentiles(latencies),
            abandoned_threads=abandoned_threads,
            failed_interruptions=failed_interruptions,
        )


def _has_fixed_name(entry: Entry) -> bool:
    """Requests learn their name from the router, after they were registered; they are few and looked through instead."""
    return entry.kind is not OperationKind.REQUEST


def _page(contexts: Iterable[OperationContext], query: OperationQuery) -> list[OperationContext]:
    matcher = None if query.name_pattern is None else name_matcher(query.name_pattern)
    found = [
        context
        for context in contexts
        if (query.statuses is None or context.status in query.statuses)
        and (query.owner is None or context.owner == query.owner)
        and (query.parent_id is None or context.parent_id == query.parent_id)
        and (query.kinds is None or context.kind in query.kinds)
        and (matcher is None or (context.name is not None and matcher.match(context.name)))
        and (query.after is None or (context.created_at, context.id) < query.after)
    ]
    found.sort(key=lambda context: (context.created_at, context.id), reverse=True)
    return found if query.limit is None else found[: query.limit]


def _percentiles(latencies: list[float]) -> LatencyPercentiles:
    if not latencies:
        return LatencyPercentiles()
    latencies.sort()
    last = len(latencies) - 1
    return LatencyPercentiles(p50=latencies[round(last * 0.5)], p99=latencies[round(last * 0.99)])


_stores: Instances[OperationStore] = Instances()
_default = OperationStore()


def default_store() -> OperationStore:
    """The process's default store, which every operation and every registry uses unless told otherwise."""
    return _default


def every_store() -> list[OperationStore]:
    """All stores of this process, whoever made them."""
    return _stores.living()


def replace_default_store(store: OperationStore) -> OperationStore:
    """Put another default store in place, for a test; returns the one before. Open operations stay where they are."""
    global _default
    before, _default = _default, store
    return before


def _forget_everything() -> None:
    for store in every_store():
        store._reset()  # pyright: ignore[reportPrivateUsage]  # same module


forks.run_in_child(_forget_everything)
