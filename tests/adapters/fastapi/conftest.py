"""Coroutine tests run on asyncio, uvloop and trio: Starlette runs on all of them."""

from __future__ import annotations

import pytest

from .helpers import Visit


@pytest.fixture
def visit() -> Visit:
    return Visit()
