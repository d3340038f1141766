"""The endpoints as one value-in, value-out object, and the two ways to wait for its answer."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import anyio

from ..registry import OperationRegistry
from ..token import CancelationToken
from .access import Access
from .cancelling import cancel_all, cancel_operation
from .exchange import EndpointResponse
from .payloads import plain_response
from .problems import ProblemCode, Refusal, problem_response
from .reading import list_operations, show_operation, show_statistics
from .routing import Route, match_route
from .same_origin import comes_from_same_origin
from .waiting import WaitingRoom

if TYPE_CHECKING:
    from ..registry import ThreadSafeRegistry
    from ..token import CompositeToken
    from .exchange import EndpointRequest, Wait
    from .routing import RouteMatch
    from .settings import Settings

__all__ = ["HttpApi"]


class HttpApi:
    """All endpoints, for every framework. An adapter makes an `EndpointRequest`, calls one method, sends what comes back.

    Args:
        registry: Whose operations to show and cancel.
        settings: What the application chose.
        default_max_waiting: How many may wait at once where ``max_waiting`` is not set: 4 where a wait holds a thread of
            the server, 100 where it holds a task.

    Concurrency:
        One object serves all threads and event loops of a process.
    """

    def __init__(self, registry: ThreadSafeRegistry, settings: Settings, *, default_max_waiting: int) -> None:
        self._registry = registry
        self._async_registry = OperationRegistry(registry.transport)
        self._settings = settings
        self._access = Access(registry, settings)
        places = default_max_waiting if settings.max_waiting is None else settings.max_waiting
        self._room = WaitingRoom(places)
        self._stopping = CancelationToken()

    @property
    def free_waiting_places(self) -> int:
        """How many more could wait right now."""
        return self._room.free

    def handle(self, request: EndpointRequest) -> EndpointResponse | Wait:
        """Answer, or say what the answer waits for. `respond` and `arespond` do the waiting, too.

        HEAD is answered as GET is, ``Content-Length`` included, with an empty body (RFC 9110 §9.3.2).
        """
        try:
            answer = self._dispatch(request)
        except Refusal as refusal:
            answer = refusal.response
        if request.method == "HEAD" and isinstance(answer, EndpointResponse):
            return replace(answer, body=b"")
        return answer

    def respond(self, request: EndpointRequest, *, until: CancelationToken | None = None) -> EndpointResponse:
        """Answer, waiting in this thread where the client asked for it.

        Args:
            until: Ends a wait early: cancelled by whoever sees the client leave.

        Concurrency:
            Any thread without a running event loop.
        """
        answer = self.handle(request)
        if isinstance(answer, EndpointResponse):
            return answer
        with answer:
            if answer.ended is None:
                return answer.resume(self._registry.wait_for(answer.operation_id, answer.seconds))
            with self._either(answer.ended, until) as either:
                either.wait(answer.seconds)
            return answer.resume(answer.ended.context)

    async def arespond(self, request: EndpointRequest, *, until: CancelationToken | None = None) -> EndpointResponse:
        """Answer, waiting in this task where the client asked for it.

        Args:
            until: Ends a wait early, with an answer; cancelling the task ends it without one.

        Concurrency:
            Any event loop, any task; a cancelled one gives its waiting place back.
        """
        answer = self.handle(request)
        if isinstance(answer, EndpointResponse):
            return answer
        with answer:
            if answer.ended is None:
                return answer.resume(await self._async_registry.wait_for(answer.operation_id, answer.seconds))
            with self._either(answer.ended, until) as either, anyio.move_on_after(answer.seconds):
                await either.wait_for_cancel()
            return answer.resume(answer.ended.context)

    def end_waits(self) -> None:
        """Answer all who wait, now and from now on: the server is about to stop.

        Concurrency:
            Any thread, any event loop, any signal handler.
        """
        self._stopping.cancel_sync()

    def _either(self, ended: CancelationToken, until: CancelationToken | None) -> CompositeToken:
        """Whatever ends a wait: the operation's end, the server's, and what the adapter watches."""
        return CancelationToken.any_of(ended, self._stopping, *([] if until is None else [until]))

    def _dispatch(self, request: EndpointRequest) -> EndpointResponse | Wait:
        found = match_route(request.path)
        if found is None:
            raise Refusal(problem_response(ProblemCode.NOT_FOUND, "There is no such route."))
        allow = ("Allow", ", ".join(found.route.methods))
        if request.method == "OPTIONS":
            return plain_response(204, headers=(allow,))
        if request.method not in found.route.methods:
            detail = f"It takes {allow[1]}."
            raise Refusal(problem_response(ProblemCode.METHOD_NOT_ALLOWED, detail, headers=(allow,)))
        if request.method == "POST" and not comes_from_same_origin(request, self._settings.trusted_origins):
            raise Refusal(problem_response(ProblemCode.CROSS_ORIGIN, _CROSS_ORIGIN))
        return self._call(found, request)

    def _call(self, found: RouteMatch, request: EndpointRequest) -> EndpointResponse | Wait:
        access = self._access
        match found.route:
            case Route.LIST:
                return list_operations(access, request)
            case Route.STATISTICS:
                return show_statistics(access, request)
            case Route.OPERATION:
                return show_operation(access, request, found.operation_id)
            case Route.CANCEL:
                return cancel_operation(access, self._room, request, found.operation_id)
            case Route.CANCEL_ALL:
                return cancel_all(access, request)


_CROSS_ORIGIN = (
    "A page of another origin sent this. If you run this application and mean to allow that page, put its origin into"
    " `trusted_origins`; behind a proxy, make sure that the host it was asked for reaches the application."
)
