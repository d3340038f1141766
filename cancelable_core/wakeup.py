"""How any thread wakes a task on asyncio or trio. The only file that knows event-loop types.

A `Port` is remembered where a task starts to wait. Whoever cancels posts a callback through it: from the loop's own thread,
another loop's, a plain thread, or a signal handler. Both `call_soon_threadsafe` (asyncio, uvloop) and `run_sync_soon` (trio)
are documented for all of them, return at once, and need nothing started beforehand.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import TYPE_CHECKING, Any, cast

import anyio

from . import forks

if TYPE_CHECKING:
    import asyncio
    from typing import Protocol

    class CancelScope(Protocol):
        """What the backends' cancel scopes have in common."""

        def __enter__(self) -> object: ...
        def __exit__(self, exc_type: Any, exc: Any, traceback: Any, /) -> bool | None: ...
        def cancel(self) -> None: ...
        @property
        def cancel_called(self) -> bool: ...
        @property
        def cancelled_caught(self) -> bool: ...


__all__ = [
    "Port",
    "context_for_a_thread",
    "is_native_cancelation",
    "loop_is_running_here",
    "names_the_loop",
    "new_cancel_scope",
    "running_port",
    "running_task",
    "was_asked_to_stop",
]


def _find_running_loop() -> object | None:
    """No loop of asyncio can be running before it is loaded, and loading it costs more than all of the suite."""
    # the package's, which comes last: while another thread loads asyncio.events, there is one that knows no loop ever
    find = getattr(sys.modules.get("asyncio"), "_get_running_loop", None)
    if find is None:
        return None
    global _running_asyncio_loop
    # public in spite of its name: in asyncio.events.__all__; without a loop it says None rather than raise
    _running_asyncio_loop = find
    return _running_asyncio_loop()


_running_asyncio_loop: Callable[[], object | None] = _find_running_loop


def _in_trio() -> bool:
    trio = sys.modules.get("trio")
    return trio is not None and bool(trio.lowlevel.in_trio_run())


class Port:
    """Where to leave a callback so that one event loop runs it soon."""

    __slots__ = ("_generation", "_post", "is_trio", "native")

    def __init__(self, native: Any, post: Callable[..., object], *, is_trio: bool) -> None:
        self.native = native
        """The asyncio loop or the trio token."""
        self.is_trio = is_trio
        self._post = post
        self._generation = forks.generation

    def post(self, func: Callable[..., object], *args: object) -> bool:
        """Have the loop call ``func(*args)`` soon; False when the loop is closed or belongs to the process before a fork.

        Concurrency:
            Any thread and any signal handler; takes no lock of ours, never blocks.
        """
        if self._generation != forks.generation:
            return False  # the self-pipe is shared with the parent process: writing would wake a stranger
        try:
            self._post(func, *args)
        except RuntimeError:  # closed asyncio loop; trio.RunFinishedError is one too
            return False
        return True

    def is_running_here(self) -> bool:
        """Whether the calling thread is inside this very loop."""
        if self._generation != forks.generation:
            return False
        if self.is_trio:
            return _in_trio() and sys.modules["trio"].lowlevel.current_trio_token() is self.native
        return _running_asyncio_loop() is self.native

    def call_later(self, seconds: float, func: Callable[[], object]) -> Callable[[], object] | None:
        """Arm the loop's own timer; returns what disarms it, or None where the loop has none that is cheap (trio).

        Concurrency:
            On the loop's own thread only.
        """
        if self.is_trio:
            return None
        handle: asyncio.TimerHandle = self.native.call_later(seconds, func)
        return handle.cancel

    def spawn(self, start: Callable[[], Coroutine[Any, Any, None]], context: Context, *, ended: Callable[[], object]) -> object:
        """Run a coroutine function as a task of its own, owned by nobody; it must not raise. Keep what is returned.

        Args:
            start: The coroutine function.
            context: The context variables of the task.
            ended: Called when an asyncio task is over: one that is cancelled before its first step never runs any of ``start``.
                On trio every task takes its first step, and ``ended`` is not called.

        Concurrency:
            On the loop's own thread only.
        """
        if self.is_trio:
            return sys.modules["trio"].lowlevel.spawn_system_task(start, context=context)
        task: asyncio.Task[None] = self.native.create_task(start(), context=context)
        task.add_done_callback(lambda _: ended())
        return task


def running_port(known: Port | None = None) -> Port | None:
    """The port of the loop that runs in this thread, or None; ``known``, if it is of that loop."""
    if known is not None and known.is_running_here():
        return known
    # trio first: as a guest it runs inside an asyncio loop's callbacks
    if _in_trio():
        token = sys.modules["trio"].lowlevel.current_trio_token()
        return Port(token, token.run_sync_soon, is_trio=True)
    loop: Any = _running_asyncio_loop()
    return None if loop is None else Port(loop, loop.call_soon_threadsafe, is_trio=False)


def names_the_loop(variable: ContextVar[Any]) -> bool:
    """Whether this context variable says which kind of loop runs here (sniffio's); it must stay where that is true.

    Code that finds it elsewhere, in a thread or a loop of the other kind, takes itself to be inside the loop it came from.
    """
    sniffio = sys.modules.get("sniffio")
    return sniffio is not None and variable is sniffio.current_async_library_cvar


def context_for_a_thread() -> Context:
    """A copy of this context for code that runs outside the loop, and may start one of its own."""
    context = copy_context()
    sniffio = sys.modules.get("sniffio")
    if sniffio is not None:
        context.run(sniffio.current_async_library_cvar.set, None)
    return context


def loop_is_running_here() -> bool:
    """Whether this thread is inside a running event loop, where blocking would stop everything."""
    return _running_asyncio_loop() is not None or _in_trio()


def running_task() -> object | None:
    """The task that runs in this thread, for comparing identities; None without a loop."""
    if _in_trio():
        lowlevel = sys.modules["trio"].lowlevel
        return cast("object", lowlevel.current_task()) if lowlevel.in_trio_task() else None
    return None if _running_asyncio_loop() is None else _current_asyncio_task()


def _current_asyncio_task() -> Any:
    return sys.modules["asyncio"].current_task()


def was_asked_to_stop() -> bool:
    """Whether somebody cancels the running task, or a scope around it, so that a native cancelation that comes here is his.

    On asyncio it may be a stranger's: whoever awaits a future that was cancelled meets the same exception. Without a running
    task, as in a thread that a loop waits for, it can only have come from outside.
    """
    if _in_trio() or _running_asyncio_loop() is None:
        return True
    task = _current_asyncio_task()
    return task is None or task.cancelling() > 0 or anyio.current_effective_deadline() == -math.inf


_scope_classes: dict[bool, type[Any]] = {}


def new_cancel_scope(port: Port, *, shield: bool = False) -> CancelScope:
    """A cancel scope of the running backend."""
    scope_class = _scope_classes.get(port.is_trio)
    if scope_class is None:
        # anyio.CancelScope() returns the backend's class and lets Python initialise it a second time: ask once, then go direct
        scope_class = _scope_classes[port.is_trio] = type(anyio.CancelScope())
    scope: CancelScope = scope_class(shield=shield)
    return scope


def is_native_cancelation(error: BaseException) -> bool:
    """Whether a loop's own cancelation passes, alone or as a group of nothing else."""
    asyncio, trio = sys.modules.get("asyncio.exceptions"), sys.modules.get("trio")
    native: tuple[type[BaseException], ...] = () if asyncio is None else (asyncio.CancelledError,)
    if trio is not None:
        native += (trio.Cancelled,)
    if isinstance(error, BaseExceptionGroup):
        members = cast("BaseExceptionGroup[BaseException]", error).exceptions
        return all(is_native_cancelation(member) for member in members)
    return isinstance(error, native)
