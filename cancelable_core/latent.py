"""Operations that are made in full only when somebody looks at them: most requests come and go without.

What looks is whatever needs anything of an operation but its token: `current_operation`, a registry that lists or counts what is
live, a child. Until then there is the token, and the place in the store where those who look find it.
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

    __slots__ = ("_began", "_claims", "_is_made", "_left", "_wanted_timeout")

    def __init__(
        self, store: OperationStore, *, operation_id: str | None = None, timeout: float | timedelta | None = None
    ) -> None:
        self._claims: list[str | _Unseen] = [] if operation_id is None else [operation_id]
        self._is_made = False
        self._wanted_timeout = timeout
        self._began: float | None = None
        self._left: float | None = None
        # of Cancelable's, what is needed before the first look
        self._store = store
        self.token = CancelationToken()
        self._generation = forks.generation()

    if not TYPE_CHECKING:  # type checkers know what is there

        def __getattr__(self, name: str) -> Any:
            """Python asks here for an attribute that was not filled yet, or that does not exist."""
            if name in LatentOperation.__slots__ or name.startswith("__") or self._is_made:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)
            self.make()
            return object.__getattribute__(self, name)

    def make(self) -> None:
        """Fill the attributes; and, between `begin_latent` and the end, register. Any thread; the first call does it."""
        if self._is_made:
            return
        with _making:
            if not self._is_made:
                self._claims.append(new_operation_id())
                self._fill()
                self._is_made = True
                self._appear()

    def _fill(self) -> None:
        own_id = next(claim for claim in self._claims if isinstance(claim, str))
        generation, owner = self._generation, self._owner_given()
        super().__init__(operation_id=own_id, owner=owner, parent=None, timeout=self._wanted_timeout, registry=self._store)
        self._generation = generation

    def _owner_given(self) -> str | None:
        try:
            owner: str | None = object.__getattribute__(self, "owner")
        except AttributeError:
            return None
        return owner

    def _new_token(self) -> CancelationToken:
        return self.token

    def _appear(self) -> None:
        """Be what it has become meanwhile."""
        if self._began is None:
            return
        self._entered = True
        self._created = self._started = self._began
        if self._claims[0] is _UNSEEN:
            self._ended = self._left or time.time()
            self._final = OperationStatus.COMPLETED
            self._closed = True
        elif not self.is_inherited:
            self._store.register(self, OperationStatus.RUNNING)
            self._tell_store_of_cancel()
            self._store.drop(self)

    @property
    def may_stay_latent(self) -> bool:
        """Whether it has to be there for nobody yet: its id is unknown, no deadline runs, and there is none around it."""
        return not self._claims and self._wanted_timeout is None and current_variable.get() is None

    def begin_latent(self) -> None:
        """Enter it, and leave the rest to whoever looks. Only where it may stay latent."""
        self._began = time.time()
        self._store.expect(self)
        current_variable.set(self)

    def end_latent(self) -> bool:
        """Complete it, if nobody has looked; False if somebody has, or a cancel wants to be noticed: it ends as others do."""
        if not self._is_made and self._began is not None and self.token.seal():
            self._claims.append(_UNSEEN)
            if self._claims[0] is _UNSEEN:
                if self._left is None:
                    self._left = time.time()
                    self._store.drop(self, completed_after_seconds=self._left - self._began)
                if current_variable.get() is self:
                    current_variable.set(None)
                return True
        self.make()  # waits for whoever is at it
        return False


_making = threading.RLock()


def _forget_the_lock() -> None:
    global _making
    _making = threading.RLock()


forks.run_in_child(_forget_the_lock)
