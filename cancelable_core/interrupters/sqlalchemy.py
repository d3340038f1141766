"""Statements of SQLAlchemy 2, by the interrupter of the driver below."""

from __future__ import annotations

__all__ = ["interrupter_for"]


def interrupter_for(connection: object) -> None:
    """None."""
    return None
