"""What applications use in their own tests."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import anyio
import pytest

from cancelable_core import Cancelable, JobRunner, OperationCancelled, OperationStatus, ThreadSafeRegistry, default_store
from cancelable_core.testing import Gate, LeavingClient, fresh_store

pytest_plugins = ["cancelable_core.testing.pytest_plugin"]


class TestFreshStore:
    def test_operations_inside_are_seen_inside_only(self) -> None:
        before = default_store()
        with fresh_store() as store:
            with Cancelable("inside"):
                assert [context.name for context in ThreadSafeRegistry().list_operations()] == ["inside"]
            assert default_store() is store
        assert default_store() is before
        assert "inside" not in [context.name for context in ThreadSafeRegistry().get_history()]

    def test_it_is_put_back_after_an_error(self) -> None:
        before = default_store()
        with pytest.raises(ZeroDivisionError), fresh_store():
            raise ZeroDivisionError
        assert default_store() is before

    def test_the_fixture_is_such_a_store(self, cancelable_store: object) -> None:
        assert default_store() is cancelable_store


class TestGate:
    def test_it_holds_a_job_until_it_is_opened(self) -> None:
        gate, runner = Gate(), JobRunner(workers=1)
        job = runner.submit(gate.hold)
        gate.wait_until_reached()
        assert job.status is OperationStatus.RUNNING
        gate.open()
        job.result(10)
        assert job.status is OperationStatus.COMPLETED
        runner.close()

    def test_a_held_job_can_be_cancelled(self) -> None:
        gate, runner = Gate(), JobRunner(workers=1)
        job = runner.submit(gate.hold)
        gate.wait_until_reached()
        assert job.cancel_sync("enough")
        with pytest.raises(OperationCancelled, match="enough"):
            job.result(10)
        runner.close()

    async def test_it_holds_a_task(self) -> None:
        gate = Gate()
        passed: list[bool] = []

        async def code() -> None:
            await gate.ahold()
            passed.append(True)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(code)
            await gate.await_reached()
            assert not passed
            gate.open()
        assert passed

    def test_whoever_waits_in_vain_is_told(self) -> None:
        with pytest.raises(TimeoutError, match="nobody reached"):
            Gate(timeout_seconds=0).wait_until_reached()
        with pytest.raises(TimeoutError, match="not opened"):
            Gate(timeout_seconds=0).hold()

    async def test_whoever_awaits_in_vain_is_told(self) -> None:
        with pytest.raises(TimeoutError):
            await Gate(timeout_seconds=0).await_reached()
        with pytest.raises(TimeoutError):
            await Gate(timeout_seconds=0).ahold()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        yield server


class TestLeavingClient:
    def test_a_request_arrives_and_its_answer_is_read(self, listener: socket.socket) -> None:
        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                received.append(connection.recv(65_536))
                connection.sendall(b"HTTP/1.1 200 OK\r\n\r\nhello")

        received: list[bytes] = []
        thread = threading.Thread(target=serve)
        thread.start()
        with LeavingClient("127.0.0.1", listener.getsockname()[1]) as client:
            client.send("POST", "/x", headers={"X-User": "alice"}, body=b"{}")
            assert client.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 200 OK")
            assert client.read_to_end().endswith(b"hello")
            with pytest.raises(EOFError):
                client.read_until(b"more")
        thread.join()
        host = f"127.0.0.1:{listener.getsockname()[1]}"
        assert received == [f"POST /x HTTP/1.1\r\nHost: {host}\r\nX-User: alice\r\nContent-Length: 2\r\n\r\n{{}}".encode()]

    def test_leaving_is_seen_as_the_end(self, listener: socket.socket) -> None:
        client = LeavingClient("127.0.0.1", listener.getsockname()[1])
        connection, _ = listener.accept()
        with connection:
            client.leave()
            assert connection.recv(1) == b""

    def test_a_reset_is_seen_as_a_reset(self, listener: socket.socket) -> None:
        client = LeavingClient("127.0.0.1", listener.getsockname()[1])
        connection, _ = listener.accept()
        with connection:
            client.reset()
            with pytest.raises(ConnectionResetError):
                connection.recv(1)
