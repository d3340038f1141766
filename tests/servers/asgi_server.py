"""An ASGI server's side of one request, as a test writes it down: what comes from the client, and what becomes of it."""

from __future__ import annotations

from collections import deque
from typing import Any

import anyio

from cancelable_core.servers.asgi_client import Message, Scope

__all__ = ["DISCONNECT", "SOCKET_DISCONNECT", "AsgiServer", "body", "scope", "socket_scope"]

DISCONNECT: Message = {"type": "http.disconnect"}
SOCKET_DISCONNECT: Message = {"type": "websocket.disconnect", "code": 1006}


def body(data: bytes = b"", *, more: bool = True) -> Message:
    """A piece of a request's body."""
    return {"type": "http.request", "body": data, "more_body": more}


def scope(path: str = "/", **changes: Any) -> Scope:
    """A request's."""
    asgi = {"version": "3.0", "spec_version": "2.3"}
    return {"type": "http", "method": "GET", "path": path, "headers": [], "asgi": asgi, **changes}


def socket_scope(path: str = "/") -> Scope:
    """A WebSocket's."""
    return {"type": "websocket", "path": path, "headers": [], "asgi": {"version": "3.0", "spec_version": "2.3"}}


class AsgiServer:
    """Says everything once, and pends when it has nothing to say, as the most taciturn of the real ones do.

    Two who read at once are an error: each would get a part of the body.
    """

    def __init__(self, *messages: Message | BaseException) -> None:
        self._messages = deque(messages)
        self._news = anyio.Event()
        self.readers = 0
        """How many are waiting in `receive` now."""
        self.taken = 0
        """How many messages were taken."""
        self.sent: list[Message] = []
        self.sending = anyio.Event()
        """Set once `send` was called while the way is not free."""
        self.way_is_free = anyio.Event()
        self.way_is_free.set()

    def say(self, *messages: Message | BaseException) -> None:
        """More comes from the client."""
        self._messages.extend(messages)
        self._news.set()

    def block(self) -> None:
        """Let nothing through until ``way_is_free`` is set."""
        self.way_is_free = anyio.Event()

    async def receive(self) -> Message:
        """What the application awaits."""
        assert not self.readers, "two read at once"
        self.readers += 1
        try:
            while not self._messages:
                self._news = anyio.Event()
                await self._news.wait()
            self.taken += 1
            message = self._messages.popleft()
            if isinstance(message, BaseException):
                raise message
            return message
        finally:
            self.readers -= 1

    async def send(self, message: Message) -> None:
        """What the application sends by."""
        if not self.way_is_free.is_set():
            self.sending.set()
        await self.way_is_free.wait()
        self.sent.append(message)

    @property
    def status(self) -> int:
        """That of the response."""
        status: int = self.sent[0]["status"]
        return status

    @property
    def headers(self) -> dict[str, str]:
        """Those of the response."""
        return {name.decode().lower(): value.decode() for name, value in self.sent[0]["headers"]}

    @property
    def content(self) -> bytes:
        """The response's body as far as it was sent."""
        return b"".join(message["body"] for message in self.sent[1:])
