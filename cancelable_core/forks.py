"""What a fork must forget. Locks may be held by threads that do not exist in the child, loops and sockets are the parent's."""

from __future__ import annotations

import os
from collections.abc import Callable

__all__ = ["generation", "run_in_child"]

generation: int = 0
"""How many forks lie between this process and the first that loaded the suite; operations remember theirs."""

_resets: list[Callable[[], object]] = []


def run_in_child(reset: Callable[[], object]) -> None:
    """Have ``reset`` called in every forked child, in its only thread, before anything else of the suite runs there."""
    _resets.append(reset)


def _after_fork() -> None:
    global generation
    generation += 1
    for reset in _resets:
        reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
