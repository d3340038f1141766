"""The clients of the conformance suite."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from .clients import ADAPTERS, AdapterClient

Connect = Callable[..., AdapterClient]


@pytest.fixture(params=ADAPTERS, ids=[adapter.name for adapter in ADAPTERS])
def connect(request: pytest.FixtureRequest) -> Iterator[Connect]:
    """Starts an application with the given settings; each test runs on every adapter."""
    adapter: type[AdapterClient] = request.param
    with ExitStack() as stack:

        def start(**settings: Any) -> AdapterClient:
            return stack.enter_context(adapter(**settings))

        yield start


@pytest.fixture
def client(connect: Connect) -> AdapterClient:
    """An application with default settings."""
    return connect()
