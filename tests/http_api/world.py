"""A store with operations in it, and a client that asks about them in plain values."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from cancelable_core.errors import OperationCancelled
from cancelable_core.http_api import EndpointRequest, EndpointResponse, HttpApi, Principal, Settings, Wait, query_pairs
from cancelable_core.models import CancelationReason, OperationContext, OperationKind, OperationStatus
from cancelable_core.operation import Cancelable
from cancelable_core.registry import ThreadSafeRegistry
from cancelable_core.store import OperationStore

ALICE = Principal("alice")
BOB = Principal("bob")
STAFF = Principal("root", is_staff=True)
NOBODY = Principal()

JSON = {"content-type": "application/json"}
FORM = {"content-type": "application/x-www-form-urlencoded"}


class JobOperation(Cancelable):
    """An operation that counts as a job."""

    __slots__ = ()
    kind = OperationKind.JOB


class RequestOperation(Cancelable):
    """An operation that counts as a request."""

    __slots__ = ()
    kind = OperationKind.REQUEST


KINDS: dict[OperationKind, type[Cancelable]] = {
    OperationKind.OPERATION: Cancelable,
    OperationKind.JOB: JobOperation,
    OperationKind.REQUEST: RequestOperation,
}


@dataclass(frozen=True)
class Answer:
    """A response, easier to look into."""

    response: EndpointResponse

    @property
    def status(self) -> int:
        return self.response.status

    @property
    def headers(self) -> dict[str, str]:
        return dict(self.response.headers)

    @property
    def body(self) -> bytes:
        return self.response.body

    @property
    def json(self) -> Any:
        return json.loads(self.response.body)

    @property
    def fields(self) -> list[str]:
        """The names of the fields that a 422 complains about."""
        assert self.status == 422, self
        return [error["field"] for error in self.json["errors"]]

    @property
    def ids(self) -> list[str]:
        """The ids of a list, in order."""
        assert self.status == 200, self
        return [operation["id"] for operation in self.json["operations"]]


class World:
    """A store, its registry, and the HTTP API in front of them."""

    def __init__(self, *, default_max_waiting: int = 4, **settings: Any) -> None:
        self.store = OperationStore(history_limit=settings.pop("history_limit", 1000))
        self.registry = ThreadSafeRegistry(self.store)
        self.settings = Settings(**settings)
        self.api = HttpApi(self.registry, self.settings, default_max_waiting=default_max_waiting)

    def make(self, name: str | None = None, *, kind: OperationKind = OperationKind.OPERATION, **options: Any) -> Cancelable:
        """An operation that nobody knows yet."""
        return KINDS[kind](name, registry=self.store, **{"parent": None, **options})

    def pending(self, name: str | None = None, **options: Any) -> Cancelable:
        """A live operation that runs nowhere."""
        operation = self.make(name, **options)
        operation.announce()
        return operation

    def finished(self, status: OperationStatus, name: str | None = None, **options: Any) -> Cancelable:
        """An operation that has ended."""
        operation = self.pending(name, **options)
        finish(operation, status)
        return operation

    def request(self, method: str, path: str, **options: Any) -> EndpointRequest:
        """A request; ``body`` may be bytes or something for JSON, ``form`` something for a form, ``query`` a string."""
        headers: dict[str, str] = dict(options.pop("headers", {}))
        body = options.pop("body", b"")
        form = options.pop("form", None)
        if form is not None:
            body, headers = urlencode(form, doseq=True).encode(), {**FORM, **headers}
        elif not isinstance(body, bytes):
            body, headers = json.dumps(body).encode(), {**JSON, **headers}
        query = query_pairs(options.pop("query", ""))
        options.setdefault("principal", STAFF)
        return EndpointRequest(method=method, path=path, query=query, headers=headers, body=body, **options)

    def ask(self, method: str, path: str, **options: Any) -> Answer:
        """Ask and wait."""
        return Answer(self.api.respond(self.request(method, path, **options)))

    def get(self, path: str, **options: Any) -> Answer:
        return self.ask("GET", path, **options)

    def post(self, path: str, body: Any = b"", **options: Any) -> Answer:
        return self.ask("POST", path, body=body, **options)

    def wait(self, path: str, **options: Any) -> Wait:
        """Ask something that must be answered by a wait."""
        answer = self.api.handle(self.request("POST", path, **options))
        assert isinstance(answer, Wait), answer
        return answer

    def context(self, operation: Cancelable) -> OperationContext:
        """What the registry knows of an operation."""
        context = self.registry.get_operation(operation.id)
        assert context is not None
        return context


def finish(operation: Cancelable, status: OperationStatus) -> None:
    """Bring an operation to an end."""
    if status is OperationStatus.COMPLETED:
        with operation:
            pass
    elif status is OperationStatus.FAILED:
        with suppress(ZeroDivisionError), operation:
            raise ZeroDivisionError
    else:
        timed_out = status is OperationStatus.TIMED_OUT
        operation.cancel_sync(CancelationReason.TIMEOUT if timed_out else CancelationReason.MANUAL, "enough")
        with suppress(OperationCancelled), operation:
            pass
    assert operation.status is status
