"""The five routes, as they lie under the prefix."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Route", "RouteMatch", "match_route"]

_READING = ("GET", "HEAD", "OPTIONS")
_WRITING = ("POST", "OPTIONS")


class Route(StrEnum):
    """What a path leads to; the value is how it is written, for documentation."""

    LIST = "/"
    STATISTICS = "/stats"
    OPERATION = "/{operation_id}"
    CANCEL = "/{operation_id}/cancel"
    CANCEL_ALL = "/cancel-all"

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods it takes, in the order of the ``Allow`` header."""
        return _WRITING if self in (Route.CANCEL, Route.CANCEL_ALL) else _READING


@dataclass(frozen=True, slots=True)
class RouteMatch:
    """A route and the operation that the path names, if it names one."""

    route: Route
    operation_id: str = ""


_WORDS = {"": Route.LIST, "stats": Route.STATISTICS, "cancel-all": Route.CANCEL_ALL}


def match_route(path: str) -> RouteMatch | None:
    """Find the route of a path below the prefix; None when there is none. Whether an operation exists is not asked here."""
    first, *rest = path.removeprefix("/").split("/")
    if not rest:
        route = _WORDS.get(first)
        return RouteMatch(Route.OPERATION, first) if route is None else RouteMatch(route)
    return RouteMatch(Route.CANCEL, first) if first and rest == ["cancel"] else None
