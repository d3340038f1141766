"""Functions in processes of their own: results and errors come back, and a cancel ends whatever they do."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import anyio
import pytest

from cancelable_core import (
    Cancelable,
    JobRunner,
    OperationCancelled,
    OperationStatus,
    OperationStore,
    OperationTimedOut,
    current_operation,
)
from tests.core.helpers import DEADLINE_SECONDS, becomes_true, becomes_true_soon

from .processes import cancel_when, is_running, number_in, our_zombies, wait_for

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc to see who is still there"),
]


# --- what runs over there


def describe(*args: object, **kwargs: object) -> tuple[object, ...]:
    return args, kwargs, os.getpid(), os.getpgrp(), current_operation(), threading.current_thread() is threading.main_thread()


def large(size: int, given: bytes) -> bytes:
    assert len(given) == size
    return bytes(size)


def compute_for_ever(ready: Path) -> None:
    ready.write_text(f"{os.getpid()}\n")
    number = 0
    while True:
        number += 1


def compute_in_c_for_ever(ready: Path) -> None:
    """The interpreter never gets to look at anything."""
    ready.write_text(f"{os.getpid()}\n")
    sum(iter(int, 1))


def ignore_term(ready: Path) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen(["sh", "-c", "trap '' TERM; while :; do sleep 1; done"])
    ready.write_text(f"{child.pid}\n")
    child.wait()


def divide(a: int, b: int) -> float:
    return a / b


class Stubborn(Exception):
    """It pickles, and cannot be made again."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(first)


def raise_stubborn() -> None:
    raise Stubborn("what it said", "more")


class Unpicklable(Exception):
    pass


def raise_unpicklable() -> None:
    error = Unpicklable("what it said")
    error.lock = threading.Lock()  # type: ignore[attr-defined]
    raise error


def leave_without_a_word(how: str) -> None:
    if how == "exit":
        os._exit(3)
    os.kill(os.getpid(), signal.SIGSEGV)


def takes_grace(grace_seconds: float) -> float:
    return grace_seconds


def write_own_id_and_sleep(ready: Path) -> None:
    ready.write_text(f"{os.getpid()}\n")
    time.sleep(60)


def run_and_wait(ready: str) -> None:
    with Cancelable(register=False) as operation:
        operation.run_in_process(write_own_id_and_sleep, Path(ready))


# --- results and errors


def test_arguments_and_result() -> None:
    with Cancelable(register=False) as operation:
        args, kwargs, pid, group, current, is_main = operation.run_in_process(describe, 1, "b", c=[3])
    assert (args, kwargs) == ((1, "b"), {"c": [3]})
    assert pid == group != os.getpid()
    assert current is None
    assert is_main
    assert our_zombies() == []


def test_megabytes_both_ways() -> None:
    size = 5_000_000
    with Cancelable(register=False) as operation:
        assert operation.run_in_process(large, size, bytes(size)) == bytes(size)


def test_an_error_comes_back_with_its_traceback() -> None:
    with Cancelable(register=False) as operation:
        with pytest.raises(ZeroDivisionError) as caught:
            operation.run_in_process(divide, 1, b=0)
    [note] = caught.value.__notes__
    assert "return a / b" in note


@pytest.mark.parametrize(("func", "name"), [(raise_stubborn, "Stubborn"), (raise_unpicklable, "Unpicklable")])
def test_an_error_that_cannot_travel_says_what_it_was(func: Any, name: str) -> None:
    with Cancelable(register=False) as operation:
        with pytest.raises(pickle.PicklingError, match=f"cannot bring back {name}, .*what it said") as caught:
            operation.run_in_process(func)
    assert f"in {func.__name__}" in caught.value.__notes__[0]


def test_a_result_that_cannot_travel_is_a_clear_error() -> None:
    with Cancelable(register=False) as operation:
        with pytest.raises(pickle.PicklingError, match=r"cannot bring back what .*lock.* returned"):
            operation.run_in_process(threading.Lock)


def test_a_call_that_cannot_travel_starts_nothing() -> None:
    before = multiprocessing.active_children()
    with Cancelable(register=False) as operation:
        with pytest.raises(pickle.PicklingError, match=r"cannot send .*lambda"):
            operation.run_in_process(lambda: None)
        with pytest.raises(pickle.PicklingError, match="cannot send describe"):
            operation.run_in_process(describe, threading.Lock())
    assert multiprocessing.active_children() == before


@pytest.mark.parametrize(("how", "said"), [("exit", "ended with 3"), ("signal", "was ended by SIGSEGV")])
def test_a_process_that_ends_without_an_answer(how: str, said: str) -> None:
    with Cancelable(register=False) as operation:
        with pytest.raises(ChildProcessError, match=f"leave_without_a_word {said}"):
            operation.run_in_process(leave_without_a_word, how)


def test_what_cannot_be_is_refused() -> None:
    async def work() -> None: ...

    with Cancelable(register=False) as operation:
        with pytest.raises(TypeError, match="plain function"):
            operation.run_in_process(work)
        with pytest.raises(TypeError, match=r"functools\.partial"):
            operation.run_in_process(takes_grace, grace_seconds=1)
        with pytest.raises(ValueError, match="grace_seconds"):
            operation.run_in_process(describe, grace_seconds=-1)


# --- cancelled


@pytest.mark.parametrize("work", [compute_for_ever, compute_in_c_for_ever])
def test_work_that_never_checks_ends(work: Any, tmp_path: Path) -> None:
    ready, operation = tmp_path / "ready", Cancelable(register=False)
    cancelled = cancel_when(operation, ready)
    with pytest.raises(OperationCancelled) as caught:
        with operation:
            operation.run_in_process(work, ready)
    cancelled.result()
    assert isinstance(caught.value.__cause__, ChildProcessError)
    assert "SIGTERM" in str(caught.value.__cause__)
    assert operation.status is OperationStatus.CANCELLED
    assert not is_running(number_in(ready))
    assert our_zombies() == []


def test_what_ignores_term_is_killed_with_what_it_started(tmp_path: Path) -> None:
    ready, operation = tmp_path / "ready", Cancelable(register=False)
    cancelled = cancel_when(operation, ready)
    with pytest.raises(OperationCancelled) as caught:
        with operation:
            operation.run_in_process(ignore_term, ready, grace_seconds=0.2)
    assert 0.2 <= time.monotonic() - cancelled.result() < DEADLINE_SECONDS / 2
    assert "SIGKILL" in str(caught.value.__cause__)
    assert not is_running(number_in(ready))


def test_a_cancel_at_any_moment_of_its_start() -> None:
    """Before it has made its own group it is in ours, which must not be hit."""
    for step in range(12):
        with pytest.raises(OperationTimedOut):
            with Cancelable(timeout=step * 0.02, register=False) as operation:
                operation.run_in_process(time.sleep, 60)
    assert our_zombies() == []


def test_in_a_job(tmp_path: Path, store: OperationStore) -> None:
    def work() -> None:
        operation = current_operation()
        assert operation is not None
        operation.run_in_process(compute_for_ever, tmp_path / "ready")

    runner = JobRunner(store)
    try:
        job = runner.submit(work)
        wait_for(tmp_path / "ready")
        job.cancel_sync()
        with pytest.raises(OperationCancelled):
            job.result(DEADLINE_SECONDS)
    finally:
        runner.close()


async def test_from_async_code(tmp_path: Path, store: OperationStore) -> None:
    ready, operation = tmp_path / "ready", Cancelable(registry=store)
    cancelled = cancel_when(operation, ready)
    with anyio.fail_after(DEADLINE_SECONDS):
        with pytest.raises(OperationCancelled):
            async with operation:
                with pytest.raises(RuntimeError, match="run_in_thread"):
                    operation.run_in_process(divide, 1, 1)
                assert await operation.run_in_thread(operation.run_in_process, divide, 6, 3) == 2
                await operation.run_in_thread(operation.run_in_process, compute_for_ever, ready)
    cancelled.result()
    await becomes_true_soon(lambda: not is_running(number_in(ready)))
    await becomes_true_soon(lambda: store.statistics().abandoned_threads == 0)


def test_it_does_not_outlive_a_parent_that_is_killed(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    code = "import sys; from tests.interrupters.test_process_calls import run_and_wait; run_and_wait(sys.argv[1])"
    root = Path(__file__).parents[2]
    parent = subprocess.Popen([sys.executable, "-c", code, str(ready)], cwd=root)
    try:
        wait_for(ready)
        assert is_running(number_in(ready))
    finally:
        parent.kill()
        parent.wait()
    becomes_true(lambda: not is_running(number_in(ready)))
