"""From bytes to named values: JSON objects and HTML forms. Whatever the bytes are, the result is values or a refusal."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn, cast
from urllib.parse import parse_qsl

from .exchange import BODY_LIMIT
from .problems import ProblemCode, Refusal, problem_response

if TYPE_CHECKING:
    from .exchange import EndpointRequest

__all__ = ["RawFields", "body_fields", "query_fields", "query_pairs"]

_DEPTH_LIMIT = 32
_FIELDS_LIMIT = 100
_DIGITS_LIMIT = 100

_STRUCTURE = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)
"""A string or a bracket. The closing quote is optional, so that an unfinished string is passed in one step, not in n²."""

_CHARSET = re.compile(r';\s*charset\s*=\s*"?([^\s;"]+)', re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class RawFields:
    """Named values as they came.

    Attributes:
        values: What was given for each name; several where a form or a query repeats it.
        textual: Whether everything is text, as in forms and queries, so that ``"5"`` may be meant as a number.
        stray: Names that were given where none may be: the query of a POST.
    """

    values: Mapping[str, tuple[object, ...]] = field(default_factory=dict[str, tuple[object, ...]])
    textual: bool
    stray: tuple[str, ...] = ()


def query_pairs(query: bytes | str) -> tuple[tuple[str, str], ...]:
    """Decode a query string, the same way for every adapter; what is no UTF-8 becomes ``U+FFFD``.

    Args:
        query: What follows the ``?``, as sent; text is taken as WSGI hands it over, one character for a byte.
    """
    text = query.decode("latin-1") if isinstance(query, bytes) else query
    as_utf8 = text.encode("latin-1", "replace").decode("utf-8", "replace")
    return tuple(parse_qsl(as_utf8, keep_blank_values=True, errors="replace", separator="&"))


def query_fields(request: EndpointRequest) -> RawFields:
    """The fields of a reading request. A body is not looked at."""
    return RawFields(values=_grouped(request.query), textual=True)


def body_fields(request: EndpointRequest) -> RawFields:
    """The fields of a writing request.

    Raises:
        Refusal: 413, 411, 415 or 400, in this order.
    """
    _check_size(request)
    stray = tuple(dict.fromkeys(name for name, _ in request.query))
    if not request.body:
        return RawFields(textual=False, stray=stray)
    is_form = _check_type(request) == "application/x-www-form-urlencoded"
    try:
        text = request.body.decode("utf-8")
        values = _read_form(text) if is_form else _read_object(text)
    except UnicodeDecodeError:
        _refuse(ProblemCode.MALFORMED, "It is not UTF-8.")
    except ValueError as error:
        _refuse(ProblemCode.MALFORMED, str(error))
    return RawFields(values=values, textual=is_form, stray=stray)


def _check_size(request: EndpointRequest) -> None:
    if len(request.body) > BODY_LIMIT or _announced_length(request) > BODY_LIMIT:
        _refuse(ProblemCode.TOO_LARGE, f"At most {BODY_LIMIT} bytes are read.")
    if request.body_lost:
        _refuse(ProblemCode.LENGTH_REQUIRED, "Send it with Content-Length; this server does not pass chunked bodies on.")


def _announced_length(request: EndpointRequest) -> int:
    """What Content-Length says; 0 for what is no number, which is the server's to refuse."""
    digits = request.headers.get("content-length", "")
    if re.fullmatch(r"[0-9]+", digits) is None:
        return 0
    return int(digits) if len(digits) <= 18 else BODY_LIMIT + 1


def _check_type(request: EndpointRequest) -> str:
    given = request.headers.get("content-type", "")
    media_type = given.partition(";")[0].strip().lower()
    if media_type not in ("application/json", "application/x-www-form-urlencoded"):
        _refuse(ProblemCode.UNSUPPORTED_MEDIA_TYPE, "Send application/json or application/x-www-form-urlencoded.")
    charset = _CHARSET.search(given)
    if charset is not None and charset[1].lower() not in ("utf-8", "utf8"):
        _refuse(ProblemCode.UNSUPPORTED_MEDIA_TYPE, "Send it in UTF-8.")
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        _refuse(ProblemCode.UNSUPPORTED_MEDIA_TYPE, "Send it without a content encoding.")
    return media_type


def _refuse(code: ProblemCode, detail: str) -> NoReturn:
    raise Refusal(problem_response(code, detail)) from None


def _read_form(text: str) -> Mapping[str, tuple[object, ...]]:
    try:
        pairs = parse_qsl(
            text, keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=_FIELDS_LIMIT, separator="&"
        )
    except UnicodeDecodeError:
        raise
    except ValueError:
        raise ValueError(f"It is not a form of at most {_FIELDS_LIMIT} fields.") from None
    return _grouped(pairs)


def _grouped(pairs: Any) -> dict[str, tuple[object, ...]]:
    values: dict[str, list[object]] = {}
    for name, value in cast("tuple[tuple[str, str], ...]", pairs):
        values.setdefault(name, []).append(value)
    return {name: tuple(given) for name, given in values.items()}


def _read_object(text: str) -> Mapping[str, tuple[object, ...]]:
    _check_depth(text)
    try:
        value: object = json.loads(text, object_pairs_hook=_without_repeats, parse_constant=_refuse_constant, parse_int=_whole)
    except json.JSONDecodeError as error:
        raise ValueError(f"It is not JSON: {error.msg}, at character {error.pos}.") from None
    if not isinstance(value, dict):
        raise ValueError("It must be a JSON object.")
    members = cast("dict[str, object]", value)
    _check_text(members)
    return {name: (member,) for name, member in members.items()}


def _check_depth(text: str) -> None:
    """Before anything recurses: the parser's own limit depends on the Python version and on how deep the caller is."""
    depth = 0
    for found in _STRUCTURE.finditer(text):
        opened = found[0]
        depth += 1 if opened in "[{" else -1 if opened in "]}" else 0
        if depth > _DEPTH_LIMIT:
            raise ValueError(f"It is nested more than {_DEPTH_LIMIT} deep.")


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("It has the same key twice.")
    return members


def _whole(digits: str) -> int:
    if len(digits) > _DIGITS_LIMIT:
        raise ValueError(f"It has a number of more than {_DIGITS_LIMIT} digits.")
    return int(digits)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"It is not JSON: {name} is no JSON number.")


def _check_text(members: dict[str, object]) -> None:
    """Halves of surrogate pairs cannot be written as UTF-8, so no log, no database and no other service would take them."""
    try:
        json.dumps(members, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("It has half a surrogate pair.") from None
