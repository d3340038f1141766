"""A million cancels from a signal handler that interrupts the main thread wherever it is.

Arguments: the subject, at least so many cancels, at least so many rounds.
The main thread cancels the same things itself, registers on them, waits on them, opens and leaves them, submits and schedules.
Nothing may deadlock, and nobody may win twice.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

import anyio
import anyio.lowlevel
from common import report, seeded

from cancelable_core import (
    Cancelable,
    CancelationToken,
    CancelOutcome,
    JobRunner,
    OperationCancelled,
    OperationStatus,
    OperationStore,
    ThreadSafeRegistry,
)

subject, wanted, least_rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
rng = seeded(subject)
PERIOD_SECONDS = 40e-6
AGAIN_SECONDS = 0.002
BATCH = 24
"""Cancels per signal, over the newest few targets."""

BACKENDS = {"asyncio": ("asyncio", {}), "uvloop": ("asyncio", {"use_uvloop": True}), "trio": ("trio", {})}

targets: deque[Callable[[], bool]] = deque(maxlen=8)
"""What to cancel; each says whether it won, and counts that itself."""

cancels = signals = 0
over = False
"""The storm goes on until the main thread has ended its last round, which may wait for a cancel."""


def handle(number: int, frame: FrameType | None) -> None:
    global cancels, signals
    signals += 1
    now = list(targets)
    for turn in range(BATCH):
        if now:
            now[turn % len(now)]()
            cancels += 1
    if not over:
        arm()


def arm() -> None:
    """Have the next signal come soon: armed anew each time, so that the main thread gets on.

    Python may come to a handler only after the main thread's system call has ended, if the signal arrived just before the call
    began; so there is a second signal some time later, which interrupts the call.
    """
    signal.setitimer(signal.ITIMER_REAL, PERIOD_SECONDS, AGAIN_SECONDS)


def end_storm() -> None:
    global over
    over = True
    signal.setitimer(signal.ITIMER_REAL, 0)


class Winners:
    """How often somebody was told that he was first."""

    def __init__(self, cancel: Callable[[], bool]) -> None:
        self.count = 0
        self._cancel = cancel

    def __call__(self) -> bool:
        won = self._cancel()
        if won:
            self.count += 1
        return won


def tokens() -> None:
    token = CancelationToken()
    early: list[object] = []
    late: list[object] = []
    removed: list[object] = []
    last: list[object] = []
    registration = token.on_cancel(early.append)
    either = CancelationToken.any_of(token, CancelationToken())
    cancel = Winners(token.cancel_sync)
    targets.append(cancel)
    token.on_cancel(late.append)
    if rng.random() < 0.5:
        registration.remove()
        either.on_cancel(removed.append).remove()
    if rng.random() < 0.1:
        assert token.wait(10)
    either.on_cancel(last.append)
    # the main thread's own attempt is interrupted too; the handler may run between its winning and its being counted
    cancel()
    assert token.is_cancelled
    assert either.is_cancelled
    assert cancel.count == 1, cancel.count
    assert late == [token]
    assert last == [either]
    assert len(early) <= 1
    assert len(removed) <= 1


store = OperationStore()
registry = ThreadSafeRegistry(store)


def operations() -> None:
    operation = Cancelable("stormed", registry=store, timeout=3_600 if rng.random() < 0.2 else None)
    by_handle = Winners(operation.cancel_sync)
    by_id = Winners(lambda: registry.cancel_operation(operation.id).outcome is CancelOutcome.REQUESTED)
    raised = False
    entered = False
    try:
        if rng.random() < 0.9:
            targets.append(by_id)
        with operation:
            entered = True
            targets.append(by_handle)
            with Cancelable("inner", registry=store):
                operation.on_cancel(lambda token: None)
                if rng.random() < 0.02:
                    operation.sleep(10)
                store.statistics()
            if rng.random() < 0.5:
                by_id()
                operation.check()
    except OperationCancelled:
        raised = True
    assert by_handle.count + by_id.count <= 1
    assert operation.status is (OperationStatus.CANCELLED if raised else OperationStatus.COMPLETED)
    if raised:
        assert by_handle.count + by_id.count == 1
    assert entered or raised


runner = JobRunner(store, workers=2, queue_limit=100_000)


def jobs() -> None:
    ran: list[None] = []
    job_id = f"job-{signals}-{rng.random()}"
    cancel = Winners(lambda: registry.cancel_operation(job_id).outcome is CancelOutcome.REQUESTED)
    targets.append(cancel)
    job = runner.submit(ran.append, None, job_id=job_id, name="job")
    with suppress(OperationCancelled):
        job.result(20)
    started = job.context.started_at is not None
    assert bool(ran) == started
    assert ran or cancel.count == 1
    assert cancel.count <= 1


async def task() -> None:
    operation = Cancelable("stormed", registry=store, timeout=3_600 if rng.random() < 0.2 else None)
    cancel = Winners(operation.cancel_sync)
    raised = False
    went_on = False
    try:
        async with operation:
            targets.append(cancel)
            with suppress(OperationCancelled):
                async with Cancelable("inner", registry=store):
                    await anyio.lowlevel.checkpoint()
                    if rng.random() < 0.5:
                        await anyio.sleep(10)
            await anyio.lowlevel.checkpoint()
            if rng.random() < 0.5:
                await operation.token.wait_for_cancel()
                await anyio.lowlevel.checkpoint()
                went_on = True
    except OperationCancelled:
        raised = True
    assert not went_on
    assert cancel.count <= 1
    assert operation.status is (OperationStatus.CANCELLED if raised else OperationStatus.COMPLETED)
    if raised:
        assert cancel.count == 1


def work_until_done(work: Callable[[], object]) -> int:
    rounds = 0
    while cancels < wanted or rounds < least_rounds:
        work()
        rounds += 1
    end_storm()
    return rounds


async def tasks() -> int:
    rounds = 0
    while cancels < wanted or rounds < least_rounds:
        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(task)
        rounds += 1
    end_storm()
    return rounds


# starts what needs starting: threads cannot be started from a handler
runner.submit(len, ()).result(20)
with Cancelable(timeout=3_600, registry=store):
    pass
signal.signal(signal.SIGALRM, handle)
arm()
began = time.monotonic()
if subject in BACKENDS:
    backend, options = BACKENDS[subject]
    rounds = anyio.run(tasks, backend=backend, backend_options=options)
else:
    rounds = work_until_done({"tokens": tokens, "operations": operations, "jobs": jobs}[subject])
statistics = store.statistics()
counts = [getattr(statistics, f"{status}_operations") for status in OperationStatus]
assert sum(counts) == statistics.total_operations
report(
    cancels=cancels,
    signals=signals,
    rounds=rounds,
    open=statistics.pending_operations + statistics.running_operations + statistics.cancelling_operations,
    seconds=round(time.monotonic() - began, 1),
    threads=threading.active_count(),
)
