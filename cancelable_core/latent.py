"""Operations that are made in full only when somebody looks at them: most requests come and go without.

Looking is whatever needs anything of an operation: `current_operation`, a child, a registry that lists or counts what is live.
Until then there is no more than a place in the store, where those who look find it. What is expensive about a request is the
code more than the work: on a busy server every function that it comes through has left the processor's caches since the last.
"""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from . import forks
from .identifiers import new_operation_id
from .models import OperationStatus
from .operation import Cancelable, current_variable
from .store import OperationStore
from .token import CancelationToken

__all__ = ["LatentOperation"]


class _Unseen:
    """The claim of an end that came before the first look."""


_UNSEEN: Final = _Unseen()


class LatentOperation(Cancelable):
    """A detached operation, without an owner until it is given one, whose attributes are filled by the first look at one.

    Args:
        store: Where it is listed.
        operation_id: Its id; by default 128 random bits.
        timeout: As for `Cancelable`.

    Concurrency:
        As for `Cancelable`. Whether the first look or the end came first is decided by appending to a list.
    """

    __slots__ = ("_began", "_claims", "_left", "_origin", "_wanted", "is_made")

    def __init__(
        self, store: OperationStore, *, operation_id: str | None = None, timeout: float | timedelta | None = None
    ) -> None:
        self._store = store
        self._wanted = operation_id, timeout
        self._claims: list[tuple[str, CancelationToken] | _Unseen] = []
        self.is_made = False
        """Whether anybody has looked."""
        self._began: float | None = None
        self._left: float | None = None
        self._origin = forks.generation

    if not TYPE_CHECKING:  # type checkers know what is there

        def __getattr__(self, name: str) -> Any:
            """Python asks here for an attribute that was not filled yet, or that does not exist."""
            if name in LatentOperation.__slots__ or name.startswith("__") or self.is_made:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)
            self.make()
            return object.__getattribute__(self, name)

    def make(self) -> None:
        """Fill the attributes; and, between `begin_latent` and the end, register. Any thread; the first call does it."""
        if not self.is_made:
            with _making:
                if not self.is_made:
                    self._claims.append((self._wanted[0] or new_operation_id(), CancelationToken()))
                    self._fill()
                    if self._began is not None:
                        self._appear(self._began)
                    self.is_made = True

    def _fill(self) -> None:
        # the first claim that is none of an end: a signal handler may have come in between with another
        operation_id, self.token = next(claim for claim in self._claims if not isinstance(claim, _Unseen))
        try:
            owner: str | None = object.__getattribute__(self, "owner")
        except AttributeError:
            owner = None
        super().__init__(operation_id=operation_id, owner=owner, parent=None, timeout=self._wanted[1], registry=self._store)
        self._generation = self._origin

    def _new_token(self) -> CancelationToken:
        return self.token

    def _appear(self, began: float) -> None:
        """Be what it has become meanwhile."""
        self._entered = True
        self._created = self._started = began
        if self._claims[0] is _UNSEEN:
            self._ended = self._left or time.time()
            self._final = OperationStatus.COMPLETED
            self.token.seal()
            self._closed = True
        elif not self.is_inherited:
            self._store.register(self, OperationStatus.RUNNING)
            self._tell_store_of_cancel()
            self._store.latent.pop(self, None)

    def begin_latent(self) -> None:
        """Enter it, and leave the rest to whoever looks. Not inside another operation, which would be its enclosing one."""
        self._began = time.time()
        self._store.latent[self] = True
        current_variable.set(self)

    def end_latent(self) -> bool:
        """Complete it, if nobody has looked. Else False, and it has to be ended as others are."""
        if self.is_made or self._began is None:
            return False
        self._claims.append(_UNSEEN)
        if self._claims[0] is not _UNSEEN:
            self.make()  # waits for whoever is at it
            return False
        if self._left is None:
            self._left = time.time()
            if self._store.latent.pop(self, False):
                self._store.count_unseen(self.kind, self._left - self._began)
        if current_variable.get() is self:
            current_variable.set(None)
        return True


_making = threading.RLock()


def _forget_the_lock() -> None:
    global _making
    _making = threading.RLock()


forks.run_in_child(_forget_the_lock)
