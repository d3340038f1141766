"""The one lazy daemon thread that flags deadlines, and the small pool that runs what may block.

The thread itself only flags, wakes and hands over: a slow callback delays no deadline. Its heap has one writer, the thread,
so there is no lock that a signal handler could find taken: others leave entries in a deque and ring a bell.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import math
import threading
import time
from _thread import allocate_lock
from collections import deque
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue

from . import forks

__all__ = ["Timer", "TimerThread", "shared_timer"]

logger = logging.getLogger("cancelable_core")

_MOST_UNSEEN = 256
"""So many entries may wait for the thread's next waking; most of them are disarmed by then and never touch the heap.

As many disarmed ones, besides one for each that was armed the last time, may lie in the heap before it is compacted.
"""


class Timer:
    """One thing to do at a point in time. `cancel` disarms it and lets go of the function at once."""

    __slots__ = ("func", "when")

    def __init__(self, when: float, func: Callable[[], object]) -> None:
        self.when = when
        self.func: Callable[[], object] | None = func

    def cancel(self) -> None:
        """Disarm. One that is being called already is not waited for."""
        self.func = None


class TimerThread:
    """A timer thread with a pool of at most ``pool_size`` daemon threads. Nothing starts before it is used.

    Concurrency:
        Every method: any thread. Also any signal handler, once `start` has returned somewhere. New in a forked child.
    """

    def __init__(self, pool_size: int = 8) -> None:
        self._pool_size = pool_size
        self._reset()
        forks.run_in_child(self._reset)

    def _reset(self) -> None:
        self._incoming: deque[Timer] = deque()
        self._sleeping_until = -math.inf  # -inf: awake, nobody needs to ring
        self._bell = allocate_lock()
        self._bell.acquire()
        self._starts: list[object] = []
        self._work: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self._idle: deque[None] = deque()
        self._pool: list[threading.Thread] = []

    def start(self) -> None:
        """Start the thread unless it runs. Called where something is armed, so that firing it needs nothing new."""
        if self._starts:
            return
        claim = object()
        self._starts.append(claim)
        if self._starts[0] is claim:
            try:
                threading.Thread(target=self._run, name="cancelable-timer", daemon=True).start()
            except BaseException:  # no thread to be had now; whoever comes next tries again
                self._starts.clear()
                raise

    def schedule(self, when: float, func: Callable[[], object]) -> Timer:
        """Have ``func()`` called in the timer thread at ``when`` on the monotonic clock. It must be quick."""
        self.start()
        timer = Timer(when, func)
        self._incoming.append(timer)
        if when < self._sleeping_until or len(self._incoming) > _MOST_UNSEEN:
            self._ring()
        return timer

    def dispatch(self, func: Callable[[], object]) -> None:
        """Have ``func()`` called on the pool soon. It may block; what it raises is logged."""
        self.schedule(0.0, partial(self._hand_over, func))

    def _ring(self) -> None:
        try:
            self._bell.release()
        except RuntimeError:
            pass  # rung already

    def _run(self) -> None:
        heap: list[tuple[float, int, Timer]] = []
        numbers = itertools.count()
        compact_at = _MOST_UNSEEN
        while True:
            while self._incoming:
                timer = self._incoming.popleft()
                if timer.func is not None:
                    heapq.heappush(heap, (timer.when, next(numbers), timer))
            if len(heap) > compact_at:
                heap = [entry for entry in heap if entry[2].func is not None]
                heapq.heapify(heap)
                compact_at = 2 * len(heap) + _MOST_UNSEEN
            while heap and heap[0][0] <= time.monotonic():
                _call(heapq.heappop(heap)[2])
            self._sleep_until(heap[0][0] if heap else math.inf)

    def _sleep_until(self, when: float) -> None:
        self._sleeping_until = when
        if not self._incoming:  # looked at after the announcement: whoever comes later rings
            seconds = min(max(0.0, when - time.monotonic()), threading.TIMEOUT_MAX)
            self._bell.acquire(True, seconds)
        self._sleeping_until = -math.inf

    def _hand_over(self, func: Callable[[], object]) -> None:
        self._work.put(func)
        try:
            self._idle.pop()
        except IndexError:
            if len(self._pool) < self._pool_size:
                thread = threading.Thread(target=self._work_off, name="cancelable-pool", daemon=True)
                thread.start()
                self._pool.append(thread)

    def _work_off(self) -> None:
        while True:
            _log_errors(self._work.get())
            self._idle.append(None)


def _call(timer: Timer) -> None:
    func, timer.func = timer.func, None
    if func is not None:
        _log_errors(func)


def _log_errors(func: Callable[[], object]) -> None:
    try:
        func()
    except BaseException:  # nobody is above: a SystemExit would only cost the pool a thread
        logger.exception("a deferred call raised; the thread goes on")


_shared = TimerThread()


def shared_timer() -> TimerThread:
    """The process's timer thread."""
    return _shared
