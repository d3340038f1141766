"""The client of one ASGI request: somebody must be awaiting ``receive`` for a server to tell that it has gone.

Rules that were learned from runs against real servers (uvicorn, hypercorn, granian, daphne, gunicorn):

- One owner of the server's ``receive``: of two who await it at once, each gets a part of the body.
- A message that lies ready is handed out without a checkpoint: ``is_disconnected()`` of Starlette's requests asks inside a
  scope that is cancelled already.
- ``http.disconnect`` after the last byte of a response says nothing about the client: servers say it when they are done.
- What was said once is said again: hypercorn and daphne tell of a disconnect once, and pend for ever after that.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from contextvars import Context
from typing import Any

import anyio

from ..wakeup import Port, running_port

__all__ = ["LOOK_AHEAD_BYTES", "AsgiClient", "Message", "Receive", "Scope", "Send", "is_last_message"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

LOOK_AHEAD_BYTES = 65_536
"""So much of a body is held for an application that does not read it; then the server is not asked for more, and a client that
leaves stays unseen until the application reads."""

MESSAGE_BYTES = 256
"""What a message counts for beside its content, of which a client may send as many without as it likes."""

LAST_SECONDS = 1.0
"""How long to wait for a server that does not let go of a read that was cancelled."""

GRACE_SECONDS = 0.005
"""Requests that end sooner are never looked after: most do, and a task for each would cost more than they do."""


class AsgiClient:
    """A `ClientWatch` over one request's or one WebSocket's ``receive``; the application reads through `receive`.

    Until somebody wants to follow the client, `receive` passes straight through. From then on a task reads ahead, at most
    `LOOK_AHEAD_BYTES` and one message, and the application is given what was read, in order.

    Tell it of the last message (`sending_last`, `sent_last`), and `close` it when the application has returned.

    Args:
        receive: The server's.
        is_websocket: Whether it is a WebSocket's.
        port: Of the loop that the server called on; by default the one that runs here.

    Concurrency:
        `start` and `stop`: any thread. Everything else: the loop's own.
    """

    __slots__ = (
        "_ahead",
        "_ahead_bytes",
        "_changed",
        "_closed",
        "_disarm",
        "_error",
        "_farewell",
        "_in_flight",
        "_is_complete",
        "_is_completing",
        "_is_due",
        "_is_wanted",
        "_receive",
        "_scope",
        "_task",
        "_tell",
        "has_gone",
        "is_websocket",
        "port",
    )

    def __init__(self, receive: Receive, *, is_websocket: bool = False, port: Port | None = None) -> None:
        port = port or running_port()
        assert port is not None, "an ASGI server calls applications on its event loop"
        self.port: Port = port
        self._receive = receive
        self._tell: Callable[[], object] | None = None
        self._is_wanted = False
        self._is_due = False
        self._disarm: Callable[[], object] | None = None
        self._in_flight = 0
        self._task: object = None
        self._scope: anyio.CancelScope | None = None
        self._closed = False
        self._ahead: list[Message] = []
        self._ahead_bytes = 0
        self._changed: list[anyio.Event] = []
        self._farewell: Message | None = None
        self._error: Exception | None = None
        self.has_gone = False
        """Whether the client was seen to have gone before its response was complete."""
        self.is_websocket = is_websocket
        self._is_completing = self._is_complete = False

    # --- the watch

    def start(self, client_has_gone: Callable[[], object]) -> None:
        """Have ``client_has_gone()`` called when it has; see `ClientWatch`."""
        if not self._is_wanted:
            self._is_wanted = True
            self._tell = client_has_gone
            if self.port.is_running_here():
                self._begin_soon()
            else:
                self.port.post(self._begin_soon)

    def stop(self) -> None:
        """Nothing is told from now on; what was read ahead is still the application's."""
        self._is_wanted = True
        self._tell = None
        if self._disarm is not None and self.port.is_running_here():
            disarm, self._disarm = self._disarm, None  # a timer knows its context, which knows the request, and so this
            disarm()

    def _begin_soon(self) -> None:
        if self._tell is None or self._closed or self._is_completing:
            return
        if self.has_gone:
            self._client_has_gone()
            return
        self._disarm = self.port.call_later(GRACE_SECONDS, self._is_due_now)
        if self._disarm is None:
            self._is_due_now()

    def _is_due_now(self) -> None:
        self._disarm = None
        self._is_due = True
        self._begin()

    def _begin(self) -> None:
        """Read ahead from now on; from the return of the application's own read, where one is under way."""
        if self._is_due and self._tell is not None and self._task is None and not (self._in_flight or self._ends_here):
            self._task = self.port.spawn(self._read_ahead, Context(), ended=self._reader_has_ended)

    @property
    def _ends_here(self) -> bool:
        """Whether there is nothing more to be read."""
        return self._closed or self._farewell is not None or self._error is not None

    async def _read_ahead(self) -> None:
        try:
            with anyio.CancelScope() as self._scope:
                while not self._ends_here:
                    if self._ahead_bytes < LOOK_AHEAD_BYTES:
                        await self._read_one()
                    else:
                        await self._change()
        finally:
            self._reader_has_ended()

    async def _read_one(self) -> None:
        try:
            message = await self._receive()
        except Exception as error:
            self._error = error  # the application's, which would have met it
        else:
            self._take(message)
            if self._farewell is None:
                self._ahead.append(message)
                self._ahead_bytes += _size(message)
        self._wake_all()

    def _reader_has_ended(self) -> None:
        """Whoever ended it: the application reads by itself again, once it has what was read ahead."""
        self._task = None
        self._wake_all()

    def _take(self, message: Message) -> None:
        if message["type"] in ("http.disconnect", "websocket.disconnect"):
            self._farewell = message
            if not self._is_completing:
                self.has_gone = True
                # a WebSocket's application that waits for the next message hears of the end by that
                if not (message["type"] == "websocket.disconnect" and (self._changed or self._in_flight)):
                    self._client_has_gone()

    def _client_has_gone(self) -> None:
        tell, self._tell = self._tell, None
        if tell is not None:
            tell()

    # --- what the application reads

    async def receive(self) -> Message:
        """The next message for the application."""
        while True:
            if self._ahead:
                return self._next_ahead()
            if self._error is not None:
                raise self._error
            if self._farewell is not None:
                # never while the last bytes are on their way: a file would be given up before they are out
                if self._is_complete or not self._is_completing:
                    return self._farewell
                await self._change()
            elif self._task is None:
                message = await self._pass_through()
                if self._farewell is None:
                    return message
            elif self._is_complete and not self.is_websocket:
                return {"type": "http.disconnect"}  # a server may have nothing more to say; of a WebSocket it always has
            else:
                await self._change()

    def _next_ahead(self) -> Message:
        message = self._ahead.pop(0)  # of few, which `MESSAGE_BYTES` sees to
        was_full = self._ahead_bytes >= LOOK_AHEAD_BYTES
        self._ahead_bytes -= _size(message)
        if was_full:
            self._wake_all()
        return message

    async def _pass_through(self) -> Message:
        self._in_flight += 1
        try:
            message = await self._receive()
            self._take(message)
            return message
        finally:
            self._in_flight -= 1
            self._begin()

    async def _change(self) -> None:
        event = anyio.Event()
        self._changed.append(event)
        try:
            await event.wait()
        finally:
            if event in self._changed:
                self._changed.remove(event)

    def _wake_all(self) -> None:
        changed, self._changed = self._changed, []
        for event in changed:
            event.set()

    # --- what the application sends

    def sending_last(self) -> None:
        """The last message is about to be sent: the client may go when it likes."""
        self._is_completing = True
        if self._is_wanted:
            self.stop()

    def sent_last(self) -> None:
        """It was sent."""
        self._is_complete = True
        if self._changed:
            self._wake_all()

    def close(self) -> None:
        """The application has returned: nobody reads any more."""
        self._closed = True
        if self._is_wanted:
            self.stop()
        if self._scope is not None:
            self._scope.cancel()

    async def stop_reading(self) -> None:
        """The same, and wait until the server's ``receive`` is free again."""
        self.close()
        with anyio.move_on_after(LAST_SECONDS):
            while self._task is not None:
                await self._change()


def is_last_message(message: Message) -> bool:
    """Whether a message ends a response (ASGI's HTTP and WebSocket specifications, and the extensions that send files)."""
    kind = message["type"]
    if kind in ("http.response.body", "http.response.zerocopysend", "websocket.http.response.body"):
        return not message.get("more_body", False)
    return kind in ("http.response.pathsend", "websocket.close")


def _size(message: Message) -> int:
    return MESSAGE_BYTES + len(message.get("body") or message.get("bytes") or message.get("text") or b"")
