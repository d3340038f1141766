"""Between threads and event loops: context variables that follow a call, and a bridge that carries calls to a loop."""

from __future__ import annotations

import contextvars
import logging
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import CoroutineType, TracebackType
from typing import Any, Self, TypeVar, cast

import anyio
import anyio.lowlevel

from . import forks
from .callables import is_coroutine_function, refuse_what_never_runs
from .errors import BridgeClosed, BridgeFull
from .flags import WAKE
from .operation import current_operation
from .store import default_store
from .threads import ThreadCall
from .waiters import ThreadWaiter
from .wakeup import context_for_a_thread, is_native_cancelation, names_the_loop, running_port, was_asked_to_stop

__all__ = ["AnyioBridge", "BridgeStatistics", "ContextBridge"]

logger = logging.getLogger("cancelable_core")

R = TypeVar("R")

_CALLS_PER_TURN = 2_000
"""After so many calls the loop gets a turn."""


class ContextBridge:
    """Carries context variables, `current_operation` among them, into threads. Works on asyncio and trio."""

    async def run_in_thread_with_context(self, func: Callable[..., R], /, *args: Any, **kwargs: Any) -> R:
        """Call a blocking function in a worker thread that sees this task's context variables.

        What it sets there does not leak: not into the pool's next job and not back here. The await lasts until the call
        ends; use `Cancelable.run_in_thread` for one that a cancel may leave behind.
        """
        return await anyio.to_thread.run_sync(context_for_a_thread().run, partial(func, *args, **kwargs))

    def copy_context(self) -> contextvars.Context:
        """The context variables as they are now."""
        return contextvars.copy_context()

    def restore_context(self, context: contextvars.Context) -> None:
        """Lay the saved values over the current ones, for good; variables that were not set then keep their values."""
        _overlay(context)

    @contextmanager
    def restored(self, context: contextvars.Context) -> Generator[None]:
        """The same for one block, undone at its end."""
        undo = _overlay(context)
        try:
            yield
        finally:
            for variable, token in reversed(undo):
                variable.reset(token)


def _overlay(
    context: contextvars.Context,
) -> list[tuple[contextvars.ContextVar[Any], contextvars.Token[Any]]]:
    unset = object()
    return [
        (variable, variable.set(value))
        for variable, value in context.items()
        if variable.get(unset) is not value and not names_the_loop(variable)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeStatistics:
    """What became of the calls of a bridge; accepted is always the sum of the other four."""

    accepted: int
    completed: int
    failed: int
    cancelled: int
    unfinished: int


class _Call:
    """One call on its way to the loop, and for `AnyioBridge.call` the way back."""

    __slots__ = ("args", "error", "func", "is_async", "is_over", "value", "waiter")

    def __init__(self, func: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.func = func
        self.args = args
        self.is_async = is_coroutine_function(func)
        self.waiter: ThreadWaiter | None = None
        self.is_over = False
        self.value: Any = None
        self.error: BaseException | None = None

    def end(self, value: Any, error: BaseException | None) -> None:
        self.value, self.error, self.is_over = value, error, True
        if self.waiter is not None:
            self.waiter.wake()


class AnyioBridge:
    """Carries calls from threads to the event loop that entered it, on asyncio and trio.

    Args:
        buffer_size: How many accepted calls may be unfinished at once; then producers wait.
        max_workers: How many threads `run_in_thread` uses at once; None for the loop's own limit.
        on_error: Called with every exception that a call raised, after it was logged.

    Calls start in the order in which each producer made them, and one slow coroutine does not hold up the next. Nothing is
    dropped silently: leaving the block waits for all calls; leaving it by an error or a cancel runs the plain ones, cancels
    the coroutines, and counts and logs them.

    Concurrency:
        Entered once. `call_soon_threadsafe` and `call`: any thread. `run_in_thread`: tasks of the loop.
    """

    def __init__(
        self,
        buffer_size: int = 1_000,
        max_workers: int | None = None,
        *,
        on_error: Callable[[BaseException], object] | None = None,
    ) -> None:
        if buffer_size < 1:
            raise ValueError(f"buffer_size must be 1 or more, not {buffer_size}")
        if max_workers is not None and max_workers < 1:
            raise ValueError(f"max_workers must be 1 or more, not {max_workers}")
        self._buffer_size = buffer_size
        self._max_workers = max_workers
        self._on_error = on_error
        self._lock = threading.Lock()
        self._queue: deque[_Call] = deque()
        self._producers: deque[ThreadWaiter] = deque()
        self._accepted = self._completed = self._failed = self._cancelled = 0
        self._open = False
        self._entered = False
        self._armed = False  # the loop was told, or is at it
        self._generation = forks.generation

    # --- the producers' side

    def call_soon_threadsafe(self, func: Callable[..., object], /, *args: object, block: bool = True) -> None:
        """Have the loop call ``func(*args)``, a plain or an async function, soon.

        Args:
            func: What it raises is logged, counted and given to ``on_error``.
            block: Whether to wait for room; on the loop's own thread there is no waiting.

        Raises:
            BridgeFull: There is no room, and no waiting.
            BridgeClosed: The bridge is not open, or was closed while this thread waited.
            OperationCancelled: The producer's own operation was cancelled while it waited.
        """
        self._submit(_Call(func, args), block=block)

    def call(self, func: Callable[..., R | Coroutine[Any, Any, R]], /, *args: object) -> R:
        """Have the loop call ``func(*args)`` and wait for its result, in this thread.

        Raises:
            RuntimeError: On the loop's own thread, which would wait for itself.
            BridgeClosed: The bridge closed before the call could finish.
            OperationCancelled: This thread's operation was cancelled; the call goes on.
        """
        if self._open and self._port.is_running_here():
            raise RuntimeError("call() would wait for its own thread's event loop; await the function instead")
        call = _Call(func, args)
        call.waiter = ThreadWaiter()
        self._submit(call, block=True)
        self._wait(call.waiter, lambda: call.is_over)
        if call.error is not None:
            raise call.error
        result: R = call.value
        return result

    def _submit(self, call: _Call, *, block: bool) -> None:
        if self._generation != forks.generation:  # nor is the lock to be trusted
            raise BridgeClosed("the bridge belongs to the process before a fork")
        while True:
            waiter = ThreadWaiter()
            with self._lock:
                if not self._open:
                    raise BridgeClosed("the bridge is not open; calls are accepted inside its async with block")
                if self._unfinished() < self._buffer_size:
                    self._accepted += 1
                    self._queue.append(call)
                    ring = not self._armed
                    self._armed = True
                    break
                if not block or self._port.is_running_here():
                    raise BridgeFull(f"the bridge holds {self._buffer_size} unfinished calls")
                self._producers.append(waiter)
            self._wait_for_room(waiter)
        if ring:
            self._port.post(self._ring)

    def _wait_for_room(self, waiter: ThreadWaiter) -> None:
        try:
            self._wait(waiter, lambda: waiter not in self._producers)
        except BaseException:
            with self._lock:
                try:
                    self._producers.remove(waiter)
                except ValueError:  # the room was for us: let the next one have it
                    self._let_in(1)
            raise

    def _wait(self, waiter: ThreadWaiter, is_over: Callable[[], bool]) -> None:
        """Block until it is over or this thread's operation is cancelled."""
        operation = current_operation()
        if operation is None:
            while not is_over():
                waiter.block(None)
            return
        operation.token.watch(waiter, WAKE)
        try:
            while not is_over():
                operation.check()
                # one that was cancelled and is shielded, or has ended, is told nothing more: its deadline must not make this a
                # busy loop
                is_decided = operation.token.is_cancelled or operation.is_over
                waiter.block(None if is_decided else operation.remaining_seconds)
        finally:
            operation.token.unwatch(waiter)

    def _unfinished(self) -> int:
        return self._accepted - self._completed - self._failed - self._cancelled

    def _let_in(self, places: int) -> None:
        while places > 0 and self._producers:
            self._producers.popleft().wake()
            places -= 1

    # --- the loop's side

    async def __aenter__(self) -> Self:
        if self._entered:
            raise RuntimeError("a bridge is entered once; make a new one")
        self._entered = True
        port = running_port()
        assert port is not None
        self._port = port
        self._bell = anyio.Event()
        self._all_done = anyio.Event()
        self._last_started: anyio.Event | None = None
        self._limiter = None if self._max_workers is None else anyio.CapacityLimiter(self._max_workers)
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        self._tasks.start_soon(self._serve)
        self._open = True
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close()
        try:
            if exc is None:
                await self._drain()
        finally:
            try:
                self._finish_in_a_hurry()
            finally:
                self._tasks.cancel_scope.cancel()
                await self._tasks.__aexit__(None, None, None)  # without the body's error, which would come back in a group

    async def run_in_thread(self, func: Callable[..., R], /, *args: Any, **kwargs: Any) -> R:
        """Call a blocking function in one of the bridge's ``max_workers`` threads, with this task's context variables.

        When the await is cancelled it ends at once; the thread goes on.
        """
        if not self._open:
            raise BridgeClosed("the bridge is not open")
        refuse_what_never_runs("run_in_thread", func)
        operation, work = current_operation(), partial(func, *args, **kwargs)
        if operation is None:
            call = ThreadCall(work, context_for_a_thread(), default_store().count_abandoned_threads)
        else:
            call = operation.thread_call(work)
        return await call.wait(limiter=self._limiter, abandon_on_cancel=True)

    @property
    def statistics(self) -> BridgeStatistics:
        """The counters, consistent with each other."""
        with self._lock:
            return BridgeStatistics(
                accepted=self._accepted,
                completed=self._completed,
                failed=self._failed,
                cancelled=self._cancelled,
                unfinished=self._unfinished(),
            )

    def _ring(self) -> None:
        self._bell.set()

    async def _serve(self) -> None:
        while True:
            completed = 0
            try:
                while self._queue and completed < _CALLS_PER_TURN:
                    if self._queue[0].is_async:
                        self._start(self._queue.popleft())
                    elif self._last_started is None or self._last_started.is_set():
                        completed += self._run(self._queue.popleft())
                    else:  # a producer's earlier coroutine begins before its later call, which stays in the queue until then
                        self._count(completed=completed)
                        completed = 0
                        await self._last_started.wait()
            finally:
                self._count(completed=completed)
            if self._queue:
                await anyio.lowlevel.checkpoint()
                continue
            self._bell = anyio.Event()
            with self._lock:
                self._armed = bool(self._queue)
            if not self._armed:
                await self._bell.wait()

    def _run(self, call: _Call) -> int:
        """Call a plain function; returns how many calls this completed."""
        try:
            value = call.func(*call.args)
        except BaseException as error:
            self._fail(call, error)
            if not isinstance(error, Exception):
                raise  # an interrupt: it passes on, but whoever waits for this call must not wait for ever
            return 0
        if isinstance(value, CoroutineType):  # a plain function that returned one
            self._start(call, cast("Coroutine[Any, Any, Any]", value))
            return 0
        call.end(value, None)
        return 1

    def _start(self, call: _Call, coroutine: Coroutine[Any, Any, Any] | None = None) -> None:
        before, started = self._last_started, anyio.Event()
        self._last_started = started
        self._tasks.start_soon(self._run_async, call, coroutine, before, started)

    async def _run_async(
        self,
        call: _Call,
        coroutine: Coroutine[Any, Any, Any] | None,
        before: anyio.Event | None,
        started: anyio.Event,
    ) -> None:
        try:
            if before is not None and not before.is_set():
                await before.wait()  # a trio nursery starts tasks in any order
            started.set()
            value = await (call.func(*call.args) if coroutine is None else coroutine)
        except Exception as error:
            self._fail(call, error)
        except BaseException as error:
            if is_native_cancelation(error) and not was_asked_to_stop():
                self._fail(call, error)  # it awaited what somebody else had cancelled: its own affair
                return
            self._cancel(call)
            raise
        else:
            call.end(value, None)
            self._count(completed=1)
        finally:
            if coroutine is not None:
                coroutine.close()

    def _fail(self, call: _Call, error: BaseException) -> None:
        if call.waiter is None:
            logger.error("a call through the bridge raised", exc_info=error)
        call.end(None, error)
        self._count(failed=1)
        if self._on_error is not None:
            try:
                self._on_error(error)
            except Exception:
                logger.exception("the bridge's on_error raised")

    def _cancel(self, call: _Call) -> None:
        logger.warning("a coroutine of the bridge was cancelled: %r", call.func)
        call.end(None, BridgeClosed("the bridge was closed before the call could finish"))
        self._count(cancelled=1)

    def _count(self, *, completed: int = 0, failed: int = 0, cancelled: int = 0) -> None:
        with self._lock:
            self._completed += completed
            self._failed += failed
            self._cancelled += cancelled
            self._let_in(completed + failed + cancelled)
            if not self._open and not self._unfinished():
                self._all_done.set()

    def _close(self) -> None:
        with self._lock:
            self._open = False
            self._let_in(len(self._producers))

    async def _drain(self) -> None:
        with self._lock:
            done = not self._unfinished()
        if not done:
            await self._all_done.wait()

    def _finish_in_a_hurry(self) -> None:
        """Run the plain calls that are left, give up the coroutines."""
        try:
            while self._queue:
                call = self._queue.popleft()
                if call.is_async:
                    self._cancel(call)
                else:
                    self._count(completed=self._run(call))
        finally:
            if self._queue:  # an interrupt passes on, but not at the price of the other calls
                self._finish_in_a_hurry()
