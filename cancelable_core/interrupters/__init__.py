"""What stops blocking calls, one file per kind. Drivers are never imported here: who hands one in has loaded it."""

from .cursors import InterruptibleCursor, LibraryInterrupter, call_interruptible, undoes
from .picking import interrupter_for, interrupting

__all__ = ["InterruptibleCursor", "LibraryInterrupter", "call_interruptible", "interrupter_for", "interrupting", "undoes"]
