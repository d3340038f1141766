"""What happens when a server is told to stop: every running operation is cancelled, so that its own orderly stop succeeds.

A signal handler cannot take a lock, since its thread may hold it. Ours leaves one mark, hands over to the timer thread, and
calls the handler that it found, which is the server's.
"""

from __future__ import annotations

import atexit
import logging
import os
import signal
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from types import FrameType
from typing import Any, Protocol

import anyio
import anyio.to_thread

from .. import ending, forks
from ..http_api import Settings
from ..instances import Instances
from ..jobs import JobRunner, every_runner
from ..models import CancelationReason, OperationKind, OperationQuery, OperationStatus
from ..registry import ThreadSafeRegistry
from ..store import OperationStore, every_store
from ..timer_thread import shared_timer
from ..token import CancelationToken

__all__ = ["ShutdownHook", "answer_lifespan", "install_shutdown_hook", "know_application", "lifespan_of"]

logger = logging.getLogger("cancelable_core")

SWEEP_SECONDS = 0.05
"""How often to cancel what was opened since, once the process ends."""

LAST_SECONDS = 1.0
"""How long the end of a lifespan waits for jobs that were cancelled."""

_UNTOLD = OperationQuery(kinds=tuple(OperationKind), statuses=(OperationStatus.PENDING, OperationStatus.RUNNING))
_LIVE = OperationQuery(kinds=tuple(OperationKind), limit=1)


class Application(Protocol):
    """What is asked of a web application."""

    @property
    def settings(self) -> Settings: ...
    @property
    def registry(self) -> ThreadSafeRegistry: ...
    @property
    def jobs(self) -> JobRunner: ...


_applications: Instances[Application] = Instances()


def know_application(application: Application) -> None:
    """Have an application's settings count when the process ends."""
    _applications.add(application)


def install_shutdown_hook(
    *,
    signals: Sequence[int] = (signal.SIGTERM, signal.SIGINT),
    drain_seconds: float | None = None,
    grace_seconds: float = 1.0,
    exits: bool = False,
) -> ShutdownHook:
    """Have every running operation of this process cancelled, with reason ``shutdown``, when it is told to end.

    Args:
        signals: What tells it. The handler found for each is kept, and called as well; signals that are ignored stay so.
        drain_seconds: How long running operations may go on first; by default the longest that the applications' settings say.
        grace_seconds: How long the end of the interpreter, where it is ours to hold up, waits for what was cancelled.
        exits: For signals that nobody handles, which end the process where it stands: once the operations have ended, or
            ``grace_seconds`` after they were cancelled, raise ``SystemExit(128 + number)`` in the main thread, so that a server
            without a handler of its own, such as waitress, closes in good order. Otherwise the signal does then what it did.

    Returns:
        The hook, which can be removed. A second call changes nothing but installs it anew for signals whose handler was
        replaced since.

    Raises:
        RuntimeError: In any thread but the main one: Python delivers signals nowhere else.

    Concurrency:
        Call it in the process that serves, once the server's own handlers are in place. A forked child starts without it:
        there, signals are passed on to the handlers found.
    """
    global _installed
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("install_shutdown_hook works in the main thread only: Python delivers signals nowhere else")
    shared_timer().start()  # so that a signal handler finds it running
    hook = _installed
    if hook is None:
        hook = _installed = ShutdownHook(drain_seconds, grace_seconds, exits=exits)
        atexit.register(hook.wait)
    for number in signals:
        hook.listen(number)
    return hook


class ShutdownHook:
    """The hook of this process; made by `install_shutdown_hook`.

    Concurrency:
        Any thread, except where a method says otherwise.
    """

    def __init__(self, drain_seconds: float | None, grace_seconds: float, *, exits: bool) -> None:
        self._drain_seconds = drain_seconds
        self._grace_seconds = grace_seconds
        self._exits = exits
        self._links: list[_Link] = []
        self._number = 0
        self._drained_at = float("inf")
        self._due: list[int] = []
        self._is_closed = False
        self._is_removed = False
        self._pid = os.getpid()
        self._over = CancelationToken()

    @property
    def is_under_way(self) -> bool:
        """Whether the signal has come."""
        return self._number != 0

    @property
    def drain_left_seconds(self) -> float:
        """How long running operations may still go on."""
        return max(0.0, min(self._drained_at - time.monotonic(), self._longest_drain()))

    def wait(self) -> None:
        """Block, once the signal has come, until all operations have ended or ``grace_seconds`` after they were cancelled."""
        if self.is_under_way and not self._is_removed:
            self._over.wait(self.drain_left_seconds + self._grace_seconds + 2 * SWEEP_SECONDS)

    def remove(self) -> None:
        """Put back the handlers found, where nobody has put others over ours, and take back what the signal began.

        Main thread only.
        """
        for link in self._links:
            link.unlink()
        self.retire()

    def retire(self) -> None:
        """Do nothing any more but pass signals on."""
        global _installed
        self._is_removed = True
        if _installed is self:
            _installed = None
            atexit.unregister(self.wait)
            ending.take_back()

    def listen(self, number: int) -> None:
        """Chain to the handler of a signal, unless ours is there already. Main thread only."""
        before = signal.getsignal(number)
        if before is signal.SIG_IGN or (isinstance(before, _Link) and before.hook is self):
            return
        if before is None:  # installed by something other than Python, which could not be called, nor put back
            logger.warning("signal %d has a handler outside of Python: it will not cancel operations", number)
            return
        link = _Link(self, number, before)
        self._links.append(link)
        signal.signal(number, link)
        signal.siginterrupt(number, False)  # as servers have it: system calls of other threads go on

    @property
    def _acts(self) -> bool:
        """Not in a forked child, where the signal may come before anything else has run there."""
        return not self._is_removed and self._pid == os.getpid()

    # --- in the signal handler: no locks from here

    def begin(self, number: int) -> None:
        """The signal came. The first one counts."""
        if self._acts and ending.begin():
            self._number = number
            shared_timer().dispatch(self._refuse_jobs)

    def default_action(self, number: int) -> None:
        """Nobody else handles the signal: it ends the process, but not before its operations have ended."""
        self._due.append(number)
        if self._acts and not self._over.is_cancelled:
            return
        self._due.clear()
        if self._exits and self._acts:
            raise SystemExit(128 + number)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    # --- on the pool

    def _refuse_jobs(self) -> None:
        drain_seconds = self._longest_drain()
        self._drained_at = time.monotonic() + drain_seconds
        logger.info("told to end by %s: operations are cancelled in %g seconds", self._origin, drain_seconds)
        spared = _spared_stores()
        for runner in every_runner():
            if runner.store not in spared:
                runner.refuse(origin=self._origin)
        self._later(self._drained_at)

    def _later(self, when: float) -> None:
        timer = shared_timer()
        timer.schedule(when, partial(timer.dispatch, self._sweep))

    def _sweep(self) -> None:
        """Cancel what runs; again and again, since a server may let in a request or two until it has closed its doors."""
        if self._is_removed:
            return
        spared = _spared_stores()
        stores = [store for store in every_store() if store not in spared]
        for store in stores:
            for entry, _ in store.select_live(_UNTOLD):
                entry.cancel_sync(CancelationReason.SHUTDOWN, origin=self._origin)
        if not self._is_closed:
            self._is_closed = True
            for runner in every_runner():
                if runner.store not in spared:
                    runner.close(origin=self._origin)
        is_late = time.monotonic() > self._drained_at + self._grace_seconds
        if not self._over.is_cancelled and (is_late or not any(store.select_live(_LIVE) for store in stores)):
            self._over.cancel_sync()
            self._let_the_default_act()
        self._later(time.monotonic() + SWEEP_SECONDS)

    def _let_the_default_act(self) -> None:
        main = threading.main_thread().ident
        if self._due and main is not None:
            signal.pthread_kill(main, self._due[-1])

    def _longest_drain(self) -> float:
        if self._drain_seconds is not None:
            return self._drain_seconds
        settings = [application.settings for application in _applications.living()]
        return max((each.drain_seconds for each in settings if each.shutdown_hook), default=0.0)

    @property
    def _origin(self) -> str:
        return f"signal {signal.Signals(self._number).name}"


class _Link:
    """Our handler of one signal, in front of the one found there."""

    __slots__ = ("_before", "hook", "number")

    def __init__(self, hook: ShutdownHook, number: int, before: Callable[[int, FrameType | None], object] | int) -> None:
        self._before = before
        self.hook = hook
        self.number = number

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.hook.begin(number)
        if callable(self._before):
            self._before(number, frame)
        elif self._before == signal.SIG_DFL:
            self.hook.default_action(number)

    def unlink(self) -> None:
        """Put back the handler found; where another was put over ours, which calls us, ours only passes on from now."""
        there: object = signal.getsignal(self.number)
        if there is self:
            signal.signal(self.number, self._before)


_installed: ShutdownHook | None = None


def _spared_stores() -> set[OperationStore]:
    """The stores of applications that do not want the hook, except where one that does has the same."""
    applications = _applications.living()
    wanted = {application.registry.store for application in applications if application.settings.shutdown_hook}
    return {application.registry.store for application in applications} - wanted


@asynccontextmanager
async def lifespan_of(application: Application) -> AsyncGenerator[None]:
    """An application's part in its server's ASGI lifespan.

    At startup the shutdown hook is installed, if the application wants it and this is the main thread. At shutdown its jobs are
    ended: that is late for requests, for which the server has waited by then, and in good time for jobs.
    """
    before = _installed
    if application.settings.shutdown_hook and threading.current_thread() is threading.main_thread():
        install_shutdown_hook()
    hook = _installed
    application.jobs.reopen()
    try:
        yield
    finally:
        with anyio.CancelScope(shield=True):  # in a thread of its own: the jobs may be on this very loop
            await anyio.to_thread.run_sync(_end_jobs, application, hook, limiter=anyio.CapacityLimiter(1))
        if hook is not None and hook is not before and not hook.is_under_way:
            hook.remove()


async def answer_lifespan(
    application: Application,
    receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
    send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
) -> None:
    """Answer a server's ``lifespan`` scope where the framework knows none, as Django does; see `lifespan_of`."""
    await receive()  # lifespan.startup
    async with lifespan_of(application):
        await send({"type": "lifespan.startup.complete"})
        await receive()  # lifespan.shutdown
    await send({"type": "lifespan.shutdown.complete"})


def _end_jobs(application: Application, hook: ShutdownHook | None) -> None:
    is_under_way = hook is not None and hook.is_under_way and application.settings.shutdown_hook
    drain_seconds = hook.drain_left_seconds if hook is not None and is_under_way else application.settings.drain_seconds
    application.jobs.close(drain_seconds, wait_seconds=LAST_SECONDS, origin="lifespan")
    if hook is not None:
        hook.wait()  # for whatever else runs: servers end the process without the interpreter's own end


def _forget_hook() -> None:
    if _installed is not None:
        _installed.retire()  # the handlers stay: a signal that is due already would be lost with them


forks.run_in_child(_forget_hook)
