"""The JSON API from a terminal: what ``flask cancelable`` and ``manage.py cancelable`` do.

A command runs in a process of its own, which knows no operation of the server's: so it asks the routes, like anybody else.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode, urlsplit

from ..errors import CancelableError

if TYPE_CHECKING:
    from email.message import Message
    from http.client import HTTPResponse
    from typing import IO

__all__ = ["Console", "ConsoleError", "parse_headers"]

_PAGE = 500
_COLUMNS = ("id", "status", "kind", "owner", "created_at", "progress", "name")


class ConsoleError(CancelableError):
    """What the server refused, or why it could not be asked; the text is for the person at the terminal."""


class Console:
    """Asks the routes of one application, and tells the answers line by line.

    Args:
        url: Where the routes lie, such as ``http://127.0.0.1:8000/jobs``.
        headers: Sent along, such as ``Authorization``. They never follow a redirect.
        timeout_seconds: How long to wait for an answer, beside what ``wait_seconds`` asks for.

    Raises:
        ConsoleError: Everything that goes wrong, from each method too.
    """

    def __init__(self, url: str, headers: Mapping[str, str] | None = None, *, timeout_seconds: float = 10.0) -> None:
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            raise ConsoleError(f"not the address of the routes: {url!r}; give one such as http://127.0.0.1:8000/jobs")
        self._url = url.rstrip("/")
        self._headers = dict(headers or {})
        self._timeout_seconds = timeout_seconds
        self._opener = urllib.request.build_opener(_NoRedirects)

    def list(self, **filters: str | Sequence[str] | None) -> Iterator[str]:
        """One line per operation, newest first; all pages. ``filters`` are the query parameters of the list route."""
        given = [(key, value) for key, value in filters.items() if value]
        yield "  ".join(_COLUMNS)
        after = None
        while True:
            page = [*given, ("limit", str(_PAGE)), *([("after", after)] if after else [])]
            answer = self._ask(f"/?{urlencode(page, doseq=True)}")
            for operation in answer["operations"]:
                yield "  ".join(_shown(_cell(operation, column)) for column in _COLUMNS)
            after = answer["next"]
            if after is None:
                return

    def cancel(self, operation_id: str, *, message: str | None = None, wait_seconds: float = 0) -> Iterator[str]:
        """What came of cancelling one operation."""
        body: dict[str, object] = {} if message is None else {"message": message}
        if wait_seconds:
            body["wait_seconds"] = wait_seconds
        answer = self._ask(f"/{quote(operation_id, safe='')}/cancel", body, patience_seconds=wait_seconds)
        yield f"{_shown(answer['outcome'])}: {_shown(operation_id)} is {_shown(answer['operation']['status'])}"

    def stats(self) -> Iterator[str]:
        """The counters, a line each."""
        for key, value in self._ask("/stats").items():
            yield f"{_shown(key)}: {_shown(value)}"

    def _ask(self, path: str, body: Mapping[str, object] | None = None, *, patience_seconds: float = 0) -> Any:
        headers = {**self._headers, "Accept": "application/json"}
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        try:
            request = urllib.request.Request(self._url + path, data, headers)
            answer: HTTPResponse
            with self._opener.open(request, timeout=self._timeout_seconds + patience_seconds) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                raise ConsoleError(_refusal(error)) from error
        except (OSError, ValueError) as error:  # no answer, no JSON, or a header that cannot be sent
            raise ConsoleError(f"{self._url} gives no answer that can be read: {_shown(error)}") from error


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect is most often to a login page, and the headers are for nobody else."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> None:
        raise urllib.error.HTTPError(req.full_url, code, f"redirected to {newurl}; give that address", headers, fp)


def parse_headers(lines: Sequence[str]) -> dict[str, str]:
    """Read ``--header "Name: value"``, given any number of times.

    Raises:
        ConsoleError: A line without a colon.
    """
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise ConsoleError(f"not a header: {line!r}; write it as 'Name: value'")
        headers[name.strip()] = value.strip()
    return headers


def _refusal(error: urllib.error.HTTPError) -> str:
    """The problem's own words, if it is one of ours."""
    try:
        problem = json.load(error)
        return f"{error.code} {_shown(problem['title'])}: {_shown(problem['detail'])}"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{error.code} {_shown(error.reason)}"


def _cell(operation: Mapping[str, Any], column: str) -> object:
    value = operation[column]
    if column == "progress" and value:
        steps = "" if value["current"] is None else f"{value['current']}/{'?' if value['total'] is None else value['total']}"
        return " ".join(part for part in (steps, value["message"]) if part)
    return value


def _shown(value: object) -> str:
    """A value from outside, without anything that a terminal would obey."""
    text = "-" if value is None or value == "" else str(value)
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)
