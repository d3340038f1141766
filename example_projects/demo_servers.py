"""Real servers for the demo: on free loopback ports, each with its log, ended by their process ids whatever happens."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import httpx

__all__ = ["DemoFailed", "Server"]

START_SECONDS = 20
END_SECONDS = 5
LOG_LINES_SHOWN = 15


class DemoFailed(Exception):
    """Something that the demo promises did not happen; the text says what."""


class Server:
    """One example application on a server of its own. As a context manager it starts without waiting, and ends in any case.

    Args:
        title: What to call it.
        command: Starts it; ``{port}`` stands for the port.
        folder: Where.
        environment: What to add to the demo's own environment.
    """

    def __init__(self, title: str, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
        port = _free_port()
        self.title = title
        self.address = f"http://127.0.0.1:{port}"
        self._command = [part.format(port=port) for part in command]
        self._folder = folder
        self._environment = {**os.environ, **environment}

    def __enter__(self) -> Self:
        self._log = tempfile.TemporaryFile()
        # A session of its own: Ctrl-C in the terminal reaches the demo alone, which then ends its servers in good order.
        self._process = subprocess.Popen(
            self._command,
            cwd=self._folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        return self

    def __exit__(self, *exc_info: object) -> None:
        try:
            self._process.terminate()
            self._process.wait(END_SECONDS)
        except BaseException as error:  # it hangs, or whoever watches the demo is impatient: now at once
            os.killpg(self._process.pid, signal.SIGKILL)  # the session's group: the server and its workers
            self._process.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
        finally:
            self._log.close()

    def prepare(self, *command: str) -> None:
        """Run a command of the application before its server starts.

        Raises:
            DemoFailed: It failed.
        """
        done = subprocess.run(command, cwd=self._folder, env=self._environment, capture_output=True, text=True, check=False)
        if done.returncode:
            output = _indented(done.stdout + done.stderr)
            raise DemoFailed(f"{' '.join(command)} for {self.title} ended with exit code {done.returncode}:\n{output}")

    def wait_until_it_answers(self) -> None:
        """Come back as soon as the server answers requests.

        Raises:
            DemoFailed: It ended instead, or took too long.
        """
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            self.must_run()
            try:
                httpx.get(self.address, timeout=START_SECONDS, trust_env=False)
                return
            except httpx.TransportError:
                time.sleep(0.05)
        raise DemoFailed(f"it did not answer within {START_SECONDS} seconds")

    def must_run(self) -> None:
        """Check that the process is there.

        Raises:
            DemoFailed: It has ended.
        """
        if (code := self._process.poll()) is not None:
            raise DemoFailed(f"it ended with exit code {code}")

    @contextmanager
    def answering_for_itself(self) -> Iterator[None]:
        """A block whose failures are told together with this server's name and the end of its log.

        Raises:
            DemoFailed: The block failed, or a request in it.
        """
        try:
            yield
        except (DemoFailed, httpx.HTTPError) as error:
            what = f"{self.title}: {error}"
            raise DemoFailed(f"{what}\nThe end of its server's log ({self._command[2]}):\n{self._end_of_log()}") from error

    def _end_of_log(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").splitlines()
        return _indented("\n".join(lines[-LOG_LINES_SHOWN:]) or "(it is empty)")


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
