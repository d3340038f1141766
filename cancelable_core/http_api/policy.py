"""Who is asking, and what they may do. Decisions are pure: no request, no database, no clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from ..models import OperationContext

__all__ = [
    "NOBODY_STATUSES",
    "Action",
    "AllowAll",
    "AuthorizationPolicy",
    "Decision",
    "OwnerOrStaff",
    "Principal",
    "StaffOnly",
    "as_principal",
]

NOBODY_STATUSES = frozenset({401, 403})
"""Where a ``principal`` callable refuses by the framework's own means with one of these, nobody is asking."""

_NOBODY = frozenset({"", "None"})
"""Ids that come from a missing user put into text; they own nothing."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is asking.

    Attributes:
        id: The asker's id, compared with the owner of operations. ``""`` and ``"None"`` become None: nobody.
        is_staff: Whether the asker may see and cancel what belongs to others.

    Raises:
        TypeError: For an id that is not text. Turn numbers into text yourself, so that 7 and "7" cannot be two people.
    """

    id: str | None = None
    is_staff: bool = False

    def __post_init__(self) -> None:
        if self.id is not None and not isinstance(self.id, str):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers without a type checker
            raise TypeError(f"a principal's id must be text or None, not {type(self.id).__name__}")
        object.__setattr__(self, "id", _somebody(self.id))

    @property
    def is_authenticated(self) -> bool:
        """Whether it is known who asks."""
        return self.id is not None or self.is_staff


def _somebody(text: str | None) -> str | None:
    return None if text is None or text in _NOBODY else text


class Action(StrEnum):
    """What is asked for. `VIEW` and `CANCEL` come with the operation, the others with None."""

    LIST = "list"
    VIEW = "view"
    STATISTICS = "statistics"
    CANCEL = "cancel"
    CANCEL_ALL = "cancel_all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A policy's answer.

    Attributes:
        allowed: Whether the action may go on. A refused `VIEW` or `CANCEL` looks like an unknown operation.
        owner_filter: For `LIST` and `CANCEL_ALL`: reach only this owner's operations; None for everybody's.
    """

    allowed: bool
    owner_filter: str | None = None


_ALLOWED = Decision(allowed=True)
_REFUSED = Decision(allowed=False)


class AuthorizationPolicy(Protocol):
    """Decides who may do what. Any object with this method will do."""

    def decide(self, principal: Principal, action: Action, context: OperationContext | None) -> Decision:
        """Decide.

        Args:
            principal: Who is asking.
            action: What for.
            context: The operation in question; None for the actions that are about many.

        Concurrency:
            Called from any thread, also on event loops: it must not block.
        """
        ...


@dataclass(frozen=True, slots=True)
class OwnerOrStaff:
    """The default: one's own operations for everybody, all of them for staff.

    Listing and cancelling many are for whoever is known, and reach his own operations only. Statistics are for staff. An
    operation without an owner is for whoever knows its id, if that id is secret, else for staff.
    """

    def decide(self, principal: Principal, action: Action, context: OperationContext | None) -> Decision:
        """See `AuthorizationPolicy.decide`."""
        if principal.is_staff:
            return _ALLOWED
        if action in (Action.LIST, Action.CANCEL_ALL):
            return Decision(allowed=principal.id is not None, owner_filter=principal.id)
        return Decision(allowed=context is not None and _may_touch(principal, context))


def _may_touch(principal: Principal, context: OperationContext) -> bool:
    owner = _somebody(context.owner)
    return context.id_is_secret if owner is None else owner == principal.id


@dataclass(frozen=True, slots=True)
class StaffOnly:
    """Everything for staff, nothing for others."""

    def decide(self, principal: Principal, action: Action, context: OperationContext | None) -> Decision:
        """See `AuthorizationPolicy.decide`."""
        return _ALLOWED if principal.is_staff else _REFUSED


@dataclass(frozen=True, slots=True)
class AllowAll:
    """Everything for everybody: for applications that guard the prefix by other means."""

    def decide(self, principal: Principal, action: Action, context: OperationContext | None) -> Decision:
        """See `AuthorizationPolicy.decide`."""
        return _ALLOWED


def as_principal(value: object, staff: Callable[[Any], object] | None = None) -> Principal:
    """Translate whatever the application says about who is asking.

    Args:
        value: A `Principal`; an id as text; None for nobody; or the application's user object, with its id in ``get_id()``,
            ``pk`` or ``id``. A user whose ``is_authenticated`` is false, or ``is_anonymous`` true, is nobody.
        staff: Says of an id or a user object whether it is staff; without it ``is_staff`` of the object counts. It is never
            asked about nobody, nor about a `Principal`.

    Raises:
        TypeError: For anything else.
    """
    if isinstance(value, Principal):
        return value
    if value is None or not _flag(value, "is_authenticated", default=True) or _flag(value, "is_anonymous", default=False):
        return Principal()
    principal = Principal(value if isinstance(value, str) else _id_of(value))
    if principal.id is None:
        return principal
    is_staff = staff(value) if staff is not None else _flag(value, "is_staff", default=False)
    return Principal(principal.id, is_staff=bool(is_staff))


def _flag(user: object, name: str, *, default: bool) -> bool:
    """A user's flag, which some applications write as a method; a method is always true."""
    value = getattr(user, name, default)
    return bool(value() if callable(value) else value)


def _id_of(user: object) -> str | None:
    get_id = getattr(user, "get_id", None)
    if callable(get_id):
        identity: object = get_id()
        return None if identity is None else str(identity)
    for name in ("pk", "id"):
        if hasattr(user, name):
            identity = getattr(user, name)
            return None if identity is None else str(identity)
    raise TypeError(
        f"cannot tell who {type(user).__name__!r} is: `principal` must return a Principal, an id as text, None,"
        " or a user object with get_id(), pk or id"
    )
