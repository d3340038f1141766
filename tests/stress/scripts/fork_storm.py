"""Forks again and again while threads do everything that takes a lock or starts a thread. Arguments: forks.

Each child has to find the suite as new: an empty store, no current operation, nothing inherited that could be cancelled or that
holds it up; and all has to work in it. It is forked in the main thread, another one, and a task, inside an open operation.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress

import anyio
from common import report

from cancelable_core import (
    AnyioBridge,
    BridgeClosed,
    Cancelable,
    CancelationToken,
    JobRunner,
    OperationCancelled,
    OperationStatus,
    OperationTimedOut,
    ThreadSafeRegistry,
    current_operation,
)

forks = int(sys.argv[1])
CHILD_SECONDS = 20
registry = ThreadSafeRegistry()
runner = JobRunner(workers=2)
waiting_jobs = JobRunner(workers=1)
gate = CancelationToken()
shared = CancelationToken()
over = threading.Event()
errors: list[str] = []
bridge: AnyioBridge
bridge_is_open = threading.Event()


# --- what goes on in the parent


def operate() -> None:
    with Cancelable("raced", timeout=3_600, token=shared) as operation:
        with Cancelable("inner"):
            operation.report_progress("half")
        registry.get_statistics()


def look() -> None:
    registry.list_operations(name_pattern="rac*")
    registry.get_history(limit=3)
    registry.cancel_all("rac*")


def work() -> None:
    with suppress(OperationCancelled):
        runner.submit(lambda: None, name="raced").result(CHILD_SECONDS)
    with suppress(OperationCancelled):
        runner.submit(anyio.lowlevel.checkpoint).result(CHILD_SECONDS)


def compose() -> None:
    with CancelationToken.any_of(shared, CancelationToken()) as either:
        either.on_cancel(print)
        either.wait(0.000_1)


def carry() -> None:
    bridge.call(len, ())


def race(func: Callable[[], object]) -> None:
    try:
        while not over.is_set():
            with suppress(OperationCancelled):
                func()
    except BaseException:
        errors.append(traceback.format_exc())


async def serve_bridge() -> None:
    global bridge
    async with AnyioBridge() as bridge:
        bridge_is_open.set()
        while not over.is_set():
            await anyio.sleep(0.01)


# --- what has to hold in a child


def check_child(outer: Cancelable, pending_id: str) -> list[str]:
    """Returns the ids that were made."""
    assert threading.active_count() == 1, threading.enumerate()
    assert current_operation() is None
    statistics = registry.get_statistics()
    assert statistics.total_operations == statistics.abandoned_threads == 0, statistics
    assert registry.list_operations() == registry.get_history() == []
    assert registry.get_operation(outer.id) is None
    assert outer.cancel_sync() is False
    assert outer.token.reason is None
    assert not registry.cancel_operation(pending_id)
    try:
        bridge.call_soon_threadsafe(print, "never")
    except BridgeClosed:
        pass
    else:
        raise AssertionError("a bridge without a loop took a call")

    ids = []
    with suppress(OperationTimedOut):
        with Cancelable("timed", timeout=0.001) as timed:
            ids.append(timed.id)
            assert timed.parent is None
            assert timed.token.wait(CHILD_SECONDS)  # which only the timer thread can end
            timed.check()
    assert timed.status is OperationStatus.TIMED_OUT
    for job in (runner.submit(lambda: 7), runner.submit(seven)):
        ids.append(job.id)
        assert job.result(CHILD_SECONDS) == 7
    # in a thread, since one that was forked in a task is for ever inside anyio.run
    thread = threading.Thread(target=anyio.run, args=(sleep_and_be_cancelled, ids))
    thread.start()
    thread.join()
    statistics = registry.get_statistics()
    assert (statistics.timed_out_operations, statistics.cancelled_operations) == (1, 1), statistics
    assert statistics.total_operations == 4, statistics
    return ids


async def seven() -> int:
    await anyio.lowlevel.checkpoint()
    return 7


async def sleep_and_be_cancelled(ids: list[str]) -> None:
    with suppress(OperationCancelled):
        async with Cancelable() as operation:
            ids.append(operation.id)
            threading.Thread(target=operation.cancel_sync).start()
            await anyio.sleep(CHILD_SECONDS)


# --- forking


def fork(outer: Cancelable, pending_id: str) -> list[str]:
    """One child; returns the ids it made. A child that hangs is ended by its alarm."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        code = 1
        try:
            signal.alarm(CHILD_SECONDS)
            os.close(reader)
            os.write(writer, " ".join(check_child(outer, pending_id)).encode())
            code = 0
        except BaseException:
            os.write(writer, traceback.format_exc().encode()[-8_000:])
        finally:
            os._exit(code)
    os.close(writer)
    with open(reader, encoding="utf-8") as pipe:
        said = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code:
        raise AssertionError(f"a child ended with {code}: {said}")
    return said.split()


def fork_here(ids: list[str], pending_id: str) -> None:
    with Cancelable("open at the fork", timeout=3_600) as operation:
        ids += fork(operation, pending_id)


def fork_in_thread(ids: list[str], pending_id: str) -> None:
    def target() -> None:
        try:
            fork_here(ids, pending_id)
        except BaseException:
            errors.append(traceback.format_exc())

    thread = threading.Thread(target=target)
    thread.start()
    thread.join()


def fork_in_task(ids: list[str], pending_id: str) -> None:
    async def target() -> None:
        async with Cancelable("open at the fork", timeout=3_600) as operation:
            ids.extend(fork(operation, pending_id))

    anyio.run(target)


warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)  # it is what is tested
began = time.monotonic()
blocker = waiting_jobs.submit(gate.wait, CHILD_SECONDS * 10)
pending = waiting_jobs.submit(len, "pending")
threads = [threading.Thread(target=lambda: anyio.run(serve_bridge))]
threads += [threading.Thread(target=race, args=(func,)) for func in (operate, look, work, compose, carry)]
threads[0].start()
assert bridge_is_open.wait(CHILD_SECONDS)
for thread in threads[1:]:
    thread.start()
ids: list[str] = []
try:
    with Cancelable("outer") as outer:
        for number in range(forks):
            (fork_here, fork_in_thread, fork_in_task)[number % 3](ids, pending.id)
            assert not errors, errors
        assert current_operation() is outer
finally:
    over.set()
    for thread in threads:
        thread.join()
assert not errors, errors
gate.cancel_sync()
assert pending.result(CHILD_SECONDS) == len("pending")
statistics = registry.get_statistics()
counts = [getattr(statistics, f"{status}_operations") for status in OperationStatus]
assert sum(counts) == statistics.total_operations
assert not shared._watchers
report(
    forks=forks,
    ids=len(ids),
    different_ids=len(set(ids)),
    operations=statistics.total_operations,
    open=statistics.pending_operations + statistics.running_operations + statistics.cancelling_operations,
    seconds=round(time.monotonic() - began, 1),
)
