"""Operations that are made in full only when somebody looks at them: most requests come and go without.

Looking is whatever needs anything of an operation: `current_operation`, a child, a registry that lists or counts what is live.
Until then there is no more than a place in the store, where those who look find it. What is expensive about a request is the
code more than the work: on a busy server every function that it comes through has left the processor's caches since the last.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from datetime import timedelta
from functools import partial
from itertools import starmap
from typing import TYPE_CHECKING, Any, Final

from . import forks
from .models import OperationStatus
from .operation import Cancelable, current_variable
from .store import SEEN, UNSEEN, OperationStore

__all__ = ["LatentOperation"]

_FILLED: Final = tuple(name for name in Cancelable.__slots__ if name not in ("__weakref__", "_store", "owner"))


class LatentOperation(Cancelable):
    """A detached operation, without an owner until it is given one, whose attributes are filled by the first look at one.

    Args:
        store: Where it is listed.
        operation_id: Its id; by default 128 random bits.
        timeout: As for `Cancelable`.

    Concurrency:
        As for `Cancelable`. Whether the first look or the end came first is decided by appending to a list. The look fills all
        attributes in one step; a signal handler, or a finaliser, that comes in the middle of one finds nothing filled, or all.
    """

    __slots__ = ("_began", "_claims", "_left", "_may_be_latent", "_origin", "_wanted", "is_made")

    def __init__(
        self, store: OperationStore, *, operation_id: str | None = None, timeout: float | timedelta | None = None
    ) -> None:
        self._store = store
        self._wanted = operation_id, timeout
        self._claims: list[object] = []
        self._may_be_latent = operation_id is None and timeout is None  # ids may be taken, and deadlines wait for nobody
        self._began: float | None = None
        self._left: float | None = None
        self._origin = forks.generation
        self.owner = None
        self.is_made = False
        """Whether anybody has looked, and whoever lists operations finds it."""

    if not TYPE_CHECKING:  # type checkers know what is there

        def __getattr__(self, name: str) -> Any:
            """Python asks here for an attribute that was not filled yet, or that does not exist."""
            if name in LatentOperation.__slots__ or name.startswith("__"):
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)
            self.make()
            return object.__getattribute__(self, name)  # also where another thread filled it before this one came here

    def make(self) -> None:
        """Fill the attributes; and, between `begin_latent` and the end, register. Any thread; the first call does it."""
        if not self.is_made:
            with _making:
                if not self.is_made:
                    self._claims.append(SEEN)
                    self._claims.append(_Draft(self._values()))
                    # the first draft: a signal handler may be interrupted here, or have come in between, with another
                    next(claim for claim in self._claims if isinstance(claim, _Draft)).fill(self)
                    if self._began is not None:
                        self._appear()
                    self._may_be_latent = False
                    self.is_made = True

    def _values(self) -> dict[str, object]:
        """What the attributes are to be, seen at this moment."""
        operation_id, timeout = self._wanted
        model = Cancelable(operation_id=operation_id, parent=None, timeout=timeout, registry=self._store)
        values: dict[str, object] = {name: getattr(model, name) for name in _FILLED}
        values["_generation"] = self._origin
        if self._began is not None:
            values |= {"_entered": True, "_created": self._began, "_started": self._began}
            if self._ended_unseen:
                model.token.seal()
                values |= {"_ended": self._left, "_final": OperationStatus.COMPLETED, "_closed": True}
        return values

    @property
    def _ended_unseen(self) -> bool:
        return self._claims[0] is not SEEN

    def _appear(self) -> None:
        if not (self._ended_unseen or self.is_inherited):
            self._store.register(self, OperationStatus.RUNNING)
            self._tell_store_of_cancel()
        self._store.latent.pop(self, None)

    def begin_latent(self) -> None:
        """Enter it, and leave the rest to whoever looks. Only while `_may_be_latent`, and not inside another operation."""
        self._may_be_latent = False
        self._began = time.time()
        self._store.latent[self] = True
        current_variable.set(self)

    def end_latent(self) -> bool:
        """Complete it, if nobody has looked. Else False, and it has to be ended as others are."""
        if self.is_made or self._began is None:
            return False
        store = self._store
        if self in store.latent:  # not if it has ended, nor after a fork
            self._left = time.time()
            store.count_unseen(self._claims, self.kind, self._left - self._began)
        self._claims.append(UNSEEN)
        if self._claims[0] is SEEN:
            self.make()  # waits for whoever is at it
            return False
        store.latent.pop(self, None)
        if current_variable.get() is self:
            current_variable.set(None)
        return True


class _Draft:
    """The attributes as one look makes them. Whoever takes them first fills them in; others find nothing left to fill."""

    __slots__ = ("_items",)

    def __init__(self, values: dict[str, object]) -> None:
        self._items = iter(list(values.items()))  # a dict's own iterator would keep the last of them

    def fill(self, operation: LatentOperation) -> None:
        # one call into C: no other thread, signal handler or finaliser comes in between
        deque(starmap(partial(setattr, operation), self._items), maxlen=0)


_making = threading.RLock()


def _forget_the_lock() -> None:
    global _making
    _making = threading.RLock()


forks.run_in_child(_forget_the_lock)
