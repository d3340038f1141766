"""Ids that clients choose for their own requests, each asker in a namespace of their own."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from ..identifiers import SecretId

if TYPE_CHECKING:
    from .policy import Principal

__all__ = ["CLIENT_ID_HEADER", "canonical_operation_id", "is_client_id"]

CLIENT_ID_HEADER = "X-Operation-ID"
"""The header a client chooses an id with, and in which an answer names its operation."""

_CLIENT_ID = re.compile(r"[A-Za-z0-9_-]{22,128}")
"""Room for 128 random bits in base64, and nothing that a path or a log could trip over."""

_DOMAIN = b"cancelable-id"


def is_client_id(text: str) -> bool:
    """Whether a client may choose this; everything else in the header is as if it had chosen nothing."""
    return _CLIENT_ID.fullmatch(text) is not None


def canonical_operation_id(principal: Principal, chosen: str) -> SecretId | None:
    """The id under which an asker's chosen id is known here.

    The same asker and choice give the same id in every process, so that looking one up needs no memory; two askers never
    share one; and it looks like a generated id, which nobody can aim at.

    Args:
        principal: Who chooses; those whom nobody knows share one namespace.
        chosen: What was chosen.

    Returns:
        32 hexadecimal digits, which count as secret, as what they are made of does; None when the choice has not the form
        ``[A-Za-z0-9_-]{22,128}``.
    """
    if not is_client_id(chosen):
        return None
    asker = b"nobody" if principal.id is None else b"id " + principal.id.encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(chosen.encode("ascii") + b" " + asker, digest_size=16, person=_DOMAIN)
    return SecretId(digest.hexdigest())
