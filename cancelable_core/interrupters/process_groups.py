"""Ending a child process and all that it started: TERM to its group, a grace, KILL, and nothing left to reap."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import partial

from ..regions import Interrupter
from ..timer_thread import Timer, shared_timer

__all__ = ["GRACE_SECONDS", "ProcessGroup"]

logger = logging.getLogger("cancelable_core")

GRACE_SECONDS = 5.0
"""How long a process may take to end after TERM, unless the caller says otherwise."""

_LONGEST_PAUSE_SECONDS = 0.05
_KILL_SECONDS = 1.0
"""A killed process is gone within microseconds; after so long it is one that we may not signal, or that the kernel holds."""


class ProcessGroup(Interrupter):
    """The group that a child process leads, as an interrupter.

    It is armed before there is a process, so that a cancel at any moment finds it; the process is told as soon as it is there.

    The kernel gives numbers away in turn, so that one which was free a moment ago does not name a stranger: asking every few
    milliseconds whether the group is still there, and signalling it only while it is, hits nobody else.

    Args:
        grace_seconds: How long the group may take to end after SIGTERM; then it is killed.

    Raises:
        ValueError: A grace below 0, or NaN.

    Concurrency:
        `interrupt` never blocks: what it began goes on in the timer thread. `end` blocks until the group is gone.
    """

    def __init__(self, grace_seconds: float) -> None:
        if not grace_seconds >= 0:
            raise ValueError(f"grace_seconds must be 0 or more, not {grace_seconds}")
        self._grace_seconds = grace_seconds
        self._lock = threading.Lock()
        self._pid = 0
        self._poll: Callable[[], int | None] = lambda: 0
        self._is_led = False
        self._asked = False
        self._told_at: float | None = None
        self._killed_at: float | None = None
        self._over = False
        self._timer: Timer | None = None

    def led_by(self, pid: int, poll: Callable[[], int | None]) -> None:
        """There is a process.

        Args:
            pid: Its id, and its group's once it made one.
            poll: Reaps it if it has ended, and gives None while it has not. Safe in any thread.
        """
        with self._lock:
            self._pid, self._poll, self._is_led = pid, poll, True
            if self._asked:
                self._tell()

    @property
    def was_told(self) -> bool:
        """Whether it was told to end."""
        return self._told_at is not None

    @property
    def killed_seconds(self) -> float:
        """How long ago it was killed; 0 while it was not."""
        return 0.0 if self._killed_at is None else time.monotonic() - self._killed_at

    def interrupt(self) -> None:
        """Tell the group to end, and have it killed when the grace is over."""
        with self._lock:
            if not self._over and not self._asked:
                self._asked = True
                self.ends_quietly = True  # what it said and did may be half of it; not so once it was let go
                if self._is_led:
                    self._tell()

    def is_interruption(self, error: Exception) -> bool:
        """Always: the end of a process makes whoever talks to it fail in many ways."""
        return True

    def let_go(self) -> bool:
        """It has ended by itself: from now on nothing is sent to it. False if it was told to end before."""
        with self._lock:
            self._over = not self._asked
            return self._over

    def end(self) -> None:
        """Leave nothing of it: tell it unless it was told or has ended, wait until it is gone, kill it after its grace."""
        if not self._asked and self._poll() is not None:
            return
        self.interrupt()
        pause_seconds = 0.0005
        while self._told_at is not None and not self.is_gone():
            if time.monotonic() >= self._told_at + self._grace_seconds:
                self._kill()  # whatever holds up the pool
            if self.killed_seconds > _KILL_SECONDS:
                logger.warning("process group %d cannot be ended: another user's, or held by the kernel", self._pid)
                break
            time.sleep(pause_seconds)
            pause_seconds = min(2 * pause_seconds, _LONGEST_PAUSE_SECONDS)
        with self._lock:
            self._over = True
        if self._timer is not None:
            self._timer.cancel()

    def _tell(self) -> None:
        self._told_at = time.monotonic()
        self._signal(signal.SIGTERM)
        timer = shared_timer()
        self._timer = timer.schedule(self._told_at + self._grace_seconds, partial(timer.dispatch, self._kill))

    def _kill(self) -> None:
        with self._lock:
            if not self._over and self._killed_at is None:
                self._killed_at = time.monotonic()
                self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        try:
            try:
                os.killpg(self._pid, number)
            except ProcessLookupError:
                if self._poll() is None:  # it has not come to making its group yet
                    os.kill(self._pid, number)
        except (ProcessLookupError, PermissionError):
            pass  # it has ended, or all of it runs as another user; `end` finds out

    def is_gone(self) -> bool:
        """Whether nothing of it is left. Reaps what has ended."""
        if self._poll() is None:
            return False
        try:
            while os.waitpid(-self._pid, os.WNOHANG)[0]:
                pass  # an orphan of the group that became our own child, since we are the container's first process
        except ChildProcessError:
            pass
        try:
            os.killpg(self._pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return not _somebody_lives_in(self._pid)


def _somebody_lives_in(group: int) -> bool:
    """Whether the group is more than orphans that ended and that a lazy init has not reaped yet. Without Linux's /proc: yes."""
    if sys.platform != "linux":
        return True
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                state, _, group_of_it, *_ = file.read().rpartition(b")")[2].split()
        except OSError:
            continue  # ended meanwhile
        if int(group_of_it) == group and state not in b"ZX":
            return True
    return False
