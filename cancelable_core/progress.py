"""How far an operation is: the newest report, and who wants to hear of each."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from .callables import is_coroutine_function

__all__ = ["PROGRESS_BYTES_LIMIT", "Progress", "ProgressRegistration"]

logger = logging.getLogger("cancelable_core")

PROGRESS_BYTES_LIMIT = 2_048
"""The most that one report may take, as JSON."""


class ProgressRegistration:
    """A progress callback; `remove` takes it back, any number of times."""

    __slots__ = ("_callback", "_progress")

    def __init__(self, progress: Progress, callback: Callable[[Mapping[str, Any]], object]) -> None:
        self._progress = progress
        self._callback = callback

    def remove(self) -> None:
        """Take the callback back."""
        self._progress.unsubscribe(self)

    def __call__(self, report: Mapping[str, Any]) -> None:
        try:
            self._callback(report)
        except Exception:
            logger.exception("a progress callback raised; the operation goes on")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.remove()


class Progress:
    """The newest report of one operation.

    Concurrency:
        Any thread. A report replaces the whole one before, so that a reader never sees half of two.
    """

    __slots__ = ("_subscribers", "latest")

    def __init__(self) -> None:
        self.latest: Mapping[str, Any] | None = None
        self._subscribers: dict[ProgressRegistration, None] = {}

    def report(self, report: dict[str, Any]) -> None:
        """Make this the newest report and tell the subscribers, here."""
        try:
            text = json.dumps(report, separators=(",", ":"), allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"progress must be plain JSON values: {error}") from error
        if len(text) > PROGRESS_BYTES_LIMIT:
            raise ValueError(f"progress must fit into {PROGRESS_BYTES_LIMIT} bytes of JSON; this report has {len(text)}")
        self._show(json.loads(text))  # what was checked, whatever becomes of the caller's objects

    def lead(self, other: Progress) -> None:
        """Begin with the other's newest report, and have those who follow the other hear of all reports from now on."""
        self.latest = self.latest or other.latest
        self.subscribe(other._show)

    def _show(self, report: Mapping[str, Any]) -> None:
        self.latest = report
        for subscriber in list(self._subscribers):
            subscriber(report)

    def subscribe(self, callback: Callable[[Mapping[str, Any]], object]) -> ProgressRegistration:
        """Have ``callback`` called with every report from now on.

        Raises:
            TypeError: For a coroutine function, which nobody could await, and for what cannot be called.
        """
        if not callable(callback) or is_coroutine_function(callback):
            raise TypeError("on_progress takes a plain function")
        registration = ProgressRegistration(self, callback)
        self._subscribers[registration] = None
        return registration

    def unsubscribe(self, registration: ProgressRegistration) -> None:
        """Forget a subscriber; harmless when it is gone."""
        self._subscribers.pop(registration, None)
