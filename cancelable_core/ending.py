"""Whether this process was told to end. Set in a signal handler, so it is one list and no lock."""

from __future__ import annotations

from . import forks

__all__ = ["begin", "is_under_way", "take_back"]

_begun: list[object] = []


def begin() -> bool:
    """The process was told to end; True for the one caller that says so first. Lock-free."""
    if _begun:
        return False
    claim = object()
    _begun.append(claim)
    return _begun[0] is claim


def is_under_way() -> bool:
    """Whether the process was told to end: what cancels an operation from outside now does so for that reason."""
    return bool(_begun)


def take_back() -> None:
    """It goes on after all, as in a test or in a forked child."""
    _begun.clear()


forks.run_in_child(take_back)
