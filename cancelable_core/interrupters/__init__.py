"""What stops blocking calls, one file per kind. Drivers are never imported here: who hands one in has loaded it."""

from .picking import interrupter_for, interrupting

__all__ = ["interrupter_for", "interrupting"]
