"""How many may wait at the same time, and who must not wait at all."""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING

from .. import forks
from ..operation import current_operation

if TYPE_CHECKING:
    from ..registry import ThreadSafeRegistry

__all__ = ["Place", "WaitingRoom", "would_wait_for_itself"]


class WaitingRoom:
    """A bounded number of places. Nobody queues for one: where none is free, the answer is given at once.

    Args:
        places: How many may wait at the same time in this process; 0 lets nobody wait.

    Concurrency:
        Any thread; nothing blocks. A forked child starts with all places free.
    """

    __slots__ = ("__weakref__", "_free", "_lock", "_places")

    def __init__(self, places: int) -> None:
        self._places = places
        self.clear()
        _rooms.add(self)

    def clear(self) -> None:
        """Forget who waits."""
        self._free = self._places
        self._lock = threading.Lock()

    @property
    def free(self) -> int:
        """How many places are free right now."""
        return self._free

    def take(self) -> Place | None:
        """A place, or None when all are taken."""
        with self._lock:
            if self._free <= 0:
                return None
            self._free -= 1
        return Place(self)

    def give_back(self) -> None:
        """One place more; called by `Place.leave` only."""
        with self._lock:
            self._free += 1


_rooms: weakref.WeakSet[WaitingRoom] = weakref.WeakSet()


def _clear_all() -> None:
    for room in list(_rooms):
        room.clear()


forks.run_in_child(_clear_all)


class Place:
    """One taken place. `leave` gives it back, once, however often and from wherever it is called."""

    __slots__ = ("_rooms",)

    def __init__(self, room: WaitingRoom) -> None:
        self._rooms = [room]

    def leave(self) -> None:
        """Give the place back."""
        try:
            room = self._rooms.pop()
        except IndexError:
            return
        room.give_back()


def would_wait_for_itself(registry: ThreadSafeRegistry, operation_id: str) -> bool:
    """Whether the asker is part of the operation, which then cannot end before the asker has its answer."""
    operation = current_operation()
    context = operation.context if operation is not None else None
    while context is not None:
        if context.id == operation_id:
            return True
        context = registry.get_operation(context.parent_id) if context.parent_id is not None else None
    return False
