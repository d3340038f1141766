"""Operations that were closed, composites that were dropped, callbacks that were taken back: nothing of them stays."""

from __future__ import annotations

import pytest

from .racing import run_script

MOST_BLOCKS = 2_000
"""Timers that were disarmed stay up to some hundreds; a single object per operation would be a hundred thousand and more."""

MOST_BYTES = 100_000


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("subject", "count"),
    [
        ("sync", 1_000_000),
        ("asyncio", 200_000),
        ("trio", 100_000),
        ("calls", 100_000),
        ("threads", 200_000),
        ("timed", 200_000),
        ("composites", 300_000),
        ("callbacks", 300_000),
    ],
)
def test_nothing_is_left_on_a_lasting_parent_and_token(subject: str, count: int) -> None:
    figures = run_script("growth.py", subject, count, timeout_seconds=280)
    assert figures["grown_registrations"] == 0
    assert figures["grown_blocks"] < MOST_BLOCKS
    assert figures["grown_bytes"] < MOST_BYTES
    assert figures["open"] == 0
    if subject not in ("calls", "composites", "callbacks"):
        assert figures["operations"] > count
