"""A million cancels from a signal handler, which interrupts whatever the main thread does with the same things."""

from __future__ import annotations

import pytest

from .racing import run_script

CANCELS = 1_000_000
ROUNDS = 501


@pytest.mark.slow
@pytest.mark.timeout(150)
@pytest.mark.parametrize("subject", ["tokens", "operations", "jobs", "asyncio", "uvloop", "trio"])
def test_nothing_deadlocks_and_nobody_wins_twice(subject: str) -> None:
    """The script itself checks each round: one winner, callbacks once, statuses and counters that agree."""
    figures = run_script("signal_storm.py", subject, CANCELS, ROUNDS, timeout_seconds=140)
    assert figures["cancels"] >= CANCELS
    assert figures["rounds"] >= ROUNDS
    assert figures["open"] == 0
