"""Run by test_forks.py in a process of its own, since it forks: one function per scenario, chosen on the command line.

Each sets something up, forks, and checks in the child; what fails there fails here.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import os
import random
import sys
import threading
import traceback
from collections.abc import Callable

from cancelable_core import (
    AnyioBridge,
    BridgeClosed,
    Cancelable,
    CancelationReason,
    CancelationToken,
    CancelOutcome,
    JobRunner,
    OperationCancelled,
    OperationStatus,
    OperationStore,
    OperationTimedOut,
    ThreadSafeRegistry,
    current_operation,
    default_store,
)
from cancelable_core.identifiers import new_operation_id
from cancelable_core.wakeup import running_port

SECONDS = 20.0
"""After so long a child hangs."""


def in_child(check: Callable[[], object]) -> None:
    """Fork, check in the child, and fail here if that failed."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            faulthandler.dump_traceback_later(SECONDS, exit=True)
            check()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0, "the check failed in the child"


def thread_names() -> list[str]:
    return sorted(thread.name for thread in threading.enumerate())


def time_out_a_sleep() -> None:
    try:
        with Cancelable(timeout=0.02) as operation:
            operation.sleep(SECONDS)
    except OperationTimedOut:
        return
    raise AssertionError("the deadline did not come")


def the_childs_store_is_empty() -> None:
    own = ThreadSafeRegistry(OperationStore())
    stores = [ThreadSafeRegistry(), own]
    for registry in stores:
        with Cancelable(parent=None, registry=registry):
            pass
    locked, release = threading.Event(), threading.Event()

    def hold_the_lock() -> None:
        with default_store()._lock:  # as any thread may at the moment of a fork
            locked.set()
            release.wait(SECONDS)

    with Cancelable("open", operation_id="open", metadata={"a": 1}), Cancelable("open", registry=own):
        holder = threading.Thread(target=hold_the_lock)
        holder.start()
        locked.wait(SECONDS)

        def check() -> None:
            for registry in stores:
                assert registry.list_operations() == registry.get_history() == []
                assert registry.get_statistics().total_operations == 0
                assert registry.get_statistics().abandoned_threads == 0
            assert stores[0].cancel_operation("open").outcome is CancelOutcome.UNKNOWN
            with Cancelable("mine", operation_id="open"):  # the id is free here
                assert len(stores[0].list_operations(name_pattern="min*")) == 1
            assert stores[0].get_statistics().completed_operations == 1

        in_child(check)
        release.set()
        holder.join()
        for registry in stores:
            assert len(registry.list_operations()) == 1
            assert len(registry.get_history()) == 1


def inherited_operations_are_inert() -> None:
    token = CancelationToken()
    called: list[object] = []
    with Cancelable("outer", token=token) as outer, Cancelable("inner", timeout=60) as inner:
        inner.on_cancel(called.append)

        def check() -> None:
            assert current_operation() is None
            assert outer.is_inherited
            assert inner.is_over
            for operation in (outer, inner):
                assert operation.cancel_sync("from the child") is False
                assert not operation.token.is_cancelled
                operation.report_progress("from the child")
                assert operation.context.progress is None
            with Cancelable("mine") as mine:
                assert mine.parent is None
                assert current_operation() is mine
            inner.__exit__(None, None, None)  # the child leaves the blocks that it was born in
            outer.__exit__(None, None, None)
            assert current_operation() is None
            assert default_store().statistics().total_operations == 1
            assert called == []

        in_child(check)
        assert current_operation() is inner
        assert inner.status is OperationStatus.RUNNING
        with contextlib.suppress(OperationCancelled):
            assert token.cancel_sync("from the parent")
            inner.check()
        assert len(called) == 1


def a_token_that_is_shared_with_inherited_operations_does_not_reach_them() -> None:
    shutdown = CancelationToken()
    called: list[object] = []
    with Cancelable("master", token=shutdown) as operation:
        operation.on_cancel(called.append)

        def check() -> None:
            with contextlib.suppress(OperationCancelled), Cancelable("mine", token=shutdown) as mine:
                assert shutdown.cancel_sync("in the child")
                mine.check()
            assert mine.status is OperationStatus.CANCELLED
            assert not operation.token.is_cancelled
            assert called == []

        in_child(check)
        assert operation.status is OperationStatus.RUNNING


def an_inherited_cancelled_operation_raises_nowhere_in_the_child() -> None:
    with contextlib.suppress(OperationCancelled), Cancelable("outer") as outer:
        outer.cancel_sync()

        def check() -> None:
            assert current_operation() is None
            with Cancelable("mine") as mine:
                mine.check()
                mine.sleep(0)
            assert mine.status is OperationStatus.COMPLETED

        in_child(check)
        outer.check()


def the_timer_thread_works_again() -> None:
    asked = threading.Event()
    time_out_a_sleep()
    with Cancelable.with_condition(asked.set, 0.001):
        asked.wait(SECONDS)
    before = threading.enumerate()
    assert "cancelable-timer" in thread_names()

    def check() -> None:
        assert thread_names() == ["MainThread"]
        time_out_a_sleep()
        with contextlib.suppress(OperationCancelled), Cancelable.with_condition(lambda: True, 0.001) as operation:
            operation.sleep(SECONDS)
        assert operation.token.reason is CancelationReason.CONDITION
        assert not set(threading.enumerate()) & (set(before) - {threading.main_thread()})

    in_child(check)
    time_out_a_sleep()


def jobs_run_again() -> None:
    runner = JobRunner(workers=1)
    started, release, ran = threading.Event(), threading.Event(), []

    def occupy() -> int:
        started.set()
        release.wait(SECONDS)
        return os.getpid()

    async def pid() -> int:
        await asyncio.sleep(0)
        return os.getpid()

    assert runner.submit(pid).result(SECONDS) == os.getpid()  # on a loop of the runner's own
    running = runner.submit(occupy)
    started.wait(SECONDS)
    pending = runner.submit(lambda: ran.append(os.getpid()))

    def check() -> None:
        assert runner.submit(os.getpid).result(SECONDS) == os.getpid()
        assert runner.submit(pid).result(SECONDS) == os.getpid()
        assert [job.cancel_sync() for job in (running, pending)] == [False, False]
        assert ran == []  # what was pending is the parent's
        runner.close(SECONDS)

    in_child(check)
    release.set()
    assert running.result(SECONDS) == os.getpid()
    pending.result(SECONDS)
    assert ran == [os.getpid()]
    runner.close(SECONDS)


def a_runner_that_was_closed_before_the_fork_is_new_in_the_child() -> None:
    runner = JobRunner()
    runner.close()

    def check() -> None:
        assert runner.submit(os.getpid).result(SECONDS) == os.getpid()

    in_child(check)


def an_inherited_bridge_is_closed_and_its_loop_is_left_alone() -> None:
    async def main() -> None:
        arrived: list[int] = []
        async with AnyioBridge() as bridge:
            port = running_port()
            assert port is not None

            def check() -> None:
                for call in (bridge.call_soon_threadsafe, bridge.call):
                    try:
                        threading_result(call, arrived.append, 1)
                    except BridgeClosed:
                        continue
                    raise AssertionError("the call was taken")
                assert port.post(int) is False

            await asyncio.to_thread(in_child, check)
            bridge.call_soon_threadsafe(arrived.append, 2)
        assert arrived == [2]

    asyncio.run(main())


def threading_result(func: Callable[..., object], *args: object) -> None:
    errors: list[BaseException] = []

    def run() -> None:
        try:
            func(*args)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


def ids_differ() -> None:
    new_operation_id()
    read, write = os.pipe()
    for _ in range(2):
        in_child(lambda: os.write(write, new_operation_id().encode() + b"\n"))
    os.close(write)
    with open(read) as file:
        ids = [*file.read().split(), new_operation_id()]
    assert len(set(ids)) == 3


def forks_at_any_moment() -> None:
    """Other threads open, cancel and end operations all the while, and hold whatever lock they hold."""
    sys.setswitchinterval(1e-5)
    runner = JobRunner(workers=2)
    stop = threading.Event()

    def work(seed: int) -> None:
        rng = random.Random(seed)
        while not stop.is_set():
            with contextlib.suppress(OperationCancelled):
                with Cancelable("w", timeout=60) as operation, Cancelable("v"):
                    if rng.random() < 0.5:
                        operation.cancel_sync()
                    operation.check()
            if seed == 0:
                runner.submit(int).result(SECONDS)
            default_store().statistics()

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()

    def check() -> None:
        time_out_a_sleep()
        assert runner.submit(os.getpid).result(SECONDS) == os.getpid()
        statistics = default_store().statistics()
        assert (statistics.total_operations, statistics.timed_out_operations) == (2, 1)
        assert statistics.completed_operations + statistics.running_operations == 1

    try:
        for _ in range(30):
            in_child(check)
    finally:
        stop.set()
        for thread in threads:
            thread.join()


if __name__ == "__main__":
    globals()[sys.argv[1]]()
    print("passed")
