"""How soon a cancel ends what it interrupts, over doing the same by hand; and what being interruptible costs a call.

Latencies are taken from the cancel to the moment at which the interrupted call has raised. The floor is the same end without an
operation: another thread that signals the process, or shuts the socket down, and nothing else.
"""

from __future__ import annotations

import ctypes
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import requests
from _harness import Comparison, Work, compare, print_header

from cancelable_core import Cancelable, OperationCancelled
from cancelable_core.interrupters.httpx import interruptible_transport
from cancelable_core.interrupters.requests import interruptible_adapter
from cancelable_core.interrupters.sockets import armed

ROUNDS = 25
SETTLING_SECONDS = 0.05
"""From the beginning of a call to its cancel: longer than any of them takes to begin."""


def cancelled(call: Callable[[Cancelable], object], settling_seconds: float = SETTLING_SECONDS) -> float:
    """Seconds from the cancel to the end of the call."""
    at: list[float] = []
    operation = Cancelable(register=False)

    def cancel() -> None:
        time.sleep(settling_seconds)
        at.append(time.perf_counter())
        operation.cancel_sync()

    canceller = threading.Thread(target=cancel)
    try:
        with operation:
            canceller.start()
            call(operation)
    except OperationCancelled:
        ended = time.perf_counter()
    canceller.join()
    return ended - at[0]


def by_hand(begin: Callable[[], tuple[Callable[[], object], Callable[[], object]]]) -> float:
    """The same for a call and what another thread does to end it."""
    call, end = begin()
    at: list[float] = []

    def act() -> None:
        time.sleep(SETTLING_SECONDS)
        at.append(time.perf_counter())
        end()

    ender = threading.Thread(target=act)
    ender.start()
    call()
    ended = time.perf_counter()
    ender.join()
    return ended - at[0]


def compare_latencies(name: str, ours: Callable[[], float], floor: Callable[[], float]) -> None:
    rounds = [(ours(), floor()) for _ in range(ROUNDS)]
    print(Comparison(name, [first for first, _ in rounds], [second for _, second in rounds]), flush=True)


# --- processes

SLEEP = ["sleep", "60"]


def killed_sleep() -> tuple[Callable[[], object], Callable[[], object]]:
    process = subprocess.Popen(SLEEP, start_new_session=True, stdout=subprocess.PIPE)
    return process.communicate, lambda: os.killpg(process.pid, signal.SIGTERM)


def spin() -> None:
    while True:
        pass


def killed_spin() -> tuple[Callable[[], object], Callable[[], object]]:
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True)
    return process.wait, lambda: os.killpg(process.pid, signal.SIGTERM)


# --- pure Python


def raised_in_spin() -> tuple[Callable[[], object], Callable[[], object]]:
    raise_in, thread_id = ctypes.pythonapi.PyThreadState_SetAsyncExc, threading.get_ident()

    def call() -> None:
        try:
            spin()
        except KeyboardInterrupt:
            pass

    return call, lambda: raise_in(ctypes.c_ulong(thread_id), ctypes.py_object(KeyboardInterrupt))


# --- sockets and HTTP clients


@contextmanager
def server() -> Iterator[str]:
    """Answers ``/`` at once, and nothing else ever."""
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if self.path != "/":
                over.wait()
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    serving = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    serving.handle_error = lambda *_: None  # type: ignore[method-assign]
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{serving.server_port}"
    finally:
        over.set()
        serving.shutdown()
        serving.server_close()


def shut_down_request(address: str) -> Callable[[], tuple[Callable[[], object], Callable[[], object]]]:
    def begin() -> tuple[Callable[[], object], Callable[[], object]]:
        connection = http.client.HTTPConnection(address)
        connection.request("GET", "/never")
        sock = connection.sock

        def call() -> None:
            try:
                connection.getresponse()
            except http.client.RemoteDisconnected:
                connection.close()

        return call, lambda: sock.shutdown(socket.SHUT_RDWR)

    return begin


def repeated(call: Callable[[], object]) -> Work:
    def work(times: int) -> None:
        for _ in range(times):
            call()

    return work


def main() -> None:
    """Print the ratios."""
    print_header("from the cancel to the end of the call", "httpx", "requests")
    compare_latencies(
        "run_process over killpg and communicate",
        lambda: cancelled(lambda operation: operation.run_process(SLEEP)),
        lambda: by_hand(killed_sleep),
    )
    compare_latencies(
        "run_in_process over killpg and wait",
        lambda: cancelled(lambda operation: operation.run_in_process(spin), 1.0),
        lambda: by_hand(killed_spin),
    )
    compare_latencies(
        "hard_interrupt over PyThreadState_SetAsyncExc",
        lambda: cancelled(lambda operation: operation.hard_interrupt(spin)),
        lambda: by_hand(raised_in_spin),
    )
    with server() as address:
        url = f"http://{address}"
        with httpx.Client(transport=interruptible_transport(), timeout=None) as client, requests.Session() as session:
            session.mount("http://", interruptible_adapter())
            for name, get in (("httpx", client.get), ("requests", session.get)):
                compare_latencies(
                    f"{name} over shutdown of http.client's socket",
                    lambda get=get: cancelled(lambda _: get(f"{url}/never")),  # type: ignore[misc]
                    lambda: by_hand(shut_down_request(address)),
                )

        print("\nwhat being interruptible costs a call that nobody cancels\n")
        with (
            Cancelable(register=False),
            httpx.Client(transport=interruptible_transport()) as client,
            httpx.Client() as plain_client,
            requests.Session() as session,
            requests.Session() as plain_session,
        ):
            session.mount("http://", interruptible_adapter())
            compare("httpx, one request", repeated(lambda: client.get(url)), repeated(lambda: plain_client.get(url)))
            compare("requests, one request", repeated(lambda: session.get(url)), repeated(lambda: plain_session.get(url)))
    ours, theirs = socket.socketpair()
    with ours, theirs, Cancelable(register=False) as operation:

        def echo() -> None:
            theirs.send(b"1")
            ours.recv(1)

        compare("one recv on a socket", repeated(lambda: armed(ours, echo)), repeated(echo))
        compare(
            "run_process true",
            repeated(lambda: operation.run_process(["true"])),
            repeated(lambda: subprocess.run(["true"], capture_output=True, check=False)),
        )
        compare("hard_interrupt of an empty call", repeated(lambda: operation.hard_interrupt(int)), repeated(int))


if __name__ == "__main__":
    main()
