"""What holds for every test: nothing of it stays behind, and the async ones run on every event loop."""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest

DEADLINE_SECONDS = 5.0
"""How long what a test started may take to end after it; reached only by tests that then fail."""

# Time limits of single examples would be assertions on time; pytest-timeout guards against a hang.
hypothesis.settings.register_profile("laptop", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True, database=None)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "laptop")


def pytest_collection_finish() -> None:
    """Collections look at what tests make only: with frameworks and thousands of tests each would take half a second."""
    gc.collect()
    gc.freeze()


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio"),
        pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"),
        pytest.param(("trio", {}), id="trio"),
    ],
)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Every coroutine test runs on each of these; a module that overrides it says why."""
    return request.param


@pytest.fixture(autouse=True)
def nothing_stays_behind() -> Iterator[None]:
    """Each test leaves an empty default registry, no open operation, and no thread that would keep the process alive."""
    threads_before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + DEADLINE_SECONDS
    left = [*_open_operation(), *_operations_left(deadline), *_threads_left(threads_before, deadline)]
    if left:
        pytest.fail("left behind by this test: " + "; ".join(left), pytrace=False)


def _open_operation() -> list[str]:
    """What is still current in this thread, whatever store it is in: every later test would run inside it."""
    loaded = sys.modules.get("cancelable_core.operation")
    left = None if loaded is None else loaded.current_operation()
    if loaded is None or left is None:
        return []
    loaded.current_variable.set(None)
    return [f"open: {left!r}"]


def _operations_left(deadline: float) -> list[str]:
    loaded = sys.modules.get("cancelable_core.registry")
    if loaded is None:  # a test that never loaded the registry left nothing in it
        return []
    registry = loaded.ThreadSafeRegistry()
    for operation in registry.list_operations():
        registry.wait_for(operation.id, max(0.0, deadline - time.monotonic()))
    left = registry.list_operations()
    for operation in left:  # the next test must not be blamed for it
        registry.cancel_operation(operation.id, message="left behind by a test")
    return [f"{operation.kind} {operation.name or operation.id} ({operation.status})" for operation in left]


def _threads_left(before: set[threading.Thread], deadline: float) -> list[str]:
    new = [thread for thread in threading.enumerate() if not thread.daemon and thread not in before | _asgiref_threads()]
    for thread in new:
        thread.join(max(0.0, deadline - time.monotonic()))
    return [f"thread {thread.name}" for thread in new if thread.is_alive()]


def _asgiref_threads() -> set[threading.Thread]:
    """asgiref keeps one thread per process for sync code outside a request; Python ends it at exit."""
    asgiref_sync = sys.modules.get("asgiref.sync")
    return set() if asgiref_sync is None else set(asgiref_sync.SyncToAsync.single_thread_executor._threads)
