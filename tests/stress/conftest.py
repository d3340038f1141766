"""What all races share: a seed that is printed, and threads that are preempted as often as the interpreter can."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest

from tests.switching import frequent_switches

SEED = int(os.environ.get("STRESS_SEED", "7417"))
"""Fixed, so that a failure comes back; ``STRESS_SEED=…`` tries another order of things."""


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """Chance, the same in every run; the seed stands in the report of a failing test."""
    print(f"STRESS_SEED={SEED}")
    return random.Random(f"{SEED} {request.node.name}")


@pytest.fixture(autouse=True)
def threads_switch_often() -> Iterator[None]:
    """Of every test here."""
    with frequent_switches():
        yield
