"""A cancel scope that a task is inside from some point on, and that is entered only when it is cancelled: most never are.

Entering one of anyio's costs as much as a tenth of a small request. On asyncio the scopes of a task are a chain in memory, each
knowing the one around it, so that one can be put in its place in the chain afterwards. That chain is private to anyio: where it
does not look as expected, and on trio, the scope is entered at once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

from .wakeup import Port, new_cancel_scope, port_of_asyncio_loop, running_port

if TYPE_CHECKING:
    import asyncio

__all__ = ["LateScope"]


class LateScope:
    """What the running task does from now on until `__exit__`, to be interrupted by `cancel` as by anyio's scopes.

    Concurrency:
        The loop's own thread only, but for `port`.
    """

    __slots__ = ("_cancelling", "_has_left", "_outer", "_port", "_scope", "_task")

    def __init__(self) -> None:
        self._scope: Any = None
        self._has_left = False
        try:
            task = self._task = _running_task()
        except RuntimeError:  # no loop of asyncio's runs here
            task = self._task = None
        if task is None:
            self._port = running_port()
            assert self._port is not None, "needs a running event loop (asyncio or trio)"
            self._scope = new_cancel_scope(self._port)
            self._scope.__enter__()
        else:
            state = _states.get(ref(task))
            self._outer = None if state is None else state.cancel_scope
            self._cancelling = task.cancelling()

    @property
    def port(self) -> Port:
        """Of the loop that the task runs on."""
        if self._task is not None:
            return port_of_asyncio_loop(self._task.get_loop())
        assert self._port is not None
        return self._port

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None, /
    ) -> bool:
        self._has_left = True
        return self._scope is not None and bool(self._scope.__exit__(exc_type, exc, traceback))

    @property
    def cancel_called(self) -> bool:
        """Whether `cancel` was called."""
        return self._scope is not None and bool(self._scope.cancel_called)

    @property
    def cancelled_caught(self) -> bool:
        """Whether the block ended by it."""
        return self._scope is not None and bool(self._scope.cancelled_caught)

    def cancel(self) -> None:
        """Interrupt the task wherever it waits, unless that is shielded, until `__exit__`; nothing after that."""
        if self._has_left:
            return
        if self._scope is None:
            self._scope = self._enter()
        self._scope.cancel()

    def _enter(self) -> Any:
        """Enter a scope inside of what the task was in at the beginning, and around what it has entered since."""
        task, outer = self._task, self._outer
        assert task is not None  # else it was entered at once
        scope: Any = new_cancel_scope(self.port)
        state = _states.get(ref(task))
        innermost = outer if state is None else state.cancel_scope
        inside = _outermost_within(outer, innermost)
        if state is not None:
            state.cancel_scope = outer
        with _as_task(task):
            scope.__enter__()
        if state is not None and inside is not None:
            if outer is not None:
                outer._child_scopes.discard(inside)
            inside._parent_scope = scope
            scope._child_scopes.add(inside)
            scope._tasks.discard(task)  # it is the innermost one's
            state.cancel_scope = innermost
        if hasattr(scope, "_cancelling_at_enter"):  # of newer versions, which so see who else cancels the task
            scope._cancelling_at_enter = self._cancelling
        return scope


def _outermost_within(outer: Any, innermost: Any) -> Any:
    """Of a chain of scopes, the one next to ``outer``; None where there is none inside."""
    next_inside, scope = None, innermost
    while scope is not None and scope is not outer:
        next_inside, scope = scope, scope._parent_scope
    return next_inside


_states: dict[ref[asyncio.Task[Any]], Any] = {}
"""What anyio knows of asyncio's tasks."""


def _find_running_task() -> asyncio.Task[Any] | None:
    global _states, _running_task
    port = running_port()
    if port is None or port.is_trio:
        return None
    scope = new_cancel_scope(port)
    module = sys.modules[type(scope).__module__]
    if _is_as_expected(module, scope):
        _states, _running_task = module._task_states.data, sys.modules["asyncio"].current_task
    else:
        _running_task = _no_task
    return _running_task()


def _is_as_expected(module: Any, scope: object) -> bool:
    states, state = getattr(module, "_task_states", None), getattr(module, "TaskState", None)
    knows_tasks = isinstance(states, WeakKeyDictionary) and hasattr(state, "cancel_scope")
    return knows_tasks and all(hasattr(scope, name) for name in ("_parent_scope", "_child_scopes", "_tasks"))


def _no_task() -> None:
    """Where anyio's chain of scopes is not as expected, no scope comes late."""


_running_task: Callable[[], asyncio.Task[Any] | None] = _find_running_task
"""The running task, if it is asyncio's."""


@contextmanager
def _as_task(task: asyncio.Task[Any]) -> Generator[None]:
    """As if this ran in a task, which waits somewhere (see "Extending" in asyncio's documentation)."""
    asyncio = sys.modules["asyncio"]
    loop, running = task.get_loop(), asyncio.current_task()
    if running is task:
        yield
        return
    if running is not None:
        asyncio._leave_task(loop, running)
    asyncio._enter_task(loop, task)
    try:
        yield
    finally:
        asyncio._leave_task(loop, task)
        if running is not None:
            asyncio._enter_task(loop, running)
