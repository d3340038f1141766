"""Jobs: submitted from anywhere, listed, cancelable while they wait and while they run, and settled whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import gc
import logging
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyio
import anyio.to_thread
import pytest

from cancelable_core import (
    Cancelable,
    CancelationReason,
    DuplicateOperation,
    InvalidOperationId,
    Job,
    JobRunner,
    OperationCancelled,
    OperationKind,
    OperationRegistry,
    OperationStatus,
    OperationStore,
    OperationTimedOut,
    OwnedJobs,
    QueueFull,
    ThreadSafeRegistry,
    current_operation,
    default_store,
)
from cancelable_core.jobs import default_workers
from cancelable_core.timer_thread import shared_timer

from .helpers import (
    DEADLINE_SECONDS,
    Running,
    a_loop_works,
    becomes_true,
    becomes_true_soon,
    happens,
    happens_soon,
    in_thread,
    start_a_loop,
)

flavour: contextvars.ContextVar[str] = contextvars.ContextVar("flavour", default="none")

Runners = Callable[..., JobRunner]


@pytest.fixture
def runners(store: OperationStore) -> Iterator[Runners]:
    """Makes runners over the test's store, and closes them."""
    made: list[JobRunner] = []

    def make(**options: Any) -> JobRunner:
        made.append(JobRunner(store, **options))
        return made[-1]

    yield make
    for runner in made:
        runner.close()


@pytest.fixture
def runner(runners: Runners) -> JobRunner:
    return runners(workers=4)


class Occupied:
    """A job that sits in its thread until it is released or cancelled."""

    def __init__(self, runner: JobRunner, **options: Any) -> None:
        self.started = threading.Event()
        self.release = threading.Event()
        self.job: Job[str] = runner.submit(self._work, **options)

    def _work(self) -> str:
        self.started.set()
        operation = current_operation()
        assert operation is not None
        while not self.release.wait(0.001):
            operation.check()
        return "released"

    def until_started(self) -> Occupied:
        happens(self.started)
        return self


def job_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("cancelable-job")]


def fail() -> None:
    raise ZeroDivisionError("inside")


async def fail_later() -> None:
    await anyio.lowlevel.checkpoint()
    raise ZeroDivisionError("inside")


async def sleep_for_ever() -> None:
    await anyio.sleep_forever()


# --- plain jobs


def test_a_plain_job_runs_in_a_thread_and_gives_its_result(runner: JobRunner) -> None:
    def work(*args: object, **kwargs: object) -> tuple[object, ...]:
        return args, kwargs, threading.current_thread().name

    job = runner.submit(work, 1, 2, a=3, func=4, self=5)
    assert job.result(DEADLINE_SECONDS) == ((1, 2), {"a": 3, "func": 4, "self": 5}, "cancelable-job")
    assert job.status is OperationStatus.COMPLETED
    assert job.context.duration_seconds is not None


def test_a_job_is_an_operation_of_its_own_kind(runner: JobRunner, registry: ThreadSafeRegistry) -> None:
    occupied = Occupied(runner, name="report", owner="ada", metadata={"year": 2026}).until_started()
    (context,) = registry.list_operations()
    assert context == occupied.job.context
    assert (context.id, context.name, context.kind, context.owner) == (occupied.job.id, "report", OperationKind.JOB, "ada")
    assert (context.status, context.metadata, context.parent_id) == (OperationStatus.RUNNING, {"year": 2026}, None)
    assert context.id_is_secret
    occupied.release.set()
    assert occupied.job.result(DEADLINE_SECONDS) == "released"
    assert registry.list_operations() == []
    assert [context.name for context in registry.get_history(kind="job")] == ["report"]


def test_without_a_store_jobs_are_in_the_default_one() -> None:
    runner = JobRunner()
    occupied = Occupied(runner).until_started()
    assert default_store().find(occupied.job.id) is not None
    occupied.release.set()
    occupied.job.result(DEADLINE_SECONDS)
    runner.close()


def test_inside_the_job_it_is_the_current_operation(runner: JobRunner) -> None:
    def work() -> tuple[object, ...]:
        operation = current_operation()
        assert operation is not None
        operation.report_progress("half", current=1, total=2)
        return operation.id, operation.parent, operation.enclosing

    job = runner.submit(work)
    assert job.result(DEADLINE_SECONDS) == (job.id, None, None)
    assert job.context.progress == {"message": "half", "current": 1, "total": 2}


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyError, StopIteration, SystemExit, KeyboardInterrupt, GeneratorExit])
def test_an_error_reaches_who_waits_and_the_log_and_costs_no_thread(
    runners: Runners, caplog: pytest.LogCaptureFixture, error: type[BaseException]
) -> None:
    def work() -> None:
        raise error("inside")

    runner = runners(workers=1)
    job = runner.submit(work, name="broken")
    with pytest.raises(error):
        job.result(DEADLINE_SECONDS)
    assert runner.submit(threading.get_ident).result(DEADLINE_SECONDS)
    assert job.status is (OperationStatus.CANCELLED if error is GeneratorExit else OperationStatus.FAILED)
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert job.id in record.getMessage()
    assert "broken" in record.getMessage()
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], error)


def test_a_cancel_is_no_error_for_the_log(runner: JobRunner, caplog: pytest.LogCaptureFixture) -> None:
    occupied = Occupied(runner).until_started()
    assert occupied.job.cancel_sync("enough", origin="ada")
    assert not occupied.job.cancel_sync()
    with pytest.raises(OperationCancelled) as caught:
        occupied.job.result(DEADLINE_SECONDS)
    assert (caught.value.operation_id, caught.value.message, caught.value.origin) == (occupied.job.id, "enough", "ada")
    assert occupied.job.status is OperationStatus.CANCELLED
    assert not caplog.records


async def test_a_jobs_cancel_may_be_awaited(runner: JobRunner) -> None:
    occupied = Occupied(runner)
    assert await occupied.job.cancel(CancelationReason.SHUTDOWN, "soon") is True
    assert await occupied.job.cancel() is False
    assert (await occupied.job.wait()).reason is CancelationReason.SHUTDOWN


def test_a_timeout_counts_from_the_start(runners: Runners) -> None:
    """Not from the submit: waiting in the queue is not the job's fault."""
    runner = runners(workers=1)
    occupied = Occupied(runner).until_started()
    waiting = runner.submit(lambda: "in time", timeout=60)
    assert waiting.operation._deadline is None
    late = runner.submit(lambda: current_operation().sleep(60), timeout=0.01)  # type: ignore[union-attr]
    occupied.release.set()
    assert waiting.result(DEADLINE_SECONDS) == "in time"
    with pytest.raises(OperationTimedOut):
        late.result(DEADLINE_SECONDS)
    assert late.status is OperationStatus.TIMED_OUT


def test_a_runner_has_so_many_threads_and_no_more(runners: Runners) -> None:
    runner, before = runners(workers=3), set(job_threads())
    occupied = [Occupied(runner) for _ in range(10)]
    for each in occupied[:3]:
        each.until_started()
    assert len(set(job_threads()) - before) == 3
    assert not any(each.started.is_set() for each in occupied[3:])
    for each in occupied:
        each.release.set()
    for each in occupied:
        assert each.job.result(DEADLINE_SECONDS) == "released"
    assert len(set(job_threads()) - before) == 3


def test_an_idle_thread_is_used_again(runners: Runners) -> None:
    runner = runners(workers=8)
    idents = set()
    for _ in range(20):
        idents.add(runner.submit(threading.get_ident).result(DEADLINE_SECONDS))
        becomes_true(lambda: runner._idle == runner._threads)
    assert len(idents) == 1


def test_nothing_starts_before_the_first_job() -> None:
    before = set(threading.enumerate())
    runner = JobRunner()
    assert set(threading.enumerate()) == before
    runner.close()
    assert set(threading.enumerate()) == before


def test_jobs_begin_in_the_order_of_their_submits(runners: Runners) -> None:
    runner = runners(workers=1)
    ran: list[int] = []
    for job in [runner.submit(ran.append, number) for number in range(100)]:
        job.result(DEADLINE_SECONDS)
    assert ran == list(range(100))


def test_submits_from_many_threads_all_run(runners: Runners) -> None:
    runner = runners(workers=4, queue_limit=2_000)
    ran: list[int] = []

    def submit(base: int) -> None:
        for job in [runner.submit(ran.append, base + number) for number in range(200)]:
            job.result(DEADLINE_SECONDS)

    for submitting in [Running(submit, base) for base in (0, 200, 400)]:
        submitting.result()
    assert sorted(ran) == list(range(600))


@pytest.mark.parametrize("options", [{"workers": 0}, {"workers": -1}, {"queue_limit": -1}])
def test_impossible_sizes_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError):
        JobRunner(**options)  # type: ignore[arg-type]


def test_the_default_is_a_few_threads_per_core() -> None:
    assert 5 <= default_workers() <= 32


def test_neither_runner_nor_thread_keeps_a_finished_job(runners: Runners) -> None:
    class Argument:
        pass

    runner = runners(workers=1)
    argument = Argument()
    gone = weakref.ref(argument)
    job = runner.submit(lambda argument: None, argument)
    job.result(DEADLINE_SECONDS)
    del argument
    becomes_true(lambda: gc.collect() is not None and gone() is None)  # its argument goes while the handle stays
    handle = weakref.ref(job)
    del job
    becomes_true(lambda: gc.collect() is not None and handle() is None)
    becomes_true(lambda: not runner._unfinished)


# --- pending jobs


@pytest.mark.parametrize("by", ["job", "registry", "cancel_all"])
def test_a_pending_job_is_listed_cancelable_and_then_never_runs(
    runners: Runners, registry: ThreadSafeRegistry, by: str
) -> None:
    """It is settled at once, not when a thread has time for it."""
    runner, ran = runners(workers=1), []
    occupied = Occupied(runner).until_started()
    pending = runner.submit(ran.append, 1, name="pending")
    (context,) = registry.list_operations(status="pending")
    assert (context.id, context.name, context.started_at) == (pending.id, "pending", None)
    assert registry.get_statistics().pending_operations == 1
    cancels: dict[str, Callable[[], object]] = {
        "job": lambda: pending.cancel_sync("never mind"),
        "registry": lambda: registry.cancel_operation(pending.id, "never mind"),
        "cancel_all": lambda: registry.cancel_all("pend*", message="never mind"),
    }
    assert cancels[by]()
    with pytest.raises(OperationCancelled, match="never mind"):
        pending.result(DEADLINE_SECONDS)
    assert (occupied.job.status, pending.status) == (OperationStatus.RUNNING, OperationStatus.CANCELLED)
    (context,) = registry.get_history()
    assert (context.id, context.status, context.started_at) == (pending.id, OperationStatus.CANCELLED, None)
    occupied.release.set()
    occupied.job.result(DEADLINE_SECONDS)
    runner.submit(int).result(DEADLINE_SECONDS)
    assert ran == []


def test_a_job_cancelled_at_the_moment_it_is_taken_ends_one_way_or_the_other(runners: Runners) -> None:
    runner = runners(workers=2, queue_limit=10_000)
    for _ in range(300):
        ran: list[int] = []
        job = runner.submit(ran.append, 1)
        won = job.cancel_sync()
        with contextlib.suppress(OperationCancelled):
            job.result(DEADLINE_SECONDS)
        assert job.status in (OperationStatus.CANCELLED, OperationStatus.COMPLETED)
        assert ran == ([1] if job.status is OperationStatus.COMPLETED else [])
        assert won or job.status is OperationStatus.COMPLETED
        assert job.context.started_at is not None or job.status is OperationStatus.CANCELLED


@pytest.mark.parametrize("is_async", [False, True])
def test_a_job_cancelled_while_it_is_being_submitted_never_runs(
    runners: Runners, registry: ThreadSafeRegistry, is_async: bool
) -> None:
    """It is listed from the first moment on, and so it can be cancelled from the first moment on."""
    ran: list[int] = []

    async def later() -> None:
        ran.append(1)

    def cancel_meanwhile(variable: object) -> bool:
        registry.cancel_operation("job-1", "already")
        return True

    token = flavour.set("there is a variable to ask about")
    try:
        runner = runners(keeps_variable=cancel_meanwhile)
        job = runner.submit(later, job_id="job-1") if is_async else runner.submit(ran.append, 1, job_id="job-1")
    finally:
        flavour.reset(token)
    with pytest.raises(OperationCancelled, match="already"):
        job.result(DEADLINE_SECONDS)
    assert (ran, job.context.started_at) == ([], None)
    becomes_true(lambda: not runner._unfinished)


def test_a_cancelled_pending_job_gives_its_place_back(runners: Runners) -> None:
    runner = runners(workers=1, queue_limit=1)
    occupied = Occupied(runner).until_started()
    pending = runner.submit(int)
    with pytest.raises(QueueFull):
        runner.submit(int)
    pending.cancel_sync()
    with pytest.raises(OperationCancelled):
        pending.result(DEADLINE_SECONDS)
    third = runner.submit(int)
    occupied.release.set()
    assert third.result(DEADLINE_SECONDS) == 0


@pytest.mark.parametrize(("workers", "queue_limit"), [(1, 0), (1, 1), (3, 2), (2, 5)])
def test_a_full_queue_is_an_error_and_leaves_nothing(
    runners: Runners, registry: ThreadSafeRegistry, workers: int, queue_limit: int
) -> None:
    runner = runners(workers=workers, queue_limit=queue_limit)
    occupied = [Occupied(runner) for _ in range(workers + queue_limit)]
    with pytest.raises(QueueFull) as caught:
        runner.submit(pytest.fail, "it ran")
    assert caught.value.limit == queue_limit
    assert registry.get_statistics().total_operations == workers + queue_limit
    for each in occupied:
        each.release.set()
    for each in occupied:
        each.job.result(DEADLINE_SECONDS)
    assert runner.submit(int).result(DEADLINE_SECONDS) == 0


# --- who asks, and for whom


def test_the_owner_is_whoever_asks(runners: Runners) -> None:
    asking = "ada"
    runner = runners(asker=lambda: asking)
    assert runner.submit(int).context.owner == "ada"
    assert runner.submit(int, owner="bob").context.owner == "bob"
    assert runner.submit(int, owner=None).context.owner is None
    with Cancelable(owner="carla", register=False):
        assert runner.submit(int).context.owner == "ada"
        assert runner.submit(int, owner=None).context.owner is None


@pytest.mark.parametrize("asker", [None, lambda: None])
def test_where_nobody_asks_the_submitting_operation_does(runners: Runners, asker: Callable[[], str | None] | None) -> None:
    runner = runners(asker=asker)
    assert runner.submit(int).context.owner is None
    with Cancelable(owner="ada", register=False):
        assert runner.submit(int).context.owner == "ada"
        with Cancelable(register=False):  # inherits
            assert runner.submit(int).context.owner == "ada"


def test_owned_jobs_belong_to_their_asker(runner: JobRunner) -> None:
    jobs = OwnedJobs(runner, "ada")
    assert jobs.submit(int).context.owner == "ada"
    assert jobs.submit(int, name="x", owner="bob").context.owner == "bob"
    assert OwnedJobs(runner, None).submit(int).context.owner is None
    assert jobs.submit(pow, 2, 5).result(DEADLINE_SECONDS) == 32


def test_a_job_outlives_the_operation_that_started_it(runner: JobRunner) -> None:
    with contextlib.suppress(OperationCancelled), Cancelable("request", register=False) as request:
        occupied = Occupied(runner).until_started()
        request.cancel_sync(CancelationReason.DISCONNECT)
        request.check()
    assert request.status is OperationStatus.CANCELLED
    assert occupied.job.status is OperationStatus.RUNNING
    occupied.release.set()
    assert occupied.job.result(DEADLINE_SECONDS) == "released"
    assert occupied.job.context.parent_id is None


def test_a_job_may_follow_the_operation_that_started_it(runner: JobRunner) -> None:
    with contextlib.suppress(OperationCancelled), Cancelable("request", register=False) as request:
        occupied = Occupied(runner, follow_request=True).until_started()
        request.cancel_sync(CancelationReason.DISCONNECT, "left")
        request.check()
    with pytest.raises(OperationCancelled):
        occupied.job.result(DEADLINE_SECONDS)
    context = occupied.job.context
    assert (context.reason, context.message, context.parent_id) == (CancelationReason.PARENT, "left", request.id)


def test_a_pending_job_that_follows_a_cancelled_operation_never_runs(runners: Runners) -> None:
    runner, ran = runners(workers=1), []
    occupied = Occupied(runner).until_started()
    with contextlib.suppress(OperationCancelled), Cancelable("request", register=False) as request:
        pending = runner.submit(ran.append, 1, follow_request=True)
        request.cancel_sync()
        request.check()
    occupied.release.set()
    with pytest.raises(OperationCancelled):
        pending.result(DEADLINE_SECONDS)
    assert pending.context.started_at is None
    assert ran == []


def test_following_without_an_operation_to_follow(runner: JobRunner) -> None:
    assert runner.submit(int, follow_request=True).result(DEADLINE_SECONDS) == 0


# --- context


@pytest.mark.parametrize("is_async", [False, True])
def test_context_variables_come_along_and_nothing_leaks(runners: Runners, is_async: bool) -> None:
    def look_and_set() -> str:
        before = flavour.get()
        flavour.set("leaked")
        return before

    async def look_and_set_later() -> str:
        return look_and_set()

    runner = runners(workers=1)
    token = flavour.set("vanilla")
    try:
        jobs = [runner.submit(look_and_set_later if is_async else look_and_set) for _ in range(3)]
        assert [job.result(DEADLINE_SECONDS) for job in jobs] == ["vanilla"] * 3
        assert flavour.get() == "vanilla"
    finally:
        flavour.reset(token)


def test_an_adapter_chooses_which_variables_come_along(runners: Runners) -> None:
    other: contextvars.ContextVar[str] = contextvars.ContextVar("other", default="none")
    runner = runners(keeps_variable=lambda variable: variable is not flavour)

    def submit() -> tuple[str, str]:
        flavour.set("vanilla")
        other.set("kept")
        return runner.submit(lambda: (flavour.get(), other.get())).result(DEADLINE_SECONDS)

    assert in_thread(submit) == ("none", "kept")


def test_every_plain_job_runs_in_a_context_of_the_adapters(runners: Runners, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[object] = []

    @contextlib.contextmanager
    def application() -> Iterator[None]:
        operation = current_operation()
        seen.append(("begin", operation and operation.name, threading.current_thread().name))
        try:
            yield
        except BaseException as error:
            seen.append(type(error))
            raise
        finally:
            seen.append("end")

    runner = runners(workers=1, context=application)
    assert runner.submit(lambda: seen.append("work"), name="a").result(DEADLINE_SECONDS) is None
    begin = ("begin", "a", "cancelable-job")
    assert seen == [begin, "work", "end"]
    with pytest.raises(ZeroDivisionError):
        runner.submit(fail, name="a").result(DEADLINE_SECONDS)
    assert seen[3:] == [begin, ZeroDivisionError, "end"]


async def test_every_async_job_runs_in_an_async_context_of_the_adapters(runners: Runners) -> None:
    seen: list[str] = []

    @contextlib.asynccontextmanager
    async def application() -> AsyncIterator[None]:
        await anyio.lowlevel.checkpoint()
        seen.append("begin")
        yield
        seen.append("end")

    async def work() -> None:
        seen.append("work")

    await runners(async_context=application).submit(work).wait()
    assert seen == ["begin", "work", "end"]


def test_a_job_cancelled_before_it_starts_needs_no_context(runners: Runners) -> None:
    opened: list[int] = []

    def application() -> contextlib.AbstractContextManager[None]:
        opened.append(1)
        return contextlib.nullcontext()

    runner = runners(workers=1, context=application)
    occupied = Occupied(runner).until_started()
    pending = runner.submit(int)
    pending.cancel_sync()
    with pytest.raises(OperationCancelled):
        pending.result(DEADLINE_SECONDS)
    occupied.release.set()
    occupied.job.result(DEADLINE_SECONDS)
    assert opened == [1]


def test_a_context_that_cannot_be_opened_fails_the_job(runners: Runners, caplog: pytest.LogCaptureFixture) -> None:
    def application() -> contextlib.AbstractContextManager[None]:
        raise LookupError("no application")

    runner = runners(workers=1, context=application)
    for _ in range(2):
        job = runner.submit(pytest.fail, "it ran")
        with pytest.raises(LookupError):
            job.result(DEADLINE_SECONDS)
        assert job.status is OperationStatus.FAILED


# --- async jobs


async def test_an_async_job_submitted_on_a_loop_runs_there(runner: JobRunner) -> None:
    async def work(number: int) -> tuple[object, ...]:
        await anyio.lowlevel.checkpoint()
        operation = current_operation()
        return number, threading.get_ident(), operation and operation.id

    job = runner.submit(work, 5)
    context = await job.wait()
    assert context.status is OperationStatus.COMPLETED
    assert job.result() == (5, threading.get_ident(), job.id)  # has ended: allowed on the loop too
    assert runner._loop is None


def test_an_async_job_submitted_in_a_thread_runs_on_a_loop_of_the_runners(runner: JobRunner) -> None:
    async def work() -> tuple[str, str]:
        await asyncio.sleep(0)
        return threading.current_thread().name, type(asyncio.get_running_loop()).__module__

    names = {runner.submit(work).result(DEADLINE_SECONDS)[0] for _ in range(5)}
    assert names == {"cancelable-job-loop"}


@pytest.mark.parametrize("use_running_loop", [False, lambda: False])
async def test_where_loops_do_not_last_async_jobs_run_on_the_runners(
    runners: Runners, use_running_loop: bool | Callable[[], bool]
) -> None:
    async def work() -> str:
        return threading.current_thread().name

    job = runners(use_running_loop=use_running_loop).submit(work)
    await job.wait()
    assert job.result() == "cancelable-job-loop"


@pytest.mark.parametrize("func", [functools.partial(fail_later), fail_later])
async def test_an_error_of_an_async_job_reaches_who_waits_and_the_log(
    runner: JobRunner, caplog: pytest.LogCaptureFixture, func: Callable[[], Any]
) -> None:
    """And not the loop, nor the tasks beside it."""
    job = runner.submit(func, name="broken")
    assert (await job.wait()).status is OperationStatus.FAILED
    with pytest.raises(ZeroDivisionError):
        job.result()
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "broken" in caplog.text


@pytest.mark.parametrize("where", ["the running loop", "the runner's loop"])
async def test_an_async_job_is_cancelled_where_it_waits(runners: Runners, registry: ThreadSafeRegistry, where: str) -> None:
    cleaned = threading.Event()

    async def work() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            cleaned.set()

    job = runners(use_running_loop=where == "the running loop").submit(work)
    await becomes_true_soon(lambda: job.status is OperationStatus.RUNNING)
    assert (await OperationRegistry(registry.store).cancel_operation(job.id, "enough", wait_seconds=60)).status is (
        OperationStatus.CANCELLED
    )
    with anyio.fail_after(DEADLINE_SECONDS):
        await job.wait()
    with pytest.raises(OperationCancelled, match="enough"):
        job.result()
    assert cleaned.is_set()


async def test_an_async_job_cancelled_before_its_first_step_never_runs(runner: JobRunner, registry: ThreadSafeRegistry) -> None:
    ran: list[int] = []

    async def work() -> None:
        ran.append(1)

    job = runner.submit(work)
    assert job.status is OperationStatus.PENDING
    assert registry.get_statistics().pending_operations == 1
    assert job.cancel_sync()
    context = await job.wait()
    assert (context.status, context.started_at, ran) == (OperationStatus.CANCELLED, None, [])


async def test_an_async_job_times_out(runner: JobRunner) -> None:
    job = runner.submit(sleep_for_ever, timeout=0.01)
    assert (await job.wait()).status is OperationStatus.TIMED_OUT
    with pytest.raises(OperationTimedOut):
        job.result()


async def test_an_async_job_outlives_the_task_and_the_operation_that_started_it(runner: JobRunner) -> None:
    release = anyio.Event()

    async def work() -> str:
        await release.wait()
        return "done"

    jobs: list[Job[str]] = []
    with anyio.CancelScope() as scope:
        async with Cancelable("request", register=False):
            jobs.append(runner.submit(work))
            await anyio.lowlevel.checkpoint()
            scope.cancel()
            await anyio.sleep_forever()
    await anyio.lowlevel.checkpoint()
    assert jobs[0].status is OperationStatus.RUNNING
    release.set()
    await jobs[0].wait()
    assert jobs[0].result() == "done"


async def test_an_async_job_may_follow(runner: JobRunner) -> None:
    with contextlib.suppress(OperationCancelled):
        async with Cancelable("request", register=False) as request:
            job = runner.submit(sleep_for_ever, follow_request=True)
            await becomes_true_soon(lambda: job.status is OperationStatus.RUNNING)
            request.cancel_sync()
            await anyio.sleep_forever()
    context = await job.wait()
    assert (context.reason, context.parent_id) == (CancelationReason.PARENT, request.id)


@pytest.mark.parametrize("begun", [True, False], ids=["begun", "not begun"])
def test_a_loop_that_ends_settles_its_jobs(
    runner: JobRunner, anyio_backend: tuple[str, dict[str, object]], begun: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever waits in another thread gets an answer, of ours."""
    backend, options = anyio_backend
    ran: list[int] = []

    async def work() -> None:
        ran.append(1)
        await anyio.sleep_forever()

    async def main() -> Job[None]:
        job = runner.submit(work)
        while begun and not ran:
            await anyio.lowlevel.checkpoint()
        return job

    job = anyio.run(main, backend=backend, backend_options=options)
    with pytest.raises(OperationCancelled) as caught:
        job.result(DEADLINE_SECONDS)
    assert caught.value.reason is CancelationReason.PARENT
    assert job.status is OperationStatus.CANCELLED
    assert job.context.origin == "outer scope"
    assert not runner._unfinished
    assert not caplog.records


@pytest.mark.parametrize("kind", ["plain", "on the running loop", "on the runner's loop"])
async def test_a_job_may_use_loops_whatever_loop_it_came_from(runners: Runners, kind: str) -> None:
    """Which kind of loop the submitter ran in is nothing a job in another thread, or in another loop, may inherit."""
    runner = runners(use_running_loop=kind == "on the running loop")
    job = runner.submit(start_a_loop) if kind == "plain" else runner.submit(a_loop_works)
    await job.wait()
    assert job.result() == "it works"


@pytest.mark.parametrize(
    "anyio_backend", [("asyncio", {"use_uvloop": uvloop}) for uvloop in (False, True)], ids=["asyncio", "uvloop"]
)
async def test_a_task_that_is_cancelled_before_its_first_step_settles_its_job(
    runner: JobRunner, registry: ThreadSafeRegistry
) -> None:
    """As a loop that is shut down does; such a task runs nothing at all, not even a finally."""
    others = asyncio.all_tasks()
    job = runner.submit(sleep_for_ever)
    for task in asyncio.all_tasks() - others:
        task.cancel()
    context = await job.wait()
    assert (context.status, context.reason, context.started_at) == (OperationStatus.CANCELLED, CancelationReason.PARENT, None)
    with pytest.raises(OperationCancelled):
        job.result()
    assert registry.list_operations() == []


async def test_plain_jobs_are_submitted_from_loops_too(runner: JobRunner) -> None:
    job = runner.submit(threading.get_ident)
    await job.wait()
    assert job.result() != threading.get_ident()


# --- waiting


def test_result_waits_no_longer_than_it_was_told(runner: JobRunner) -> None:
    occupied = Occupied(runner)
    for seconds in (0, 0.01):
        with pytest.raises(TimeoutError, match=occupied.job.id):
            occupied.job.result(seconds)
    waiting = [Running(occupied.job.result) for _ in range(3)]
    occupied.release.set()
    assert [each.result() for each in waiting] == ["released"] * 3
    assert occupied.job.result(0) == "released"  # as often as one likes


async def test_result_refuses_to_block_a_loop(runner: JobRunner) -> None:
    occupied = Occupied(runner)
    with pytest.raises(RuntimeError, match="event loop"):
        occupied.job.result(1)
    occupied.release.set()
    assert (await occupied.job.wait()).status is OperationStatus.COMPLETED
    assert occupied.job.result() == "released"


async def test_wait_tells_any_end_and_raises_none(runner: JobRunner, caplog: pytest.LogCaptureFixture) -> None:
    occupied = Occupied(runner)
    occupied.job.cancel_sync()
    assert (await occupied.job.wait()).status is OperationStatus.CANCELLED
    assert (await runner.submit(fail).wait()).status is OperationStatus.FAILED
    assert (await runner.submit(int).wait()).status is OperationStatus.COMPLETED


async def test_a_wait_that_is_cancelled_leaves_the_job_alone(runner: JobRunner) -> None:
    occupied = Occupied(runner)
    with anyio.move_on_after(0.01) as scope:
        await occupied.job.wait()
    assert scope.cancelled_caught
    assert occupied.job.status in (OperationStatus.PENDING, OperationStatus.RUNNING)
    occupied.release.set()
    await occupied.job.wait()


def test_when_a_result_is_there_the_status_is_final(runners: Runners) -> None:
    runner = runners(workers=2)
    for _ in range(200):
        job = runner.submit(int)
        job.result(DEADLINE_SECONDS)
        assert job.status is OperationStatus.COMPLETED
        assert job.context.ended_at is not None


# --- ids and keywords


def test_a_job_id_of_ones_own(runner: JobRunner, registry: ThreadSafeRegistry) -> None:
    occupied = Occupied(runner, job_id="export-7").until_started()
    assert occupied.job.id == "export-7"
    for func in (int, sleep_for_ever):
        with pytest.raises(DuplicateOperation) as caught:
            runner.submit(func, job_id="export-7")
        assert caught.value.operation_id == "export-7"
    assert registry.get_statistics().total_operations == 1
    occupied.release.set()
    assert occupied.job.result(DEADLINE_SECONDS) == "released"
    assert runner.submit(int, job_id="export-7").result(DEADLINE_SECONDS) == 0  # free again


@pytest.mark.parametrize("job_id", ["", "a b", "stats", "../x"])
def test_an_impossible_job_id_is_refused(runner: JobRunner, registry: ThreadSafeRegistry, job_id: str) -> None:
    with pytest.raises(InvalidOperationId):
        runner.submit(int, job_id=job_id)
    assert registry.get_statistics().total_operations == 0


def test_a_refused_submit_leaves_room_for_others(runners: Runners) -> None:
    """Also where a thread was started for it."""
    runner = runners(workers=1, queue_limit=0)
    blocking = Cancelable(operation_id="taken", registry=runner._store)
    with blocking:
        for _ in range(5):
            with pytest.raises(DuplicateOperation):
                runner.submit(int, job_id="taken")
    assert runner.submit(int).result(DEADLINE_SECONDS) == 0


@pytest.mark.parametrize("keyword", ["name", "owner", "timeout", "job_id", "metadata", "follow_request"])
def test_a_keyword_that_both_have_is_refused_with_advice(runner: JobRunner, keyword: str) -> None:
    namespace: dict[str, Any] = {}
    exec(f"def work(*, {keyword}='own'): return {keyword}", namespace)
    work = namespace["work"]
    with pytest.raises(TypeError, match=r"functools\.partial") as caught:
        runner.submit(work, **{keyword: "x"})
    assert repr(keyword) in str(caught.value)
    assert "work" in str(caught.value)
    bound = functools.partial(work, **{keyword: "bound"})
    assert runner.submit(bound).result(DEADLINE_SECONDS) == "bound"
    assert runner.submit(work).result(DEADLINE_SECONDS) == "own"


def test_a_keyword_that_the_function_has_bound_is_ours(runner: JobRunner) -> None:
    def work(name: str, rest: int) -> tuple[str, int]:
        return name, rest

    job = runner.submit(functools.partial(work, name="the function's"), rest=1, name="ours")
    assert job.result(DEADLINE_SECONDS) == ("the function's", 1)
    assert job.context.name == "ours"


def test_keywords_of_ours_do_not_reach_the_function(runner: JobRunner) -> None:
    job = runner.submit(lambda **kwargs: kwargs, name="n", owner="o", timeout=60, job_id="j", metadata={}, a=1)
    assert job.result(DEADLINE_SECONDS) == {"a": 1}


# --- closing


def test_close_cancels_what_waits_and_what_runs(runners: Runners, registry: ThreadSafeRegistry) -> None:
    runner, ran = runners(workers=1), []
    before = set(job_threads())
    occupied = Occupied(runner).until_started()
    pending = [runner.submit(ran.append, 1) for _ in range(3)]
    runner.close()
    for job in [occupied.job, *pending]:
        with pytest.raises(OperationCancelled) as caught:
            job.result(DEADLINE_SECONDS)
        assert (caught.value.reason, caught.value.origin) == (CancelationReason.SHUTDOWN, "job runner")
    assert ran == []
    assert registry.get_statistics().by_reason == {CancelationReason.SHUTDOWN: 4}
    runner.close()  # once more
    for func in (int, sleep_for_ever):
        with pytest.raises(RuntimeError, match="closed"):
            runner.submit(func)
    assert registry.get_statistics().total_operations == 4
    becomes_true(lambda: not set(job_threads()) - before)


def test_close_gives_running_jobs_time(runners: Runners) -> None:
    runner = runners(workers=1)
    occupied = Occupied(runner).until_started()
    pending = runner.submit(int)
    closing = Running(runner.close, DEADLINE_SECONDS)
    with pytest.raises(OperationCancelled):
        pending.result(DEADLINE_SECONDS)  # those that wait get none
    assert occupied.job.status is OperationStatus.RUNNING
    assert closing.is_alive
    occupied.release.set()
    assert occupied.job.result(DEADLINE_SECONDS) == "released"
    closing.result()


def test_what_does_not_end_in_its_time_is_cancelled(runners: Runners) -> None:
    runner = runners(workers=1)
    occupied = Occupied(runner).until_started()
    runner.close(0.01)
    with pytest.raises(OperationCancelled) as caught:
        occupied.job.result(DEADLINE_SECONDS)
    assert caught.value.reason is CancelationReason.SHUTDOWN


def test_close_ends_the_runners_own_loop_after_its_jobs(runners: Runners) -> None:
    runner, cleaned = runners(), []
    before = set(job_threads())

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            cleaned.append(1)

    jobs = [runner.submit(work) for _ in range(3)]
    becomes_true(lambda: all(job.status is OperationStatus.RUNNING for job in jobs))
    runner.close()
    for job in jobs:
        with pytest.raises(OperationCancelled):
            job.result(DEADLINE_SECONDS)
    becomes_true(lambda: not set(job_threads()) - before)
    assert len(cleaned) <= 3


def test_close_just_after_an_async_submit_strands_nobody(runners: Runners) -> None:
    for _ in range(50):
        runner = runners()
        job = runner.submit(sleep_for_ever)
        runner.close()
        with pytest.raises(OperationCancelled):
            job.result(DEADLINE_SECONDS)


async def test_close_cancels_async_jobs_on_the_running_loop(runner: JobRunner) -> None:
    job = runner.submit(sleep_for_ever)
    await becomes_true_soon(lambda: job.status is OperationStatus.RUNNING)
    runner.close()
    context = await job.wait()
    assert context.reason is CancelationReason.SHUTDOWN


async def test_close_with_time_waits_for_async_jobs_elsewhere(runners: Runners) -> None:
    released = threading.Event()

    async def work() -> str:
        while not released.is_set():
            await asyncio.sleep(0.001)
        return "released"

    runner = runners(use_running_loop=False)
    job = runner.submit(work)
    closing = Running(runner.close, DEADLINE_SECONDS)
    await becomes_true_soon(lambda: runner._closed)
    released.set()
    await anyio.to_thread.run_sync(closing.result)
    assert job.result() == "released"


async def test_a_job_that_a_closed_runner_still_runs_is_told(runners: Runners) -> None:
    """It notices in its own time; nobody waits for it."""
    runner = runners(workers=1)
    occupied = Occupied(runner)
    await happens_soon(occupied.started)
    runner.close()
    assert (await occupied.job.wait()).status is OperationStatus.CANCELLED


# --- functions whose call runs nothing


def _generator() -> Iterator[int]:
    yield 1


async def _async_generator() -> AsyncIterator[int]:
    yield 1


class _GeneratorObject:
    def __call__(self) -> Iterator[int]:
        yield 1


@pytest.mark.parametrize(
    "func",
    [_generator, _async_generator, functools.partial(_generator), _GeneratorObject(), functools.partial(_GeneratorObject())],
)
def test_generator_functions_are_refused(runner: JobRunner, registry: ThreadSafeRegistry, func: Callable[[], object]) -> None:
    with pytest.raises(TypeError, match="generator"):
        runner.submit(func)
    assert registry.get_statistics().total_operations == 0


def test_a_class_whose_objects_are_generator_functions_is_called_like_any_other(runner: JobRunner) -> None:
    assert isinstance(runner.submit(_GeneratorObject).result(DEADLINE_SECONDS), _GeneratorObject)


def test_a_plain_function_that_returns_a_coroutine_fails(runner: JobRunner) -> None:
    job = runner.submit(lambda: a_loop_works())
    with pytest.raises(TypeError, match="coroutine"):
        job.result(DEADLINE_SECONDS)
    assert job.status is OperationStatus.FAILED


# --- pending jobs that follow


def test_a_pending_follower_ends_with_its_operation_and_not_when_a_thread_is_free(runners: Runners) -> None:
    runner = runners(workers=1)
    occupied = Occupied(runner).until_started()
    with contextlib.suppress(OperationCancelled):
        with Cancelable("asker", register=False) as asker:
            follower = runner.submit(fail, follow_request=True)
            other = runner.submit(int)
            asker.cancel_sync("enough")
            with pytest.raises(OperationCancelled, match="enough") as caught:
                follower.result(DEADLINE_SECONDS)
            assert caught.value.reason is CancelationReason.PARENT
            assert not asker.is_over
    assert follower.context.started_at is None
    assert other.status is OperationStatus.PENDING
    assert not asker.token._watchers
    occupied.release.set()
    assert other.result(DEADLINE_SECONDS) == 0


def _links_of_the_operation() -> int:
    operation = current_operation()
    assert operation is not None
    return len(operation._links)


def test_a_follower_is_linked_once_and_unlinked_at_its_end(runners: Runners) -> None:
    with Cancelable("asker", register=False) as asker:
        links = runners(workers=1).submit(_links_of_the_operation, follow_request=True)
        assert links.result(DEADLINE_SECONDS) == 1
        becomes_true(lambda: not asker.token._watchers)


# --- what nothing else shows


def test_a_job_is_pending_only_once_its_cancel_has_nothing_left_to_start(
    runners: Runners, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal handler that cancels it must not be the one who starts the timer thread."""
    starts: list[int] = []
    runner = runners(workers=1)
    timer = shared_timer()
    start = timer.start

    def start_and_tell() -> None:
        starts.append(len(runner._pending))
        start()

    monkeypatch.setattr(timer, "start", start_and_tell)
    runner.submit(int).result(DEADLINE_SECONDS)
    assert starts[:1] == [0]


async def test_a_loops_cancelation_passes_on_through_the_jobs_task(runner: JobRunner) -> None:
    started = anyio.Event()

    async def work() -> None:
        started.set()
        await anyio.sleep_forever()

    job = runner.submit(work)
    await started.wait()
    task = job._task
    if not isinstance(task, asyncio.Task):  # trio's system tasks are cancelled with their loop only
        runner.close()
        await job.wait()
        return
    task.cancel()
    await job.wait()
    await asyncio.wait([task])
    assert task.cancelled()
    assert job.status is OperationStatus.CANCELLED


def test_close_settles_the_pending_jobs_itself(runners: Runners) -> None:
    """Without the pool, whose threads may all be in somebody's predicates."""
    runner = runners(workers=1)
    occupied = Occupied(runner).until_started()
    pending = runner.submit(fail)
    with _AllOfThePool():
        runner.close()
        assert pending.operation.is_over
        assert pending.status is OperationStatus.CANCELLED
    with pytest.raises(OperationCancelled):
        occupied.job.result(DEADLINE_SECONDS)


class _AllOfThePool:
    """Keeps every thread of the pool busy, as predicates that block do."""

    def __init__(self) -> None:
        self._release = threading.Event()

    def __enter__(self) -> None:
        busy = [threading.Event() for _ in range(shared_timer()._pool_size)]
        for event in busy:
            shared_timer().dispatch(functools.partial(self._work, event))
        for event in busy:
            happens(event)

    def _work(self, event: threading.Event) -> None:
        event.set()
        self._release.wait(DEADLINE_SECONDS)

    def __exit__(self, *exc_info: object) -> None:
        self._release.set()


def test_a_cancelled_pending_job_settles_while_predicates_fill_the_pool(runners: Runners) -> None:
    runner = runners(workers=1)
    occupied = Occupied(runner).until_started()
    pending = runner.submit(fail)
    with _AllOfThePool():
        pending.cancel_sync()
        with pytest.raises(OperationCancelled):
            pending.result(DEADLINE_SECONDS / 2)
    occupied.release.set()


def test_threads_of_a_runner_that_nobody_closed_end(store: OperationStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cancelable_core.jobs._IDLE_SECONDS", 0.02)
    runner = JobRunner(store, workers=2)
    gone = weakref.ref(runner)

    def its_threads_have_ended() -> bool:
        living = gone()
        return living is not None and (living._threads, living._idle) == (0, 0)

    for _ in range(3):
        assert runner.submit(int).result(DEADLINE_SECONDS) == 0
        becomes_true(its_threads_have_ended)
    del runner
    becomes_true(lambda: gc.collect() is not None and gone() is None)


def test_a_runner_takes_a_registry_for_its_store_and_nothing_else(registry: ThreadSafeRegistry) -> None:
    runner = JobRunner(registry)
    job = runner.submit(int)
    assert job.result(DEADLINE_SECONDS) == 0
    becomes_true(lambda: registry.get_operation(job.id))
    runner.close()
    wrong: Any = "x"
    with pytest.raises(TypeError, match="OperationStore"):
        JobRunner(wrong)
