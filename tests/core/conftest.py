"""Stores and registries of a test's own, and a shorter leash: nothing here takes seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

from cancelable_core import OperationStore, ThreadSafeRegistry

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(60))


@pytest.fixture
def store() -> OperationStore:
    return OperationStore()


@pytest.fixture
def registry(store: OperationStore) -> ThreadSafeRegistry:
    return ThreadSafeRegistry(store)
