"""What the tests of the Flask adapter share: views that report to their test, and a server's side of a request."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from wsgiref.util import setup_testing_defaults

from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from cancelable_core import Cancelable
from cancelable_flask import CancelableExtension, CancelableFlask, current_operation
from tests.core.helpers import Running, happens

__all__ = ["Exchange", "ReadingClient", "Running", "Visit", "ask", "happens", "make_app"]


class ReadingClient(FlaskClient):
    """Reads every response to its end, as servers do: until then the request runs."""

    def open(self, *args: Any, **kwargs: Any) -> TestResponse:
        return super().open(*args, buffered=True, **kwargs)


def make_app(**settings: Any) -> tuple[CancelableFlask, CancelableExtension]:
    """A fresh application, which knows who asks by a header."""
    app = CancelableFlask("app_of_this_test")
    app.test_client_class = ReadingClient
    options = {"principal": lambda request: request.headers.get("X-User"), **settings}
    return app, app.register_extension(CancelableExtension(**options))


def ask(app: Flask, path: str, **headers: str) -> Running[TestResponse]:
    """Ask in a thread of its own."""
    return Running(
        lambda: app.test_client().get(path, headers={name.replace("_", "-"): text for name, text in headers.items()})
    )


class Visit:
    """What a view tells its test."""

    def __init__(self) -> None:
        self.begun, self.over = threading.Event(), threading.Event()
        self.error: BaseException | None = None
        self._operation: Cancelable | None = None

    @contextmanager
    def view(self) -> Generator[Cancelable]:
        """Around a view's body."""
        operation = current_operation()
        assert operation is not None, "the view runs in no operation"
        self._operation = operation
        self.begun.set()
        try:
            yield operation
        except BaseException as error:
            self.error = error
            raise
        finally:
            self.over.set()

    @property
    def operation(self) -> Cancelable:
        assert self._operation is not None, "the view was not called"
        return self._operation


class Exchange:
    """One request as a WSGI server makes it: it calls the application, takes chunks as it likes, and closes."""

    def __init__(self, application: Callable[..., Iterable[bytes]], path: str, **environ: Any) -> None:
        self.environ: dict[str, Any] = {"PATH_INFO": path, "HTTP_HOST": "testserver", **environ}
        setup_testing_defaults(self.environ)
        self.status, self.headers = 0, dict[str, str]()
        self._body = application(self.environ, self._start)
        self.chunks: Iterator[bytes] = iter(self._body)

    def _start(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> None:
        self.status = int(status[:3])
        self.headers = {name.lower(): text for name, text in headers}

    def close(self) -> None:
        close = getattr(self._body, "close", None)
        if close is not None:
            close()
