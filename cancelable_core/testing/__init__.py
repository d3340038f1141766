"""What the tests of an application need: a fresh store, a gate that holds code at a known point, a client that really leaves.

With pytest, ``pytest_plugins = ["cancelable_core.testing.pytest_plugin"]`` brings the fixture ``cancelable_store``.
"""

from .clients import LeavingClient
from .gates import Gate
from .stores import fresh_store

__all__ = ["Gate", "LeavingClient", "fresh_store"]
