"""``flask cancelable list|cancel|stats``: asks a running server's routes, since a command is a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps
from typing import TYPE_CHECKING, Any

import click
from flask.cli import AppGroup

if TYPE_CHECKING:
    from cancelable_core.http_api.console import Console

__all__ = ["make_commands"]


def make_commands() -> AppGroup:
    """The command group of one application."""
    group = AppGroup("cancelable", help="See and cancel the operations of a running server.")

    @group.command("list", with_appcontext=False)
    @click.option("--status", multiple=True, help="Only this status; any number of times.")
    @click.option("--kind", multiple=True, help="job, operation or request; any number of times.")
    @click.option("--name", help="A glob over names, such as 'report-*'.")
    @click.option("--owner", help="Whose operations.")
    @_asking
    def list_operations(console: Console, **filters: Any) -> Iterator[str]:
        """One line per operation, newest first."""
        return console.list(**filters)

    @group.command("cancel", with_appcontext=False)
    @click.argument("operation_id")
    @click.option("--message", help="Why.")
    @click.option("--wait", "wait_seconds", type=click.FloatRange(min=0), default=0, help="Seconds to wait for its end.")
    @_asking
    def cancel(console: Console, operation_id: str, message: str | None, wait_seconds: float) -> Iterator[str]:
        """Cancel one operation."""
        return console.cancel(operation_id, message=message, wait_seconds=wait_seconds)

    @group.command("stats", with_appcontext=False)
    @_asking
    def stats(console: Console) -> Iterator[str]:
        """The counters."""
        return console.stats()

    return group


def _asking(command: Callable[..., Iterator[str]]) -> Callable[..., None]:
    """Give a command a console, print what it says, and say in one line what went wrong."""

    @click.option("--url", required=True, envvar="CANCELABLE_URL", help="Where the routes lie: http://127.0.0.1:8000/jobs")
    @click.option("--header", "headers", multiple=True, help="'Name: value'; any number of times.")
    @wraps(command)
    def ask(url: str, headers: tuple[str, ...], **options: Any) -> None:
        from cancelable_core.http_api.console import Console, ConsoleError, parse_headers  # only commands need it

        try:
            for line in command(Console(url, parse_headers(headers)), **options):
                click.echo(line)
        except ConsoleError as error:
            raise click.ClickException(str(error)) from error

    return ask
