"""The servers that the suites run on; each module says which application, by its fixture ``start``."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .launching import ServerKind
from .served import Served


@pytest.fixture
def server(request: pytest.FixtureRequest, start: Callable[[ServerKind], Served]) -> Served:
    """A running server; see `over`."""
    return start(request.param)
