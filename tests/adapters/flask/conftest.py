"""Flask applications are made anew by each test."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from .helpers import Visit


@pytest.fixture(autouse=True)
def threads_of_async_views_end() -> Iterator[None]:
    """asgiref's thread for an async view that raised ends when the error is collected, which its own frames hold in a cycle."""
    yield
    gc.collect()


@pytest.fixture
def visit() -> Visit:
    return Visit()
