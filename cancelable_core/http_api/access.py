"""The operations as one asker may see them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from .client_ids import canonical_operation_id
from .payloads import operation_payload
from .policy import Action
from .problems import ProblemCode, Refusal, problem_response

if TYPE_CHECKING:
    from ..models import OperationContext
    from ..registry import ThreadSafeRegistry
    from .policy import Decision, Principal
    from .settings import Settings

__all__ = ["Access", "refuse_unknown_operation"]

_NOBODY_ASKS = (
    "It is not known who is asking. Sign in; or, if you run this application, set `principal` to a callable that says who"
    " is asking, or `policy` to another rule than the default."
)
_NOT_FOR_YOU = (
    "This is not for everybody. If you run this application, set `staff` to a callable that says who may, or `policy` to"
    " another rule than the default."
)


@dataclass(frozen=True, slots=True)
class Access:
    """A registry behind a policy."""

    registry: ThreadSafeRegistry
    settings: Settings

    def require(self, principal: Principal, action: Action) -> Decision:
        """Decide about an action on many operations.

        Raises:
            Refusal: 403, saying what to set.
        """
        decision = self.settings.policy.decide(principal, action, None)
        if not decision.allowed:
            refuse_forbidden(principal)
        return decision

    def find(self, principal: Principal, operation_id: str, action: Action) -> OperationContext:
        """The operation, under its own id or under one that the asker chose.

        Raises:
            Refusal: 404, whether it is unknown or somebody else's; 403 where it may be seen, but not cancelled.
        """
        hidden = True
        for candidate in self._candidates(principal, operation_id):
            context = self.registry.get_operation(candidate)
            if context is None:
                continue
            if self._allows(principal, action, context):
                return context
            hidden = hidden and not self._allows(principal, Action.VIEW, context)
        if not hidden:
            refuse_forbidden(principal)
        refuse_unknown_operation()

    def describe(self, principal: Principal, context: OperationContext) -> dict[str, Any]:
        """The operation's JSON object, as far as it is the asker's business."""
        return operation_payload(context, for_staff=principal.is_staff, with_metadata=self.settings.expose_metadata)

    def _candidates(self, principal: Principal, operation_id: str) -> Iterator[str]:
        yield operation_id
        chosen = canonical_operation_id(principal, operation_id) if self.settings.accept_operation_ids else None
        if chosen is not None:
            yield chosen

    def _allows(self, principal: Principal, action: Action, context: OperationContext) -> bool:
        return self.settings.policy.decide(principal, action, context).allowed


def refuse_forbidden(principal: Principal) -> NoReturn:
    """Say that it is not allowed, and what to set."""
    detail = _NOT_FOR_YOU if principal.is_authenticated else _NOBODY_ASKS
    raise Refusal(problem_response(ProblemCode.FORBIDDEN, detail))


def refuse_unknown_operation() -> NoReturn:
    """Say that there is no such operation, in the same bytes whatever the reason."""
    raise Refusal(problem_response(ProblemCode.NOT_FOUND, "There is no such operation, or it is not yours."))
