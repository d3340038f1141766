"""A function in a process of its own, for work that never asks: what ends the process ends the work."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler
from typing import TYPE_CHECKING, Any, TypeVar, cast

from ..callables import is_coroutine_function
from ..waiters import refuse_to_block
from .process_groups import GRACE_SECONDS, ProcessGroup

if TYPE_CHECKING:
    from ..operation import Cancelable

__all__ = ["run_in_process"]

R = TypeVar("R")


def run_in_process(
    operation: Cancelable,
    func: Callable[..., R],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    grace_seconds: float | None = None,
) -> R:
    """See `Cancelable.run_in_process`."""
    refuse_to_block("run_in_process", "await operation.run_in_thread(operation.run_in_process, …)")
    group = ProcessGroup(GRACE_SECONDS if grace_seconds is None else grace_seconds)
    if is_coroutine_function(func):
        raise TypeError("run_in_process takes a plain function; one that calls anyio.run() may await inside")
    name = getattr(func, "__qualname__", repr(func))
    call = _pickled((func, args, kwargs), f"run_in_process cannot send {name} and its arguments to another process")
    try:
        with operation.interruptible(group):
            answer = _ask(name, call, group)
    finally:
        group.end()
    failed, value = pickle.loads(answer)
    if failed:
        raise value
    return cast("R", value)


def _ask(name: str, call: bytes, group: ProcessGroup) -> bytes:
    # spawn: a fork would copy locks that threads of this process hold, and its connections
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    with ours:
        with theirs:
            process = context.Process(target=_work_off, args=(theirs,), name=name, daemon=True)
            process.start()
        assert process.pid is not None
        group.led_by(process.pid, lambda: process.exitcode)
        try:
            ours.send_bytes(call)
            multiprocessing.connection.wait([ours, process.sentinel])
            if not ours.poll():
                raise EOFError  # it has ended, while something it started holds the other end
            answer = ours.recv_bytes()
        except (EOFError, OSError):  # it let go of the connection before it had answered
            process.join()
            raise ChildProcessError(f"the process of {name} {_how_it_ended(process)} before it returned") from None
        process.join()
        group.let_go()
        return answer


def _how_it_ended(process: BaseProcess) -> str:
    code = process.exitcode
    if code is None or code >= 0:
        return f"ended with {code}"
    return f"was ended by {signal.Signals(-code).name}"


def _work_off(connection: Connection[Any, Any]) -> None:
    """What the child does."""
    os.setsid()  # a group of its own, with all that `func` starts
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    try:
        func, args, kwargs = pickle.loads(connection.recv_bytes())
        name = getattr(func, "__qualname__", repr(func))
        value = func(*args, **kwargs)
        answer = _pickled((False, value), f"run_in_process cannot bring back what {name} returned, a {type(value).__name__}")
    except BaseException as error:
        answer = _pickled_error(error)
    connection.send_bytes(answer)


def _end_with_the_parent() -> None:
    """Do not go on for nobody when the parent was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.killpg(0, signal.SIGKILL)


def _pickled_error(error: BaseException) -> bytes:
    origin = "".join(traceback.format_exception(error))
    error.add_note(f"in process {os.getpid()}:\n{origin}")
    try:
        answer = ForkingPickler.dumps((True, error))
        pickle.loads(answer)  # some pickle and cannot be made again
    except Exception:
        text = f"run_in_process cannot bring back {type(error).__name__}, which was raised: {error}"
        substitute = pickle.PicklingError(text)
        substitute.add_note(origin)
        answer = ForkingPickler.dumps((True, substitute))
    return bytes(answer)


def _pickled(thing: object, otherwise: str) -> bytes:
    try:
        return bytes(ForkingPickler.dumps(thing))
    except Exception as error:
        raise pickle.PicklingError(f"{otherwise}: {error}") from error
