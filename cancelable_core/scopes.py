"""A cancel scope that a token cancels, from any thread. Operations, thread calls and streams await inside one."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

from .flags import WAKE, Watcher
from .token import CancelationToken
from .wakeup import is_native_cancelation, new_cancel_scope, running_port, was_asked_to_stop

if TYPE_CHECKING:
    from .wakeup import CancelScope, Port

__all__ = ["OpenScope", "TokenScope"]


class OpenScope:
    """A cancel scope that the running task is inside from now on, until `__exit__`; and the port of its loop."""

    __slots__ = ("native", "port")

    def __init__(self) -> None:
        global _newest_port
        port = _newest_port = running_port(_newest_port)
        assert port is not None, "needs a running event loop (asyncio or trio)"
        self.port: Port = port
        self.native = new_cancel_scope(port)
        self.native.__enter__()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        return bool(self.native.__exit__(exc_type, exc, traceback))


_newest_port: Port | None = None
"""Of the loop that the newest scope was opened on; usually there is only that one."""


class TokenScope(Watcher):
    """Native, level-triggered cancelation of the block inside as soon as the token is cancelled (anyio semantics)."""

    __slots__ = ("_scope", "_token", "port")

    def __init__(self, token: CancelationToken) -> None:
        port = running_port()
        if port is None:
            raise RuntimeError("async with needs a running event loop (asyncio or trio); use a plain with in threads")
        self.port: Port | None = port
        self._token = token
        self._scope: CancelScope | None = None

    @classmethod
    def around(cls, scope: CancelScope, token: CancelationToken, port: Port) -> Self:
        """The same for a scope that was entered already, by the task that will leave it here. Any thread."""
        adopted = cls.__new__(cls)
        adopted.port, adopted._token, adopted._scope = port, token, scope
        token.watch(adopted, WAKE)
        return adopted

    def __enter__(self) -> Self:
        assert self.port is not None
        scope = new_cancel_scope(self.port)
        scope.__enter__()
        self._scope = scope
        if not self._token.watch(self, WAKE) and self._token.is_cancelled:
            scope.cancel()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        """Returns whether the scope caught its own cancelation; anything else passes on."""
        self._token.unwatch(self)
        scope, self._scope = self._scope, None  # a cancel still on its way finds nothing
        assert scope is not None
        scope.__exit__(exc_type, exc, traceback)
        # not the return value: on trio it is true for a block that ended normally
        return scope.cancelled_caught or (scope.cancel_called and self._lost_its_trace(exc))

    def _lost_its_trace(self, exc: BaseException | None) -> bool:
        """Whether a library put a cancelation of its own in the place of ours, which anyio then does not know.

        asgiref's `sync_to_async` does, if it is awaited where an error is being handled.
        """
        return exc is not None and is_native_cancelation(exc) and not was_asked_to_stop()

    def wake(self) -> None:
        if self._scope is not None:
            self._scope.cancel()
