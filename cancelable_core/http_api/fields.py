"""From named values to typed ones; every field that is not valid is named, not only the first."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar, cast

from .cursors import read_cursor
from .problems import invalid_fields

if TYPE_CHECKING:
    from ..models import Cursor
    from .parsing import RawFields

__all__ = ["FieldReader"]

T = TypeVar("T")
Choice = TypeVar("Choice", bound=StrEnum)

_WHOLE = re.compile(r"[0-9]{1,9}")
_DECIMAL = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_UNPRINTABLE = frozenset({"Cc", "Cs", "Zl", "Zp"})


class FieldReader:
    """Reads one request's fields; call `finish` after the last one.

    Args:
        raw: The values as they came.
    """

    __slots__ = ("_errors", "_raw", "_read")

    def __init__(self, raw: RawFields) -> None:
        self._raw = raw
        self._read: set[str] = set()
        self._errors = dict.fromkeys(raw.stray, "must not be in the query; send it in the body")

    def refuse(self, name: str, message: str) -> None:
        """Note that a field is not valid; the first thing that is said of it counts."""
        self._errors.setdefault(name, message)

    def finish(self) -> None:
        """Refuse the request if anything was not valid, or not known.

        Raises:
            Refusal: 422, naming each field.
        """
        for name in self._raw.values:
            if name not in self._read:
                self.refuse(name, "is not known here")
        if self._errors:
            raise invalid_fields(self._errors)

    def text(self, name: str, *, max_length: int) -> str | None:
        """Text, not empty and not too long."""
        return self._one(name, None, lambda value: _text(value, max_length=max_length))

    def message(self, name: str, *, max_length: int) -> str | None:
        """Text for people to read and for logs: nothing that ends lines or turns the reading direction; empty is none."""
        return self._one(name, None, lambda value: _message(value, max_length=max_length))

    def integer(self, name: str, *, default: int, minimum: int, maximum: int) -> int:
        """A whole number in a range."""
        wanted = f"must be a whole number from {minimum} to {maximum}"

        def read(value: object) -> int:
            number = int(value) if isinstance(value, str) and self._raw.textual and _WHOLE.fullmatch(value) else value
            if not isinstance(number, int) or isinstance(number, bool) or not minimum <= number <= maximum:
                raise ValueError(wanted)
            return number

        return self._one(name, default, read)

    def seconds(self, name: str, *, maximum: float) -> float:
        """A length of time; 0 when it is not given."""
        wanted = f"must be a number of seconds from 0 to {maximum:g}"

        def read(value: object) -> float:
            number = float(value) if isinstance(value, str) and self._raw.textual and _DECIMAL.fullmatch(value) else value
            if not isinstance(number, int | float) or isinstance(number, bool) or not 0 <= number <= maximum:
                raise ValueError(wanted)
            return float(number)

        return self._one(name, 0.0, read)

    def flag(self, name: str) -> bool:
        """True or false; false when it is not given."""

        def read(value: object) -> bool:
            if self._raw.textual and value in ("true", "false"):
                return value == "true"
            if not isinstance(value, bool):
                raise ValueError("must be true or false")
            return value

        return self._one(name, default=False, read=read)

    def cursor(self, name: str) -> Cursor | None:
        """A place in the list."""
        return self._one(name, None, lambda value: read_cursor(_text(value, max_length=400)))

    def choices(
        self, name: str, allowed: Collection[Choice], *, default: Sequence[Choice] | None = None
    ) -> tuple[Choice, ...] | None:
        """One or several words of a list; in JSON one word or an array of them."""
        by_word: dict[object, Choice] = {choice.value: choice for choice in allowed}
        given = self._given(name)
        if not self._raw.textual and len(given) == 1 and isinstance(given[0], list):
            given = tuple(cast("list[object]", given[0]))
            if not given:
                self.refuse(name, "must not be empty")
        if not given:
            return None if default is None else tuple(default)
        if not all(isinstance(word, str) and word in by_word for word in given):
            self.refuse(name, f"must be one or several of {', '.join(allowed)}")
            return ()
        return tuple(dict.fromkeys(by_word[word] for word in given))

    def _given(self, name: str) -> tuple[object, ...]:
        self._read.add(name)
        given = self._raw.values.get(name, ())
        return () if len(given) == 1 and given[0] is None else given

    def _one(self, name: str, default: T, read: Callable[[object], T]) -> T:
        given = self._given(name)
        if len(given) > 1:
            self.refuse(name, "must be given once")
        for value in given[:1]:
            try:
                return read(value)
            except ValueError as error:
                self.refuse(name, str(error))
        return default


def _text(value: object, *, max_length: int) -> str:
    if not isinstance(value, str):
        raise ValueError("must be text")
    if not 0 < len(value) <= max_length:
        raise ValueError(f"must have 1 to {max_length} characters")
    return value


def _message(value: object, *, max_length: int) -> str | None:
    if value == "":
        return None
    text = _text(value, max_length=max_length)
    if any(char in _BIDI or unicodedata.category(char) in _UNPRINTABLE for char in text):
        raise ValueError("must not have control characters, line breaks or characters that turn the reading direction")
    return text
