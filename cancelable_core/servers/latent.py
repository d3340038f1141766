"""Requests that become operations when somebody looks: most come and go without.

Looking is whatever needs anything of an operation: `current_operation`, a child, a registry that lists or counts what is live.
Until then there is no more than a place, in the store and in the context, where those who look find it. What is expensive about
a request is the code more than the work: on a busy server every function that it comes through has left the processor's caches
since the last.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from .. import forks
from ..operation import current_operation, current_variable, thread_variable
from ..scopes import OpenScope
from ..store import UNSEEN, OperationStore
from ..wakeup import Port
from .application import WebApplication
from .request_scope import RequestOperation

R = TypeVar("R")

__all__ = ["REQUEST_KEY", "LatentRequest", "making", "no_route"]

REQUEST_KEY: Final = "cancelable.request"
"""Where the `LatentRequest` stands in the WSGI environ, in the ASGI scope, and in Django's ``META``."""


def no_route(native: object) -> str | None:
    """The route of a request that no router finds one for."""
    return None


class LatentRequest:
    """A request that is made an operation by the first look at it, if there is one before its end.

    Those of each kind of server derive from it and say what the operation is made of.

    Attributes:
        made: The operation, once it is one.
        native: The framework's request, until the end.
        cancel_scope: What its cancel interrupts, while that runs on a loop.

    Concurrency:
        `make` and `end`: any thread, signal handlers and finalisers, too. Whether the first look or the end came first is
        decided by appending to a list.
    """

    __slots__ = ("__weakref__", "_began", "_claims", "_store", "cancel_scope", "made", "native")

    cancel_scope: OpenScope | None
    made: RequestOperation | None
    native: Any
    _began: float
    _claims: list[object]
    _store: OperationStore

    def _create(self, native: Any) -> RequestOperation:
        """The operation, not begun yet. Called by any thread; more often than once, where one interrupts another."""
        raise NotImplementedError

    @property
    def port(self) -> Port | None:
        """Of the loop that it runs on, while it does."""
        scope = self.cancel_scope
        return None if scope is None else scope.port

    def _create_here(self, native: Any) -> RequestOperation:
        operation, scope = self._create(native), self.cancel_scope
        if scope is not None:
            operation.interrupt_in(scope.native, scope.port)
        return operation

    def begin(self, web: WebApplication, *, at_once: bool = False, scope: OpenScope | None = None) -> None:
        """Open it here; whoever runs in this context from now on runs inside it.

        Args:
            web: Where it is listed, and whose settings say whether it may wait for a look.
            at_once: Whether it is an operation from the beginning in any case.
            scope: What its cancel is to interrupt, on a loop.
        """
        self.made = None
        self.cancel_scope = scope
        self._store = web.store
        self._claims = []
        # inside of another operation it has to know it
        if at_once or not web.has_latent_requests or (current_variable.get() is not None and current_operation() is not None):
            operation = self._create_here(self.native)
            operation.begin(self.port)
            self.made = operation
            return
        self._began = time.time()
        self._store.latent[self] = True
        current_variable.set(self)

    async def begin_around(self, call: Callable[[], Awaitable[R]], web: WebApplication, *, at_once: bool = False) -> R:
        """`begin` it, and await ``call()`` so that a cancel interrupts it wherever it waits. It does not end with that.

        Raises:
            OperationCancelled: The request was cancelled.
        """
        mark = thread_variable.set(self)  # threads that the framework starts see it also once it has left them behind
        try:
            self.begin(web, at_once=at_once, scope=OpenScope())
            result = await call()
        except BaseException as error:
            if not self._leave_scope(error):
                raise
        else:
            self._leave_scope(None)
            return result
        finally:
            thread_variable.reset(mark)
        assert self.made is not None  # it was its cancel
        raise self.made.error()

    def _leave_scope(self, error: BaseException | None) -> bool:
        """Whether it was its cancel that interrupted what was inside."""
        operation = self.made if error is None else self.make()  # waits for whoever is at it: it may be cancelled already
        scope, self.cancel_scope = self.cancel_scope, None
        if operation is not None:
            return operation.leave_scope(error)
        return scope is not None and scope.__exit__(type(error) if error else None, error, None)

    def make(self) -> RequestOperation | None:
        """The operation, which is there from now on; None where the request ended, or a fork lies between, before any look."""
        if self.made is None and self in self._store.latent:
            with _making:
                native = self.native  # read once: another thread may be ending the request
                if self.made is None and self in self._store.latent and native is not None:
                    operation = self._create_here(native)
                    operation.has_begun(self._began)
                    self._claims.append(operation)
                    # a signal handler may be interrupted here, or have come in between, with another
                    first = self._claims[0]
                    if isinstance(first, RequestOperation):
                        first.appear()
                        self.made = first
                    self._store.latent.pop(self, None)
        return self.made

    def end(self, error: BaseException | None = None) -> None:
        """The last byte was sent, the stream was closed, or ``error`` ended it all. Any thread; the first call counts."""
        made, store = self.made, self._store
        if made is None and error is None and self in store.latent:
            claims = self._claims
            store.count_unseen(claims, time.time() - self._began)
            claims.append(UNSEEN)
            if isinstance(claims[0], RequestOperation):
                made = self.make()  # waits for whoever is at it: what is not registered yet cannot leave
            else:
                store.latent.pop(self, None)
        elif made is None:  # it has ended, or a fork lies between; or it was made just now
            made = self.make()
        if made is not None:
            made.end(error)
        self.native = None  # which knows this
        if current_variable.get() is self:
            current_variable.set(None)


def making() -> threading.RLock:
    """The lock under which what belongs to a request is made, once. It may be taken again inside: by signal handlers."""
    return _making


_making = threading.RLock()


def _forget_the_lock() -> None:
    global _making
    _making = threading.RLock()


forks.run_in_child(_forget_the_lock)
