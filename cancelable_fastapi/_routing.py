"""The endpoint that a router finds, at the moment when it does: nothing else of Starlette's tells before the endpoint runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.types import Scope

__all__ = ["RoutedScope"]


class RoutedScope(dict[str, Any]):
    """A request's scope for what runs inside. Routers write what they found into it, which it passes on.

    Args:
        outer: The scope of the layers around. What is written here is written there too: some of them look for the route.
        found: Called with every endpoint that a router finds: a mounted application first, then the one inside.
    """

    __slots__ = ("_found", "_outer")

    def __init__(self, outer: Scope, found: Callable[[object], object]) -> None:
        super().__init__(outer)
        self._outer = outer
        self._found = found

    def update(self, *args: Any, **values: Any) -> None:
        written: dict[str, Any] = dict(*args, **values)
        super().update(written)
        self._outer.update(written)
        if "endpoint" in written:
            self._found(written["endpoint"])

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        self._outer[key] = value

    def __delitem__(self, key: str) -> None:
        super().__delitem__(key)
        self._outer.pop(key, None)

    def setdefault(self, key: str, default: Any = None) -> Any:
        if key not in self:
            self[key] = default
        return self[key]

    def pop(self, key: str, *default: Any) -> Any:
        self._outer.pop(key, None)
        return super().pop(key, *default)
