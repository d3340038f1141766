"""A cancel shuts a socket down, and whoever waits on it hears of that."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from cancelable_core import Cancelable, OperationCancelled, OperationStatus, OperationStore, OperationTimedOut
from cancelable_core.interrupters.sockets import Handshake, SocketInterrupter, connected
from tests.core.helpers import Running, becomes_true, happens

from .servers import Certificates

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@contextmanager
def cancelled_when(condition: Callable[[], object], operation: Cancelable) -> Iterator[None]:
    canceller = Running(lambda: (becomes_true(condition), operation.cancel_sync("enough")))
    yield
    canceller.result()


def blocks_in(func_name: str) -> Callable[[], bool]:
    """Whether this thread stands in a C function that the named function called; true shortly before, too."""
    thread_id = threading.get_ident()

    def look() -> bool:
        frame = sys._current_frames().get(thread_id)
        return frame is not None and frame.f_code.co_name == func_name

    return look


def receive(sock: socket.socket) -> bytes:
    return sock.recv(1)


def send_on_and_on(sock: socket.socket) -> None:
    while True:
        sock.send(bytes(100_000))


def test_a_reader_is_woken(pair: tuple[socket.socket, socket.socket]) -> None:
    operation = Cancelable(register=False)
    with pytest.raises(OperationCancelled) as caught:
        with operation, cancelled_when(blocks_in("receive"), operation):
            with operation.interruptible(SocketInterrupter(pair[0])):
                receive(pair[0])
    assert caught.value.message == "enough"
    assert operation.status is OperationStatus.CANCELLED
    assert pair[1].recv(1) == b"", "the other side hears of it too"


def test_a_writer_is_woken_and_the_error_says_how(pair: tuple[socket.socket, socket.socket]) -> None:
    operation = Cancelable(register=False)
    with pytest.raises(OperationCancelled) as caught:
        with operation, cancelled_when(blocks_in("send_on_and_on"), operation):
            with operation.interruptible(SocketInterrupter(pair[0])):
                send_on_and_on(pair[0])
    assert isinstance(caught.value.__cause__, BrokenPipeError)


def test_a_deadline_wakes_too(pair: tuple[socket.socket, socket.socket]) -> None:
    with pytest.raises(OperationTimedOut):
        with Cancelable(timeout=0.05, register=False) as operation:
            with operation.interruptible(SocketInterrupter(pair[0])):
                receive(pair[0])


def test_one_who_waits_for_connections_is_woken() -> None:
    operation = Cancelable(register=False)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with pytest.raises(OperationCancelled):
            with operation, cancelled_when(blocks_in("accept"), operation):
                with operation.interruptible(SocketInterrupter(listener)):
                    listener.accept()  # whose frame is called so, too


def test_outside_of_the_region_nothing_is_shut_down(pair: tuple[socket.socket, socket.socket]) -> None:
    with pytest.raises(OperationCancelled):
        with Cancelable(register=False) as operation:
            pair[1].send(b"1")
            with operation.interruptible(SocketInterrupter(pair[0])):
                assert pair[0].recv(1) == b"1"
            operation.cancel_sync()
            pair[1].send(b"2")
            assert pair[0].recv(1) == b"2"
            operation.check()


@pytest.mark.parametrize("closed", [True, False])
def test_a_socket_that_is_closed_or_was_never_connected_is_no_error(closed: bool, caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as sock:
        if closed:
            sock.close()
        SocketInterrupter(sock).interrupt()
    assert not caplog.records


def test_tls_is_not_taken_away_under_the_reader(pair: tuple[socket.socket, socket.socket], certificates: Certificates) -> None:
    """What lies encrypted in the buffers must not be read as if it were text, which `SSLSocket.shutdown` would lead to."""
    wrapping = Running(lambda: certificates.server.wrap_socket(pair[1], server_side=True))
    with certificates.client.wrap_socket(pair[0], server_hostname="localhost") as ours, wrapping.result() as theirs:
        theirs.send(b"secret")
        assert ours.recv(3) == b"sec"
        SocketInterrupter(ours).interrupt()
        assert ours.recv(10) == b"ret"
        assert ours.recv(10) == b""


@pytest.mark.parametrize("begins_first", [True, False])
def test_a_handshake_is_ended_whatever_comes_first(pair: tuple[socket.socket, socket.socket], begins_first: bool) -> None:
    """What was wrapped has another owner by now, so that it is known by a second handle only."""
    with Handshake() as handshake:
        if begins_first:
            handshake.begins(pair[0])
        handshake.interrupt()
        if not begins_first:
            handshake.begins(pair[0])
        assert pair[0].recv(1) == b""


# --- connecting


class Slow:
    """Stands for the look-up of a name, which nothing interrupts."""

    def __init__(self) -> None:
        self.begun, self.release, self.closed = threading.Event(), threading.Event(), threading.Event()

    def connect(self) -> str:
        self.begun.set()
        happens(self.release)
        return "connection"

    def discard(self, connection: str) -> None:
        assert connection == "connection"
        self.closed.set()


def test_nobody_waits_for_a_connection_after_the_cancel_and_it_is_discarded(store: OperationStore) -> None:
    slow, operation = Slow(), Cancelable(registry=store)
    with pytest.raises(OperationCancelled) as caught:
        with operation, cancelled_when(slow.begun.is_set, operation):
            connected(slow.connect, slow.discard)
    assert isinstance(caught.value.__cause__, ConnectionAbortedError)
    assert store.statistics().abandoned_threads == 1
    slow.release.set()
    happens(slow.closed)
    becomes_true(lambda: store.statistics().abandoned_threads == 0)


def test_a_connection_or_its_error_is_brought_back() -> None:
    def refuse() -> str:
        raise ConnectionRefusedError("nobody there")

    with Cancelable(register=False):
        assert connected(lambda: "connection", lambda _: pytest.fail("discarded")) == "connection"
        with pytest.raises(ConnectionRefusedError, match="nobody there"):
            connected(refuse, lambda _: pytest.fail("discarded"))


def test_without_an_operation_it_is_an_ordinary_call() -> None:
    assert connected(threading.current_thread, lambda _: None) is threading.current_thread()
