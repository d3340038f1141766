"""A small corpus, and the application over it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from report_builder import create_app
from report_builder.extensions import cancelable


class ReadingClient(FlaskClient):
    """Reads every response to its end, as a browser does: until then the request runs."""

    def open(self, *args: Any, **kwargs: Any) -> Any:
        return super().open(*args, buffered=True, **kwargs)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Three sources; more are up to the test."""
    folder = tmp_path / "corpus"
    (folder / "package").mkdir(parents=True)
    (folder / "first.py").write_text('"""Counts apples."""\n\napples = 1  # red apples\n')
    (folder / "package" / "second.py").write_text("def count(apples, pears):\n    return apples + pears\n")
    (folder / "package" / "third.py").write_text("pears = 'no docstring'\n")
    return folder


@pytest.fixture
def app(corpus: Path) -> Iterator[Flask]:
    """The application over the small corpus."""
    config = {"CORPUS": str(corpus), "OPERATOR_KEY": "the operator's key", "TESTING": True}
    app = create_app({**config, "CANCELABLE_JOB_WORKERS": 1})  # one: a second report waits until the first has ended
    app.test_client_class = ReadingClient
    yield app
    with app.app_context():
        cancelable.jobs.close()


@pytest.fixture
def visitor(app: Flask) -> FlaskClient:
    """A client with a cookie jar of its own."""
    return app.test_client()


@pytest.fixture
def stranger(app: Flask) -> FlaskClient:
    """Another visitor."""
    return app.test_client()


@pytest.fixture
def operator(app: Flask) -> FlaskClient:
    """A client that shows the operator's key."""
    client = app.test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {app.config['OPERATOR_KEY']}"
    return client


@pytest.fixture
def gate(corpus: Path) -> Path:
    """A file at which a report stands still until somebody has opened it for writing, and closed it again."""
    path = corpus / "gate.py"
    os.mkfifo(path)
    return path
