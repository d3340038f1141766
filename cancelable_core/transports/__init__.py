"""Where operations are known: this process, or a directory shared by many. `base` is the contract."""

from .base import Transport
from .local import LocalTransport

__all__ = ["LocalTransport", "Transport"]
