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
from cancelable_core.models import OperationKind
from cancelable_core.operation import current_variable
from cancelable_core.servers import CancelableAsgi, CancelableWsgi, RequestOperation, run_wsgi
from cancelable_core.wakeup import running_port
from tests.adapters.flask.helpers import Exchange

from .test_following_the_client import Client

DEADLINE_SECONDS = 10.0

Environ = dict[str, Any]
Start = Callable[..., Any]


@pytest.fixture(autouse=True)
def nothing_is_current() -> None:
    """Not even what another thread ended, which counts as being inside of something: the next one would be made at once."""
    current_variable.set(None)


@pytest.fixture
def store() -> OperationStore:
    return OperationStore()


def new_request(store: OperationStore, **options: Any) -> RequestOperation:
    return RequestOperation("GET", lambda: "/x", store=store, **options)


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
    request = new_request(store, client=lambda: client)
    environ = {"REQUEST_METHOD": "GET"}
    body = run_wsgi(application, environ, lambda *_: None, request, response_header="scoped")
    chunks = iter(body)
    next(chunks)
    if where == "in the body":
        assert list(chunks) == []
    body.close()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    assert watched == [False]
    assert request.status is OperationStatus.COMPLETED


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_client_of_a_view_that_works_is_followed_whatever_the_method(store: OperationStore, method: str) -> None:
    def application(environ: Environ, start_response: Start) -> list[bytes]:
        with Cancelable("work", registry=store):
            watched.append(client.is_watched)
        return hello(environ, start_response)

    client, watched = Client(), list[bool]()
    request = new_request(store, client=lambda: client)
    body = run_wsgi(application, {"REQUEST_METHOD": method}, lambda *_: None, request, response_header="scoped")
    list(body)
    assert watched == [True]
    assert request.status is OperationStatus.COMPLETED


# --- ends and looks


@pytest.mark.parametrize("error", [None, ZeroDivisionError(), GeneratorExit()])
def test_an_end_waits_for_the_look_in_progress(store: OperationStore, error: BaseException | None) -> None:
    """Otherwise it is registered after it has left, and stays."""
    request = new_request(store)
    request.begin()
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
    assert request.status.is_final
    assert not store._live
    assert not store.latent
    assert statuses(store) == {str(request.status): 1}
    assert current_operation() is None


def test_one_that_ended_unseen_cannot_be_cancelled_any_more(store: OperationStore) -> None:
    request = new_request(store)
    request.begin()
    request.end()
    assert not request.cancel_sync("too late")
    assert not request.was_cancelled
    assert request.status is OperationStatus.COMPLETED
    assert statuses(store) == {"completed": 1}


def test_one_that_was_looked_at_before_it_begins_is_an_operation_like_any_other(store: OperationStore) -> None:
    request = new_request(store)
    assert request.id
    assert request.status is OperationStatus.PENDING
    request.begin()
    assert current_operation() is request
    assert [each.id for each in ThreadSafeRegistry(store).list_operations(kind=OperationKind.REQUEST)] == [request.id]
    request.end()
    assert statuses(store) == {"completed": 1}


def test_an_end_before_the_beginning_is_none(store: OperationStore) -> None:
    request = new_request(store)
    request.end()
    assert request.status is OperationStatus.PENDING
    assert request.name == "GET /x"
    assert statuses(store) == {}
    request.begin()
    assert statuses(store) == {"running": 1}
    request.end()
    assert statuses(store) == {"completed": 1}


def test_it_begins_once(store: OperationStore) -> None:
    request = new_request(store)
    request.begin()
    with pytest.raises(RuntimeError, match="used once"):
        request.begin()
    request.end()
    with pytest.raises(RuntimeError, match="used once"):
        request.begin()
    assert not store.latent
    assert statuses(store) == {"completed": 1}


def test_inside_of_an_operation_it_is_made_at_once(store: OperationStore) -> None:
    with Cancelable("outer", registry=store) as outer:
        request = new_request(store)
        request.begin()
        assert request.is_made
        assert request.enclosing is outer
        assert request.parent is None
        request.end()
        assert current_operation() is outer
    assert statuses(store) == {"completed": 2}


def test_every_end_at_once_counts_once(store: OperationStore) -> None:
    request = new_request(store)
    request.begin()
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

    request = RequestOperation("GET", ends_meanwhile, store=store)
    request.begin()
    assert request.name == "GET /x"


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
    request = new_request(store)
    request.begin()
    child = os.fork()
    if child == 0:
        try:
            lines = [
                store.statistics().total_operations == 0,
                not store.latent,
                current_operation() is None,
                request.cancel_sync() is False,
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
    request = new_request(store)
    request.begin()
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
            other = new_request(store)
            other.begin()
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
            alive = weakref.ref(watched), weakref.ref(environ["cancelable.operation"])
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
        alive = weakref.ref(watched), weakref.ref(scope["cancelable.operation"])
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


async def call(application: Any, store: OperationStore) -> RequestOperation:
    app = CancelableAsgi(application, registry=store, cancel_on_disconnect="scoped")
    scope: dict[str, Any] = {"type": "http", "method": "GET", "path": "/", "headers": []}
    await app(scope, receive_nothing, drop)
    operation: RequestOperation = scope["cancelable.operation"]
    return operation


async def test_a_plain_function_in_a_thread_finds_the_request(store: OperationStore) -> None:
    async def endpoint(scope: Any, receive: Any, send: Any) -> None:
        found.append(await anyio.to_thread.run_sync(current_operation))
        await hello_asgi(scope, receive, send)

    found: list[Cancelable | None] = []
    operation = await call(endpoint, store)
    assert found == [operation]
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
        await hello_asgi(scope, receive, send)
        operation = scope["cancelable.operation"]
        if looks:
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


async def test_a_cancel_during_the_end_of_the_block_hits_nothing_else(store: OperationStore) -> None:
    """Somebody looks and cancels between the last look at whether anybody did and the end."""

    class Seen(RequestOperation):
        __slots__ = ()

        def end(self, error: BaseException | None = None) -> None:
            told.append(self.cancel_sync("at the last moment"))
            super().end(error)

    told: list[bool] = []
    request = Seen("GET", lambda: "/x", store=store, port=running_port())
    async with request:
        assert not request.is_made
    assert told == [True]
    assert request.status is OperationStatus.COMPLETED  # the body had ended
    for _ in range(3):
        await anyio.lowlevel.checkpoint()
    assert statuses(store) == {"completed": 1}
    assert not store._live


async def test_a_block_that_is_left_wrongly_leaves_no_request(store: OperationStore) -> None:
    request = new_request(store, port=running_port())
    await request.__aenter__()
    inner = anyio.CancelScope()
    inner.__enter__()
    with pytest.raises(RuntimeError):
        await request.__aexit__(None, None, None)
    assert not store.latent
    assert not store._live
    assert current_operation() is None


async def test_inside_of_an_operation_a_block_is_made_at_once(store: OperationStore) -> None:
    async with Cancelable("outer", registry=store) as outer:
        async with new_request(store, port=running_port()) as request:
            assert request.is_made
            assert request.enclosing is outer
        assert current_operation() is outer
    assert statuses(store) == {"completed": 2}


async def test_a_request_is_an_async_block_once(store: OperationStore) -> None:
    request = new_request(store, port=running_port())
    async with request:
        pass
    with pytest.raises(RuntimeError, match="used once"):
        await request.__aenter__()
    assert not store.latent
    assert statuses(store) == {"completed": 1}


async def test_a_cancelled_body_of_a_request_that_was_looked_at_raises_its_error(store: OperationStore) -> None:
    request = new_request(store, port=running_port())
    with pytest.raises(OperationCancelled) as caught:
        async with request:
            ThreadSafeRegistry(store).cancel_all(kind=OperationKind.REQUEST, message="enough")
            await anyio.sleep_forever()
    assert caught.value.operation_id == request.id
    assert caught.value.message == "enough"
    assert statuses(store) == {"cancelled": 1}
