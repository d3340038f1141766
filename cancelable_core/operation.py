"""`Cancelable`: one unit of work with an id, a status and a token, used as ``async with`` and as ``with``.

Two decisions are made about every operation, each in one place. A *request* to cancel is decided by its token: the first
caller wins, as long as the token is not sealed. The *finish* is decided when the block is left: the status says cancelled only
if the body ended because of the cancel, and sealing the token makes every later request lose.
"""

from __future__ import annotations

import contextvars
import math
import threading
import time
from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, ParamSpec, Protocol, Self, TypedDict, TypeVar, Unpack, cast

import anyio.lowlevel

from . import ending, forks
from .callables import refuse_ambiguous_keywords, refuse_what_never_runs
from .errors import OperationCancelled
from .flags import LINK, WAKE, StrongLink, Watcher, cancel_tree
from .identifiers import SecretId, checked_operation_id, new_operation_id
from .models import CancelationReason, OperationContext, OperationKind, OperationStatus
from .progress import Progress, ProgressRegistration
from .regions import Interrupter, InterruptibleRegion
from .scopes import TokenScope
from .shielding import Shield, is_shielded
from .sources import ConditionSource, SignalSource, Source
from .store import OperationStore, default_store
from .streams import OperationStream, iterate
from .threads import ThreadCall
from .timer_thread import Timer, shared_timer
from .token import CancelAnswer, CancelationToken, Registration
from .verdicts import Verdict, cancelation_error, reason_and_message
from .waiters import LONGEST_WAIT_SECONDS, refuse_to_block
from .wakeup import Port, context_for_a_thread, is_native_cancelation, names_the_loop, running_task, was_asked_to_stop

if TYPE_CHECKING:
    import subprocess
    from contextlib import AbstractContextManager

    from .interrupters.subprocesses import Command

__all__ = ["CURRENT", "INHERIT", "Cancelable", "OperationOptions", "current_operation", "current_variable", "thread_variable"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class _Inherit:
    """The owner of the parent; nobody without one."""

    def __repr__(self) -> str:
        return "INHERIT"


class _Current:
    """The operation that is open where the new one is entered."""

    def __repr__(self) -> str:
        return "CURRENT"


INHERIT: Final = _Inherit()
CURRENT: Final = _Current()


_GivenToken = tuple[CancelationToken, CancelationReason | None]
"""What an operation listens to, and what its reason becomes; None: it stays."""


class HasStore(Protocol):
    """A registry face, or anything else that knows which store it shows."""

    @property
    def store(self) -> OperationStore: ...


def store_of(registry: OperationStore | HasStore) -> OperationStore:
    """The store itself, or the one that a registry shows.

    Raises:
        TypeError: It is neither.
    """
    store = registry if isinstance(registry, OperationStore) else getattr(registry, "store", None)
    if not isinstance(store, OperationStore):
        raise TypeError(f"an OperationStore or a registry that shows one is needed, not {type(registry).__name__}")
    return store


class OperationOptions(TypedDict, total=False):
    """The keywords that every way of making an operation takes; see `Cancelable`."""

    operation_id: str | None
    owner: str | _Inherit | None
    parent: Cancelable | _Current | None
    metadata: Mapping[str, Any] | None
    register: bool
    raise_on_cancel: bool
    registry: OperationStore | HasStore | None


class Place(Protocol):
    """Where an operation comes to be when somebody looks for it."""

    def make(self) -> Cancelable | None:
        """The operation; None if there is none any more."""


current_variable: contextvars.ContextVar[Cancelable | Place | None] = contextvars.ContextVar(
    "cancelable_operation", default=None
)
thread_variable: contextvars.ContextVar[Cancelable | Place | None] = contextvars.ContextVar(
    "cancelable_thread_of", default=None
)
"""In a worker thread: the operation that started it, which it may outlive."""


_thread_marks = threading.local()


def _this_thread() -> object:
    """What tells this thread from all others; its ident is given to another once it has ended."""
    try:
        mark: object = _thread_marks.mark
    except AttributeError:
        mark = _thread_marks.mark = object()
    return mark


def current_operation() -> Cancelable | None:
    """The innermost open operation of this context, or None.

    Finished ones are skipped. Only in a thread that a cancelled operation left behind, that operation still shows, so that
    ``current_operation().check()`` raises there.
    """
    operation = _operation_at(current_variable.get())
    while operation is not None and operation.is_over:
        if operation.token.is_cancelled and not operation.is_inherited and operation is _operation_at(thread_variable.get()):
            return operation
        operation = operation.enclosing
    return operation


def _operation_at(place: Cancelable | Place | None) -> Cancelable | None:
    return place if place is None or isinstance(place, Cancelable) else place.make()


def detached_context(keeps: Callable[[contextvars.ContextVar[Any]], bool] | None = None) -> contextvars.Context:
    """A copy of this context without its operation, for work that must not end with it, here or in another thread or loop.

    Args:
        keeps: Which variables come along; by default all.
    """
    context = contextvars.Context()
    for variable, value in contextvars.copy_context().items():
        if variable is not current_variable and not names_the_loop(variable) and (keeps is None or keeps(variable)):
            context.run(variable.set, value)
    return context


class Cancelable:
    """One cancelable unit of work.

    Args:
        name: What to call it in lists and patterns.
        operation_id: An id of your own; by default 128 random bits. Live ids are unique per store.
        owner: Who may see and cancel it through the routes; by default the parent's owner.
        timeout: Seconds, or a timedelta, from entry to a cancel with reason ``timeout``.
        token: A token whose cancel cancels this operation too, with the same reason.
        parent: The operation whose cancel cancels this one; by default the one open at entry; None detaches.
        metadata: Anything worth keeping with it; shown by the routes only if they are told to.
        register: Whether registries see it.
        raise_on_cancel: False leaves a cancelled block quietly instead of raising `OperationCancelled`. Entering an operation
            that is cancelled already raises in any case, since its body must not run.
        registry: The store, or a registry that shows it; by default the process's.

    Raises:
        InvalidOperationId: The id's form, or a word of the routes.
        ValueError: A negative or NaN timeout.
        TypeError: A name, owner, token, parent, timeout or registry of the wrong type.

    Concurrency:
        Entered once, left by the task or thread that entered it (anything else is a RuntimeError). Everything else may be
        called from any thread, `cancel_sync` from signal handlers too. In ``async with`` a cancel is native and
        level-triggered: every await raises until the block is left. In ``with`` it is cooperative: `check`, `sleep` and
        `iterate` raise `OperationCancelled`.
    """

    kind: OperationKind = OperationKind.OPERATION
    may_get_deadline = False
    """Whether it may be given another deadline while it runs, as requests are by their route."""

    __slots__ = (
        "__weakref__",
        "_bounded_by",
        "_closed",
        "_created",
        "_deadline",
        "_disarm",
        "_ended",
        "_entered",
        "_final",
        "_generation",
        "_given_tokens",
        "_home",
        "_links",
        "_metadata",
        "_name",
        "_parent",
        "_progress",
        "_raise_on_cancel",
        "_register",
        "_scope",
        "_sources",
        "_started",
        "_store",
        "_timeout_seconds",
        "counted_as",
        "enclosing",
        "id",
        "id_is_secret",
        "owner",
        "token",
    )

    def __init__(
        self,
        name: str | None = None,
        *,
        operation_id: str | None = None,
        owner: str | _Inherit | None = INHERIT,
        timeout: float | timedelta | None = None,
        token: CancelationToken | None = None,
        parent: Cancelable | _Current | None = CURRENT,
        metadata: Mapping[str, Any] | None = None,
        register: bool = True,
        raise_on_cancel: bool = True,
        registry: OperationStore | HasStore | None = None,
    ) -> None:
        _check_types(name, owner, token, parent)
        self.id: str = new_operation_id() if operation_id is None else checked_operation_id(operation_id)
        self.id_is_secret = isinstance(self.id, SecretId)
        """Whether the id was generated at random, so that knowing it is a capability."""
        self.token = CancelationToken()
        """The operation's own token, linked from the given one and from the parent's while it is open."""
        self.owner: str | _Inherit | None = owner
        self.counted_as: OperationStatus | None = None
        self.enclosing: Cancelable | None = None
        """The open operation that was current at entry."""
        self._name = name
        self._timeout_seconds = None if timeout is None else _seconds(timeout)
        self._given_tokens: tuple[_GivenToken, ...] = () if token is None else ((token, None),)
        self._parent: Cancelable | _Current | None = parent
        self._metadata = None if metadata is None else dict(metadata)
        self._register = register
        self._raise_on_cancel = raise_on_cancel
        self._store = default_store() if registry is None else store_of(registry)
        self._sources: tuple[Source, ...] = ()
        self._created = time.time()
        self._started: float | None = None
        self._ended: float | None = None
        self._entered = False
        self._final: OperationStatus | None = None
        self._closed = False
        self._generation = forks.generation
        self._deadline: float | None = None
        self._bounded_by: Cancelable | None = None  # the nearest linked ancestor that has, or may yet get, a deadline
        self._disarm: Callable[[], object] | None = None
        self._links: list[tuple[CancelationToken, Watcher]] = []
        self._scope: TokenScope | None = None
        self._home: tuple[object, object] | None = None
        self._progress: list[Progress] = []

    # --- other ways to make one

    @classmethod
    def with_timeout(
        cls,
        seconds: float | timedelta,
        name: str | None = None,
        *,
        token: CancelationToken | None = None,
        **options: Unpack[OperationOptions],
    ) -> Self:
        """An operation that is cancelled with reason ``timeout`` so long after it was entered."""
        return cls(name, timeout=seconds, token=token, **options)

    @classmethod
    def with_token(
        cls,
        token: CancelationToken,
        name: str | None = None,
        *,
        timeout: float | timedelta | None = None,
        **options: Unpack[OperationOptions],
    ) -> Self:
        """An operation that is cancelled with ``token``, for the same reason."""
        return cls(name, timeout=timeout, token=token, **options)

    @classmethod
    def with_signal(
        cls,
        *signals: int,
        name: str | None = None,
        timeout: float | timedelta | None = None,
        token: CancelationToken | None = None,
        **options: Unpack[OperationOptions],
    ) -> Self:
        """An operation that is cancelled when the process gets one of ``signals``.

        Raises:
            RuntimeError: At entry, in any thread but the main one.

        Handlers found at entry are called too and put back at the end, Python's own KeyboardInterrupt handler excepted.
        """
        operation = cls(name, timeout=timeout, token=token, **options)
        operation._sources = (SignalSource(signals),)
        return operation

    @classmethod
    def with_condition(
        cls,
        predicate: Callable[[], object],
        check_interval_seconds: float = 0.5,
        name: str | None = None,
        *,
        timeout: float | timedelta | None = None,
        token: CancelationToken | None = None,
        **options: Unpack[OperationOptions],
    ) -> Self:
        """An operation that is cancelled when ``predicate()`` is true.

        The predicate is asked at entry and every ``check_interval_seconds`` in a pool thread, so it may block. If it raises,
        that is logged once and the watching stops; the operation goes on.
        """
        operation = cls(name, timeout=timeout, token=token, **options)
        operation._sources = (ConditionSource(predicate, check_interval_seconds),)
        return operation

    def combine(self, *others: Cancelable | CancelationToken) -> Cancelable:
        """A new operation that is cancelled as soon as one of the parts is, with that part's reason.

        Takes this one's id, kind, name and options; deadlines start when the combination is entered. Who subscribed to the
        progress of a part hears of the combination's.

        Raises:
            RuntimeError: A part was entered already. Afterwards the parts themselves cannot be entered any more.
            TypeError: A part that is neither an operation nor a token.
        """
        for other in others:
            if not isinstance(other, (Cancelable, CancelationToken)):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise TypeError(f"combine() takes operations and tokens, not {type(other).__name__}")
        parts = list(dict.fromkeys([self, *(other for other in others if isinstance(other, Cancelable))]))
        if any(part._entered for part in parts):
            raise RuntimeError("combine() takes operations that were not entered or combined yet")
        timeouts = [part._timeout_seconds for part in parts if part._timeout_seconds is not None]
        combined = _Combination(
            self._name,
            owner=self.owner,
            timeout=min(timeouts, default=None),
            parent=self._parent,
            metadata=self._metadata,
            register=self._register,
            raise_on_cancel=self._raise_on_cancel,
            registry=self._store,
        )
        combined.id, combined.id_is_secret, combined.kind = self.id, self.id_is_secret, self.kind
        for part in parts:
            for progress in part._progress:
                combined._progress_report().lead(progress)
        tokens: list[_GivenToken] = [(token, None) for token in others if isinstance(token, CancelationToken)]
        for part in parts:
            tokens += [(part.token, None), *part._given_tokens]
            if part is not self and part.parent is not None:
                tokens.append((part.parent.token, CancelationReason.PARENT))
        combined._given_tokens = tuple(tokens)
        combined._sources = tuple(source for part in parts for source in part._sources)
        for part in parts:
            part._entered = True
        return combined

    # --- what it is

    @property
    def name(self) -> str | None:
        """What it is called in lists and patterns."""
        return self._name

    @property
    def status(self) -> OperationStatus:
        """Where it stands right now."""
        final = self._final
        if final is not None and (self._closed or self.token.is_sealed):
            return final
        if self.token.is_cancelled:
            return OperationStatus.CANCELLING
        return OperationStatus.PENDING if self._started is None else OperationStatus.RUNNING

    @property
    def is_over(self) -> bool:
        """Whether it has ended, or belongs to the process before a fork."""
        return self._closed or self.token.is_sealed or self.is_inherited

    @property
    def is_inherited(self) -> bool:
        """Whether it belongs to the process before a fork, where the tasks and threads are that could stop."""
        return self._generation != forks.generation

    @property
    def parent(self) -> Cancelable | None:
        """The operation whose cancel cancels this one; known from entry on."""
        return self._parent if isinstance(self._parent, Cancelable) else None

    @property
    def context(self) -> OperationContext:
        """A frozen snapshot."""
        status = self.status
        verdict = self.token.verdict
        if verdict is not None and not status.is_final:
            status = OperationStatus.CANCELLING  # it came in between
        parent = self.parent
        return OperationContext(
            id=self.id,
            name=self.name,
            kind=self.kind,
            owner=None if isinstance(self.owner, _Inherit) else self.owner,
            status=status,
            created_at=_instant(self._created),
            started_at=None if self._started is None else _instant(self._started),
            ended_at=_instant(self._ended) if self._ended is not None and status.is_final else None,
            cancel_requested_at=None if verdict is None else _instant(verdict.at),
            reason=verdict and verdict.reason,
            message=verdict and verdict.message,
            origin=verdict and verdict.origin,
            parent_id=None if parent is None else parent.id,
            metadata=dict(self._metadata or ()),
            progress=self._progress[0].latest if self._progress else None,
            id_is_secret=self.id_is_secret,
        )

    @property
    def duration_seconds(self) -> float | None:
        """Seconds from entry to end; None until it has ended, and for what never started."""
        return None if self._started is None or self._ended is None else self._ended - self._started

    @property
    def remaining_seconds(self) -> float | None:
        """Seconds to the nearest deadline, its own or a parent's that it is cancelled with; None without any, 0 when past."""
        nearest = self._nearest_deadline()
        left = None if nearest is None else nearest - time.monotonic()
        if self._deadline is None and self._timeout_seconds is not None:  # it starts with the operation
            left = self._timeout_seconds if left is None else min(left, self._timeout_seconds)
        return None if left is None else max(0.0, left)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name or self.id!r} {self.status}>"

    # --- cancelling

    def cancel_sync(
        self,
        reason: CancelationReason | str | None = None,
        message: str | None = None,
        *,
        origin: str | None = None,
    ) -> bool:
        """Ask it to stop; see `CancelationToken.cancel_sync`.

        Returns:
            True for the one caller whose request was accepted while the operation was open. It may still complete, if its body
            never notices; `status` tells. A finished operation is sealed: False, and nothing changes.

        Concurrency:
            Any thread, any loop, any signal handler.
        """
        reason, message = reason_and_message(reason, message)
        return self._request(Verdict(reason, message, origin, time.time()))

    def cancel(
        self,
        reason: CancelationReason | str | None = None,
        message: str | None = None,
        *,
        origin: str | None = None,
    ) -> CancelAnswer:
        """The same as `cancel_sync`; has acted when it returns, and what it returns may be awaited for the bool."""
        return CancelAnswer(self.cancel_sync(reason, message, origin=origin))

    def _request(self, verdict: Verdict, run_callbacks: Callable[[Callable[[], None]], object] | None = None) -> bool:
        if self.is_inherited:
            return False
        return cancel_tree(self.token, verdict, run_callbacks)

    def on_cancel(self, callback: Callable[[CancelationToken], object]) -> Registration:
        """Have ``callback(token)`` called when it is cancelled; see `CancelationToken.on_cancel`."""
        return self.token.on_cancel(callback)

    # --- noticing

    def check(self) -> None:
        """Raise `OperationCancelled` if it was cancelled or its deadline is past; every time, except inside `shield`.

        Concurrency:
            Any thread; a few tens of nanoseconds while there is nothing to say.
        """
        if (self.token.is_cancelled or self._deadline_is_past()) and not is_shielded(self):
            raise self.error()

    def wait(self, seconds: float) -> bool:
        """Block this thread for so long or until it is cancelled; returns whether it was. Never raises for a cancel.

        Raises:
            RuntimeError: On a running event loop's thread.
        """
        refuse_to_block("wait", "await anyio.sleep()")
        until = time.monotonic() + seconds
        # deadlines are looked at here too: the loop whose timer they are on may be blocked
        while True:
            deadline = self._nearest_deadline()
            nearest = until if deadline is None else min(until, deadline)
            if self.token.wait(nearest - time.monotonic()) or self._deadline_is_past():
                return True
            if nearest == until or self.is_over:
                break
        if self.is_over:  # it wakes whoever waits when it ends; a thread that polls in a loop must not spin from then on
            time.sleep(min(max(until - time.monotonic(), 0), LONGEST_WAIT_SECONDS))
        return False

    def sleep(self, seconds: float) -> None:
        """Block this thread for so long; raises `OperationCancelled` as soon as it is cancelled.

        Raises:
            RuntimeError: On a running event loop's thread.
        """
        refuse_to_block("sleep", "await anyio.sleep()")
        self.check()
        if is_shielded(self):
            time.sleep(min(max(seconds, 0), LONGEST_WAIT_SECONDS))
        elif self.wait(seconds):
            self.check()

    async def checkpoint(self) -> None:
        """Let other tasks run, and be cancelled here if that was asked for: natively in ``async with``, else by `check`."""
        await anyio.lowlevel.checkpoint()
        self.check()

    def iterate(self, iterable: Iterable[T]) -> Iterator[T]:
        """Yield from a plain iterable, checking before each item is fetched."""
        return iterate(iterable, self.check)

    def stream(self, source: AsyncIterable[T]) -> OperationStream[T]:
        """Yield from an async iterable, interrupting it wherever it waits; see `OperationStream`."""
        return OperationStream(source, self._native_scope, self.check, self.error)

    def interruptible(self, interrupter: Interrupter) -> InterruptibleRegion:
        """A ``with`` block around one blocking call, which ``interrupter`` ends when this operation is cancelled.

        The interrupter is called from a pool thread, at most once unless it `repeats`, and never after the block: leaving waits
        for an interruption in progress, so that it cannot hit the next call. Nothing is interrupted inside `shield`.

        Raises:
            OperationCancelled: At entry, when it is cancelled already; at the end, in place of what the interruption made the
                call raise, which is the cause. Other errors pass, and a call that completed in spite of the cancel returns.

        Concurrency:
            Any thread; regions nest. A deadline interrupts too, its own and those of the operations around it.
        """
        return InterruptibleRegion(self, interrupter)

    def shield(self) -> Shield:
        """A block, ``with`` or ``async with``, in which cancelation waits: for the cleanup that must not be cut short.

        `check` does not raise inside, awaits are not interrupted, and operations opened inside are not cancelled with this one.
        """
        return Shield(self)

    def error(self) -> OperationCancelled:
        """The error that its cancel raises.

        Raises:
            RuntimeError: It was not cancelled.
        """
        verdict = self.token.verdict
        if verdict is None:
            raise RuntimeError("the operation was not cancelled")
        return cancelation_error(verdict, operation_id=self.id, name=self.name, lineage=self)

    def _native_scope(self) -> TokenScope:
        """A scope that this operation cancels; nobody cancels it inside `shield`."""
        return TokenScope(CancelationToken() if is_shielded(self) else self.token)

    async def run_in_thread(
        self, func: Callable[..., R], /, *args: Any, abandon_on_cancel: bool | None = None, **kwargs: Any
    ) -> R:
        """Call a blocking function in a worker thread, where `current_operation` is this one.

        Args:
            func: What to call.
            abandon_on_cancel: True (the default): a cancel ends the await at once; the thread goes on, is counted in
                ``abandoned_threads`` until it ends, and its ``check()`` raises. False: the await waits for it.

        Raises:
            OperationCancelled: The operation was cancelled meanwhile.
            TypeError: ``func`` has a keyword ``abandon_on_cancel`` too; bind that with `functools.partial`.

        Concurrency:
            Any task of the operation, child tasks included.
        """
        if abandon_on_cancel is not None:
            refuse_ambiguous_keywords("run_in_thread", func, {"abandon_on_cancel": abandon_on_cancel})
        refuse_what_never_runs("run_in_thread", func)
        self.check()  # a cancel that the loop has not come to yet keeps the call from beginning too
        call = self.thread_call(partial(func, *args, **kwargs))
        if abandon_on_cancel is False:
            return await call.wait(abandon_on_cancel=False)
        with self._native_scope():  # our own, since a child task need not be inside the operation's
            return await call.wait(abandon_on_cancel=True)
        raise self.error()

    def thread_call(self, func: Callable[[], R]) -> ThreadCall[R]:
        """A call for a worker thread that sees this operation, also once the operation has left it behind."""
        self._let_threads_see_the_deadline()
        context = context_for_a_thread()
        context.run(current_variable.set, self)
        context.run(thread_variable.set, self)
        return ThreadCall(func, context, self.count_abandoned_threads)

    def count_abandoned_threads(self, change: int) -> None:
        """Tell the statistics of a thread that was left behind (+1), or of its end (-1)."""
        self._store.count_abandoned_threads(change)

    def count_failed_interruption(self) -> None:
        """Tell the statistics of an interrupter that raised."""
        self._store.count_failed_interruption()

    # --- blocking work that ends with the operation

    def run_process(
        self,
        command: Command,
        /,
        *,
        input: str | bytes | None = None,
        check: bool = False,
        grace_seconds: float = 5.0,
        **options: Any,
    ) -> subprocess.CompletedProcess[Any]:
        """Run a command and wait for it: `subprocess.run`, but a cancel ends the process and everything it started.

        The command runs in a session of its own. On a cancel the whole group gets SIGTERM and, once the grace is over, SIGKILL;
        what left the group by making one of its own is not reached. No zombie stays.

        Args:
            command: What to run, as for `subprocess.run`.
            input: What to feed it; text if ``text``, ``encoding`` or ``errors`` is given.
            check: Whether a status other than 0 raises.
            grace_seconds: How long the group may take to end after SIGTERM.
            options: What `subprocess.Popen` takes. Output is captured unless ``stdout`` and ``stderr`` say otherwise.

        Returns:
            The completed process, with what it said on ``stdout`` and ``stderr``.

        Raises:
            OperationCancelled: The operation was cancelled, and the process is gone. Its ``__cause__`` is a
                `subprocess.CalledProcessError` with the ``stdout`` and ``stderr`` until then.
            subprocess.CalledProcessError: With ``check``, for a status other than 0.
            RuntimeError: On a running event loop's thread. From async code:
                ``await operation.run_in_thread(operation.run_process, command)``, where a cancel ends the await at once and
                the process soon; with ``abandon_on_cancel=False`` it waits for the end and has the output.
        """
        from .interrupters.subprocesses import run_process

        return run_process(self, command, input=input, check=check, grace_seconds=grace_seconds, **options)

    def open_process(
        self, command: Command, /, *, grace_seconds: float = 5.0, **options: Any
    ) -> AbstractContextManager[subprocess.Popen[Any]]:
        """Start a command, and talk to it inside the ``with`` block; a cancel ends it as in `run_process`.

        Reads and writes in the block then hear of the end of the stream, and leaving the block raises `OperationCancelled`.
        Left by an error, it ends the process; left normally, it closes the pipes and waits.

        Args:
            command: What to run, as for `subprocess.Popen`.
            grace_seconds: How long the group may take to end after SIGTERM.
            options: What `subprocess.Popen` takes; nothing is captured unless ``stdin``, ``stdout`` or ``stderr`` says so.
        """
        from .interrupters.subprocesses import open_process

        return open_process(self, command, grace_seconds=grace_seconds, **options)

    def run_in_process(self, func: Callable[..., R], /, *args: Any, grace_seconds: float | None = None, **kwargs: Any) -> R:
        """Call a function in a process of its own, which a cancel ends: for CPU-bound work that never checks.

        A new Python process imports what it needs (``spawn``), which takes tenths of a second. A fork would be quicker, and
        would copy the locks that other threads hold and the connections that are open. So ``func``, its arguments and its
        result travel by pickle, ``func`` is found by its module and name, a script needs ``if __name__ == "__main__":``, and
        context variables stay here. The process may start commands, but no children of `multiprocessing`.

        Args:
            func: A plain function of a module.
            grace_seconds: How long the process and what it started may take to end after SIGTERM, which ends one that does not
                handle it at once; by default 5.

        Returns:
            What ``func`` returned.

        Raises:
            OperationCancelled: The operation was cancelled, and the process is gone.
            ChildProcessError: It ended without an answer: by a signal, or by ``os._exit``.
            pickle.PicklingError: The call, the result or the error cannot travel.
            TypeError: ``func`` has a keyword ``grace_seconds`` too, or is a coroutine function.
            RuntimeError: On a running event loop's thread; there, as with `run_process`, through `run_in_thread`.

        What ``func`` raises is raised here, with its traceback as a note.
        """
        from .interrupters.process_calls import run_in_process

        if grace_seconds is not None:
            refuse_ambiguous_keywords("run_in_process", func, {"grace_seconds": grace_seconds})
        return run_in_process(self, func, args, kwargs, grace_seconds)

    def hard_interrupt(self, func: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call pure Python code that never asks, and have a cancel raise in its middle. THE LAST RESORT; read all of this.

        The cancel makes the interpreter raise `HardInterrupt`, a ``BaseException``, between two steps of ``func``. It becomes
        `OperationCancelled` when it leaves this call, and never turns up outside of it.

        - It stops **Python code only**. A C call (a sleep, a lock, a query, a regular expression, `sorted`, NumPy) is not
          interrupted; the exception comes after it, if ever.
        - It may come **anywhere**: between ``lock.acquire()`` and ``try``, inside ``finally``, in a context manager's exit, in
          the middle of an import. Call nothing that holds a lock, a connection, a file or a half-written structure which
          outlives the call: it may stay locked, open, or half-written. Compute, return, nothing else. Not under a tracer
          either: coverage and debuggers hold locks of their own.
        - It comes **once**: code that catches ``BaseException`` and goes on, goes on. The call still ends as cancelled.
        - It reaches no thread that ``func`` starts; and no operation, interrupter or second call of this belongs inside.
        - CPython only.

        Prefer `check` or `iterate` in the loop, and `run_in_process` where you cannot change it.

        Raises:
            OperationCancelled: The operation was cancelled, whatever ``func`` made of that.
        """
        from .interrupters.hard_interrupt import hard_interrupt

        return hard_interrupt(self, func, *args, **kwargs)

    # --- progress

    def report_progress(
        self, message: str | None = None, *, current: float | None = None, total: float | None = None, **fields: Any
    ) -> None:
        """Say how far it is. The newest report shows in `context` and on the routes; after the end nothing changes.

        Raises:
            ValueError: More than 2 KiB of JSON, or not JSON at all.

        Concurrency:
            Any thread; callbacks run in it.
        """
        if not self.is_over:
            self._progress_report().report({"message": message, "current": current, "total": total, **fields})

    def on_progress(self, callback: Callable[[Mapping[str, Any]], object]) -> ProgressRegistration:
        """Have ``callback(progress)`` called with every report. What it raises is logged."""
        return self._progress_report().subscribe(callback)

    def _progress_report(self) -> Progress:
        if not self._progress:
            self._progress.append(Progress())
        return self._progress[0]  # the first one's, where two threads come at once

    # --- entering

    def __enter__(self) -> Self:
        self._open(None)
        self._home = (_this_thread(), running_task())
        return self

    async def __aenter__(self) -> Self:
        scope = TokenScope(self.token)
        self._open(scope.port)
        scope.__enter__()
        self._scope = scope
        return self

    def announce(self) -> None:
        """Register it as pending, before it is entered; for runners that queue."""
        if isinstance(self.owner, _Inherit):
            self.owner = self.parent.owner if self.parent else None
        self._store.register(self, OperationStatus.PENDING)
        self._tell_store_of_cancel()
        if self.parent is not None:
            self._link()  # it is cancelled with its parent while it is pending, too

    def _open(self, port: Port | None) -> None:
        if self._entered:
            raise RuntimeError(f"{self!r} was entered before; an operation is used once")
        self._entered = True
        try:
            self._find_parent()
            if not self._links:
                self._link()
            was_announced = self._is_announced
            if self._register and not was_announced:
                self._store.register(self, OperationStatus.RUNNING)
                self._tell_store_of_cancel()
        except BaseException:
            self._unlink()
            raise
        if self.token.is_cancelled:
            self._settle(self._cancelled_status())
            raise self.error()
        self._started = time.time()
        if was_announced:
            self._store.note(self, OperationStatus.RUNNING)
        current_variable.set(self)
        try:
            self._arm(port)
        except BaseException:
            self._settle(OperationStatus.FAILED)
            raise

    @property
    def _is_announced(self) -> bool:
        return self._store.find(self.id) is self

    def _find_parent(self) -> None:
        self.enclosing = current_operation()
        if isinstance(self._parent, _Current):
            self._parent = self.enclosing
        parent = self.parent
        if parent is not None:
            parent._note_child()
        if isinstance(self.owner, _Inherit):
            self.owner = None if parent is None else parent.owner

    def _note_child(self) -> None:
        """An operation was opened inside this one."""

    def _link(self) -> None:
        for source, reason in self._given_tokens:
            self._link_from(source, reason)
        parent = self.parent
        if parent is not None and not is_shielded(parent):
            self._link_from(parent.token, CancelationReason.PARENT)
            self._bounded_by = parent if parent._deadline is not None or parent.may_get_deadline else parent._bounded_by

    def _link_from(self, source: CancelationToken, reason: CancelationReason | None) -> None:
        link = StrongLink(self.token, reason)
        self._links.append((source, link))
        if not source.watch(link, LINK) and source.verdict is not None:
            passed = link.pass_on(source.verdict)
            if passed is not None:
                cancel_tree(*passed)

    def _tell_store_of_cancel(self) -> None:
        if not self.token.watch(_StoreNote(self, self._store), WAKE) and self.token.is_cancelled:
            self._store.note(self, OperationStatus.CANCELLING)

    def _arm(self, port: Port | None) -> None:
        if self._timeout_seconds is not None:
            self._start_deadline(self._timeout_seconds, port)
        for source in self._sources:
            source.start(self.token)

    def _start_deadline(self, seconds: float, port: Port | None) -> None:
        self._timeout_seconds = seconds
        self._deadline = time.monotonic() + seconds
        # the loop's own timer where it has one that is cheap, so that nothing has to cross threads
        self._disarm = None if port is None else port.call_later(seconds, self._time_out)
        if self._disarm is None:
            self._let_threads_see_the_deadline()

    def _lift_deadline(self) -> None:
        if self._disarm is not None:
            self._disarm()
        self._disarm = self._deadline = self._timeout_seconds = None

    def _let_threads_see_the_deadline(self) -> None:
        """Put the deadline on the timer thread: a blocked loop must not delay what threads see."""
        if self._deadline is None or self.is_over or isinstance(self._disarm, _TimerThreadTimer):
            return
        if self._disarm is not None:
            self._disarm()
        timer_thread = shared_timer()
        timer = timer_thread.schedule(self._deadline, partial(self._time_out, timer_thread.dispatch))
        self._disarm = _TimerThreadTimer(timer.cancel)

    def time_out_in_threads(self) -> list[Timer]:
        """Have the timer thread see to the deadlines, this one's and the parents', that loops have their own timers for.

        Unlike the loops' timers these may be disarmed from any thread.
        """
        timer_thread = shared_timer()
        timers: list[Timer] = []
        operation: Cancelable | None = self
        while operation is not None:
            if operation._deadline is not None and not isinstance(operation._disarm, _TimerThreadTimer):
                time_out = partial(operation._time_out, timer_thread.dispatch)
                timers.append(timer_thread.schedule(operation._deadline, time_out))
            operation = operation._bounded_by
        return timers

    def _time_out(self, run_callbacks: Callable[[Callable[[], None]], object] | None = None) -> bool:
        return self._request(Verdict(CancelationReason.TIMEOUT, None, "deadline", time.time()), run_callbacks)

    def _deadline_is_past(self) -> bool:
        """Look at the clock, and make a deadline that is past known: this one's, or one of those it is cancelled by."""
        operation: Cancelable | None = self
        while operation is not None:
            deadline = operation._deadline  # read once: another thread may lift it
            if deadline is not None and time.monotonic() >= deadline and not operation._closed:
                operation._time_out()
                if self.token.is_cancelled:
                    return True
            operation = operation._bounded_by
        return False

    def _nearest_deadline(self) -> float | None:
        """The earliest that can still strike, on the monotonic clock."""
        nearest: float | None = None
        operation: Cancelable | None = self
        while operation is not None:
            deadline = operation._deadline
            if deadline is not None and not operation.is_over and (nearest is None or deadline < nearest):
                nearest = deadline
            operation = operation._bounded_by
        return nearest

    # --- leaving

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        stranger = self._home != (_this_thread(), running_task()) and not isinstance(exc, GeneratorExit)
        try:
            return self._leave(exc, caught=False)
        finally:
            if stranger:
                raise RuntimeError(f"{self!r} was left by another task or thread than entered it")

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        return self._leave_scope(exc_type, exc, traceback)

    def _leave_scope(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        assert self._scope is not None
        self._deadline_is_past()
        try:
            caught = self._scope.__exit__(exc_type, exc, traceback)
        except BaseException as error:  # the rest of a group, or that the scope was left wrongly
            if self._leave(exc if isinstance(exc, GeneratorExit) else error, caught=False):
                return True
            raise
        return self._leave(exc, caught=caught)

    def _leave(self, exc: BaseException | None, *, caught: bool) -> bool:
        """Settle, and say what leaves the block: nothing (True), what came (False), or our own error (raised)."""
        self._deadline_is_past()
        if not caught and not self._is_own_cancel(exc):
            self._settle(OperationStatus.COMPLETED if exc is None else self._verdict_on(exc))
            return False
        self._settle(self._cancelled_status())
        if not self._raise_on_cancel:
            return True
        if isinstance(exc, OperationCancelled) and exc.operation_id == self.id:
            return False
        raise self.error() from exc

    def _is_own_cancel(self, exc: BaseException | None) -> bool:
        """Whether what came is this operation's cancel, noticed here or in a descendant, or a group of nothing else."""
        if not self.token.is_cancelled:
            return False
        if isinstance(exc, BaseExceptionGroup):
            return all(self._is_own_cancel(member) for member in cast("BaseExceptionGroup[BaseException]", exc).exceptions)
        return isinstance(exc, OperationCancelled) and self._is_lineage_of(exc)

    def _verdict_on(self, exc: BaseException) -> OperationStatus:
        """The status of a body that ended by ``exc``, where that is not our own cancel coming back."""
        others: BaseException = exc
        if isinstance(exc, BaseExceptionGroup):  # own ones beside the outside's: the outside wins
            group = cast("BaseExceptionGroup[BaseException]", exc)
            others = group.split(lambda each: self._is_own_cancel(each))[1] or group  # before 3.13 a bound method is refused
        if isinstance(others, GeneratorExit):
            self._claim_outside("closed")
        elif is_native_cancelation(others) and was_asked_to_stop():
            self._claim_outside("outer scope")
        elif not self._ended_with_parent(others):
            return OperationStatus.FAILED
        return self._cancelled_status()

    def _claim_outside(self, origin: str) -> None:
        """Somebody cancelled around us: let our threads and linked tokens know, unless they know a reason already."""
        self._request(Verdict(self._outside_reason, None, origin, time.time()))

    @property
    def _outside_reason(self) -> CancelationReason:
        return CancelationReason.SHUTDOWN if ending.is_under_way() else CancelationReason.PARENT

    def _cancelled_status(self) -> OperationStatus:
        timed_out = self.token.reason is CancelationReason.TIMEOUT
        return OperationStatus.TIMED_OUT if timed_out else OperationStatus.CANCELLED

    def _ended_with_parent(self, error: BaseException) -> bool:
        """Whether a parent's cancel, which is ours as well, was noticed by asking the parent, for whom its error is."""
        if isinstance(error, BaseExceptionGroup):
            members = cast("BaseExceptionGroup[BaseException]", error).exceptions
            return all(self._ended_with_parent(member) for member in members)
        if not isinstance(error, OperationCancelled):
            return False
        parent = self.parent if self.token.reason is CancelationReason.PARENT else None
        while parent is not None and parent is not error.lineage:
            parent = parent.parent
        return parent is not None

    def _is_lineage_of(self, error: OperationCancelled) -> bool:
        operation = error.lineage
        while isinstance(operation, Cancelable):
            if operation is self:
                return True
            operation = operation.parent
        return False

    def _settle(self, status: OperationStatus) -> None:
        """End it: unlink, disarm, publish the final status, wake who waits for it. Never awaits, never raises."""
        if self._closed:  # left a second time, wrongly, or ended elsewhere before it was left: what it ended as stands
            self._leave_context()
            return
        if self._disarm is not None:
            self._disarm()
            self._disarm = None
        for source in reversed(self._sources):  # two of the same signal put back what each found there
            source.stop()
        self._unlink()
        self._ended = time.time()
        self._final = status
        self.token.seal()  # publishes the status of an operation that nobody cancelled: from here on requests lose
        self._closed = True  # publishes it for one that somebody did
        self._leave_context()
        if self._register:
            self._store.finish(self)

    def _leave_context(self) -> None:
        if current_variable.get() is self:
            current_variable.set(self._nearest_open())

    def _nearest_open(self) -> Cancelable | None:
        operation = self.enclosing
        while operation is not None and operation.is_over:
            operation = operation.enclosing
        return operation

    def _unlink(self) -> None:
        for source, link in self._links:
            source.unwatch(link)
        self._links.clear()


class _Combination(Cancelable):
    """What `combine` makes: of the kind of its first part, whatever class that has."""

    __slots__ = ("kind",)

    kind: OperationKind

    def __repr__(self) -> str:
        return f"<{Cancelable.__name__} {self.name or self.id!r} {self.status}>"


class _TimerThreadTimer:
    """Disarms a timer of the timer thread; its type says that threads see the deadline already."""

    __slots__ = ("_cancel",)

    def __init__(self, cancel: Callable[[], object]) -> None:
        self._cancel = cancel

    def __call__(self) -> None:
        self._cancel()


class _StoreNote(Watcher):
    """Tells the store that an operation is being cancelled, without a lock."""

    __slots__ = ("_operation", "_store")

    def __init__(self, operation: Cancelable, store: OperationStore) -> None:
        self._operation = operation
        self._store = store

    def wake(self) -> None:
        self._store.note(self._operation, OperationStatus.CANCELLING)


def _check_types(name: object, owner: object, token: object, parent: object) -> None:
    """Tell callers without a type checker here, not when somebody lists operations or asks for his own."""
    if name is not None and not isinstance(name, str):
        raise TypeError(f"name must be text, not {type(name).__name__}")
    if owner is not INHERIT and owner is not None and not isinstance(owner, str):
        raise TypeError(f"owner must be text, as in str(user.pk), not {type(owner).__name__}")
    if token is not None and not isinstance(token, CancelationToken):
        raise TypeError(f"token must be a CancelationToken, not {type(token).__name__}; an operation has one as its .token")
    if parent is not CURRENT and parent is not None and not isinstance(parent, Cancelable):
        raise TypeError(f"parent must be a Cancelable, not {type(parent).__name__}")


def _seconds(timeout: float | timedelta) -> float:
    if isinstance(timeout, str | bytes):  # which float() would read
        raise TypeError(f"timeout must be seconds or a timedelta, not {type(timeout).__name__}")
    try:
        seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else float(timeout)
    except OverflowError:
        raise ValueError("timeout must be a number of seconds that fits into a float") from None
    if math.isnan(seconds) or seconds < 0:
        raise ValueError(f"timeout must be 0 or more seconds, not {seconds}")
    return seconds


def _instant(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
