"""Cancels from a signal handler that interrupts an idle event loop in the main thread. Arguments: backend, rounds."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from types import FrameType

import anyio
from common import report, seeded

from cancelable_core import Cancelable, CancelationReason, OperationCancelled

backend, rounds = sys.argv[1], int(sys.argv[2])
rng = seeded("signals")
open_now: list[Cancelable] = []
cancelled_at = 0.0


def handle(number: int, frame: FrameType | None) -> None:
    global cancelled_at
    cancelled_at = time.monotonic()
    assert open_now.pop().cancel_sync(CancelationReason.SIGNAL)


async def main() -> None:
    latencies: list[float] = []
    signal.signal(signal.SIGALRM, handle)
    if backend == "asyncio":
        # has every signal wake the loop, as trio and uvloop do: otherwise Python itself may come to a handler only when the
        # loop wakes for another reason, since a signal that arrives just before the system call does not interrupt it
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, lambda: None)
    for _ in range(rounds):
        try:
            async with Cancelable() as operation:
                open_now.append(operation)
                signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-6, 5e-4))
                await anyio.sleep(30)
        except OperationCancelled:
            latencies.append(time.monotonic() - cancelled_at)
    latencies.sort()
    report(cancelled=len(latencies), median=latencies[len(latencies) // 2], worst=latencies[-1])


anyio.run(
    main,
    backend="trio" if backend == "trio" else "asyncio",
    backend_options={"use_uvloop": True} if backend == "uvloop" else {},
)
