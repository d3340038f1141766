"""Commands in processes of their own, which end with the operation: the whole group, not just the first of it."""

from __future__ import annotations

import io
import os
import select
import selectors
import subprocess
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, cast

from ..waiters import refuse_to_block
from .process_groups import GRACE_SECONDS, ProcessGroup

if TYPE_CHECKING:
    from ..operation import Cancelable

__all__ = ["Command", "ProcessInterrupted", "open_process", "run_process"]

Command = str | bytes | os.PathLike[Any] | Sequence[str | bytes | os.PathLike[Any]]
"""What to run, as `subprocess.Popen` takes it."""

_CHUNK_BYTES = 65_536
_LOOK_UP_SECONDS = 0.25
"""So often a reader who hears nothing looks whether those he waits for are still in the group, which nothing tells him."""


class ProcessInterrupted(subprocess.CalledProcessError):
    """The process was told to end before it had ended by itself: the cause of the `OperationCancelled`.

    Attributes:
        cmd: The command.
        returncode: What it ended with; negative: the signal.
        stdout, stderr: What it had said by then, where that was captured.
    """

    def __str__(self) -> str:
        return f"{self.cmd!r} was told to end, and did with {self.returncode}"


def run_process(
    operation: Cancelable,
    command: Command,
    /,
    *,
    input: str | bytes | None = None,
    check: bool = False,
    grace_seconds: float = GRACE_SECONDS,
    **options: Any,
) -> subprocess.CompletedProcess[Any]:
    """See `Cancelable.run_process`."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    if input is not None and options.setdefault("stdin", subprocess.PIPE) != subprocess.PIPE:
        raise ValueError("give either input or stdin")
    with _opened(operation, "run_process", command, grace_seconds, options) as (process, group):
        stdout, stderr = _exchange(process, input, group)
        if not group.let_go():
            group.end()
            raise ProcessInterrupted(cast("int", process.poll()), command, stdout, stderr)
    done = subprocess.CompletedProcess(command, process.returncode, stdout, stderr)
    if check:
        done.check_returncode()
    return done


@contextmanager
def open_process(
    operation: Cancelable, command: Command, /, *, grace_seconds: float = GRACE_SECONDS, **options: Any
) -> Generator[subprocess.Popen[Any]]:
    """See `Cancelable.open_process`."""
    with _opened(operation, "open_process", command, grace_seconds, options) as (process, _):
        yield process


@contextmanager
def _opened(
    operation: Cancelable, method: str, command: Command, grace_seconds: float, options: dict[str, Any]
) -> Generator[tuple[subprocess.Popen[Any], ProcessGroup]]:
    refuse_to_block(method, f"await operation.run_in_thread(operation.{method}, …)")
    group = ProcessGroup(grace_seconds)
    try:
        with operation.interruptible(group):
            # a session of its own: one signal then reaches all of it, and Ctrl-C in a terminal none of it
            process: subprocess.Popen[Any] = subprocess.Popen(command, start_new_session=True, **options)
            group.led_by(process.pid, process.poll)
            try:
                yield process, group
                _close_pipes(process)
                process.wait()
                group.let_go()
            except BaseException:
                group.end()
                raise
            finally:
                _close_pipes(process)
    finally:
        group.end()


def _exchange(process: subprocess.Popen[Any], input: str | bytes | None, group: ProcessGroup) -> tuple[Any, Any]:
    """Feed the process and read all it says at the same time, whatever the sizes, until it ends or its group does.

    `Popen.communicate` would do, but not when something has left the group and holds the pipes for ever, and it cannot be
    taken up again while there is input to send.
    """
    unsent = _encoded(process.stdin, input)
    said: dict[object, list[bytes]] = {}
    with selectors.DefaultSelector() as selector:
        if process.stdin is not None:
            selector.register(process.stdin, selectors.EVENT_WRITE)
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                said[pipe] = []
                selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(_LOOK_UP_SECONDS)
            if group.killed_seconds > _LOOK_UP_SECONDS or (not ready and group.was_told and group.is_gone()):
                break
            for key, _ in ready:
                if key.fileobj is process.stdin:
                    unsent = unsent[_written(key.fd, unsent) :]
                    ended = not unsent
                else:
                    chunk = os.read(key.fd, _CHUNK_BYTES)
                    said[key.fileobj].append(chunk)
                    ended = not chunk
                if ended:
                    selector.unregister(key.fileobj)
                    cast("IO[Any]", key.fileobj).close()
    if not group.was_told:
        process.wait()
    stdout, stderr = (
        _decoded(pipe, b"".join(said[pipe]), cut=group.was_told) if pipe else None for pipe in (process.stdout, process.stderr)
    )
    return stdout, stderr


def _written(fd: int, data: memoryview) -> int:
    """How much of it was taken, without waiting; all of it, where nobody reads it any more."""
    try:
        return os.write(fd, data[: select.PIPE_BUF])
    except BrokenPipeError:
        return len(data)


def _encoded(pipe: IO[Any] | None, data: str | bytes | None) -> memoryview:
    if isinstance(data, str):
        if not isinstance(pipe, io.TextIOWrapper):
            raise TypeError("input must be bytes, unless text, encoding or errors is given")
        data = data.encode(pipe.encoding, pipe.errors or "strict")
    return memoryview(data or b"")


def _decoded(pipe: IO[Any], data: bytes, *, cut: bool) -> str | bytes:
    if not isinstance(pipe, io.TextIOWrapper):
        return data
    errors = "replace" if cut else pipe.errors  # it may end in the middle of a character
    return io.TextIOWrapper(io.BytesIO(data), pipe.encoding, errors).read()  # with its line ends


def _close_pipes(process: subprocess.Popen[Any]) -> None:
    for pipe in (process.stdout, process.stderr, process.stdin):
        if pipe is not None:
            try:
                pipe.close()
            except BrokenPipeError:
                pass  # what was not flushed yet, for a process that has ended
