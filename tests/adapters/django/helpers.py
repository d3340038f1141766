"""Sites made of a test's own views, and what drives them: Django's clients, and its handlers as servers call them."""

from __future__ import annotations

import asyncio
import json
import math
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any
from wsgiref.util import setup_testing_defaults

import anyio
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.test import AsyncClient, Client, override_settings
from django.urls import include, path

from cancelable_core import Cancelable, OperationContext
from cancelable_django import current_operation
from cancelable_django.conf import registry
from tests.core.helpers import DEADLINE_SECONDS, Running, becomes_true_soon, happens

__all__ = [
    "Answer",
    "Exchange",
    "Running",
    "Visit",
    "ask_asgi",
    "ask_async_client",
    "ask_client",
    "becomes_true_soon",
    "ended",
    "happens",
    "site",
    "start_wsgi",
    "urlconf",
]


def urlconf(*patterns: Any, **handlers: Any) -> ModuleType:
    """A URLconf of these patterns, and our routes."""
    module = ModuleType("urls_of_this_test")
    vars(module).update(handlers, urlpatterns=[*patterns, path("jobs/", include("cancelable_django.urls"))])
    return module


@contextmanager
def site(*patterns: Any, **settings: Any) -> Generator[None]:
    """Serve these patterns, with these settings."""
    with override_settings(**{"ROOT_URLCONF": urlconf(*patterns), **settings}):
        yield


class Visit:
    """What a view tells its test."""

    def __init__(self) -> None:
        self.begun, self.over = threading.Event(), threading.Event()
        self.error: BaseException | None = None
        self.thread: int | None = None
        self._operation: Cancelable | None = None

    @contextmanager
    def view(self) -> Generator[Cancelable]:
        """Around a view's body."""
        operation = current_operation()
        assert operation is not None, "the view runs in no operation"
        self._operation, self.thread = operation, threading.get_ident()
        self.begun.set()
        try:
            yield operation
        except BaseException as error:
            self.error = error
            raise
        finally:
            self.over.set()

    @property
    def operation(self) -> Cancelable:
        assert self._operation is not None, "the view was not called"
        return self._operation


def ended(operation: Cancelable) -> OperationContext:
    """What the registry remembers of an operation once it has ended; only requests that completed are forgotten."""
    context = registry().wait_for(operation.id, DEADLINE_SECONDS)
    return operation.context if context is None else context


@dataclass
class Answer:
    """A whole response, whoever gave it."""

    status: int
    headers: dict[str, str]
    body: bytes = b""

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def _answer(response: Any) -> Answer:
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Answer(response.status_code, headers, b"" if response.streaming else response.content)


def ask_client(path: str, **headers: str) -> Answer:
    """Ask as Django's test client does, which is WSGI."""
    return _answer(Client(headers=headers, raise_request_exception=False).get(path))


def ask_async_client(path: str, **headers: str) -> Answer:
    """The same for the async client, on a loop that ends with the request."""
    return asyncio.run(_ask_async_client(path, headers))


async def _ask_async_client(path: str, headers: dict[str, str]) -> Answer:
    # with the request: as an option of the client, Django loses them
    return _answer(await AsyncClient(raise_request_exception=False).get(path, headers=headers))


def ask_asgi(path: str, **headers: str) -> Answer:
    """Ask Django's real ASGI application."""

    async def ask() -> Answer:
        return await Exchange(path, headers=headers).answer()

    return asyncio.run(ask())


@dataclass
class Exchange:
    """One request as an ASGI server makes it; the client may leave at any time."""

    path: str
    method: str = "GET"
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    root_path: str = ""
    takes_chunks: float = math.inf
    """How many parts of the body the server can send on at all; the next one waits, as behind a slow client."""

    def __post_init__(self) -> None:
        self._to_receive: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._to_receive.put_nowait({"type": "http.request", "body": self.body, "more_body": False})
        self.sent: list[dict[str, Any]] = []
        self.waits_to_send = False
        self.task = asyncio.ensure_future(get_asgi_application()(self._scope(), self._to_receive.get, self._send))

    def _scope(self) -> dict[str, Any]:
        path, _, query = self.path.partition("?")
        headers = {"host": "testserver", **{name.replace("_", "-"): value for name, value in self.headers.items()}}
        return {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": self.method,
            "scheme": "http",
            "path": path,
            "root_path": self.root_path,
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            "server": ("testserver", 80),
            "client": ("127.0.0.1", 4),
        }

    async def _send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.body" and len(self.sent) > self.takes_chunks:
            self.waits_to_send = True
            await asyncio.Event().wait()
        self.sent.append(message)

    def leave(self) -> None:
        """What a server says when the connection has gone."""
        self._to_receive.put_nowait({"type": "http.disconnect"})

    @property
    def body_so_far(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)

    async def over(self) -> BaseException | None:
        """Wait until the application has returned; what it raised, if it did."""
        with anyio.fail_after(DEADLINE_SECONDS):
            await asyncio.wait([self.task])
        try:
            return self.task.exception()
        except asyncio.CancelledError as error:
            return error

    async def answer(self) -> Answer:
        """The whole response."""
        error = await self.over()
        if error is not None:
            raise error
        start = self.sent[0]
        headers = {name.decode().lower(): value.decode() for name, value in start["headers"]}
        return Answer(start["status"], headers, self.body_so_far)


def start_wsgi(path: str, **environ: Any) -> tuple[Answer, Iterator[bytes], Callable[[], None]]:
    """Ask Django's real WSGI application; the response's beginning, its chunks, and how the server closes it."""
    environ = {"PATH_INFO": path, "HTTP_HOST": "testserver", **environ}
    setup_testing_defaults(environ)
    answer = Answer(0, {})

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> None:
        answer.status = int(status[:3])
        answer.headers = {name.lower(): value for name, value in headers}

    response: Iterable[bytes] = get_wsgi_application()(environ, start_response)
    return answer, iter(response), getattr(response, "close", lambda: None)
