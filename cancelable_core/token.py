"""`CancelationToken`: one flag, one reason, first caller wins; and tokens that are fed by others."""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Callable, Generator
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

import anyio.lowlevel

from .callables import is_coroutine_function
from .flags import CALL, LINK, WAKE, Flag, Watcher, cancel_tree
from .models import CancelationReason
from .verdicts import Verdict, cancelation_error, reason_and_message
from .waiters import TaskWaiter, ThreadWaiter, refuse_to_block

__all__ = ["CancelAnswer", "CancelationToken", "CompositeToken", "Registration"]

logger = logging.getLogger("cancelable_core")


class CancelAnswer:
    """The answer to an asynchronous cancel that has acted already; awaiting it gives the bool and never suspends."""

    __slots__ = ("_won",)

    def __init__(self, won: bool) -> None:
        self._won = won

    def __bool__(self) -> bool:
        return self._won

    def __await__(self) -> Generator[None, None, bool]:
        return self._won
        yield


class CancelationToken(Flag):
    """A thread-safe, loop-safe, signal-safe flag with a reason. It is set once and never reset.

    Concurrency:
        Every method may be called from any thread. ``cancel`` and ``cancel_sync`` may also be called from any event loop and
        any signal handler, never block, and need nothing started beforehand.
    """

    __slots__ = ()

    # --- cancelling

    def cancel_sync(
        self,
        reason: CancelationReason | str | None = None,
        message: str | None = None,
        *,
        origin: str | None = None,
    ) -> bool:
        """Cancel, from anywhere.

        Args:
            reason: A `CancelationReason`, or plain text, which is the message of a manual cancel.
            message: Free text; a TypeError when ``reason`` is plain text too.
            origin: Who or what cancels.

        Returns:
            True for the one caller who was first; everybody else changes nothing and gets False.

        Concurrency:
            Any thread, any loop, any signal handler. Sleeping tasks and waiting threads of the whole tree of linked tokens are
            woken before the first callback runs; callbacks run here, in the cancelling thread.
        """
        reason, message = reason_and_message(reason, message)
        return cancel_tree(self, Verdict(reason, message, origin, time.time()))

    def cancel(
        self,
        reason: CancelationReason | str | None = None,
        message: str | None = None,
        *,
        origin: str | None = None,
    ) -> CancelAnswer:
        """The same as `cancel_sync`; has acted when it returns, and what it returns may be awaited for the bool."""
        return CancelAnswer(self.cancel_sync(reason, message, origin=origin))

    # --- observing

    @property
    def reason(self) -> CancelationReason | None:
        """Why it was cancelled; None while it is not."""
        verdict = self.verdict
        return verdict and verdict.reason

    @property
    def message(self) -> str | None:
        """The winner's words, if any."""
        verdict = self.verdict
        return verdict and verdict.message

    @property
    def origin(self) -> str | None:
        """Who or what cancelled, if known."""
        verdict = self.verdict
        return verdict and verdict.origin

    @property
    def cancelled_at(self) -> datetime | None:
        """When it was cancelled, as an aware UTC datetime."""
        verdict = self.verdict
        return verdict and datetime.fromtimestamp(verdict.at, UTC)

    def check(self) -> None:
        """Raise `OperationCancelled` (`OperationTimedOut` after a timeout) if cancelled, every time."""
        if self.is_cancelled:
            raise cancelation_error(self._verdicts[0])

    def wait(self, timeout_seconds: float | None = None) -> bool:
        """Block this thread until the token is cancelled.

        Args:
            timeout_seconds: At most so long; None for as long as it takes.

        Returns:
            Whether the token is cancelled; False when the time ran out or its operation ended.

        Raises:
            RuntimeError: On a running event loop's thread; await `wait_for_cancel` there.
        """
        refuse_to_block("wait", "await wait_for_cancel()")
        if self.is_cancelled:
            return True
        waiter = ThreadWaiter()
        if self.watch(waiter, WAKE):
            try:
                waiter.block(timeout_seconds)
            finally:
                self.unwatch(waiter)
        return self.is_cancelled

    async def wait_for_cancel(self) -> None:
        """Sleep until the token is cancelled. The token of an operation that ended without a cancel never is."""
        await anyio.lowlevel.checkpoint()
        if self.is_cancelled:
            return
        waiter = TaskWaiter()
        if self.watch(waiter, WAKE) or not self.is_cancelled:
            try:
                await waiter.event.wait()
            finally:
                self.unwatch(waiter)

    def on_cancel(self, callback: Callable[[CancelationToken], object]) -> Registration:
        """Have ``callback(token)`` called once when the token is cancelled; at once, in this thread, when it is already.

        Args:
            callback: A plain function. What it raises is logged and stops nothing. The same one twice is two registrations.

        Returns:
            A registration to take back, or to use as a context manager.

        Raises:
            TypeError: For a coroutine function, which nobody could await, and for what cannot be called.
        """
        if not callable(callback):
            raise TypeError(f"on_cancel takes a callable, not {type(callback).__name__}")
        if is_coroutine_function(callback):
            raise TypeError("on_cancel takes a plain function; to await something, use wait_for_cancel() in a task of your own")
        registration = Registration(self, callback)
        if not self.watch(registration, CALL) and self.is_cancelled:
            registration.call()
        return registration

    @staticmethod
    def any_of(*tokens: CancelationToken) -> CompositeToken:
        """A token that is cancelled, with the same verdict, as soon as one of ``tokens`` is.

        Its parts hold it weakly until somebody waits on it or registers a callback: drop or `close` it, and nothing is left.
        """
        return _AnyOf(tokens)

    @staticmethod
    def all_of(*tokens: CancelationToken) -> CompositeToken:
        """A token that is cancelled, with the last one's verdict, once all of ``tokens`` are. Held like `any_of`."""
        return _AllOf(tokens)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.reason or 'not cancelled'}>"


class Registration(Watcher):
    """A callback on a token. `remove` takes it back, any number of times; so does leaving it as a context manager."""

    __slots__ = ("_callback", "_token")

    def __init__(self, token: CancelationToken, callback: Callable[[CancelationToken], object]) -> None:
        self._token = token
        self._callback = callback

    def remove(self) -> None:
        """Take the callback back. One that is running already is not waited for."""
        self._token.unwatch(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.remove()

    def call(self) -> None:
        try:
            self._callback(self._token)
        except Exception:
            logger.exception("a cancel callback raised; the others go on")


class CompositeToken(CancelationToken):
    """What `any_of` and `all_of` return: a token fed by others. Cancelling it directly cancels none of them."""

    __slots__ = ("_dependants", "_links", "_parts")

    def __init__(self, parts: tuple[CancelationToken, ...]) -> None:
        super().__init__()
        if not parts:
            raise ValueError("a composite token needs at least one token")
        for part in parts:
            if not isinstance(part, CancelationToken):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise TypeError(f"tokens are composed of tokens, not {type(part).__name__}; an operation has one as its .token")
        self._parts = parts
        self._dependants: dict[Watcher, bool] = {}
        self._links = [_PartLink(self, part) for part in parts]
        # not the source's own watch(), which would take the link for somebody who depends on it
        decided = [link.source.verdict for link in self._links if not CancelationToken.watch(link.source, link, LINK)]
        verdicts = [verdict for verdict in decided if verdict is not None]
        if verdicts and self.part_was_cancelled():
            cancel_tree(self, self.decisive(verdicts))
        if self._verdicts:
            self.unlink()

    def part_was_cancelled(self) -> bool:
        """Whether this part's cancel completes the condition."""
        raise NotImplementedError

    def decisive(self, verdicts: list[Verdict]) -> Verdict:
        """Which of the verdicts that were there before the composite would have been passed on."""
        raise NotImplementedError

    def close(self) -> None:
        """Stop listening to the parts; idempotent."""
        self.unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def unlink(self) -> None:
        for link in self._links:
            CancelationToken.unwatch(link.source, link)
        self._dependants.clear()
        self._anchor()

    def watch(self, watcher: Watcher, phase: int) -> bool:
        self._dependants[watcher] = True
        self._anchor()
        waiting = super().watch(watcher, phase)
        if self._verdicts:
            self._let_go(watcher)
        return waiting

    def unwatch(self, watcher: Watcher) -> None:
        super().unwatch(watcher)
        self._let_go(watcher)

    def _let_go(self, watcher: Watcher) -> None:
        if self._dependants.pop(watcher, False):
            self._anchor()

    def _anchor(self) -> None:
        """Have the parts keep this token alive while somebody depends on it; composites among them are needed as well then.

        Lock-free: everybody who changed the dependants comes here, and after the last write somebody looks once more.
        """
        unsettled: list[CompositeToken] = [self]
        for token in unsettled:  # grows while it is walked, like the tree in a cancel
            needed = None
            while needed is not bool(token._dependants):
                needed = bool(token._dependants)
                for link in token._links:
                    link.anchor = token if needed else None
                    source = link.source
                    if isinstance(source, CompositeToken) and needed is not source._dependants.get(link, False):
                        if needed:
                            source._dependants[link] = True
                        else:
                            source._dependants.pop(link, None)
                        unsettled.append(source)


class _PartLink(Watcher):
    """From a part to its composite: weak, until it is anchored."""

    __slots__ = ("_target", "anchor", "source")

    def __init__(self, target: CompositeToken, source: CancelationToken) -> None:
        self.source = source
        self.anchor: CompositeToken | None = None
        # the finaliser pops from dicts: it takes no lock wherever the collector happens to run it
        self._target = weakref.ref(target, lambda _: source.unwatch(self))

    def pass_on(self, verdict: Verdict) -> tuple[CancelationToken, Verdict] | None:
        target = self._target()
        return (target, verdict) if target is not None and target.part_was_cancelled() else None


class _AnyOf(CompositeToken):
    __slots__ = ()

    def part_was_cancelled(self) -> bool:
        return True

    def decisive(self, verdicts: list[Verdict]) -> Verdict:
        return min(verdicts, key=_by_instant)


class _AllOf(CompositeToken):
    __slots__ = ()

    def part_was_cancelled(self) -> bool:
        return all(part.is_cancelled for part in self._parts)

    def decisive(self, verdicts: list[Verdict]) -> Verdict:
        return max(verdicts, key=_by_instant)


def _by_instant(verdict: Verdict) -> float:
    return verdict.at
