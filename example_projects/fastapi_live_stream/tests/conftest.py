"""The application on a real server in a thread, and clients that can read a stream while it is written."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from cancelable_core import OperationStore
from cancelable_core.testing import fresh_store
from live_stream import create_app
from live_stream.visitors import OPERATOR_KEY

SECONDS = 20
"""Reached by failing tests only."""

KEY = "open sesame"


class Site:
    """One running application.

    Attributes:
        port: Where it listens.
        store: Its operations.
    """

    def __init__(self, port: int, store: OperationStore) -> None:
        self.port = port
        self.store = store
        self._clients: list[httpx.Client] = []

    def client(self, **headers: str) -> httpx.Client:
        """A visitor with a cookie jar of his own."""
        client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=SECONDS, headers=headers)
        self._clients.append(client)
        return client

    def close(self) -> None:
        for client in self._clients:
            client.close()

    @staticmethod
    def events(response: httpx.Response) -> Iterator[tuple[str, dict[str, Any]]]:
        """The events of a stream as they come."""
        name = ""
        for line in response.iter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                yield name, json.loads(line.removeprefix("data: "))

    @staticmethod
    def becomes(condition: Callable[[], object]) -> None:
        """Wait until it is so."""
        deadline = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < deadline, "it did not become so"
            time.sleep(0.005)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """The application, writing quickly."""
    with fresh_store() as store, socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        config = uvicorn.Config(create_app(piece_seconds=0.002), log_level="warning", timeout_graceful_shutdown=5, ws="none")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        Site.becomes(lambda: server.started or not thread.is_alive())
        site = Site(listening.getsockname()[1], store)
        yield site
        site.close()
        server.should_exit = True
        thread.join(SECONDS)
        assert not thread.is_alive()


@pytest.fixture
def visitor(site: Site) -> httpx.Client:
    return site.client()


@pytest.fixture
def stranger(site: Site) -> httpx.Client:
    return site.client()


@pytest.fixture
def operator(site: Site, monkeypatch: pytest.MonkeyPatch) -> httpx.Client:
    monkeypatch.setenv(OPERATOR_KEY, KEY)
    return site.client(Authorization=f"Bearer {KEY}")


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small folder to search in."""
    (tmp_path / "first.py").write_text("apples = 1\npears = 2  # Apples and pears\n")
    (tmp_path / "second.py").write_text("def aples():\n    return None\n")
    monkeypatch.setattr("live_stream.application.source_files", lambda: sorted(tmp_path.glob("*.py")))
    return tmp_path


@pytest.fixture
def gate(sources: Path) -> Path:
    """A file at which a search stands still until somebody has opened it for writing, and closed it again."""
    path = sources / "gate.py"
    os.mkfifo(path)
    return path
