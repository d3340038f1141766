"""What every token stands on: a flag with one verdict, those who watch it, and the links between flags.

Everything reachable from a cancel is lock-free, because it must work in a signal handler that interrupted the very thread
it would wait for. Two steps carry the proof, both single C calls: a verdict is claimed by appending it to a list and looking
whether it became the first; a watcher is claimed by popping it from a dict. Whoever registers adds first and looks at the
verdict second, whoever cancels claims first and collects second, so that one of the two always sees the other.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from . import forks
from .models import CancelationReason
from .verdicts import SEAL, Verdict

if TYPE_CHECKING:
    from .wakeup import Port

__all__ = ["CALL", "LINK", "WAKE", "Flag", "StrongLink", "Watcher", "cancel_tree"]

logger = logging.getLogger("cancelable_core")

LINK, WAKE, CALL = range(3)
"""What a watcher wants: to pass the cancel on, to be woken, to be called. In this order a cancel serves them."""


class Watcher:
    """Something that a token tells of its cancel, in one of the three ways. Compared by identity."""

    __slots__ = ()

    port: Port | None = None
    """WAKE: the event loop on which `wake` has to be called; None for whoever can be woken from anywhere."""

    def pass_on(self, verdict: Verdict) -> tuple[Flag, Verdict] | None:
        """LINK: the token to cancel next, with what it is told."""
        raise NotImplementedError

    def wake(self) -> None:
        """WAKE: wake somebody. Lock-free."""
        raise NotImplementedError

    def call(self) -> None:
        """CALL: run user code, outside of everything."""
        raise NotImplementedError

    def dropped(self) -> None:
        """The token was sealed: no cancel will come. Lock-free."""


class Flag:
    """Set once, with a verdict, or sealed against ever being set. `CancelationToken` is its public face.

    Concurrency:
        Everything may be called from any thread, any event loop and any signal handler, and never blocks.
    """

    __slots__ = ("__weakref__", "_verdicts", "_watchers", "is_cancelled")

    is_cancelled: bool
    """Whether somebody cancelled. A plain attribute, since it is read in hot loops; read-only by contract."""

    def __init__(self) -> None:
        self.is_cancelled = False
        self._verdicts: list[Verdict] = []
        self._watchers: dict[Watcher, int] = {}

    @property
    def verdict(self) -> Verdict | None:
        """What the winner said; None while nobody has, and for ever once the token is sealed."""
        verdicts = self._verdicts
        return verdicts[0] if verdicts and verdicts[0] is not SEAL else None

    @property
    def is_sealed(self) -> bool:
        """Whether its operation ended before anybody cancelled; it never will be cancelled then."""
        verdicts = self._verdicts
        return bool(verdicts) and verdicts[0] is SEAL

    def claim(self, verdict: Verdict) -> bool:
        """Write the verdict if it is the first. Losers help to show the winner's, who may have been interrupted in between."""
        verdicts = self._verdicts
        if not verdicts:
            verdicts.append(verdict)
        first = verdicts[0]
        if first is not SEAL:
            self.is_cancelled = True
        return first is verdict

    def seal(self) -> bool:
        """Make later cancels lose. Returns whether the seal came first, that is whether nobody had cancelled."""
        verdicts = self._verdicts
        if not verdicts:
            verdicts.append(SEAL)
        if verdicts[0] is not SEAL:
            return False  # the watchers are the canceller's, who may be on the way to them
        if self._watchers:
            for watcher, _ in self.take_watchers():
                watcher.dropped()
        return True

    def watch(self, watcher: Watcher, phase: int) -> bool:
        """Add a watcher. False when the token was decided before and nobody else will serve the watcher."""
        self._watchers[watcher] = phase
        if not self._verdicts:
            return True
        if self._verdicts[0] is not SEAL:
            self.is_cancelled = True  # whoever wrote the verdict may not have come to the flag yet
        return self._watchers.pop(watcher, None) is None

    def unwatch(self, watcher: Watcher) -> None:
        """Take a watcher back; harmless when it is gone."""
        self._watchers.pop(watcher, None)

    def take_watchers(self) -> Iterable[tuple[Watcher, int]]:
        """Claim the watchers one by one, oldest first."""
        watchers = self._watchers
        for watcher in list(watchers):
            phase = watchers.pop(watcher, None)
            if phase is not None:
                yield watcher, phase

    def unlink(self) -> None:
        """Let go of what this token listens to; called once it is cancelled. Lock-free."""


class StrongLink(Watcher):
    """From a token to one that lives as long as its operation is open, which takes the link back itself."""

    __slots__ = ("_generation", "_reason", "_target")

    def __init__(self, target: Flag, reason: CancelationReason | None = None) -> None:
        self._target = target
        self._reason = reason
        self._generation = forks.generation

    def pass_on(self, verdict: Verdict) -> tuple[Flag, Verdict] | None:
        if self._generation != forks.generation:
            return None  # its operation belongs to the process before a fork, where somebody could stop
        return self._target, verdict if self._reason is None else verdict._replace(reason=self._reason)


def cancel_tree(
    root: Flag,
    verdict: Verdict,
    run_callbacks: Callable[[Callable[[], None]], object] | None = None,
) -> bool:
    """Cancel a token and all that is linked from it: flag all, wake all, and only then call callbacks.

    Args:
        run_callbacks: Takes the work of calling them elsewhere, for cancellers that must not be held up. Default: here.

    Returns:
        Whether ``verdict`` was the first.
    """
    if not root.claim(verdict):
        return False
    sleepers: list[Watcher] = []
    callbacks: list[Watcher] = []
    tree = [(root, verdict)]
    for token, told in tree:  # grows while it is walked: linked ten thousand deep is still a loop
        token.unlink()
        for watcher, phase in token.take_watchers():
            if phase == LINK:
                passed = watcher.pass_on(told)
                if passed is not None and passed[0].claim(passed[1]):
                    tree.append(passed)
            else:
                (sleepers if phase == WAKE else callbacks).append(watcher)
    _wake_all(sleepers)
    if callbacks:
        if run_callbacks is None:
            _call_all(callbacks)
        else:
            run_callbacks(lambda: _call_all(callbacks))
    return True


def _wake_all(sleepers: list[Watcher]) -> None:
    """Wake threads here and tasks on their loops: the deepest of the tree first, all of one loop in one go.

    A scope of anyio hands its cancel down by recursion to those inside that were not cancelled yet. In one go, so that no task
    runs in between and finds itself cancelled, but not what is around it.
    """
    loops: dict[int, tuple[Port, list[Watcher]]] = {}
    for watcher in reversed(sleepers):
        port = watcher.port
        if port is None:
            watcher.wake()
        else:
            loops.setdefault(id(port.native), (port, []))[1].append(watcher)
    for port, watchers in loops.values():
        # posted even from the loop's own thread: a signal handler may have interrupted the loop anywhere
        port.post(_wake_each, watchers)


def _wake_each(watchers: list[Watcher]) -> None:
    for watcher in watchers:
        try:
            watcher.wake()
        except Exception:
            logger.exception("a task could not be told of its cancel; the others are")


def _call_all(callbacks: list[Watcher]) -> None:
    interrupt: BaseException | None = None
    for watcher in callbacks:
        try:
            watcher.call()
        except BaseException as error:  # an interrupt: it passes on, but not at the price of the other callbacks
            interrupt = interrupt or error
    if interrupt is not None:
        raise interrupt
