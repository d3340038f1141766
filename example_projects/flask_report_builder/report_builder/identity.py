"""Who is asking: a visitor, known by a signed cookie, or the operator, known by a key."""

from __future__ import annotations

import hmac
import secrets

from flask import Request, current_app, session

from cancelable_core.http_api import Principal

__all__ = ["remember_visitor", "who_is_asking"]


def who_is_asking(request: Request) -> Principal:
    """The visitor of this session, or the operator. A wrong key is nobody's, whatever the cookie says."""
    given = request.authorization
    if given is None or given.type != "bearer":
        return Principal(session.get("visitor"))
    key = current_app.config["OPERATOR_KEY"]
    if key and hmac.compare_digest(key.encode(), (given.token or "").encode()):
        return Principal("operator", is_staff=True)
    return Principal()


def remember_visitor() -> None:
    """Give a visitor without an id a random one, which says nothing about him."""
    session.setdefault("visitor", f"visitor-{secrets.token_hex(8)}")
