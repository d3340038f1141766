"""Requests that nobody looks at: whoever looks, whenever, finds what he would have found had they been made at once."""

from __future__ import annotations

import gc
import os
import signal
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest

from cancelable_core import (
    Cancelable,
    CancelationReason,
    OperationCancelled,
    OperationStatus,
    OperationStore,
    ThreadSafeRegistry,
    current_operation,
)
from cancelable_core.http_api import Settings
from cancelable_core.models import OperationKind
from cancelable_core.operation import current_variable
from cancelable_core.servers import CancelableAsgi, CancelableWsgi, LatentRequest, RequestOperation, WebApplication
from cancelable_core.servers.asgi import AsgiRequest
from cancelable_core.servers.asgi_client import GRACE_SECONDS
from tests.adapters.flask.helpers import Exchange
from tests.collector import no_collector
from tests.core.helpers import Running, happens, happens_soon

from .latent import Request, begun, made, wsgi_application
from .test_following_the_client import Client

DEADLINE_SECONDS = 10.0

Environ = dict[str, Any]
Start = Callable[..., Any]


@pytest.fixture(autouse=True)
def nothing_is_current() -> None:
    """Not even what another thread ended."""
    current_variable.set(None)


@pytest.fixture
def store() -> OperationStore:
    return OperationStore()


def wsgi(store: OperationStore, application: Callable[[Environ, Start], Iterable[bytes]]) -> CancelableWsgi:
    return CancelableWsgi(application, registry=store, cancel_on_disconnect="scoped")


def statuses(store: OperationStore) -> dict[str, int]:
    """What was counted, without what was not."""
    statistics = store.statistics()
    counts = {str(status): getattr(statistics, f"{status}_operations") for status in OperationStatus}
    assert sum(counts.values()) == statistics.total_operations
    return {status: count for status, count in counts.items() if count}


def hello(environ: Environ, start_response: Start) -> list[bytes]:
    start_response("200 OK", [("Content-Length", "5")])
    return [b"hello"]


# --- how a WSGI response can end


def test_a_request_that_nobody_looks_at_is_only_counted(store: OperationStore) -> None:
    exchange = Exchange(wsgi(store, hello), "/")
    assert len(store.latent) == 1
    assert list(exchange.chunks) == [b"hello"]
    exchange.close()
    assert not store.latent
    assert not store._live
    assert statuses(store) == {"completed": 1}


@pytest.mark.parametrize("take", [0, 1])
def test_a_response_that_is_complete_or_was_never_read_completes(store: OperationStore, take: int) -> None:
    exchange = Exchange(wsgi(store, hello), "/")
    assert len([next(exchange.chunks) for _ in range(take)]) == take
    exchange.close()
    exchange.close()
    assert statuses(store) == {"completed": 1}
    assert current_operation() is None


@pytest.mark.parametrize("looks", [False, True])
def test_a_response_that_is_closed_between_its_chunks_was_cancelled(store: OperationStore, looks: bool) -> None:
    def stream(environ: Environ, start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"a"
        yield b"b"

    exchange = Exchange(wsgi(store, stream), "/")
    next(exchange.chunks)
    if looks:
        assert statuses(store) == {"running": 1}
    exchange.close()
    assert statuses(store) == {"cancelled": 1}
    (context,) = ThreadSafeRegistry(store).get_history()
    assert context.reason in (CancelationReason.PARENT, CancelationReason.DISCONNECT)


def test_an_answer_to_head_is_complete_without_a_body(store: OperationStore) -> None:
    exchange = Exchange(wsgi(store, hello), "/", REQUEST_METHOD="HEAD")
    next(exchange.chunks)
    exchange.close()
    assert statuses(store) == {"completed": 1}


@pytest.mark.parametrize("looks", [False, True])
def test_a_view_that_raises_fails(store: OperationStore, looks: bool) -> None:
    def broken(environ: Environ, start_response: Start) -> list[bytes]:
        if looks:
            store.statistics()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Exchange(wsgi(store, broken), "/")
    assert statuses(store) == {"failed": 1}
    assert current_operation() is None
    assert not store.latent
    assert not store._live


def test_an_application_that_returns_no_body_fails(store: OperationStore) -> None:
    def nothing(environ: Environ, start_response: Start) -> Any:
        start_response("200 OK", [])

    with pytest.raises(TypeError):
        Exchange(wsgi(store, nothing), "/")
    assert statuses(store) == {"failed": 1}
    assert current_operation() is None


def test_a_generator_that_starts_late_runs_inside_its_request(store: OperationStore) -> None:
    def late(environ: Environ, start_response: Start) -> Iterator[bytes]:
        seen.append(current_operation())
        start_response("200 OK", [])
        yield b"a"
        seen.append(current_operation())

    seen: list[Cancelable | None] = []
    exchange = Exchange(wsgi(store, late), "/")
    assert not seen
    assert list(exchange.chunks) == [b"a"]
    exchange.close()
    assert seen[0] is seen[1] is not None
    assert statuses(store) == {"completed": 1}


def test_a_broken_stream_fails(store: OperationStore) -> None:
    def stream(environ: Environ, start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"a"
        raise ZeroDivisionError

    exchange = Exchange(wsgi(store, stream), "/")
    with pytest.raises(ZeroDivisionError):
        list(exchange.chunks)
    exchange.close()
    assert statuses(store) == {"failed": 1}


@pytest.mark.parametrize("where", ["in the body", "in close"])
def test_a_client_that_has_it_all_is_not_followed_by_what_comes_after(store: OperationStore, where: str) -> None:
    def look() -> None:
        with Cancelable("clean-up", registry=store):
            watched.append(client.is_watched)

    class Body:
        """Its length is known; and it does something after its last chunk."""

        def __iter__(self) -> Iterator[bytes]:
            yield b"hello"
            if where == "in the body":
                look()

        def close(self) -> None:
            if where == "in close":
                look()

    def application(environ: Environ, start_response: Start) -> Body:
        start_response("200 OK", [("Content-Length", "5")])
        return Body()

    client, watched = Client(), list[bool]()
    exchange = Exchange(wsgi_application(application, client, registry=store), "/")
    next(exchange.chunks)
    if where == "in the body":
        assert list(exchange.chunks) == []
    exchange.close()
    assert watched == [False]
    assert statuses(store) == {"completed": 2}


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_client_of_a_view_that_works_is_followed_whatever_the_method(store: OperationStore, method: str) -> None:
    def application(environ: Environ, start_response: Start) -> list[bytes]:
        with Cancelable("work", registry=store):
            watched.append(client.is_watched)
        return hello(environ, start_response)

    client, watched = Client(), list[bool]()
    exchange = Exchange(wsgi_application(application, client, registry=store), "/", REQUEST_METHOD=method)
    list(exchange.chunks)
    assert watched == [True]
    assert statuses(store) == {"completed": 2}


# --- ends and looks


@pytest.mark.parametrize("error", [None, ZeroDivisionError(), GeneratorExit()])
def test_an_end_waits_for_the_look_in_progress(store: OperationStore, error: BaseException | None) -> None:
    """Otherwise it is registered after it has left, and stays."""
    request = begun(store)
    register, reached, goes_on = store.register, threading.Event(), threading.Event()

    def slow(*args: Any) -> None:
        reached.set()
        assert goes_on.wait(DEADLINE_SECONDS)
        register(*args)

    store.register = slow  # type: ignore[method-assign]
    looker = threading.Thread(target=store.statistics)
    looker.start()
    assert reached.wait(DEADLINE_SECONDS)
    ender = threading.Thread(target=request.end, args=(error,))
    ender.start()
    ender.join(0.05)
    goes_on.set()
    looker.join(DEADLINE_SECONDS)
    ender.join(DEADLINE_SECONDS)
    operation = made(request)
    assert operation.status.is_final
    assert not store._live
    assert not store.latent
    assert statuses(store) == {str(operation.status): 1}
    assert current_operation() is None


@pytest.mark.parametrize(
    ("error", "status"), [(ZeroDivisionError(), "failed"), (GeneratorExit(), "cancelled")], ids=["error", "closed"]
)
def test_an_error_is_seen_by_the_request_itself(store: OperationStore, error: BaseException, status: str) -> None:
    request = begun(store)
    request.end(error)
    assert statuses(store) == {status: 1}
    assert made(request).status == status
    assert not store.latent


def test_an_operation_of_its_own_begins_once(store: OperationStore) -> None:
    operation = RequestOperation("GET", lambda: "/x", store=store)
    operation.end()
    assert operation.status is OperationStatus.PENDING
    operation.begin()
    with pytest.raises(RuntimeError, match="used once"):
        operation.begin()
    operation.end()
    assert statuses(store) == {"completed": 1}


def test_inside_of_an_operation_it_is_made_at_once(store: OperationStore) -> None:
    with Cancelable("outer", registry=store) as outer:
        request = begun(store)
        assert request.made is not None
        assert request.made.enclosing is outer
        assert request.made.parent is None
        request.end()
        assert current_operation() is outer
    assert statuses(store) == {"completed": 2}


def test_inside_of_another_unseen_request_both_are_made(store: OperationStore) -> None:
    outer = begun(store)
    inner = begun(store)
    assert inner.made is not None
    assert inner.made.enclosing is outer.made is not None
    inner.end()
    assert current_operation() is outer.made
    outer.end()
    assert current_operation() is None
    assert statuses(store) == {"completed": 2}


def test_every_end_at_once_counts_once(store: OperationStore) -> None:
    request = begun(store)
    threads = [threading.Thread(target=request.end) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_SECONDS)
    assert statuses(store) == {"completed": 1}
    assert current_operation() is None


def test_a_name_can_be_asked_for_while_the_request_ends(store: OperationStore) -> None:
    def ends_meanwhile() -> str:
        request.end()
        return "/x"

    request = begun(store, route=ends_meanwhile)
    assert made(request).name == "GET /x"


def test_jobs_that_an_unseen_request_submits_outlive_it(store: OperationStore) -> None:
    def submit(environ: Environ, start_response: Start) -> list[bytes]:
        jobs.append(app.jobs.submit(goes_on.wait, DEADLINE_SECONDS))
        return hello(environ, start_response)

    jobs: list[Any] = []
    goes_on = threading.Event()
    app = wsgi(store, submit)
    exchange = Exchange(app, "/")
    list(exchange.chunks)
    exchange.close()
    assert jobs[0].status in (OperationStatus.PENDING, OperationStatus.RUNNING)
    goes_on.set()
    assert jobs[0].result(DEADLINE_SECONDS)
    app.jobs.close()
    assert statuses(store) == {"completed": 2}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_is_without_the_parents_requests(store: OperationStore) -> None:
    request = begun(store)
    child = os.fork()
    if child == 0:
        try:
            lines = [
                store.statistics().total_operations == 0,
                not store.latent,
                current_operation() is None,
                request.make() is None,
            ]
            request.end()
            lines.append(store.statistics().total_operations == 0)
            os._exit(0 if all(lines) else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    grandchild = os.fork()
    if grandchild == 0:  # the end first, nobody having looked
        try:
            request.end()
            os._exit(store.statistics().total_operations)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]) == 0
    assert statuses(store) == {"running": 1}
    request.end()
    assert statuses(store) == {"completed": 1}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_fork_in_the_middle_of_a_look_leaves_nothing_locked(store: OperationStore) -> None:
    request = begun(store)
    register, reached, goes_on = store.register, threading.Event(), threading.Event()

    def slow(*args: Any) -> None:
        reached.set()
        assert goes_on.wait(DEADLINE_SECONDS)
        register(*args)

    store.register = slow  # type: ignore[method-assign]
    looker = threading.Thread(target=request.make)
    looker.start()
    assert reached.wait(DEADLINE_SECONDS)
    child = os.fork()
    if child == 0:
        signal.alarm(int(DEADLINE_SECONDS))  # which ends a child that hangs
        store.register = register  # type: ignore[method-assign]
        try:
            request.end()
            other = begun(store)
            is_alone = store.statistics().running_operations == 1
            other.end()
            os._exit(0 if is_alone and store.statistics().total_operations == 1 else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    goes_on.set()
    looker.join(DEADLINE_SECONDS)
    request.end()
    assert statuses(store) == {"completed": 1}


# --- memory


class Watched:
    """Something in the environ or the scope, to see when that goes."""


@pytest.mark.parametrize("looks", [False, True])
def test_a_wsgi_request_goes_with_its_last_reference(store: OperationStore, looks: bool) -> None:
    def application(environ: Environ, start_response: Start) -> list[bytes]:
        assert not looks or current_operation()
        return hello(environ, start_response)

    app = wsgi(store, application)
    gc.collect()
    gc.disable()
    try:
        for _ in range(2):
            watched = Watched()
            environ: Environ = {"REQUEST_METHOD": "GET", "watched": watched}
            body: Any = app(environ, lambda *_: None)
            alive = weakref.ref(watched), weakref.ref(environ["cancelable.request"])
            assert list(body) == [b"hello"]
            body.close()
            del body, environ, watched
            assert [each() for each in alive] == [None, None]
    finally:
        gc.enable()


@pytest.mark.parametrize("looks", [False, True])
async def test_an_asgi_request_goes_with_its_last_reference(store: OperationStore, looks: bool) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        assert not looks or current_operation()
        await hello_asgi(scope, receive, send)

    app = CancelableAsgi(application, registry=store, cancel_on_disconnect="scoped")
    gc.collect()
    gc.disable()
    try:
        watched = Watched()
        scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "watched": watched}
        await app(scope, receive_nothing, drop)
        alive = weakref.ref(watched), weakref.ref(scope["cancelable.request"])
        del watched, scope
        assert [each() for each in alive] == [None, None]
    finally:
        gc.enable()
    assert statuses(store) == {"completed": 1}


# --- ASGI

Message = MutableMapping[str, Any]


async def receive_nothing() -> Message:
    await anyio.sleep_forever()
    raise AssertionError


async def drop(message: Message) -> None:
    pass


async def hello_asgi(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


async def call(application: Any, store: OperationStore) -> LatentRequest:
    app = CancelableAsgi(application, registry=store, cancel_on_disconnect="scoped")
    scope: dict[str, Any] = {"type": "http", "method": "GET", "path": "/", "headers": []}
    await app(scope, receive_nothing, drop)
    request: LatentRequest = scope["cancelable.request"]
    return request


async def test_a_plain_function_in_a_thread_finds_the_request(store: OperationStore) -> None:
    async def endpoint(scope: Any, receive: Any, send: Any) -> None:
        found.append(await anyio.to_thread.run_sync(current_operation))
        await hello_asgi(scope, receive, send)

    found: list[Cancelable | None] = []
    request = await call(endpoint, store)
    assert found == [request.made] != [None]
    assert statuses(store) == {"completed": 1}


async def test_an_unseen_request_is_interrupted_where_it_waits(store: OperationStore) -> None:
    async def endpoint(scope: Any, receive: Any, send: Any) -> None:
        reached.set()
        await anyio.sleep_forever()

    reached = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call, endpoint, store)
        with anyio.fail_after(DEADLINE_SECONDS):
            await reached.wait()
            assert await anyio.to_thread.run_sync(ThreadSafeRegistry(store).cancel_all) == 0  # requests are not among these
            assert ThreadSafeRegistry(store).cancel_all(kind=OperationKind.REQUEST) == 1
    assert statuses(store) == {"cancelled": 1}


@pytest.mark.parametrize("looks", [False, True])
async def test_work_after_the_last_byte_is_not_the_requests(store: OperationStore, looks: bool) -> None:
    async def endpoint(scope: Any, receive: Any, send: Any) -> None:
        operation = current_operation() if looks else None
        await hello_asgi(scope, receive, send)
        if operation is not None:
            assert operation.status is OperationStatus.COMPLETED
            assert not operation.cancel_sync()
        await anyio.lowlevel.checkpoint()
        done.append(current_operation())

    done: list[object] = []
    await call(endpoint, store)
    assert done == [None]
    assert statuses(store) == {"completed": 1}
    await anyio.lowlevel.checkpoint()  # no cancel of its scope is left over


@pytest.mark.parametrize("looks", [False, True])
async def test_an_endpoint_that_raises_fails(store: OperationStore, looks: bool) -> None:
    async def endpoint(scope: Any, receive: Any, send: Any) -> None:
        if looks:
            store.statistics()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await call(endpoint, store)
    assert statuses(store) == {"failed": 1}
    assert not store.latent
    assert current_operation() is None


def asgi_request(store: OperationStore, of: type[AsgiRequest] = AsgiRequest) -> AsgiRequest:
    web = WebApplication(Settings(registry=store))
    scope = {"type": "http", "method": "GET"}
    return of(web, scope, receive_nothing, drop)


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    pass


async def test_a_cancel_during_the_end_of_the_block_hits_nothing_else(store: OperationStore) -> None:
    """Somebody looks and cancels between the last look at whether anybody did and the end."""

    class Seen(AsgiRequest):
        __slots__ = ()

        def end(self, error: BaseException | None = None) -> None:
            told.append(made(self).cancel_sync("at the last moment"))
            super().end(error)

    told: list[bool] = []
    request = asgi_request(store, Seen)
    await request.run(nothing)
    assert told == [True]
    assert made(request).status is OperationStatus.COMPLETED  # the body had ended
    for _ in range(3):
        await anyio.lowlevel.checkpoint()
    assert statuses(store) == {"completed": 1}
    assert not store._live


async def test_a_look_that_comes_while_the_request_ends_is_no_error(store: OperationStore) -> None:
    class Slow(AsgiRequest):
        __slots__ = ()

        def _create(self, native: Any) -> RequestOperation:
            looks.set()
            happens(ended)
            return super()._create(native)

    async def wait_for_a_look(scope: Any, receive: Any, send: Any) -> None:
        look.append(Running(store.statistics))
        await happens_soon(looks)
        await hello_asgi(scope, receive, send)

    looks, ended = threading.Event(), threading.Event()
    look: list[Running[object]] = []
    request = asgi_request(store, Slow)
    await request.run(wait_for_a_look)
    ended.set()
    look[0].result()
    assert statuses(store) == {"completed": 1}
    assert request.made is None


async def test_code_in_a_thread_of_anyio_hears_of_a_cancel_that_nobody_looked_for_before(store: OperationStore) -> None:
    """anyio remembers the scope from which the thread was called: what is entered later it never asks."""

    def ask_again_and_again() -> None:
        reached.set()
        for _ in range(10_000):
            anyio.from_thread.check_cancelled()
            threading.Event().wait(0.001)

    async def endpoint(scope: Any, receive: Any, send: Any) -> None:
        await anyio.to_thread.run_sync(ask_again_and_again)

    reached = threading.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call, endpoint, store)
        await happens_soon(reached)
        assert ThreadSafeRegistry(store).cancel_all(kind=OperationKind.REQUEST) == 1
    assert statuses(store) == {"cancelled": 1}


async def test_whoever_asks_for_the_client_after_the_end_is_told_nothing(store: OperationStore) -> None:
    scope: dict[str, Any] = {"type": "http", "method": "GET", "path": "/", "headers": []}
    reads: list[object] = []
    told: list[object] = []

    async def receive() -> Any:
        reads.append(None)
        return {"type": "http.disconnect"}

    await CancelableAsgi(nothing, registry=store, cancel_on_disconnect="scoped")(scope, receive, drop)
    client = scope["cancelable.client"]
    client.start(lambda: told.append(None))
    await anyio.to_thread.run_sync(client.start, lambda: told.append(None))
    await anyio.to_thread.run_sync(client.stop)
    await anyio.sleep(2 * GRACE_SECONDS)
    assert (reads, told) == ([], [])


async def test_a_cancelled_request_that_goes_on_to_its_response_is_freed(store: OperationStore) -> None:
    async def wait() -> None:
        operation = current_operation()
        assert operation is not None
        operation.cancel_sync()
        await anyio.sleep_forever()

    async def ask() -> weakref.ref[LatentRequest]:
        request = Request(store)
        try:
            await request.begin_around(wait, request.web)
        except OperationCancelled as error:  # which knows this function, which knows it no longer below
            request.end(error)
        return weakref.ref(request)

    with no_collector():
        known = await ask()
        await anyio.lowlevel.checkpoint()
        assert known() is None


async def test_an_application_that_leaves_a_scope_open_leaves_no_request(store: OperationStore) -> None:
    async def leave_open(scope: Any, receive: Any, send: Any) -> None:
        assert request.make() is not None
        made(request).cancel_sync()
        with anyio.CancelScope(shield=True):
            await anyio.lowlevel.checkpoint()  # it is cancelled by now
        anyio.CancelScope().__enter__()

    request = asgi_request(store)
    with pytest.raises(RuntimeError):
        await request.run(leave_open)
    assert not store.latent
    assert not store._live
    assert current_operation() is None


async def test_a_block_that_cannot_begin_leaves_no_scope(store: OperationStore) -> None:
    class Broken(AsgiRequest):
        __slots__ = ()

        def _create(self, native: Any) -> RequestOperation:
            raise ZeroDivisionError

    with Cancelable("outer", registry=store):  # in which it would have to be an operation at once
        with pytest.raises(ZeroDivisionError):
            await asgi_request(store, Broken).run(nothing)
    with anyio.CancelScope() as scope:  # which anyio refuses to leave with another inside
        scope.cancel()
        await anyio.sleep_forever()


async def test_inside_of_an_operation_a_block_is_made_at_once(store: OperationStore) -> None:
    async def look(scope: Any, receive: Any, send: Any) -> None:
        assert request.made is not None
        assert request.made.enclosing is outer

    request = asgi_request(store)
    async with Cancelable("outer", registry=store) as outer:
        await request.run(look)
        assert current_operation() is outer
    assert statuses(store) == {"completed": 2}


async def test_an_error_after_the_end_passes_and_changes_nothing(store: OperationStore) -> None:
    async def fail(scope: Any, receive: Any, send: Any) -> None:
        request.end()
        raise ZeroDivisionError

    request = asgi_request(store)
    with pytest.raises(ZeroDivisionError):
        await request.run(fail)
    assert statuses(store) == {"completed": 1}
    assert current_operation() is None


async def test_a_cancel_of_a_request_that_was_looked_at_is_answered(store: OperationStore) -> None:
    class Answering(AsgiRequest):
        __slots__ = ()

        async def answer(self, error: OperationCancelled, scope: Any) -> bool:
            answered.append(error)
            return True

    async def wait(scope: Any, receive: Any, send: Any) -> None:
        ThreadSafeRegistry(store).cancel_all(kind=OperationKind.REQUEST, message="enough")
        await anyio.sleep_forever()

    answered: list[OperationCancelled] = []
    request = asgi_request(store, Answering)
    await request.run(wait)
    assert [(error.operation_id, error.message) for error in answered] == [(made(request).id, "enough")]
    assert statuses(store) == {"cancelled": 1}
