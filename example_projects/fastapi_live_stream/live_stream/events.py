"""Server-sent events that say how they ended."""

from __future__ import annotations

import json
from collections.abc import AsyncIterable

import anyio
from starlette.responses import StreamingResponse
from starlette.types import Send

from cancelable_fastapi import Cancelable

__all__ = ["EventStream", "event"]

_LAST_EVENT_SECONDS = 1.0
"""How long a client that reads slowly may take for the last event."""


def event(name: str, **data: object) -> str:
    """One event; the data is a JSON object, which has no line breaks in it."""
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"


class EventStream(StreamingResponse):
    """The events of one request. A cancel of the request's operation stops them where they are.

    A response that is cut looks like a broken network to the client, and an EventSource would connect again and start all
    over. So a stream that is cancelled sends one event more, ``cancelled``, and ends as HTTP wants it. The operation is
    cancelled all the same: nothing but this event comes after the cancel.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterable[str], operation: Cancelable) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(operation.stream(events), headers=headers)
        self._operation = operation

    async def stream_response(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            async for text in self.body_iterator:
                await send({"type": "http.response.body", "body": str(text).encode(), "more_body": True})
        except BaseException:  # OperationCancelled, or the event loop's own cancelation
            if self._operation.token.is_cancelled:
                with anyio.move_on_after(_LAST_EVENT_SECONDS, shield=True):
                    await send({"type": "http.response.body", "body": self._cancelled().encode(), "more_body": False})
            raise
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _cancelled(self) -> str:
        token = self._operation.token
        return event("cancelled", reason=token.reason, message=token.message)
