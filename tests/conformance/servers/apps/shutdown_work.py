"""Work of a minute that says, line by line in a file, when it began, that it was cleaned up, and how its operation ended."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio

from cancelable_core import OperationStore, current_operation

LONG_SECONDS = 60.0

DRAIN_SECONDS = float(os.environ.get("SHUTDOWN_DRAIN_SECONDS", "0"))


def say(*words: object) -> None:
    """Add one line; whole, whichever process and thread it comes from."""
    file = os.open(os.environ["SHUTDOWN_EVENTS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, (" ".join(map(str, words)) + "\n").encode())
    finally:
        os.close(file)


class TellingStore(OperationStore):
    """A store that says how its operations ended."""

    def finish(self, entry: Any) -> None:
        super().finish(entry)
        say("ended", entry.kind, entry.status, entry.context.reason)


store = TellingStore()


def work() -> str:
    """A view, or a job in a thread."""
    operation = current_operation()
    assert operation is not None
    say("began")
    try:
        operation.sleep(LONG_SECONDS)
    finally:
        say("cleaned")
    return "to the end"


async def async_work() -> str:
    """A view, or a job on a loop."""
    say("began")
    try:
        await anyio.sleep(LONG_SECONDS)
    finally:
        say("cleaned")
    return "to the end"


def stream() -> Iterator[str]:
    """Server-sent events whose source stalls after the first."""
    yield "data: 0\n\n"
    yield work()


async def async_stream() -> AsyncIterator[str]:
    """The same under ASGI."""
    yield "data: 0\n\n"
    yield await async_work()
