"""Requests made with httpx, requests and urllib3 end with their operation, and the next one works."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import anyio
import httpx
import pytest
import requests
import urllib3

from cancelable_core import Cancelable, OperationCancelled, OperationStatus, OperationStore, OperationTimedOut
from cancelable_core.interrupters.httpx import interruptible_transport
from cancelable_core.interrupters.requests import interruptible_adapter
from cancelable_core.interrupters.urllib3 import instrument
from tests.core.helpers import DEADLINE_SECONDS, Running, becomes_true_soon, happens, happens_soon

from .servers import Certificates, WaitingServer, nobody_accepts, waiting_server

pytestmark = pytest.mark.timeout(60)

MUCH = 50_000_000
"""More than the buffers of two sockets hold."""


class Client(Protocol):
    def get(self, url: str) -> str: ...
    def post(self, url: str, body: bytes) -> object: ...
    def close(self) -> object: ...


class Httpx:
    def __init__(self, certificates: Certificates | None = None) -> None:
        transport = interruptible_transport(verify=certificates.client if certificates else False)
        self.client = httpx.Client(transport=transport, timeout=None)

    def get(self, url: str) -> str:
        return self.client.get(url).text

    def post(self, url: str, body: bytes) -> object:
        return self.client.post(url, content=body)

    def close(self) -> None:
        self.client.close()


class Requests:
    def __init__(self, certificates: Certificates | None = None) -> None:
        self.session = requests.Session()
        self.session.mount("http://", interruptible_adapter())
        self.session.mount("https://", interruptible_adapter())
        if certificates is not None:
            self.session.verify = str(certificates.authority)
            self.session.trust_env = False  # a bundle named there would go before this one

    def get(self, url: str) -> str:
        return self.session.get(url).text

    def post(self, url: str, body: bytes) -> object:
        return self.session.post(url, data=body)

    def close(self) -> None:
        self.session.close()


class Urllib3:
    """With its default of three retries, none of which may come of a cancel."""

    def __init__(self, certificates: Certificates | None = None) -> None:
        self.manager = instrument(urllib3.PoolManager(ssl_context=certificates and certificates.client))

    def get(self, url: str) -> str:
        return self.manager.request("GET", url).data.decode()

    def post(self, url: str, body: bytes) -> object:
        return self.manager.request("POST", url, body=body)

    def close(self) -> None:
        self.manager.clear()


CLIENTS = [Httpx, Requests, Urllib3]


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> Iterator[Client]:
    made = request.param()
    yield made
    made.close()


@pytest.fixture
def server() -> Iterator[WaitingServer]:
    with waiting_server() as serving:
        yield serving


def cancelled(call: Callable[[], object], reached: threading.Event, **options: Any) -> OperationCancelled:
    """The error with which an operation ends that is cancelled while it waits in ``call``."""
    operation = Cancelable(register=False, **options)
    canceller = Running(lambda: (happens(reached), operation.cancel_sync("enough")))
    started = time.monotonic()
    with pytest.raises(OperationCancelled) as caught:
        with operation:
            call()
    canceller.result()
    assert time.monotonic() - started < DEADLINE_SECONDS, "waited for the server"
    assert caught.value.operation_id == operation.id
    assert operation.status.is_final
    return caught.value


@pytest.mark.parametrize("path", ["/never", "/half"])
@pytest.mark.parametrize("reused", [True, False])
def test_a_request_ends_and_the_next_one_works(client: Client, server: WaitingServer, path: str, reused: bool) -> None:
    before = None
    if reused:
        before = client.get(server.url + "/port")
        assert client.get(server.url + "/port") == before, "the connection is not kept"
    error = cancelled(lambda: client.get(server.url + path), server.reached)
    assert error.message == "enough"
    after = client.get(server.url + "/port")
    assert after != before, "a connection that was shut down came back"
    assert client.get(server.url + "/port") == after, "the pool keeps no connection any more"


def test_sending_ends_too(client: Client, server: WaitingServer) -> None:
    cancelled(lambda: client.post(server.url + "/upload", bytes(MUCH)), server.reached)
    assert client.get(server.url + "/port")


@pytest.mark.parametrize("path", ["/never", "/half"])
def test_a_deadline_is_a_timeout_outside_the_operation(client: Client, server: WaitingServer, path: str) -> None:
    client.get(server.url + "/port")
    with pytest.raises(OperationTimedOut):
        with Cancelable(timeout=0.1, register=False) as operation:
            client.get(server.url + path)
    assert operation.status is OperationStatus.TIMED_OUT
    assert client.get(server.url + "/port")


def test_a_connection_that_is_never_made(client: Client, server: WaitingServer) -> None:
    with nobody_accepts() as url:
        with pytest.raises(OperationTimedOut):
            with Cancelable(timeout=0.1, register=False):
                client.get(url)
    assert client.get(server.url + "/port")


def test_without_an_operation_requests_work_as_ever(client: Client, server: WaitingServer) -> None:
    port = client.get(server.url + "/port")
    with Cancelable(register=False):
        assert client.get(server.url + "/port") == port, "made outside, used inside"
    assert client.get(server.url + "/port") == port, "used inside, used outside"


def test_other_operations_on_the_same_client_go_on(client: Client, server: WaitingServer) -> None:
    ended: list[str] = []

    def other() -> None:
        with Cancelable(register=False):
            ended.append(client.get(server.url + "/never"))

    running = Running(other)
    happens(server.reached)
    server.reached.clear()
    cancelled(lambda: client.get(server.url + "/never"), server.reached)
    assert not ended
    server.release.set()
    running.result()
    assert ended[0].isdigit()


def test_a_cancel_between_two_requests_touches_no_connection(client: Client, server: WaitingServer) -> None:
    port = client.get(server.url + "/port")
    with pytest.raises(OperationCancelled):
        with Cancelable(register=False) as operation:
            assert client.get(server.url + "/port") == port
            operation.cancel_sync()
            operation.check()
    assert client.get(server.url + "/port") == port


@pytest.mark.parametrize("make", CLIENTS)
@pytest.mark.parametrize("reused", [True, False])
def test_tls(make: Callable[..., Client], certificates: Certificates, reused: bool) -> None:
    client = make(certificates)
    try:
        with waiting_server(certificates.server) as server:
            if reused:
                client.get(server.url + "/port")
            cancelled(lambda: client.get(server.url + "/never"), server.reached)
            port = client.get(server.url + "/port")
            assert client.get(server.url + "/port") == port
    finally:
        client.close()


@pytest.mark.parametrize("make", CLIENTS)
def test_a_handshake_that_is_never_answered(make: Callable[..., Client], certificates: Certificates) -> None:
    """Somebody accepts, and says nothing."""
    client = make(certificates)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        try:
            with pytest.raises(OperationTimedOut):
                with Cancelable(timeout=0.2, register=False):
                    client.get(f"https://localhost:{listener.getsockname()[1]}/")
        finally:
            client.close()


@pytest.mark.parametrize("library", ["httpx", "requests"])
def test_through_a_proxy(server: WaitingServer, library: str) -> None:
    def get(path: str) -> str:
        return client.get(f"http://example.invalid{path}").text

    with httpx.Client(transport=interruptible_transport(proxy=server.url), timeout=None) as over_httpx:
        with requests.Session() as over_requests:
            over_requests.mount("http://", interruptible_adapter())
            over_requests.proxies["http"] = server.url
            client: Any = over_httpx if library == "httpx" else over_requests
            get("/port")
            cancelled(lambda: get("/never"), server.reached)
            assert get("/port") == get("/port")


async def test_an_async_client_of_httpx_needs_no_interrupter(server: WaitingServer) -> None:
    operation = Cancelable(register=False)
    async with httpx.AsyncClient(timeout=None) as client, anyio.create_task_group() as tasks:

        async def cancel() -> None:
            await happens_soon(server.reached)
            operation.cancel_sync()

        tasks.start_soon(cancel)
        with anyio.fail_after(DEADLINE_SECONDS):
            with pytest.raises(OperationCancelled):
                async with operation:
                    await client.get(server.url + "/never")
            assert (await client.get(server.url + "/port")).status_code == 200


async def test_a_synchronous_client_in_run_in_thread(client: Client, server: WaitingServer, store: OperationStore) -> None:
    """The await ends at once, and the thread it leaves behind soon."""
    operation = Cancelable(registry=store)
    canceller = Running(lambda: (happens(server.reached), operation.cancel_sync()))
    with anyio.fail_after(DEADLINE_SECONDS):
        with pytest.raises(OperationCancelled):
            async with operation:
                await operation.run_in_thread(client.get, server.url + "/never")
    canceller.result()
    await becomes_true_soon(lambda: store.statistics().abandoned_threads == 0)


def test_retries_of_httpx_pause_interruptibly() -> None:
    """Nobody listens there, and five attempts would pause for some seconds in between."""
    with httpx.Client(transport=interruptible_transport(retries=5)) as client:
        with pytest.raises(OperationTimedOut):
            with Cancelable(timeout=0.1, register=False):
                client.get("http://127.0.0.1:9/")


def test_instrumenting_twice_is_once() -> None:
    once = instrument(urllib3.PoolManager())
    pools = dict(once.pool_classes_by_scheme)
    assert instrument(once).pool_classes_by_scheme == pools
    once.clear()


def test_http_2_is_refused() -> None:
    with pytest.raises(ValueError, match=r"HTTP/1\.1 only"):
        interruptible_transport(http2=True)
