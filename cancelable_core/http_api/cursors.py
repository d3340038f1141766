"""Where a page of the list ended, as text that a client hands back unread."""

from __future__ import annotations

import base64
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..models import Cursor, OperationContext

__all__ = ["cursor_after", "read_cursor"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_POSITION = re.compile(r"([0-9]{1,17}):([!-~]{1,200})")
_TEXT = re.compile(r"[A-Za-z0-9_-]{1,400}")


def cursor_after(context: OperationContext) -> str:
    """The place behind an operation, newest first."""
    position = f"{(context.created_at - _EPOCH) // _MICROSECOND}:{context.id}"
    return base64.urlsafe_b64encode(position.encode("ascii")).rstrip(b"=").decode("ascii")


def read_cursor(text: str) -> Cursor:
    """The place that a cursor names.

    Raises:
        ValueError: For text that is no cursor.
    """
    if _TEXT.fullmatch(text) is None or len(text) % 4 == 1:
        raise ValueError(_UNREADABLE)
    position = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode("ascii", "replace")
    found = _POSITION.fullmatch(position)
    if found is None:
        raise ValueError(_UNREADABLE)
    return _EPOCH + int(found[1]) * _MICROSECOND, found[2]


_UNREADABLE = "must be the `next` of an earlier page"
