"""One world for each engine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .engines import ENGINES, Engine
from .world import World


@pytest.fixture(params=ENGINES, ids=[engine.name for engine in ENGINES])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """Operations behind a transport; each test runs on every engine."""
    engine: type[Engine] = request.param
    with engine() as running, World(running) as world:
        yield world
