"""Who is asking. Every browser is a visitor with a cookie of its own; the operator has a key."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from typing import Annotated

from fastapi import Depends, HTTPException, Request
from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cancelable_core.http_api import Principal

__all__ = ["OPERATOR_KEY", "Asker", "VisitorCookie", "who_is_asking"]

OPERATOR_KEY = "LIVE_STREAM_OPERATOR_KEY"
"""The environment variable with the operator's key; without it nobody is the operator."""

_COOKIE = "visitor"
_COOKIE_VALUE = re.compile(r"[A-Za-z0-9_-]{22,64}")


class VisitorCookie:
    """Gives every browser a cookie, so that what it starts belongs to it from the first request on."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        known = HTTPConnection(scope).cookies.get(_COOKIE, "")
        cookie = known if _COOKIE_VALUE.fullmatch(known) else secrets.token_urlsafe(16)
        scope.setdefault("state", {})["visitor"] = cookie

        async def send_with_cookie(message: Message) -> None:
            if message["type"] == "http.response.start" and cookie != known:
                MutableHeaders(scope=message).append("Set-Cookie", f"{_COOKIE}={cookie}; Path=/; HttpOnly; SameSite=Lax")
            await send(message)

        await self._app(scope, receive, send_with_cookie)


async def who_is_asking(request: Request) -> Principal:
    """The operator by the key, everybody else by the cookie.

    Raises:
        HTTPException: 401 for a key that is not the operator's.
    """
    authorization = request.headers.get("authorization")
    if authorization is None:
        # not the cookie itself: owners are shown, and knowing a cookie means being that visitor
        return Principal("visitor-" + hashlib.blake2b(request.state.visitor.encode(), digest_size=8).hexdigest())
    scheme, _, key = authorization.partition(" ")
    expected = os.environ.get(OPERATOR_KEY, "")
    if scheme.lower() == "bearer" and expected and hmac.compare_digest(key.strip().encode(), expected.encode()):
        return Principal("operator", is_staff=True)
    raise HTTPException(401, "This key is not the operator's.", {"WWW-Authenticate": "Bearer"})


Asker = Annotated[Principal, Depends(who_is_asking)]
