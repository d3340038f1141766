"""A forked child starts clean, whatever the threads of its parent were doing."""

from __future__ import annotations

import os

import pytest

from .racing import run_script

FORKS = 200


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform cannot fork")
def test_children_forked_in_the_middle_of_everything_are_clean_and_work() -> None:
    """The script checks each child."""
    figures = run_script("fork_storm.py", FORKS)
    assert figures["different_ids"] == figures["ids"] == 4 * FORKS
    assert figures["open"] == 0
    assert figures["operations"] > 5 * FORKS
