"""What a setting's value may be. Each check returns the value as it is kept, or says in a ValueError what it must be."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection
from datetime import timedelta
from typing import Any, cast

from ..registry import OperationRegistry, ThreadSafeRegistry
from ..store import OperationStore
from ..transports.base import Transport

__all__ = ["Check", "flag", "function", "one_of", "origins", "policy", "prefix", "registry", "seconds", "whole"]

Check = Callable[[Any], Any]

_NOT_LITERAL = re.compile(r"[\s?#%<>{}\\]")
"""What servers, routers or browsers would read as something else than these very characters."""

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(\[[0-9a-f:.]+\]|[^\s/?#@*:\[\]]+)(:[0-9]{1,5})?")


def flag(value: object) -> bool:
    """True or False, and nothing that merely looks like it."""
    if not isinstance(value, bool):
        raise ValueError("must be True or False")
    return value


def whole(*, minimum: int, maximum: int | None = None, unset: bool = False) -> Check:
    """A whole number in a range; None too where ``unset``."""
    wanted = f"must be a whole number, {_range(minimum, maximum)}" + (", or None" if unset else "")

    def check(value: object) -> int | None:
        if value is None and unset:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or not _within(value, minimum, maximum):
            raise ValueError(wanted)
        return value

    return check


def seconds(*, minimum: float = 0, above_minimum: bool = False, unset: bool = False) -> Check:
    """A length of time in seconds, or a timedelta; None too where ``unset``."""
    wanted = f"must be a finite number of seconds, {'more than' if above_minimum else 'at least'} {minimum}"
    wanted += ", or None" if unset else ""

    def check(value: object) -> float | None:
        if value is None and unset:
            return None
        length = value.total_seconds() if isinstance(value, timedelta) else value
        if not isinstance(length, int | float) or isinstance(length, bool) or not math.isfinite(length):
            raise ValueError(wanted)
        if length < minimum or (above_minimum and length == minimum):
            raise ValueError(wanted)
        return float(length)

    return check


def one_of(*choices: str) -> Check:
    """One of some words."""

    def check(value: object) -> str:
        if value not in choices:
            raise ValueError(f"must be one of {', '.join(map(repr, choices))}")
        return str(value)

    return check


def function(value: object) -> object:
    """Something to call, or None."""
    if value is not None and not callable(value):
        raise ValueError("must be a callable or None")
    return value


def policy(value: object) -> object:
    """An object that decides; its class is not one."""
    if isinstance(value, type) or not callable(getattr(value, "decide", None)):
        raise ValueError("must be an object with a method decide(principal, action, context), like OwnerOrStaff()")
    return value


def registry(value: object) -> object:
    """A face, what lies behind one, or None for the process's default store."""
    if value is not None and not isinstance(value, ThreadSafeRegistry | OperationRegistry | OperationStore | Transport):
        raise ValueError("must be a ThreadSafeRegistry, an OperationRegistry, an OperationStore or None")
    return value


def prefix(value: object) -> str:
    """The path that the routes lie under, kept with a leading and without a trailing slash."""
    path = value.strip("/") if isinstance(value, str) else None
    if path == "":
        raise ValueError("must be a path of its own such as '/jobs': at the root, the routes would take over the application's")
    if path is None or _NOT_LITERAL.search(path) or not {"", ".", ".."}.isdisjoint(path.split("/")):
        raise ValueError("must be a path such as '/jobs', without parameters")
    return f"/{path}"


def origins(value: object) -> tuple[str, ...]:
    """Several full origins."""
    if isinstance(value, str | bytes) or not isinstance(value, Collection):
        raise ValueError("must be a list of origins such as ['https://app.example.com']")
    found = tuple(cast("Collection[object]", value))
    for origin in found:
        if not isinstance(origin, str) or _ORIGIN.fullmatch(origin.lower()) is None:
            raise ValueError(f"must have origins such as 'https://app.example.com', without path or wildcard, not {origin!r}")
    return tuple(origin.lower() for origin in found if isinstance(origin, str))


def _range(minimum: int, maximum: int | None) -> str:
    return f"at least {minimum}" if maximum is None else f"from {minimum} to {maximum}"


def _within(value: int, minimum: int, maximum: int | None) -> bool:
    return value >= minimum and (maximum is None or value <= maximum)
