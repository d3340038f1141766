"""Waiting for a cancelled operation to end, in threads and in tasks."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import pytest

from cancelable_core.errors import OperationCancelled
from cancelable_core.http_api import EndpointRequest, EndpointResponse, HttpApi, Wait
from cancelable_core.models import CancelRequest, CancelResult, OperationKind, OperationStatus
from cancelable_core.operation import Cancelable
from cancelable_core.registry import ThreadSafeRegistry
from cancelable_core.store import EndToken
from cancelable_core.token import CancelationToken
from cancelable_core.transports.local import LocalTransport

from .world import ALICE, STAFF, Answer, World, finish

LIMIT_SECONDS = 20.0
"""How long anything here may take; only reached by tests that then fail."""

ROOT = str(Path(__file__).parents[2])

WAITING = {"wait_seconds": 30}


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


@contextmanager
def busy(world: World, name: str | None = None, **options: Any) -> Iterator[tuple[Cancelable, threading.Event]]:
    """An operation that runs in a thread and heeds cancels no sooner than the event allows."""
    operation, started, may_end = world.make(name, **options), threading.Event(), threading.Event()

    def work() -> None:
        with suppress(OperationCancelled), operation:
            started.set()
            may_end.wait(LIMIT_SECONDS)
            operation.check()

    thread = threading.Thread(target=work)
    thread.start()
    assert started.wait(LIMIT_SECONDS)
    try:
        yield operation, may_end
    finally:
        may_end.set()
        thread.join(LIMIT_SECONDS)


def when_waited_for(world: World, act: Callable[[], object], *, places: int = 3) -> None:
    """Act as soon as somebody waits."""
    pause = threading.Event()
    for _ in range(int(LIMIT_SECONDS / 0.005)):
        if world.api.free_waiting_places < places + 1:
            act()
            return
        pause.wait(0.005)
    raise AssertionError("nobody waits")


def ended(future: Future[Answer]) -> Answer:
    return future.result(LIMIT_SECONDS)


class TestThreads:
    def test_the_answer_is_how_it_ended(self, world: World, pool: ThreadPoolExecutor) -> None:
        with busy(world, "report") as (operation, may_end):
            asked = pool.submit(world.post, f"/{operation.id}/cancel", WAITING)
            when_waited_for(world, may_end.set)
            answer = ended(asked)
        assert (answer.status, answer.json["outcome"]) == (200, "requested")
        assert answer.json["operation"]["status"] == "cancelled"
        assert answer.json["operation"] == world.get(f"/{operation.id}").json

    def test_too_late_is_completed_and_visible(self, world: World, pool: ThreadPoolExecutor) -> None:
        for kind in OperationKind:
            with world.make(kind=kind) as operation:
                asked = pool.submit(world.post, f"/{operation.id}/cancel", WAITING)
                when_waited_for(world, lambda: None)
            answer = ended(asked)
            assert (answer.status, answer.json["outcome"]) == (200, "requested")
            assert (answer.json["operation"]["status"], answer.json["operation"]["id"]) == ("completed", operation.id)

    def test_the_time_may_run_out(self, world: World) -> None:
        operation = world.pending()
        answer = world.post(f"/{operation.id}/cancel", {"wait_seconds": 0.01})
        assert (answer.status, answer.json["outcome"]) == (202, "requested")
        assert answer.json["operation"] == world.get(f"/{operation.id}").json
        assert answer.json["operation"]["ended_at"] is None

    def test_several_wait_for_the_same_end(self, world: World, pool: ThreadPoolExecutor) -> None:
        with busy(world) as (operation, may_end):
            asked = [pool.submit(world.post, f"/{operation.id}/cancel", WAITING) for _ in range(4)]
            when_waited_for(world, may_end.set, places=0)
            answers = [ended(future) for future in asked]
        assert [answer.status for answer in answers] == [200] * 4
        assert sorted(answer.json["outcome"] for answer in answers) == ["already_requested"] * 3 + ["requested"]

    def test_a_client_that_leaves_ends_its_wait(self, world: World, pool: ThreadPoolExecutor) -> None:
        operation, left = world.pending(), CancelationToken()
        request = world.request("POST", f"/{operation.id}/cancel", body=WAITING)
        asked = pool.submit(world.api.respond, request, until=left)
        when_waited_for(world, left.cancel_sync)
        assert asked.result(LIMIT_SECONDS).status == 202
        assert world.api.free_waiting_places == 4

    def test_a_server_that_stops_ends_all_waits_for_good(self, world: World, pool: ThreadPoolExecutor) -> None:
        operation = world.pending()
        asked = pool.submit(world.post, f"/{operation.id}/cancel", WAITING)
        when_waited_for(world, world.api.end_waits)
        assert ended(asked).status == 202
        assert world.post(f"/{operation.id}/cancel", WAITING).status == 202


class TestPlaces:
    @pytest.mark.parametrize(("settings", "places"), [({}, 4), ({"max_waiting": 2}, 2), ({"max_waiting": 0}, 0)])
    def test_beyond_them_the_answer_comes_at_once(self, settings: dict[str, Any], places: int) -> None:
        world = World(**settings, default_max_waiting=4)
        operation = world.pending()
        waits = [world.wait(f"/{operation.id}/cancel", body=WAITING) for _ in range(places)]
        assert world.post(f"/{operation.id}/cancel", WAITING).status == 202
        for wait in waits:
            with wait:
                pass
        again = world.api.handle(world.request("POST", f"/{operation.id}/cancel", body=WAITING))
        assert isinstance(again, Wait if places else EndpointResponse)

    def test_a_place_is_given_back_once(self, world: World) -> None:
        operation = world.pending()
        wait = world.wait(f"/{operation.id}/cancel", body=WAITING)
        assert world.api.free_waiting_places == 3
        for _ in range(3):
            with wait:
                pass
        assert world.api.free_waiting_places == 4

    def test_a_place_is_given_back_when_answering_fails(self, world: World) -> None:
        operation = world.pending()
        wait = world.wait(f"/{operation.id}/cancel", body=WAITING)
        with pytest.raises(ZeroDivisionError), wait:
            raise ZeroDivisionError
        assert world.api.free_waiting_places == 4

    @pytest.mark.parametrize("body", [{}, {"wait_seconds": 0}])
    def test_no_place_is_taken_without_a_wait(self, world: World, body: dict[str, Any]) -> None:
        operation = world.pending()
        assert world.post(f"/{operation.id}/cancel", body).status == 202
        assert world.api.free_waiting_places == 4

    def test_no_place_is_taken_for_what_has_ended(self, world: World) -> None:
        operation = world.finished(OperationStatus.COMPLETED)
        assert world.post(f"/{operation.id}/cancel", WAITING).status == 409
        assert world.api.free_waiting_places == 4

    def test_a_wait_says_whom_and_how_long(self, world: World) -> None:
        operation = world.pending()
        wait = world.wait(f"/{operation.id}/cancel", body={"wait_seconds": 2.5})
        assert (wait.operation_id, wait.seconds) == (operation.id, 2.5)
        finish(operation, OperationStatus.CANCELLED)
        with wait:
            assert wait.resume(world.registry.wait_for(wait.operation_id, wait.seconds)).status == 200
            assert wait.resume(None).status == 202


class TestOwnOperation:
    def test_nobody_waits_for_himself(self, world: World) -> None:
        with suppress(OperationCancelled), world.make() as operation:
            assert world.post(f"/{operation.id}/cancel", WAITING).status == 202
            operation.check()
        assert operation.status is OperationStatus.CANCELLED

    def test_nor_for_the_operation_that_he_is_part_of(self, world: World) -> None:
        with suppress(OperationCancelled), world.make() as grandparent:
            with world.make(parent=grandparent) as parent, world.make(parent=parent) as child:
                assert world.post(f"/{grandparent.id}/cancel", WAITING).status == 202
                child.check()
        assert grandparent.status is OperationStatus.CANCELLED

    def test_but_for_any_other(self, world: World) -> None:
        other = world.pending()
        with world.make():
            answer = world.wait(f"/{other.id}/cancel", body=WAITING)
        with answer:
            pass


class TestTasks:
    async def test_the_answer_is_how_it_ended(self) -> None:
        world = World()
        operation, answers = world.make("report"), []

        async def work() -> None:
            with suppress(OperationCancelled):
                async with operation:
                    await anyio.sleep_forever()

        async def ask() -> None:
            answers.append(Answer(await world.api.arespond(world.request("POST", f"/{operation.id}/cancel", body=WAITING))))

        with anyio.fail_after(LIMIT_SECONDS):
            async with anyio.create_task_group() as group:
                group.start_soon(work)
                await anyio.wait_all_tasks_blocked()
                group.start_soon(ask)
        (answer,) = answers
        assert (answer.status, answer.json["operation"]["status"]) == (200, "cancelled")
        assert world.api.free_waiting_places == 4

    @pytest.mark.parametrize("path", ["/", "/stats", "/unknown"])
    async def test_everything_else_is_answered_at_once(self, path: str) -> None:
        world = World()
        request = world.request("GET", path)
        assert await world.api.arespond(request) == world.api.respond(request)

    async def test_the_time_may_run_out(self) -> None:
        world = World()
        operation = world.pending()
        request = world.request("POST", f"/{operation.id}/cancel", body={"wait_seconds": 0.01})
        assert (await world.api.arespond(request)).status == 202

    async def test_a_cancelled_task_gives_its_place_back(self) -> None:
        world = World()
        operation = world.pending()
        request = world.request("POST", f"/{operation.id}/cancel", body=WAITING)
        with anyio.fail_after(LIMIT_SECONDS):
            async with anyio.create_task_group() as group:
                group.start_soon(world.api.arespond, request)
                await anyio.wait_all_tasks_blocked()
                assert world.api.free_waiting_places == 3
                group.cancel_scope.cancel()
        assert world.api.free_waiting_places == 4

    @pytest.mark.parametrize("how", ["client", "server"])
    async def test_a_wait_can_be_ended_with_an_answer(self, how: str) -> None:
        world, left, answers = World(), CancelationToken(), []
        operation = world.pending()

        async def ask() -> None:
            request = world.request("POST", f"/{operation.id}/cancel", body=WAITING, principal=ALICE)
            answers.append(await world.api.arespond(request, until=left))

        with anyio.fail_after(LIMIT_SECONDS):
            async with anyio.create_task_group() as group:
                group.start_soon(ask)
                await anyio.wait_all_tasks_blocked()
                end = left.cancel_sync if how == "client" else world.api.end_waits
                await anyio.to_thread.run_sync(end)
        assert [answer.status for answer in answers] == [202]

    async def test_many_may_wait_on_one_loop(self) -> None:
        world = World(default_max_waiting=100)
        operation, answers = world.pending(), []

        async def ask() -> None:
            answers.append(await world.api.arespond(world.request("POST", f"/{operation.id}/cancel", body=WAITING)))

        with anyio.fail_after(LIMIT_SECONDS):
            async with anyio.create_task_group() as group:
                for _ in range(101):
                    group.start_soon(ask)
                await anyio.wait_all_tasks_blocked()
                assert [answer.status for answer in answers] == [202]
                finish(operation, OperationStatus.CANCELLED)
        assert [answer.status for answer in answers] == [202] + [200] * 100


class Elsewhere(LocalTransport):
    """Knows operations whose end it cannot tell of, and cancels that have acted before it answers."""

    def ended(self, operation_id: str) -> EndToken | None:
        return None

    def cancel(self, operation_id: str, request: CancelRequest) -> CancelResult:
        operation = self.store.find(operation_id)
        result = super().cancel(operation_id, request)
        if isinstance(operation, Cancelable) and operation.name == "quick":
            finish(operation, OperationStatus.CANCELLED)
        return result


@pytest.mark.parametrize(("name", "status"), [("quick", 200), ("slow", 202)])
async def test_where_no_end_can_be_told_the_registry_waits(name: str, status: int) -> None:
    world = World()
    api = HttpApi(ThreadSafeRegistry(Elsewhere(world.store)), world.settings, default_max_waiting=1)

    def request() -> EndpointRequest:
        return world.request("POST", f"/{world.pending(name).id}/cancel", body={"wait_seconds": 0.01})

    assert (await api.arespond(request())).status == status
    assert (await anyio.to_thread.run_sync(api.respond, request())).status == status
    assert api.free_waiting_places == 1


FORKING = """
import os
from cancelable_core.http_api.waiting import WaitingRoom
room = WaitingRoom(1)
place = room.take()
room._lock.acquire()
child = os.fork()
if child == 0:
    os._exit(0 if room.take() is not None and room.take() is None else 1)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
def test_a_forked_child_starts_with_all_places_free() -> None:
    subprocess.run([sys.executable, "-c", FORKING], check=True, timeout=LIMIT_SECONDS, env={**os.environ, "PYTHONPATH": ROOT})


def test_threads_and_places_in_a_crowd(pool: ThreadPoolExecutor) -> None:
    world = World(default_max_waiting=3)
    for _ in range(50):
        operation, together = world.pending(), threading.Barrier(8)

        def ask(path: str = f"/{operation.id}/cancel", barrier: threading.Barrier = together) -> int:
            barrier.wait(LIMIT_SECONDS)
            return world.post(path, {"wait_seconds": 0.001}, principal=STAFF).status

        statuses = [future.result(LIMIT_SECONDS) for future in [pool.submit(ask) for _ in range(8)]]
        assert set(statuses) == {202}
        assert world.api.free_waiting_places == 3
