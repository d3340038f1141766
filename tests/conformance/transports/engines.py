"""The engines that the suite runs on. Another one joins by another class in `ENGINES`."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import ClassVar, Self

from cancelable_core import OperationStore
from cancelable_core.transports import LocalTransport, Transport

__all__ = ["DEADLINE_SECONDS", "ENGINES", "Engine", "becomes_true"]

DEADLINE_SECONDS = 20.0
"""Reached by failing tests only."""


def becomes_true(condition: Callable[[], object]) -> None:
    """Look again and again: what another process did is seen a little later."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not become true"
        time.sleep(0.001)


class Engine:
    """A transport to ask, and the store in which the operations run that it is asked about.

    Attributes:
        transport: What the tests ask.
        store: Where the tests run their operations; its owner decides about cancels. With engines that span processes, it is
            that of another transport.
    """

    name: ClassVar[str]
    transport: Transport
    store: OperationStore

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """Take down what the engine started."""


class LocalEngine(Engine):
    """The process's own."""

    name = "local"

    def __init__(self) -> None:
        self.store = OperationStore()
        self.transport = LocalTransport(self.store)


ENGINES: tuple[type[Engine], ...] = (LocalEngine,)
