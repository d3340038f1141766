"""The timer thread: lazy, in order, never held up by what it calls; what may block runs on its small pool."""

from __future__ import annotations

import gc
import logging
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from cancelable_core.timer_thread import TimerThread, shared_timer

from .helpers import Running, becomes_true, happens


@pytest.fixture
def timer() -> TimerThread:
    """One of the test's own. Its daemon threads sleep on; nothing in them refers to the test."""
    return TimerThread(pool_size=3)


def now() -> float:
    return time.monotonic()


def flush(timer: TimerThread) -> None:
    """Until everything that is due has been called."""
    done = threading.Event()
    timer.schedule(now(), done.set)
    happens(done)


def timer_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "cancelable-timer"]


def test_nothing_starts_before_it_is_used() -> None:
    before = set(threading.enumerate())
    timer = TimerThread()
    assert set(threading.enumerate()) == before
    timer.start()
    assert len(timer_threads()) == len([thread for thread in before if thread.name == "cancelable-timer"]) + 1


def test_all_its_threads_are_daemons(timer: TimerThread) -> None:
    seen: list[threading.Thread] = []
    timer.schedule(now(), lambda: seen.append(threading.current_thread()))
    timer.dispatch(lambda: seen.append(threading.current_thread()))
    becomes_true(lambda: len(seen) == 2)
    assert [thread.daemon for thread in seen] == [True, True]
    assert {thread.name for thread in seen} == {"cancelable-timer", "cancelable-pool"}


def test_it_is_started_once_however_many_come(timer: TimerThread) -> None:
    before = len(timer_threads())
    barrier = threading.Barrier(8)

    def start() -> None:
        barrier.wait(10)
        timer.start()

    for running in [Running(start) for _ in range(8)]:
        running.result()
    assert len(timer_threads()) == before + 1


def test_when_no_thread_is_to_be_had_the_next_one_tries_again(timer: TimerThread, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = threading.Thread.start, []

    def refuse_once(thread: threading.Thread) -> None:
        calls.append(thread)
        if len(calls) == 1:
            raise RuntimeError("can't start new thread")
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse_once)
    with pytest.raises(RuntimeError, match="can't start"):
        timer.schedule(now(), lambda: None)
    flush(timer)
    assert len(calls) == 2


def test_timers_fire_in_the_order_of_their_instants(timer: TimerThread) -> None:
    fired: list[int] = []
    done = threading.Event()
    base = now() + 0.05
    for place in (5, 1, 4, 2, 3):
        timer.schedule(base + place * 1e-4, lambda place=place: fired.append(place))
    timer.schedule(base + 0.01, done.set)
    happens(done)
    assert fired == [1, 2, 3, 4, 5]


def test_equal_instants_fire_in_the_order_they_were_armed(timer: TimerThread) -> None:
    fired: list[int] = []
    when = now() + 0.02
    for number in range(50):
        timer.schedule(when, lambda number=number: fired.append(number))
    becomes_true(lambda: len(fired) == 50)
    assert fired == list(range(50))


def test_it_fires_not_before_its_instant(timer: TimerThread) -> None:
    when, fired = now() + 0.03, []
    timer.schedule(when, lambda: fired.append(now()))
    becomes_true(lambda: fired)
    assert fired[0] >= when


def test_an_earlier_instant_wakes_the_sleeping_thread(timer: TimerThread) -> None:
    timer.schedule(now() + 3_600, lambda: pytest.fail("an hour early"))
    becomes_true(lambda: timer._sleeping_until > now())
    flush(timer)


def test_a_cancelled_timer_never_fires_and_lets_go(timer: TimerThread) -> None:
    class Held:
        pass

    held, fired = Held(), []
    gone = weakref.ref(held)
    armed = timer.schedule(now() + 0.02, lambda held=held: fired.append(held))
    del held
    armed.cancel()
    armed.cancel()
    gc.collect()
    assert gone() is None
    later = threading.Event()
    timer.schedule(now() + 0.03, later.set)
    happens(later)
    assert fired == []


def test_a_fired_timer_lets_go(timer: TimerThread) -> None:
    class Held:
        pass

    held = Held()
    gone = weakref.ref(held)
    timer.schedule(now(), lambda held=held: None)
    del held
    becomes_true(lambda: gone() is None)


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("how", ["schedule", "dispatch"])
def test_what_raises_is_logged_and_the_thread_goes_on(
    timer: TimerThread, caplog: pytest.LogCaptureFixture, error: type[BaseException], how: str
) -> None:
    def fail() -> None:
        raise error("inside")

    ran: list[int] = []

    def use(func: Callable[[], Any]) -> None:
        if how == "dispatch":
            timer.dispatch(func)
        else:
            timer.schedule(now(), func)

    for number in range(5):  # more than the pool has threads
        use(fail)
        use(lambda number=number: ran.append(number))
    becomes_true(lambda: len(ran) == 5 and len(caplog.records) == 5)
    assert {record.levelno for record in caplog.records} == {logging.ERROR}
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [error] * 5


def test_what_blocks_on_the_pool_delays_no_timer(timer: TimerThread) -> None:
    release = threading.Event()
    try:
        for _ in range(10):  # the pool is full, and more are waiting
            timer.dispatch(lambda: happens(release))
        for _ in range(10):
            flush(timer)
    finally:
        release.set()


def test_the_pool_has_a_limit_and_works_off_what_waits(timer: TimerThread) -> None:
    release, lock, done = threading.Event(), threading.Lock(), threading.Semaphore(0)
    running, most = 0, 0

    def work() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        happens(release)
        with lock:
            running -= 1
        done.release()

    for _ in range(12):
        timer.dispatch(work)
    becomes_true(lambda: running == 3)
    flush(timer)
    release.set()
    for _ in range(12):
        assert done.acquire(timeout=10)
    assert most == 3
    assert len(timer._pool) == 3


def test_an_idle_pool_thread_is_used_again(timer: TimerThread) -> None:
    for _ in range(20):
        done = threading.Event()
        timer.dispatch(done.set)
        happens(done)
        becomes_true(lambda: timer._idle)
    assert len(timer._pool) == 1


def test_entries_that_were_disarmed_do_not_pile_up(timer: TimerThread) -> None:
    """Nearly every deadline is disarmed long before it is due."""
    for _ in range(20_000):
        timer.schedule(now() + 3_600, int).cancel()
    flush(timer)
    assert len(timer._incoming) < 1_000
    armed = [timer.schedule(now() + 3_600, int) for _ in range(5_000)]
    flush(timer)
    for each in armed:
        each.cancel()
    gone = [weakref_to(timer) for _ in range(3_000)]
    flush(timer)
    gc.collect()
    assert not any(reference() for reference in gone)


def weakref_to(timer: TimerThread) -> weakref.ref[Any]:
    class Held:
        pass

    held = Held()
    timer.schedule(now() + 3_600, lambda held=held: None).cancel()
    return weakref.ref(held)


def test_instants_beyond_what_a_lock_can_wait_for(timer: TimerThread) -> None:
    timer.schedule(float("inf"), int)
    timer.schedule(now() + 1e12, int)
    flush(timer)
    timer.schedule(float("-inf"), int)
    flush(timer)


def test_many_threads_may_arm_and_disarm_at_once(timer: TimerThread) -> None:
    fired = threading.Semaphore(0)

    def arm() -> None:
        for _ in range(500):
            timer.schedule(now() + 0.001, fired.release)
            timer.schedule(now() + 0.001, int).cancel()

    for running in [Running(arm) for _ in range(4)]:
        running.result()
    for _ in range(2_000):
        assert fired.acquire(timeout=10)
    flush(timer)
    assert not fired.acquire(blocking=False)


def test_the_process_has_one() -> None:
    assert shared_timer() is shared_timer()
