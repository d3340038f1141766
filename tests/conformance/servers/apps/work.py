"""What the views do, on every framework. ``key`` is chosen by the test, which finds its own events by it."""

from __future__ import annotations

import hashlib
import os
import random
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import anyio

from cancelable_core import Cancelable, OperationCancelled, current_operation

from .events import EVENTS_FILE, is_open, tell

__all__ = [
    "FILE",
    "LIMIT_SECONDS",
    "Readable",
    "ask",
    "await_",
    "await_quick",
    "await_stalled_chunks",
    "digest",
    "endless_chunks",
    "job",
    "pieces",
    "quick",
    "stalled_chunks",
    "started_job",
    "wait",
    "wait_for_gate",
]

LIMIT_SECONDS = 0.5
"""The application's ``request_timeout_seconds``, and what routes with a limit of their own ask for."""

FILE = Path(os.environ[EVENTS_FILE] + ".sent")
"""A file to send, large enough for more than one write."""
if not FILE.exists():
    FILE.write_bytes(random.Random(1).randbytes(1_000_000))

LONG_SECONDS = 60.0
"""Longer than any test waits."""


def operation() -> Cancelable:
    found = current_operation()
    assert found is not None
    return found


def wait(key: str) -> str:
    """Wait cooperatively, for longer than anybody has patience."""
    own = operation()
    tell("begun", key=key, id=own.id)
    try:
        own.sleep(LONG_SECONDS)
    except OperationCancelled as error:
        tell("stopped", key=key, id=own.id, reason=error.reason)
        raise
    finally:
        tell("finally", key=key)
    return "ran to its end"


def ask(key: str) -> str:
    """The same for a view that asks anew each time, also once its request has gone on without it."""
    tell("begun", key=key, id=operation().id)
    try:
        while True:
            operation().check()
            time.sleep(0.005)
    except OperationCancelled as error:
        tell("stopped", key=key, reason=error.reason)
        raise
    finally:
        tell("finally", key=key)


async def await_(key: str) -> str:
    """The same where it is awaited: a cancel interrupts it."""
    tell("begun", key=key, id=operation().id)
    try:
        await anyio.sleep(LONG_SECONDS)
    finally:
        tell("finally", key=key)
    return "ran to its end"


def wait_for_gate(key: str) -> str:
    """Wait until the test opens the gate, as a view of a request that does not follow its client."""
    tell("begun", key=key, id=operation().id)
    while not is_open(key):
        operation().sleep(0.01)
    tell("done", key=key)
    return "ran to its end"


async def await_quick(key: str) -> str:
    """A little work that is awaited: sometimes long enough for the client to be followed."""
    with Cancelable("inner"):
        await anyio.sleep(random.uniform(0, 0.015))
    return f"quick {key}"


def quick(key: str) -> str:
    """A little work, during which the client is followed."""
    with Cancelable("inner"):
        operation().sleep(0.001)
    operation().check()
    return f"quick {key}"


def stalled_chunks(key: str) -> Iterator[str]:
    """A stream whose source falls silent after the first chunk."""
    tell("begun", key=key, id=operation().id)
    try:
        yield "first\n"
        operation().sleep(LONG_SECONDS)
        yield "last\n"
    finally:
        tell("finally", key=key)


async def await_stalled_chunks(key: str) -> AsyncIterator[str]:
    """The same where it is awaited."""
    tell("begun", key=key, id=operation().id)
    try:
        yield "first\n"
        await anyio.sleep(LONG_SECONDS)
        yield "last\n"
    finally:
        tell("finally", key=key)


def endless_chunks(key: str) -> Iterator[str]:
    """A stream that asks nobody, and goes on."""
    tell("begun", key=key, id=operation().id)
    try:
        while True:
            yield "chunk\n" * 100
            time.sleep(0.005)
    finally:
        tell("finally", key=key)


def job(key: str) -> None:
    """A job that ends when the test says so."""
    while not is_open(key):
        operation().sleep(0.01)
    tell("job done", key=key)


def started_job(submit: Callable[..., Any], key: str) -> None:
    """Submit the job."""
    tell("job", key=key, id=submit(job, key).id)


class Readable(Protocol):
    """A request's body."""

    def read(self, size: int = ..., /) -> bytes: ...


def pieces(body: Readable) -> Iterator[bytes]:
    """A body, as it comes."""
    while piece := body.read(10_000):
        yield piece


def digest(parts: Iterable[bytes]) -> str:
    """How many bytes there were, and which; the client is followed while they are read."""
    length, sha = 0, hashlib.sha256()
    with Cancelable("reading"):
        for part in parts:
            length += len(part)
            sha.update(part)
    return f"{length} {sha.hexdigest()}"
