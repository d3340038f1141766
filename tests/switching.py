"""Threads that take turns as often as the interpreter can, so that races happen."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["frequent_switches"]

SWITCH_INTERVAL_SECONDS = 1e-5

TRACED_SECONDS = 1e-3
"""On Python 3.11 under a tracer two threads that enter functions stop each other for ever if they are asked for the interpreter
sooner than they get going: whoever is asked at a function's first instruction begins that instruction anew."""


@contextmanager
def frequent_switches() -> Iterator[None]:
    """Threads take turns 500 times as often as usual, or as often as they may."""
    is_traced = sys.version_info < (3, 12) and "coverage" in sys.modules  # other threads are traced even if this one is not
    before = sys.getswitchinterval()
    sys.setswitchinterval(TRACED_SECONDS if is_traced else SWITCH_INTERVAL_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
