"""Opens and closes operations on one parent and one shared token. Arguments: subject, how many.

Reports what is left: registrations on the token and the parent, and how much more memory is in use than after the first ones:
in blocks of the interpreter's allocator after all of them, and in traced bytes after a part of them.
"""

from __future__ import annotations

import gc
import sys
import time
import tracemalloc
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from contextvars import copy_context
from threading import Thread

import anyio
from common import report

from cancelable_core import Cancelable, CancelationToken, OperationCancelled, OperationStore

subject, count = sys.argv[1], int(sys.argv[2])
WARM_UP = 3_000
"""More than the history holds, so that it is full when the counting begins."""
TRACED_PART = 20
THREADS = 4

store = OperationStore()
shared = CancelationToken()
parent = Cancelable("parent", registry=store)


def sync_operations(times: int) -> None:
    for _ in range(times):
        with Cancelable("child", token=shared, registry=store):
            pass


def operations_in_threads(times: int) -> None:
    """Their registrations come and go at the same time, and some of them are cancelled meanwhile."""
    threads = [Thread(target=copy_context().run, args=(_operate_and_cancel, times // THREADS)) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


newest: deque[Cancelable] = deque(maxlen=THREADS)


def _operate_and_cancel(times: int) -> None:
    for number in range(times):
        with suppress(OperationCancelled):
            with Cancelable("child", token=shared, registry=store) as operation:
                newest.append(operation)
                if number % 3 == 0:
                    newest[0].cancel_sync()
                operation.check()


def timed_operations(times: int) -> None:
    for _ in range(times):
        with Cancelable("child", token=shared, timeout=3_600, registry=store):
            pass


async def async_operations(times: int) -> None:
    for _ in range(times):
        async with Cancelable("child", token=shared, registry=store):
            pass


async def items(times: int) -> AsyncIterator[int]:
    for number in range(times):
        yield number


async def calls(times: int) -> None:
    """What the one lasting operation awaits is interrupted by it, each time anew."""
    async for number in parent.stream(items(times)):
        if number % 20 == 0:
            await parent.run_in_thread(id, None)
        elif number % 20 == 10:
            with anyio.move_on_after(0):
                await parent.token.wait_for_cancel()


def composites(times: int) -> None:
    for number in range(times):
        either = CancelationToken.any_of(shared, parent.token)
        both = CancelationToken.all_of(either, CancelationToken())
        if number % 4 == 0:
            both.on_cancel(print).remove()
        elif number % 4 == 1:
            both.close()
        elif number % 4 == 2:
            with Cancelable(token=both, register=False):
                pass


def callbacks(times: int) -> None:
    for number in range(times):
        registration = shared.on_cancel(print)
        with parent.on_cancel(print):
            registration.remove()
        if number % 50 == 0:
            shared.wait(0)


def blocks_in_use() -> int:
    gc.collect()
    return sys.getallocatedblocks()


def bytes_in_use() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def registrations() -> int:
    return len(shared._watchers) + len(parent.token._watchers)


class Growth:
    """What is in use at some points of the run, against the point before."""

    def __init__(self) -> None:
        self.registrations = registrations()

    def after_warm_up(self) -> None:
        self.blocks = blocks_in_use()

    def after_all(self) -> None:
        self.blocks = blocks_in_use() - self.blocks
        tracemalloc.start(1)  # only now: it makes everything some times as slow

    def after_second_warm_up(self) -> None:
        self.bytes = bytes_in_use()

    def at_the_end(self) -> None:
        self.bytes = bytes_in_use() - self.bytes
        self.registrations = registrations() - self.registrations


def in_turn(work: Callable[[int], object]) -> Growth:
    with parent:
        growth = Growth()
        work(WARM_UP)
        growth.after_warm_up()
        work(count)
        growth.after_all()
        work(WARM_UP)
        growth.after_second_warm_up()
        work(count // TRACED_PART)
        growth.at_the_end()
    return growth


async def in_a_loop(work: Callable[[int], Awaitable[object]]) -> Growth:
    async with parent:
        growth = Growth()
        await work(WARM_UP)
        growth.after_warm_up()
        await work(count)
        growth.after_all()
        await work(WARM_UP)
        growth.after_second_warm_up()
        await work(count // TRACED_PART)
        growth.at_the_end()
    return growth


began = time.monotonic()
if subject in ("asyncio", "trio"):
    growth = anyio.run(in_a_loop, async_operations, backend=subject)
elif subject == "calls":
    growth = anyio.run(in_a_loop, calls)
else:
    works = {
        "sync": sync_operations,
        "threads": operations_in_threads,
        "timed": timed_operations,
        "composites": composites,
        "callbacks": callbacks,
    }
    growth = in_turn(works[subject])
report(
    grown_blocks=growth.blocks,
    grown_bytes=growth.bytes,
    grown_registrations=growth.registrations,
    operations=store.statistics().total_operations,
    open=store.statistics().running_operations,
    seconds=round(time.monotonic() - began, 1),
)
