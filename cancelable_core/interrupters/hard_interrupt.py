"""An exception raised in a running thread by another one: the last resort, for pure Python that never asks."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from ..regions import Interrupter

if TYPE_CHECKING:
    from ..operation import Cancelable

__all__ = ["HardInterrupt", "hard_interrupt"]

P = ParamSpec("P")
R = TypeVar("R")

_raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
_raise_in.argtypes = [ctypes.c_ulong, ctypes.py_object]


class HardInterrupt(BaseException):
    """Raised somewhere inside a function that `Cancelable.hard_interrupt` calls; it does not come out of that call.

    Not an ``Exception``, so that ``except Exception`` inside the function does not take it for one of its own.
    """


def hard_interrupt(operation: Cancelable, func: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """See `Cancelable.hard_interrupt`."""
    operation.check()
    injection = Injection()
    try:
        with operation.interruptible(injection):
            return injection.run(partial(func, *args, **kwargs))
    except HardInterrupt as error:
        raise operation.error() from error


class Injection(Interrupter):
    """One call in this thread, and the right to raise `HardInterrupt` in it, which is given once.

    A list of one element decides who comes first, in one C call: `interrupt`, which takes the element and raises, or the end
    of the call, which takes it so that nobody raises any more. If the end comes second, it waits for the other to have raised,
    and takes back what was not delivered. All that can happen only inside `run`, which is why this is a call and not a
    ``with`` block: the interpreter delivers such an exception where it enters a function, ``__exit__`` included, and then
    nothing of ours stands around it.

    Concurrency:
        `run` in the thread that made it, once; `interrupt` in any other.
    """

    def __init__(self) -> None:
        self._thread_id = threading.get_ident()
        self._claim: list[None] = []
        self._begun = False
        self._asked = False
        self._raised = False

    def interrupt(self) -> None:
        """Raise in the call, if it has begun; keep it from beginning, if it has not."""
        self._asked = True
        try:
            self._claim.pop()
        except IndexError:
            return  # not begun: it will see that we asked; or over
        _raise_in(self._thread_id, HardInterrupt)
        self._raised = True

    def is_interruption(self, error: Exception) -> bool:
        """Never: it is no ``Exception``."""
        return False

    def run(self, func: Callable[[], R]) -> R:
        """Call it.

        Raises:
            HardInterrupt: It was interrupted, whatever it made of that. From then on nothing is on its way any more.
        """
        try:
            self._begun = True
            self._claim.append(None)
            if self._asked:  # looked at after the claim was laid out: one of the two sees the other
                raise HardInterrupt
            return func()
        finally:
            self._end()  # may be interrupted itself, before its first line

    def _end(self) -> None:
        try:
            self._claim.pop()
            return
        except IndexError:
            if not self._begun:
                return
        while not self._raised:
            time.sleep(0)
        try:
            # in place of the other's, if that was not delivered. Taken back with NULL, as the interpreter allows, it would
            # leave a mark before 3.13: every call then looks for it, and on 3.11 under a tracer no function begins any more
            _raise_in(self._thread_id, HardInterrupt)
            while True:
                pass
        except HardInterrupt:
            pass
        raise HardInterrupt
