"""Fixtures of the HTTP API's tests."""

from __future__ import annotations

import pytest

from .world import World


@pytest.fixture
def world() -> World:
    """The HTTP API with default settings over an empty store."""
    return World()
