"""The first thing a process does with the suite: sleep in an idle loop and be cancelled. Arguments: backend, canceller.

The canceller is a plain ``thread``, a loop of its own (``asyncio``, ``trio``), or a ``signal`` handler.
"""

from __future__ import annotations

import signal
import sys
import threading
import time

import anyio
from common import report

from cancelable_core import Cancelable, OperationCancelled

backend, canceller = sys.argv[1:]
asleep = threading.Event()
threads_at_cancel: list[str] = []
answers: list[bool] = []
cancelled_at: list[float] = []


def cancel(operation: Cancelable) -> None:
    threads_at_cancel.extend(sorted(thread.name for thread in threading.enumerate()))
    cancelled_at.append(time.monotonic())
    answers.append(operation.cancel_sync())


def cancel_in_thread(operation: Cancelable) -> None:
    asleep.wait(10)
    if canceller == "thread":
        cancel(operation)
    else:
        anyio.run(cancel_in_loop, operation, backend=canceller)


async def cancel_in_loop(operation: Cancelable) -> None:
    await anyio.sleep(0.001)
    cancel(operation)


def cancel_by_signal(operation: Cancelable) -> None:
    def handle(number: int, frame: object) -> None:
        if not answers:
            cancel(operation)

    signal.signal(signal.SIGALRM, handle)
    # again, since Python comes to a handler late when its signal arrives just before a system call
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.05)


async def main() -> None:
    operation = Cancelable()
    thread = threading.Thread(target=cancel_in_thread, args=(operation,), name="canceller")
    if canceller == "signal":
        cancel_by_signal(operation)
    else:
        thread.start()
    caught = False
    try:
        async with operation:
            asleep.set()
            await anyio.sleep(30)
    except OperationCancelled:
        caught = True
    seconds = time.monotonic() - cancelled_at[0]
    signal.setitimer(signal.ITIMER_REAL, 0)
    if thread.ident is not None:
        thread.join()
    report(cancelled=caught, answers=answers, seconds=seconds, threads=threads_at_cancel)


anyio.run(
    main,
    backend="trio" if backend == "trio" else "asyncio",
    backend_options={"use_uvloop": True} if backend == "uvloop" else {},
)
