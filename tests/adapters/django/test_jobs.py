"""Jobs of a Django project: whose they are, when they start, and the database connections they work with (a real file)."""

from __future__ import annotations

import asyncio
import threading
from contextvars import ContextVar
from functools import partial
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import connection, connections, transaction
from django.db.utils import ProgrammingError
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, Client
from django.urls import path

from cancelable_core import CancelationReason, DuplicateOperation, OperationCancelled
from cancelable_django import current_operation, jobs
from cancelable_django.conf import registry

from .helpers import Exchange, ask_client, becomes_true_soon, happens, site


def _count() -> int:
    return get_user_model().objects.count()


def _connection() -> Any:
    """The connection of the thread that calls this, opened."""
    connection.ensure_connection()
    return connections["default"]


# --- submitting


def test_submit_works_without_a_request() -> None:
    job = jobs.submit(_count, name="count")
    assert job.result(10) == _count()
    assert (job.context.kind, job.context.name, job.context.owner) == ("job", "count", None)


@pytest.mark.anyio
async def test_asubmit_works_without_a_request() -> None:
    job = await jobs.asubmit(_count, owner="somebody")
    assert (await job.wait()).owner == "somebody"
    assert job.result() == await get_user_model().objects.acount()


@pytest.mark.anyio
async def test_async_job_works_with_the_database() -> None:
    async def work() -> int:
        return await get_user_model().objects.acount()

    job = await jobs.asubmit(work)
    await job.wait()
    assert job.result() == await get_user_model().objects.acount()


def test_async_job_of_a_sync_view_too() -> None:
    async def work() -> int:
        return await get_user_model().objects.acount()

    def view(request: HttpRequest) -> HttpResponse:
        return HttpResponse(str(jobs.submit(work).result(10)))

    with site(path("work", view)):
        assert ask_client("/work").body == str(_count()).encode()


def test_job_sees_what_the_request_had_in_its_context() -> None:
    tenant = ContextVar[str]("tenant")

    def view(request: HttpRequest) -> HttpResponse:
        token = tenant.set("acme")
        try:
            return HttpResponse(jobs.submit(tenant.get).result(10))
        finally:
            tenant.reset(token)

    with site(path("work", view)):
        assert ask_client("/work").body == b"acme"


def test_job_is_not_the_request_s_child_unless_told_so() -> None:
    ids: dict[str, str | None] = {}

    def view(request: HttpRequest) -> HttpResponse:
        operation = current_operation()
        assert operation is not None
        ids["request"] = operation.id
        ids["free"] = jobs.submit(int).context.parent_id
        ids["following"] = jobs.submit(int, follow_request=True).context.parent_id
        return HttpResponse()

    with site(path("work", view)):
        ask_client("/work")
    assert ids["free"] is None
    assert ids["following"] == ids["request"]


def test_closed_runner_accepts_nothing_and_cancels_what_runs() -> None:
    begun = threading.Event()

    def work() -> None:
        operation = current_operation()
        assert operation is not None
        begun.set()
        operation.sleep(60)

    with site(CANCELABLE={"JOB_WORKERS": 1}):
        job = jobs.submit(work)
        happens(begun)
        jobs.close()
        with pytest.raises(OperationCancelled) as caught:
            job.result(10)
        assert caught.value.reason is CancelationReason.SHUTDOWN
        with pytest.raises(RuntimeError, match="closed"):
            jobs.submit(int)


# --- the client leaves, the job stays


@pytest.mark.anyio
@pytest.mark.parametrize("is_async", [True, False], ids=["async job", "sync job"])
async def test_job_outlives_a_request_whose_client_left_and_still_has_a_database(is_async: bool) -> None:
    begun, left = threading.Event(), threading.Event()
    started: list[Any] = []

    def work() -> int:
        happens(left)
        return _count()

    async def awork() -> int:
        await becomes_true_soon(left.is_set)
        return await get_user_model().objects.acount()

    async def view(request: HttpRequest) -> HttpResponse:
        await get_user_model().objects.acount()  # so that the request has a thread of its own for plain code
        started.append(await jobs.asubmit(awork if is_async else work))
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    with site(path("work", view)):
        exchange = Exchange("/work")
        await becomes_true_soon(begun.is_set)
        exchange.leave()
        assert await exchange.over() is None
        left.set()
        (job,) = started
        assert (await job.wait()).status == "completed"
        assert job.result() == await get_user_model().objects.acount()


@pytest.mark.anyio
async def test_async_job_does_not_hold_up_the_end_of_its_request() -> None:
    over = asyncio.Event()

    async def work() -> None:
        await get_user_model().objects.acount()
        await over.wait()
        await get_user_model().objects.acount()

    async def view(request: HttpRequest) -> HttpResponse:
        started.append(await jobs.asubmit(work))
        return HttpResponse()

    started: list[Any] = []
    with site(path("work", view)):
        assert (await Exchange("/work").answer()).status == 200
        over.set()
        assert (await started[0].wait()).status == "completed"


def test_async_job_of_an_async_view_under_wsgi_outlives_the_loop_of_the_view() -> None:
    answered = threading.Event()
    started: list[Any] = []

    async def work() -> int:
        await becomes_true_soon(answered.is_set)
        return await get_user_model().objects.acount()

    async def view(request: HttpRequest) -> HttpResponse:
        started.append(await jobs.asubmit(work))
        return HttpResponse()

    with site(path("work", view)):
        assert ask_client("/work").status == 200
        answered.set()
        assert started[0].result(10) == _count()


# --- database connections


def test_connection_of_a_job_is_closed_after_it() -> None:
    """As after a request, with CONN_MAX_AGE = 0; otherwise it would stay open as long as the thread."""
    with site(CANCELABLE={"JOB_WORKERS": 1}):
        first = jobs.submit(_connection).result(10)
        assert first.connection is None
        assert jobs.submit(_connection).result(10) is first  # the same thread has the same one, opened again
        assert first.connection is None


def test_connection_is_closed_after_a_job_that_failed() -> None:
    found: list[Any] = []

    def fail() -> None:
        found.append(_connection())
        raise ZeroDivisionError

    job = jobs.submit(fail)
    with pytest.raises(ZeroDivisionError):
        job.result(10)
    assert found[0].connection is None


def test_connection_that_broke_in_one_job_is_none_of_the_next_one_s() -> None:
    def break_it() -> None:
        _connection().connection.close()
        _count()

    with site(CANCELABLE={"JOB_WORKERS": 1}):
        broken = jobs.submit(break_it)
        with pytest.raises(ProgrammingError):
            broken.result(10)
        assert jobs.submit(_count).result(10) == _count()


def test_job_does_not_work_inside_its_submitter_s_transaction() -> None:
    with transaction.atomic():
        connection_of_job = jobs.submit(_connection).result(10)
        assert connection_of_job is not connections["default"]
        assert not connection_of_job.in_atomic_block
        assert connections["default"].in_atomic_block


@pytest.mark.anyio
@pytest.mark.parametrize("fails", [False, True])
async def test_connections_of_an_async_job_are_closed_after_it(fails: bool) -> None:
    from asgiref.sync import sync_to_async

    async def work() -> Any:
        opened = await sync_to_async(_connection)()
        found.append(opened)
        assert opened is await sync_to_async(_connection)()  # one thread, so one connection
        if fails:
            raise ZeroDivisionError

    found: list[Any] = []
    job = await jobs.asubmit(work)
    assert (await job.wait()).status == ("failed" if fails else "completed")
    assert found[0].connection is None


@pytest.mark.anyio
async def test_connections_of_a_cancelled_async_job_are_closed_too() -> None:
    from asgiref.sync import sync_to_async

    found: list[Any] = []

    async def work() -> None:
        found.append(await sync_to_async(_connection)())
        await asyncio.Event().wait()

    job = await jobs.asubmit(work)
    await becomes_true_soon(lambda: found)
    job.cancel_sync("enough")
    assert (await job.wait()).status == "cancelled"
    assert found[0].connection is None


# --- submit_on_commit


def test_job_starts_when_the_transaction_has_committed(alice: Any) -> None:
    with transaction.atomic():
        job_id = jobs.submit_on_commit(_count, name="count", owner="somebody")
        assert registry().get_operation(job_id) is None
    context = registry().wait_for(job_id, 10)
    assert context is not None
    assert (context.status, context.name, context.owner) == ("completed", "count", "somebody")


def test_job_of_a_transaction_that_is_rolled_back_never_is() -> None:
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        job_id = jobs.submit_on_commit(_count)
        raise ZeroDivisionError
    assert registry().get_operation(job_id) is None


def test_job_starts_at_once_without_a_transaction() -> None:
    job_id = jobs.submit_on_commit(_count, using="default")
    assert registry().wait_for(job_id, 10) is not None


def test_job_sees_what_was_committed() -> None:
    seen: list[bool] = []

    def look() -> None:
        seen.append(get_user_model().objects.filter(username="committed").exists())

    with transaction.atomic():
        user = get_user_model().objects.create(username="committed")
        job_id = jobs.submit_on_commit(look)
    registry().wait_for(job_id, 10)
    user.delete()
    assert seen == [True]


def test_id_may_be_given() -> None:
    assert jobs.submit_on_commit(int, job_id="given") == "given"
    context = registry().wait_for("given", 10)
    assert context is not None
    assert context.id_is_secret is False


def test_owner_is_who_asked_for_it(alice: Any) -> None:
    ids: list[str] = []

    def view(request: HttpRequest) -> HttpResponse:
        with transaction.atomic():
            ids.append(jobs.submit_on_commit(int))
        return HttpResponse()

    client = Client()
    client.force_login(alice)
    with site(path("work", view)):
        client.get("/work")
        context = registry().wait_for(ids[0], 10)
    assert context is not None
    assert context.owner == str(alice.pk)


@pytest.mark.anyio
async def test_async_views_are_told_what_to_use(alice: Any) -> None:
    async def view(request: HttpRequest) -> HttpResponse:
        with pytest.raises(RuntimeError, match="asubmit"):
            jobs.submit_on_commit(int)
        return HttpResponse(b"told")

    with site(path("work", view)):
        response: Any = await AsyncClient().get("/work")
    assert response.content == b"told"


@pytest.mark.parametrize("keyword", ["using", "job_id"])
def test_keyword_that_the_function_has_too_is_refused(keyword: str) -> None:
    namespace: dict[str, Any] = {}
    exec(f"def work(*, {keyword}=''): ...", namespace)
    work = namespace["work"]
    with pytest.raises(TypeError, match=rf"functools\.partial\(func, {keyword}=\.\.\.\)"):
        jobs.submit_on_commit(work, **{keyword: "default"})


def test_keyword_that_the_function_has_bound_is_ours() -> None:
    def work(job_id: str) -> str:
        return job_id

    job_id = jobs.submit_on_commit(partial(work, job_id="the function's"), job_id="ours")
    context = registry().wait_for(job_id, 10)
    assert context is not None
    assert context.status == "completed"


def test_id_in_use_is_refused_on_commit() -> None:
    release = threading.Event()
    job = jobs.submit(happens, release, job_id="in-use")
    with pytest.raises(DuplicateOperation):
        jobs.submit_on_commit(int, job_id="in-use")
    release.set()
    job.result(10)


def test_captured_callbacks_start_the_job() -> None:
    """What Django's TestCase has for transactions that never commit."""
    from django.test import TestCase

    with transaction.atomic():
        with TestCase.captureOnCommitCallbacks(execute=True) as callbacks:
            job_id = jobs.submit_on_commit(int)
            assert registry().get_operation(job_id) is None
        assert registry().wait_for(job_id, 10) is not None
        assert len(callbacks) == 1
        transaction.set_rollback(True)
