"""The pytest fixtures: ``pytest_plugins = ["cancelable_core.testing.pytest_plugin"]`` in ``conftest.py``."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from ..store import OperationStore
from .stores import fresh_store

__all__ = ["cancelable_store"]


@pytest.fixture
def cancelable_store() -> Generator[OperationStore]:
    """An empty default store for one test; see `fresh_store`."""
    with fresh_store() as store:
        yield store
