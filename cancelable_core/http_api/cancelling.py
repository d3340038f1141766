"""The endpoints that cancel: one operation, or many."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from ..models import CancelationReason, CancelOutcome
from .access import refuse_unknown_operation
from .exchange import Wait
from .fields import FieldReader
from .parsing import body_fields
from .payloads import json_response
from .policy import Action
from .problems import ProblemCode, Refusal, problem_response
from .reading import ALL_KINDS, DEFAULT_KINDS, LIVE, NAME_LIMIT, OWNER_LIMIT, reaches_nobody
from .waiting import would_wait_for_itself

if TYPE_CHECKING:
    from ..models import CancelResult, OperationContext
    from .access import Access
    from .exchange import EndpointRequest, EndpointResponse
    from .policy import Principal
    from .waiting import WaitingRoom

__all__ = ["MESSAGE_LIMIT", "cancel_all", "cancel_operation"]

logger = logging.getLogger("cancelable_core")

MESSAGE_LIMIT = 500
"""The longest message, in characters."""


def cancel_operation(access: Access, room: WaitingRoom, request: EndpointRequest, operation_id: str) -> EndpointResponse | Wait:
    """``POST /<id>/cancel``"""
    fields = FieldReader(body_fields(request))
    message = fields.message("message", max_length=MESSAGE_LIMIT)
    seconds = fields.seconds("wait_seconds", maximum=access.settings.max_wait_seconds)
    fields.finish()
    before = access.find(request.principal, operation_id, Action.CANCEL)
    ended = access.registry.transport.ended(before.id) if seconds > 0 else None  # before the cancel: it may act at once
    origin = _origin(request.principal)
    result = access.registry.cancel_operation(before.id, CancelationReason.MANUAL, message, origin=origin)
    logger.info("cancel of operation %a by %a: %s", before.id, origin, result.outcome)
    done = _Cancelled(access, request.principal, before, result)
    if not result.accepted:
        done.refuse()
    if seconds > 0 and not would_wait_for_itself(access.registry, before.id):
        place = room.take()
        if place is not None:
            return Wait(operation_id=before.id, seconds=seconds, ended=ended, resume=done.resume, place=place)
    return done.so_far()


def cancel_all(access: Access, request: EndpointRequest) -> EndpointResponse:
    """``POST /cancel-all``"""
    decision = access.require(request.principal, Action.CANCEL_ALL)
    fields = FieldReader(body_fields(request))
    name = fields.text("name", max_length=NAME_LIMIT)
    owner = fields.text("owner", max_length=OWNER_LIMIT)
    kinds = fields.choices("kind", ALL_KINDS, default=DEFAULT_KINDS) or ()
    statuses = fields.choices("status", LIVE)
    if not fields.flag("all") and owner is None and _means_everything(name):
        fields.refuse("all", "must be true to cancel everything you may cancel; or give a name or an owner")
    fields.finish()
    if reaches_nobody(decision, owner):
        return json_response(202, {"requested": 0})
    origin = _origin(request.principal)
    requested = access.registry.cancel_all(
        name,
        kind=kinds,
        owner=decision.owner_filter or owner,
        status=statuses,
        reason=CancelationReason.MANUAL,
        origin=origin,
    )
    logger.info("cancel of all operations named %a by %a: %d requested", name, origin, requested)
    return json_response(202, {"requested": requested})


@dataclass(frozen=True, slots=True)
class _Cancelled:
    """What was asked of one operation, and what to say about it now and later."""

    access: Access
    principal: Principal
    before: OperationContext
    result: CancelResult

    def refuse(self) -> NoReturn:
        """There was nothing left to cancel."""
        outcome = self.result.outcome
        if outcome is CancelOutcome.UNKNOWN:
            refuse_unknown_operation()
        lost = outcome is CancelOutcome.LOST
        code = ProblemCode.LOST if lost else ProblemCode.FINISHED
        detail = "Its process died; nobody can say how far it came." if lost else "It had ended before it could be cancelled."
        raise Refusal(problem_response(code, detail, operation=self._described(self._now())))

    def so_far(self) -> EndpointResponse:
        """It was told; nobody knows yet how it ends."""
        return self._answer(202, self._now())

    def resume(self, context: OperationContext | None) -> EndpointResponse:
        """It has ended, or the time ran out."""
        if context is None or not context.status.is_final:
            return self.so_far()
        return self._answer(200, context)

    def _now(self) -> OperationContext:
        """The newest view. A completed request leaves none; then it is the last one that there was."""
        return self.access.registry.get_operation(self.before.id) or self.before

    def _answer(self, status: int, context: OperationContext) -> EndpointResponse:
        return json_response(status, {"outcome": self.result.outcome, "operation": self._described(context)})

    def _described(self, context: OperationContext) -> dict[str, Any]:
        return self.access.describe(self.principal, context)


def _origin(principal: Principal) -> str:
    """Who cancels, as the operation remembers it."""
    return "http" if principal.id is None else f"http:{principal.id}"


def _means_everything(name: str | None) -> bool:
    """Whether a pattern leaves nothing out; ``**`` and ``?*`` are ``*`` in other words."""
    return name is None or not name.strip("*?")
