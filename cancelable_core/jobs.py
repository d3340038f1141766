"""Operations that run in the background: submitted, listed, cancelled, waited for."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from contextvars import Context, ContextVar
from datetime import timedelta
from functools import partial
from types import CoroutineType
from typing import Any, Generic, TypeVar, cast, overload

from . import forks
from .callables import is_coroutine_function, refuse_ambiguous_keywords, refuse_what_never_runs
from .errors import OperationCancelled, QueueFull, RunnerClosed
from .flags import WAKE, Watcher
from .instances import Instances
from .models import CancelationReason, OperationContext, OperationKind, OperationStatus
from .operation import Cancelable, HasStore, current_operation, detached_context, store_of
from .store import OperationStore, default_store
from .timer_thread import shared_timer
from .token import CancelAnswer, CancelationToken
from .wakeup import Port, is_native_cancelation, running_port

__all__ = ["Job", "JobOperation", "JobRunner", "OwnedJobs", "default_workers", "every_runner"]

logger = logging.getLogger("cancelable_core")

R = TypeVar("R")


_IDLE_SECONDS = 60.0
"""So long a worker thread waits for the next job; a runner that nobody closed leaves no thread behind."""


class _Asker:
    """Whoever submits: what the runner's ``asker`` says, else the owner of the operation that follows or submits."""

    def __repr__(self) -> str:
        return "ASKER"


ASKER = _Asker()


def default_workers() -> int:
    """How many threads a runner uses unless told otherwise."""
    return min(32, (os.cpu_count() or 1) + 4)


class JobOperation(Cancelable):
    """The operation that a job is."""

    __slots__ = ()

    kind = OperationKind.JOB


class Job(Generic[R]):
    """A handle on one job. The runner keeps only unfinished ones; results live as long as somebody holds this.

    Concurrency:
        Any thread; `wait` in any loop.
    """

    __slots__ = ("__weakref__", "_call", "_error", "_over", "_task", "_value", "operation")

    def __init__(self, operation: JobOperation, call: Callable[[], Any]) -> None:
        self.operation = operation
        self._call: Callable[[], Any] | None = call
        self._value: R | None = None
        self._error: BaseException | None = None
        self._over = CancelationToken()
        self._task: object = None

    @property
    def id(self) -> str:
        """The operation's id, as the routes know it."""
        return self.operation.id

    @property
    def status(self) -> OperationStatus:
        """Where it stands right now."""
        return self.operation.status

    @property
    def context(self) -> OperationContext:
        """A frozen snapshot."""
        return self.operation.context

    def cancel_sync(
        self,
        reason: CancelationReason | str | None = None,
        message: str | None = None,
        *,
        origin: str | None = None,
    ) -> bool:
        """Ask it to stop; see `Cancelable.cancel_sync`. A pending job never runs then."""
        return self.operation.cancel_sync(reason, message, origin=origin)

    def cancel(
        self,
        reason: CancelationReason | str | None = None,
        message: str | None = None,
        *,
        origin: str | None = None,
    ) -> CancelAnswer:
        """The same; has acted when it returns, and what it returns may be awaited for the bool."""
        return self.operation.cancel(reason, message, origin=origin)

    def result(self, timeout_seconds: float | None = None) -> R:
        """Block this thread until the job has ended, and return what its function returned.

        Raises:
            OperationCancelled: It was cancelled (`OperationTimedOut` by its timeout).
            TimeoutError: It has not ended in time.
            RuntimeError: On a running event loop's thread, unless it has ended; await `wait` first.
            Exception: What its function raised.
        """
        if not self._over.is_cancelled and not self._over.wait(timeout_seconds):
            raise TimeoutError(f"job {self.id!r} has not ended within {timeout_seconds} seconds")
        if self._error is not None:
            raise self._error
        return cast("R", self._value)  # set, or the error is

    async def wait(self) -> OperationContext:
        """Sleep until the job has ended, whatever its end; returns the final snapshot."""
        await self._over.wait_for_cancel()
        return self.context

    def take_call(self) -> Callable[[], Any]:
        """The call to make, once; the job lets go of it and of its arguments."""
        call, self._call = self._call, None
        assert call is not None
        return call

    def end(self, value: R | None, error: BaseException | None) -> None:
        """Keep what came of it, and wake who waits."""
        self._call = None
        self._value, self._error = value, error
        self._over.cancel_sync()

    def hold(self, task: object) -> None:
        """Keep the task that runs it: loops themselves hold theirs weakly."""
        self._task = task


class JobRunner:
    """Runs jobs: plain functions in a bounded pool of daemon threads, async ones on an event loop.

    Args:
        store: Where jobs are listed, or a registry that shows it; by default the process's.
        workers: How many plain jobs run at once; by default `default_workers`.
        queue_limit: How many more may be pending.
        context: Opened in the worker thread around every plain job: an adapter's application context, for instance.
        async_context: The same around async jobs.
        asker: Says who submits, where no ``owner`` is given; the owner of the submitting operation where it says None.
        keeps_variable: Which context variables come along into a job; by default all.
        use_running_loop: Whether an async job that is submitted on a running loop stays on it. Not where loops die with the
            request (or where the function given says no); then, as in threads, it runs on a loop of the runner's own.

    Concurrency:
        Any thread. Nothing starts before the first job; a forked child starts with an empty runner.
    """

    def __init__(
        self,
        store: OperationStore | HasStore | None = None,
        *,
        workers: int | None = None,
        queue_limit: int = 1_000,
        context: Callable[[], AbstractContextManager[object]] | None = None,
        async_context: Callable[[], AbstractAsyncContextManager[object]] | None = None,
        asker: Callable[[], str | None] | None = None,
        keeps_variable: Callable[[ContextVar[Any]], bool] | None = None,
        use_running_loop: bool | Callable[[], bool] = True,
    ) -> None:
        if workers is not None and workers < 1:
            raise ValueError(f"workers must be 1 or more, not {workers}")
        if queue_limit < 0:
            raise ValueError(f"queue_limit must be 0 or more, not {queue_limit}")
        self._store = None if store is None else store_of(store)
        self._workers = default_workers() if workers is None else workers
        self._queue_limit = queue_limit
        self._context = context or nullcontext
        self._async_context = async_context or nullcontext
        self._asker = asker
        self._keeps_variable = keeps_variable
        self._use_running_loop = use_running_loop
        self._reset()
        _runners.add(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._pending: OrderedDict[Job[Any], Context] = OrderedDict()
        self._unfinished: dict[Job[Any], None] = {}
        self._threads = 0
        self._idle = 0
        self._loop: _OwnLoop | None = None
        self._closed = False

    @overload
    def submit(
        self,
        func: Callable[..., Coroutine[Any, Any, R]],
        /,
        *args: Any,
        name: str | None = ...,
        owner: str | _Asker | None = ...,
        timeout: float | timedelta | None = ...,
        job_id: str | None = ...,
        metadata: Mapping[str, Any] | None = ...,
        follow_request: bool = ...,
        **kwargs: Any,
    ) -> Job[R]: ...
    @overload
    def submit(
        self,
        func: Callable[..., R],
        /,
        *args: Any,
        name: str | None = ...,
        owner: str | _Asker | None = ...,
        timeout: float | timedelta | None = ...,
        job_id: str | None = ...,
        metadata: Mapping[str, Any] | None = ...,
        follow_request: bool = ...,
        **kwargs: Any,
    ) -> Job[R]: ...
    def submit(self, func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Job[Any]:
        """Run ``func(*args, **kwargs)`` in the background.

        Args:
            func: A plain function, for the pool, or an async one.
            name: What to call it in lists and patterns.
            owner: Who may see and cancel it; by default whoever asks.
            timeout: Seconds, or a timedelta, from its start.
            job_id: An id of your own.
            metadata: Anything worth keeping with it.
            follow_request: Whether it is cancelled together with the operation that submits it. By default it is not: a client
                that leaves does not stop the job it started. Context variables come along in any case.

        Returns:
            The job; its ``id`` is what the routes take.

        Raises:
            QueueFull: ``queue_limit`` jobs are pending already.
            DuplicateOperation: A live operation has this ``job_id``.
            TypeError: ``func`` has a keyword of the same name as one of ours; bind that with `functools.partial`.
            RunnerClosed: The runner was closed; a `QueueFull`, and a RuntimeError.
        """
        ours = {key: kwargs.pop(key) for key in _OUR_KEYWORDS & kwargs.keys()}
        refuse_ambiguous_keywords("submit", func, ours)
        refuse_what_never_runs("submit", func, may_be_async=True)
        job: Job[Any] = Job(self._operation(**ours), partial(func, *args, **kwargs))
        if is_coroutine_function(func):
            self._start_async(job)
        else:
            self._enqueue(job)
        return job

    def _operation(
        self,
        *,
        name: str | None = None,
        owner: str | _Asker | None = ASKER,
        timeout: float | timedelta | None = None,
        job_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        follow_request: bool = False,
    ) -> JobOperation:
        submitter = current_operation()
        if isinstance(owner, _Asker):
            owner = None if self._asker is None else self._asker()
            if owner is None and submitter is not None:
                owner = submitter.context.owner
        return JobOperation(
            name,
            operation_id=job_id,
            owner=owner,
            timeout=timeout,
            parent=submitter if follow_request else None,
            metadata=metadata,
            registry=self._store or default_store(),
        )

    # --- plain jobs

    def _enqueue(self, job: Job[Any]) -> None:
        shared_timer().start()  # so that a cancel, even from a signal handler, finds it running
        with self._lock:
            self._refuse_if_closed()
            if len(self._pending) >= self._queue_limit + self._idle + self._workers - self._threads:
                raise QueueFull(f"{self._queue_limit} jobs are pending already; try again later", limit=self._queue_limit)
            if self._idle <= len(self._pending) and self._threads < self._workers:
                threading.Thread(target=self._work, name="cancelable-job", daemon=True).start()
                self._threads += 1
                self._idle += 1  # from now on, not from when it comes in: a job that has a thread does not fill the queue
            job.operation.announce()
            self._pending[job] = detached_context(self._keeps_variable)
            self._unfinished[job] = None
            self._changed.notify()
        if not job.operation.token.watch(_PendingCancel(self, job), WAKE):
            self._give_up(job)

    def _work(self) -> None:
        was_busy = False
        while True:
            with self._lock:
                if was_busy:
                    self._idle += 1
                while not self._pending and not self._closed:
                    if not self._changed.wait(_IDLE_SECONDS):
                        break
                self._idle -= 1
                if not self._pending:
                    self._threads -= 1
                    return
                job, context = self._pending.popitem(last=False)
            context.run(self._run, job)
            del job, context
            was_busy = True

    def _run(self, job: Job[Any]) -> None:
        value, error = None, None
        try:
            with job.operation, self._context():
                value = job.take_call()()
                _refuse_coroutine(value)
        except BaseException as raised:  # reported to whoever waits, and logged: the thread goes on with the next job
            error = raised
        self._finish(job, value, error)

    def _give_up(self, job: Job[Any]) -> None:
        """Settle a job that was cancelled while it was pending, unless a thread has taken it."""
        with self._lock:
            if self._pending.pop(job, None) is None:
                return
        self._run(job)  # entering it raises: its body never runs

    def give_up_soon(self, job: Job[Any]) -> None:
        """The same, from inside a cancel, which takes no locks."""
        # on the timer thread itself: the pool may be full of somebody's predicates, and here no code but ours runs
        shared_timer().schedule(0.0, partial(self._give_up, job))

    # --- async jobs

    def _start_async(self, job: Job[Any]) -> None:
        stays = self._use_running_loop
        port = running_port() if (stays() if callable(stays) else stays) else None
        with self._lock:
            self._refuse_if_closed()
            job.operation.announce()
            self._unfinished[job] = None
            if port is None and self._loop is None:
                self._loop = _OwnLoop()
            loop = self._loop
            spawn = partial(self._spawn, job, detached_context(self._keeps_variable))
            if port is None and loop is not None:
                loop.port.post(spawn, loop.port)  # inside the lock: before close() can have the loop told to stop
        if port is not None:
            spawn(port)

    def _spawn(self, job: Job[Any], context: Context, port: Port) -> None:
        job.hold(port.spawn(partial(self._run_async, job), context, ended=partial(self._settle_unstarted, job)))

    def _settle_unstarted(self, job: Job[Any]) -> None:
        """The task of a job is over. If its loop gave it up before the first step, nobody else settles the job."""
        with self._lock:
            started = job not in self._unfinished
        if not started:
            job.cancel_sync(CancelationReason.PARENT, origin="outer scope")
            self._run(job)  # entering it raises: its body never runs

    async def _run_async(self, job: Job[Any]) -> None:
        value, error = None, None
        try:
            async with job.operation, self._async_context():
                value = await job.take_call()()
        except BaseException as raised:
            error = raised
        self._finish(job, value, error)
        if error is not None and is_native_cancelation(error):
            raise error

    # --- the end

    def _finish(self, job: Job[Any], value: object, error: BaseException | None) -> None:
        if error is not None and is_native_cancelation(error):
            error = job.operation.error()  # its loop ended under it; waiters elsewhere need an error of ours
        elif error is not None and not isinstance(error, OperationCancelled):
            logger.error("job %r (%r) failed", job.operation.name, job.id, exc_info=error)
        job.end(value, error)
        with self._lock:
            self._unfinished.pop(job, None)
            if self._closed:
                self._changed.notify_all()

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise RunnerClosed("the job runner was closed")

    @property
    def store(self) -> OperationStore:
        """Where its jobs are listed."""
        return self._store or default_store()

    def refuse(self, *, origin: str = "job runner") -> None:
        """Accept no more jobs, and cancel the pending ones with reason ``shutdown``: they never run. The others go on."""
        with self._lock:
            self._closed = True
            self._changed.notify_all()
            pending = list(self._pending)
        for job in pending:
            job.cancel_sync(CancelationReason.SHUTDOWN, origin=origin)
            self._give_up(job)

    def reopen(self) -> None:
        """Accept jobs again."""
        with self._lock:
            self._closed = False

    def close(self, drain_seconds: float = 0, *, wait_seconds: float = 0, origin: str = "job runner") -> None:
        """Accept no more jobs, give the running ones ``drain_seconds``, then cancel them with reason ``shutdown``.

        Pending jobs are cancelled at once. Idempotent. It blocks for as long as it waits: on a loop's thread, async jobs that
        were submitted there cannot end meanwhile, so that the time runs out; close from a thread there, by
        ``await anyio.to_thread.run_sync(runner.close, drain_seconds)``.

        Args:
            drain_seconds: How long to wait for running jobs to end by themselves.
            wait_seconds: How long to wait for those that were cancelled then.
            origin: Who or what closes it.
        """
        self.refuse(origin=origin)
        running = self._wait_for_unfinished(drain_seconds)
        with self._lock:
            loop, self._loop = self._loop, None
        for job in running:
            job.cancel_sync(CancelationReason.SHUTDOWN, origin=origin)
        if loop is not None:
            loop.close()
        self._wait_for_unfinished(wait_seconds)

    def _wait_for_unfinished(self, seconds: float) -> list[Job[Any]]:
        deadline = time.monotonic() + seconds
        with self._lock:
            while self._unfinished and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)
            return list(self._unfinished)


class OwnedJobs:
    """A runner as one asker sees it: what he submits is his.

    Args:
        runner: Runs the jobs.
        owner: Who is asking; None is nobody.
    """

    __slots__ = ("_owner", "_runner")

    def __init__(self, runner: JobRunner, owner: str | None) -> None:
        self._runner = runner
        self._owner = owner

    @overload
    def submit(self, func: Callable[..., Coroutine[Any, Any, R]], /, *args: Any, **kwargs: Any) -> Job[R]: ...
    @overload
    def submit(self, func: Callable[..., R], /, *args: Any, **kwargs: Any) -> Job[R]: ...
    def submit(self, func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Job[Any]:
        """See `JobRunner.submit`."""
        kwargs.setdefault("owner", self._owner)
        return self._runner.submit(func, *args, **kwargs)


_OUR_KEYWORDS = {"name", "owner", "timeout", "job_id", "metadata", "follow_request"}


def _refuse_coroutine(value: object) -> None:
    """A plain function that returned a coroutine has done nothing yet."""
    if isinstance(value, CoroutineType):
        value.close()
        raise TypeError("the job's function returned a coroutine, which nobody awaits: submit an async function")


class _PendingCancel(Watcher):
    """Has a pending job settled as soon as it is cancelled, rather than when a thread comes to it."""

    __slots__ = ("_job", "_runner")

    def __init__(self, runner: JobRunner, job: Job[Any]) -> None:
        self._runner = runner
        self._job = job

    def wake(self) -> None:
        self._runner.give_up_soon(self._job)


class _OwnLoop:
    """An asyncio loop in a daemon thread, for async jobs that were submitted where no lasting loop runs."""

    def __init__(self) -> None:
        import asyncio  # here: plain jobs need no loop, and loading it costs more than all of the suite

        self._loop = asyncio.new_event_loop()
        self.port = Port(self._loop, self._loop.call_soon_threadsafe, is_trio=False)
        threading.Thread(target=self._run, name="cancelable-job-loop", daemon=True).start()

    def _run(self) -> None:
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()

    def close(self) -> None:
        """Stop the loop once its tasks have ended."""
        import asyncio

        asyncio.run_coroutine_threadsafe(self._stop_when_empty(), self._loop)

    async def _stop_when_empty(self) -> None:
        import asyncio

        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others)
        self._loop.stop()


_runners: Instances[JobRunner] = Instances()


def every_runner() -> list[JobRunner]:
    """All runners of this process, whoever made them."""
    return _runners.living()


def _forget_everything() -> None:
    for runner in every_runner():
        runner._reset()  # pyright: ignore[reportPrivateUsage]  # same module


forks.run_in_child(_forget_everything)
