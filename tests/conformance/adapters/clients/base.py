"""`AdapterClient`: one running application and the raw way to talk to it, the same for every framework.

Raw, because the test clients of the frameworks tidy up paths, queries and headers before they send them.
"""

from __future__ import annotations

import json
import queue
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, ClassVar, Self

from cancelable_core import (
    Cancelable,
    OperationCancelled,
    OperationContext,
    OperationKind,
    OperationStatus,
    OperationStore,
    ThreadSafeRegistry,
)

from ..apps.work import DEADLINE_SECONDS, gate, reset_gates

__all__ = ["HOST", "AdapterClient", "Answer", "Exchange", "Headers", "SentRequest", "body_pieces"]

HOST = "testserver"

Headers = Iterable[tuple[str, str]]


@dataclass(frozen=True)
class SentRequest:
    """A request as it goes over the wire.

    Attributes:
        method: The method.
        path: The path as on the request line, percent-encoded; nobody changes it.
        query: What follows the ``?``.
        headers: All headers, with names in lower case.
        body: The body.
        chunked: Whether the body is sent in chunks, without ``Content-Length``.
    """

    method: str
    path: str
    query: bytes
    headers: tuple[tuple[str, str], ...]
    body: bytes
    chunked: bool


@dataclass(frozen=True)
class Answer:
    """A response as it came over the wire; ``is_complete`` is false when the application broke it off."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    is_complete: bool = True

    def __getitem__(self, name: str) -> str | None:
        """The value of a header, or None."""
        values = [value for each, value in self.headers if each == name]
        assert len(values) < 2, f"{name} came {len(values)} times"
        return values[0] if values else None

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def code(self) -> str:
        """What comes after ``urn:cancelable:`` in the problem that this is."""
        assert self["content-type"] == "application/problem+json", self
        urn, _, code = self.json["type"].rpartition(":")
        assert (urn, self.json["status"]) == ("urn:cancelable", self.status), self
        return str(code)

    @property
    def ids(self) -> list[str]:
        """The ids of a list, in order."""
        assert self.status == 200, self
        return [operation["id"] for operation in self.json["operations"]]

    @property
    def fields(self) -> list[str]:
        """The fields that a 422 complains about."""
        assert (self.status, self.code) == (422, "invalid"), self
        return [error["field"] for error in self.json["errors"]]


@dataclass
class Exchange:
    """One request under way. The driver posts what the application says, the test takes it in order.

    The messages are ``(status, headers)``, chunks of the body, and at the end True, or False where the application broke off.
    """

    sent: SentRequest
    error: BaseException | None = None
    """What the application raised into the server."""
    _messages: queue.Queue[Any] = field(default_factory=queue.Queue)
    _on_leave: Callable[[], object] = lambda: None

    def post(self, message: object) -> None:
        self._messages.put(message)

    def when_left(self, leave: Callable[[], object]) -> None:
        """What the driver does when the client goes away."""
        self._on_leave = leave

    def leave(self) -> None:
        """The client goes away."""
        self._on_leave()

    def head(self) -> tuple[int, tuple[tuple[str, str], ...]]:
        """Status and headers, once they were sent."""
        head = self._take()
        assert isinstance(head, tuple), f"no response: {self.error!r}"
        return head

    @property
    def is_answered(self) -> bool:
        """Whether something came back already."""
        return not self._messages.empty()

    def chunk(self) -> bytes | None:
        """The next part of the body; None at its end."""
        message = self._take()
        return message if isinstance(message, bytes) else None

    def answer(self) -> Answer:
        """The whole response."""
        status, headers = self.head()
        body = b""
        while isinstance(message := self._take(), bytes):
            body += message
        answer = Answer(status, headers, body, is_complete=message is True)
        length = answer["content-length"]
        if length is not None and self.sent.method != "HEAD":
            assert int(length) == len(body), answer
        return answer

    def _take(self) -> Any:
        return self._messages.get(timeout=DEADLINE_SECONDS)


class AdapterClient(ABC):
    """One application on one framework, with a registry of its own, and every answer that it gave.

    Args:
        settings: The adapter's settings.
    """

    name: ClassVar[str]
    template: ClassVar[str]
    """How the framework writes the route of the plain views."""
    is_asgi: ClassVar[bool]

    def __init__(self, **settings: Any) -> None:
        self.store = OperationStore()
        self.registry = ThreadSafeRegistry(self.store)
        self.transcript: list[tuple[SentRequest, Answer]] = []
        self._seeded: list[Cancelable] = []
        reset_gates()
        self._start(registry=self.store, **settings)

    @abstractmethod
    def _start(self, **settings: Any) -> None:
        """Make the application."""

    @abstractmethod
    def _send(self, exchange: Exchange) -> None:
        """Have the application handle a request, in a thread or a task of its own."""

    @abstractmethod
    def _close_jobs(self) -> None:
        """Accept no more jobs and cancel those that run."""

    @abstractmethod
    def _stop(self) -> None:
        """Take the application down."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        try:
            self._close_jobs()
            reset_gates()
            self._end_seeded()
            for operation in self.registry.list_operations(status=(OperationStatus.RUNNING, OperationStatus.CANCELLING)):
                self.registry.cancel_operation(operation.id)
                self.ended(operation.id)
        finally:
            self._stop()

    # --- talking to it

    def open(
        self,
        method: str,
        path: str,
        *,
        query: bytes | str = b"",
        user: str | None = None,
        headers: Headers = (),
        json: Any = None,
        body: bytes = b"",
        chunked: bool = False,
    ) -> Exchange:
        """Send a request and take the response in parts."""
        given = [(name.lower(), value) for name, value in headers]
        names = {name for name, _ in given}
        if json is not None:
            body = json_bytes(json)
            if "content-type" not in names:
                given.append(("content-type", "application/json"))
        if user is not None:
            given.append(("x-test-user", user))
        if "host" not in names:
            given.insert(0, ("host", HOST))
        if chunked:
            given.append(("transfer-encoding", "chunked"))
        elif body and "content-length" not in names:
            given.append(("content-length", str(len(body))))
        sent = SentRequest(method, path, query.encode() if isinstance(query, str) else query, tuple(given), body, chunked)
        exchange = Exchange(sent)
        self._send(exchange)
        return exchange

    def request(self, method: str, path: str, **options: Any) -> Answer:
        """Send a request and wait for the whole response, which goes into the transcript."""
        return self.take(self.open(method, path, **options))

    def take(self, exchange: Exchange) -> Answer:
        """The whole response to a request that is under way; goes into the transcript."""
        answer = exchange.answer()
        self.transcript.append((exchange.sent, answer))
        return answer

    def get(self, path: str, **options: Any) -> Answer:
        return self.request("GET", path, **options)

    def post(self, path: str, json: Any = None, **options: Any) -> Answer:
        return self.request("POST", path, json=json, **options)

    # --- what happens behind it

    def submit(self, work: str, job_id: str, *, user: str | None = None, query: str = "", submit: str = "submit") -> str:
        """Have the application submit a job; returns its id."""
        answer = self.open("POST", f"/{submit}/{work}/{job_id}", user=user, query=query).answer()
        assert answer.status == 202, answer
        return answer.text

    def start(self, work: str, job_id: str, **options: Any) -> str:
        """Have a job submitted, and wait until it stands at the gate of its name."""
        submitted = self.submit(work, job_id, **options)
        gate(job_id).wait_until_reached()
        return submitted

    def seed(self, operation_id: str, **options: Any) -> Cancelable:
        """A pending operation, straight into the store."""
        operation = Cancelable(operation_id=operation_id, registry=self.store, parent=None, **options)
        operation.announce()
        self._seeded.append(operation)
        return operation

    def _end_seeded(self) -> None:
        """Nobody else ever enters and leaves them; one that is cancelled would be waited for in vain."""
        for operation in self._seeded:
            with suppress(OperationCancelled), operation:
                pass

    def ended(self, operation_id: str) -> OperationContext:
        """How an operation ended, which is waited for."""
        context = self.registry.wait_for(operation_id, DEADLINE_SECONDS)
        assert context is not None, f"{operation_id} is unknown"
        assert context.status.is_final, context
        return context

    def cancel_arrived(self, operation_id: str) -> None:
        """Wait until a cancel of this operation was requested."""
        becomes_true(lambda: getattr(self.registry.get_operation(operation_id), "cancel_requested_at", None) is not None)

    @staticmethod
    def first_answered(exchanges: list[Exchange], count: int) -> list[Exchange]:
        """Wait until so many of some requests have an answer, and return those."""
        becomes_true(lambda: sum(exchange.is_answered for exchange in exchanges) >= count)
        return [exchange for exchange in exchanges if exchange.is_answered]

    def running_requests(self) -> list[OperationContext]:
        """The requests that are under way."""
        return self.registry.list_operations(kind=OperationKind.REQUEST)


def becomes_true(condition: Callable[[], object]) -> None:
    """Look again and again, where there is nothing to wait on."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not become true"
        time.sleep(0.001)


def json_bytes(value: Any) -> bytes:
    return json.dumps(value).encode()


def body_pieces(body: bytes, *, size: int = 16_384) -> list[bytes]:
    """A body as a server reads it; at least one piece."""
    return [body[start : start + size] for start in range(0, len(body), size)] or [b""]


_ID = re.compile(rb"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")
_INSTANT = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
_SECONDS = re.compile(rb'"(duration_seconds|average_duration_seconds|p50|p99)":[0-9.e-]+')
_CURSOR = re.compile(rb'"next":"[A-Za-z0-9_-]+"')


class Normaliser:
    """Replaces what differs from run to run: generated ids, instants, lengths of time and cursors."""

    def __init__(self) -> None:
        self._ids: dict[bytes, bytes] = {}

    def answer(self, answer: Answer) -> Answer:
        without_time = _SECONDS.sub(rb'"\1":<seconds>', answer.body)
        body = _CURSOR.sub(b'"next":"<cursor>"', _INSTANT.sub(b"<instant>", _ID.sub(self._id, without_time)))
        headers = [(name, self._id_text(value)) for name, value in answer.headers]
        if without_time != answer.body:  # its length was compared with the body already
            headers = [(name, "<length>" if name == "content-length" else value) for name, value in headers]
        return Answer(answer.status, tuple(headers), body, answer.is_complete)

    def _id(self, found: re.Match[bytes]) -> bytes:
        return self._ids.setdefault(found[0], b"<id %d>" % (len(self._ids) + 1))

    def _id_text(self, value: str) -> str:
        return _ID.sub(self._id, value.encode("latin-1")).decode("latin-1")


def normalised(transcript: Iterable[tuple[SentRequest, Answer]]) -> list[tuple[SentRequest, Answer]]:
    """A transcript that must be the same in every run."""
    normaliser = Normaliser()
    return [(sent, normaliser.answer(answer)) for sent, answer in transcript]
