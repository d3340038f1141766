"""``manage.py cancelable list|cancel|stats``: asks a running server's routes, since a command is a process of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from cancelable_core.http_api.console import Console, ConsoleError, parse_headers

__all__ = ["Command"]

_Answer = Callable[[Console, dict[str, Any]], Iterator[str]]

_ASK: dict[str, _Answer] = {
    "list": lambda console, given: console.list(**{key: given[key] for key in ("status", "kind", "name", "owner")}),
    "cancel": lambda console, given: console.cancel(
        given["operation_id"], message=given["message"], wait_seconds=given["wait_seconds"]
    ),
    "stats": lambda console, given: console.stats(),
}


class Command(BaseCommand):
    """See and cancel the operations of a running server."""

    help = "See and cancel the operations of a running server."
    requires_system_checks = ()  # the server's settings count, not this process's

    def add_arguments(self, parser: CommandParser) -> None:
        """One sub-command per route."""
        commands = parser.add_subparsers(dest="what", metavar="list|cancel|stats", required=True)
        for name, about in (("list", "One line per operation, newest first."), ("stats", "The counters.")):
            _add_address(commands.add_parser(name, help=about))
        listing = commands.choices["list"]
        listing.add_argument("--status", action="append", help="Only this status; any number of times.")
        listing.add_argument("--kind", action="append", help="job, operation or request; any number of times.")
        listing.add_argument("--name", help="A glob over names, such as 'report-*'.")
        listing.add_argument("--owner", help="Whose operations.")
        cancel = commands.add_parser("cancel", help="Cancel one operation.")
        cancel.add_argument("operation_id")
        cancel.add_argument("--message", help="Why.")
        cancel.add_argument("--wait", dest="wait_seconds", type=float, default=0, help="Seconds to wait for its end.")
        _add_address(cancel)

    def handle(self, *args: Any, what: str, url: str | None, headers: list[str], **given: Any) -> None:
        """Ask, and print what is said."""
        if url is None:
            raise CommandError("give --url, or set CANCELABLE_URL: where the routes lie, such as http://127.0.0.1:8000/jobs")
        try:
            for line in _ASK[what](Console(url, parse_headers(headers)), given):
                self.stdout.write(line)
        except ConsoleError as error:
            raise CommandError(str(error)) from error


def _add_address(parser: Any) -> None:
    url = os.environ.get("CANCELABLE_URL")
    parser.add_argument("--url", default=url, help="Where the routes lie: http://127.0.0.1:8000/jobs ($CANCELABLE_URL)")
    parser.add_argument("--header", dest="headers", action="append", default=[], help="'Name: value'; any number of times.")
