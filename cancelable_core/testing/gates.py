"""Holding code at a known point, so that a test can act exactly then, without a sleep."""

from __future__ import annotations

import anyio

from ..operation import current_operation
from ..token import CancelationToken

__all__ = ["Gate"]


class Gate:
    """A point that code reaches and waits at until the test opens it, or its operation is cancelled.

    The code under test calls `hold` or awaits `ahold`; the test waits with `wait_until_reached`, acts, and calls `open`.

    Args:
        timeout_seconds: How long either side waits for the other, before it fails with a TimeoutError.

    Concurrency:
        Any thread, any event loop, any number of them.
    """

    def __init__(self, timeout_seconds: float = 10) -> None:
        self._timeout_seconds = timeout_seconds
        self._reached = CancelationToken()
        self._opened = CancelationToken()

    def hold(self) -> None:
        """Wait here, in a thread.

        Raises:
            OperationCancelled: The operation of this thread was cancelled meanwhile.
            TimeoutError: Nobody opened the gate.
        """
        self._reached.cancel_sync()
        operation = current_operation()
        with CancelationToken.any_of(self._opened, *([] if operation is None else [operation.token])) as either:
            if not either.wait(self._timeout_seconds):
                raise TimeoutError(f"the gate was not opened within {self._timeout_seconds} seconds")
        if operation is not None:
            operation.check()

    async def ahold(self) -> None:
        """The same in a task, where a cancel is native."""
        self._reached.cancel_sync()
        with anyio.fail_after(self._timeout_seconds):
            await self._opened.wait_for_cancel()

    def open(self) -> None:
        """Let everybody pass, now and from now on."""
        self._opened.cancel_sync()

    def wait_until_reached(self) -> None:
        """Wait in the test's thread until somebody holds at the gate.

        Raises:
            TimeoutError: Nobody came.
        """
        if not self._reached.wait(self._timeout_seconds):
            raise TimeoutError(f"nobody reached the gate within {self._timeout_seconds} seconds")

    async def await_reached(self) -> None:
        """The same in the test's task."""
        with anyio.fail_after(self._timeout_seconds):
            await self._reached.wait_for_cancel()
