"""What goes in and what comes out: plain values that every adapter can make from, and turn into, its framework's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from ..models import OperationContext
    from ..store import EndToken
    from .policy import Principal
    from .waiting import Place

__all__ = ["BODY_LIMIT", "EndpointRequest", "EndpointResponse", "Wait"]

BODY_LIMIT = 65_536
"""The longest body that is read, in bytes. An adapter reads at most one byte more, so that a longer one can be told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointRequest:
    """One request to the endpoints.

    Attributes:
        method: The method as sent; methods are case-sensitive (RFC 9110 §9.1).
        path: What follows the prefix, percent-decoded. ``""`` and ``"/"`` are the list.
        principal: Who is asking.
        query: The query's pairs in order, decoded; see `query_pairs`.
        headers: Header values by lower-cased name; repeated ones joined by ``", "``.
        body: At most `BODY_LIMIT` + 1 bytes of the body.
        origin: The application's own origin (``https://example.com``) or host (``example.com:8000``) as the framework
            believes it; None when it is not known.
        body_lost: Whether there was a body that the server kept to itself (a chunked one, handed over as empty).
        native: The framework's request. Opaque; never looked at here.
    """

    method: str
    path: str
    principal: Principal
    query: tuple[tuple[str, str], ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes = b""
    origin: str | None = None
    body_lost: bool = False
    native: object = None


@dataclass(frozen=True, slots=True)
class EndpointResponse:
    """The whole answer, ready to be sent as it is."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """The answer depends on an operation's end: wait for it, at most so long, then ask ``resume`` for the answer.

    It holds one of the few waiting places and gives it back when it is left as a context manager::

        with wait:
            response = wait.resume(registry.wait_for(wait.operation_id, wait.seconds))

    Attributes:
        operation_id: Whose end to wait for.
        seconds: How long at most.
        ended: Cancelled when the operation has ended; None where only the registry can tell.
        resume: Makes the answer of the operation as it ended, or of None when the time ran out.
        place: The waiting place held.
    """

    operation_id: str
    seconds: float
    ended: EndToken | None
    resume: Callable[[OperationContext | None], EndpointResponse]
    place: Place

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.place.leave()
