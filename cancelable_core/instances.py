"""The living instances of a class, for what has to reach all of them: a forked child, a process that ends."""

from __future__ import annotations

import weakref
from typing import Generic, TypeVar

__all__ = ["Instances"]

T = TypeVar("T")


class Instances(Generic[T]):
    """Instances that are alive, held weakly.

    Concurrency:
        Any thread.
    """

    def __init__(self) -> None:
        self._members: weakref.WeakSet[T] = weakref.WeakSet()

    def add(self, instance: T) -> None:
        """Know one more."""
        self._members.add(instance)

    def living(self) -> list[T]:
        """All of them, at one moment."""
        while True:
            try:
                return list(self._members)
            except RuntimeError:  # one was made meanwhile
                continue
