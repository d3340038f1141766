"""The snippets of `seed_snippets.md` run as they stand; only the module in their import lines is ours."""

from __future__ import annotations

import ast
import builtins
import contextlib
import inspect
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import anyio.to_thread
import pytest

from cancelable_core import (
    Cancelable,
    CancelationReason,
    CancelationToken,
    OperationCancelled,
    OperationStatus,
    ThreadSafeRegistry,
    current_operation,
)

DEADLINE_SECONDS = 10.0
"""Reached by failing tests only."""

LATEST_SECONDS = 0.05
"""How soon an await ends after its cancel, whatever its thread does: what `run_in_thread` promises."""

TRIES = 5
"""A machine that is busy with something else may miss it now and then."""

TEXT = Path(__file__).with_name("seed_snippets.md").read_text(encoding="utf-8")
SNIPPETS = dict(re.findall(r"^## (.+?)\n\n```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL))
IMPORT = re.compile(r"^from hother\.cancelable[.\w]* import ", re.MULTILINE)


async def run(title: str, **names: Any) -> dict[str, Any]:
    """Run one snippet where these names exist; returns all that it leaves behind."""
    code = compile(
        IMPORT.sub("from cancelable_core import ", SNIPPETS[title]), title, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    )
    awaited = eval(code, names)
    if inspect.iscoroutine(awaited):
        await awaited
    return names


def importing_instead(**modules: Any) -> dict[str, Any]:
    """Builtins with which `import` finds these modules first."""

    def find(name: str, *args: Any, **kwargs: Any) -> Any:
        return modules[name] if name in modules else __import__(name, *args, **kwargs)

    return {**vars(builtins), "__import__": find}


def happens(event: threading.Event) -> None:
    assert event.wait(DEADLINE_SECONDS), "it did not happen"


async def becomes_true(condition: Callable[[], object]) -> None:
    with anyio.fail_after(DEADLINE_SECONDS):
        while not condition():
            await anyio.sleep(0.001)


def test_only_import_lines_are_changed() -> None:
    assert len(SNIPPETS) == 6
    for snippet in SNIPPETS.values():
        changed = IMPORT.sub("from cancelable_core import ", snippet).splitlines()
        different = [line for line, ours in zip(snippet.splitlines(), changed, strict=True) if line != ours]
        assert len(different) <= 1
        assert "hother" not in "\n".join(changed)


async def test_a_button_in_another_thread() -> None:
    waiting = threading.Event()

    async def process_data() -> None:
        waiting.set()
        await anyio.sleep_forever()

    names = await run(
        "A button in another thread", Cancelable=Cancelable, CancelationToken=CancelationToken, process_data=process_data
    )

    def press() -> None:
        happens(waiting)
        names["button_click_handler"]()

    thread = threading.Thread(target=press)
    thread.start()
    with anyio.fail_after(DEADLINE_SECONDS):
        with pytest.raises(OperationCancelled) as caught:
            await names["long_async_operation"]()
    thread.join(DEADLINE_SECONDS)
    assert (caught.value.reason, caught.value.message) == (CancelationReason.MANUAL, "User clicked cancel")


async def test_a_thread_that_cancels() -> None:
    """It ends in `OperationCancelled`, as documented: whoever awaits cancelled work learns it."""
    processed: list[int] = []
    some_work = threading.Event()

    async def process_item(item: int) -> None:
        processed.append(item)
        if len(processed) == 2:
            some_work.set()

    def sleep(seconds: float) -> None:
        assert seconds == 5
        happens(some_work)

    names: dict[str, Any] = {
        "__builtins__": importing_instead(time=SimpleNamespace(sleep=sleep)),
        "anyio": anyio,
        "process_item": process_item,
    }
    with anyio.fail_after(DEADLINE_SECONDS):
        with pytest.raises(OperationCancelled) as caught:
            await run("A thread that cancels", **names)
    assert (caught.value.name, caught.value.message) == ("worker", "Cancelled from thread")
    assert processed == list(range(len(processed)))
    assert 2 <= len(processed) < 100


class Working:
    """Threads that are busy until they are cancelled, each under a name."""

    def __init__(self, *names: str) -> None:
        self.ids: dict[str, str] = {}
        self.ended: dict[str, OperationStatus] = {}
        self.threads = {name: threading.Thread(target=self._work, args=(name,)) for name in names}
        for thread in self.threads.values():
            thread.start()
        deadline = time.monotonic() + DEADLINE_SECONDS
        while len(self.ids) < len(names):
            assert time.monotonic() < deadline
            time.sleep(0.001)

    def _work(self, name: str) -> None:
        with contextlib.suppress(OperationCancelled), Cancelable(name, parent=None) as operation:
            self.ids[name] = operation.id
            operation.sleep(DEADLINE_SECONDS)
        self.ended[name] = operation.status

    def join(self, *names: str) -> None:
        for name in names:
            self.threads[name].join(DEADLINE_SECONDS)


@pytest.fixture
def working() -> Iterator[Callable[..., Working]]:
    made: list[Working] = []

    def make(*names: str) -> Working:
        made.append(Working(*names))
        return made[-1]

    yield make
    registry = ThreadSafeRegistry()
    for each in made:
        for operation_id in each.ids.values():
            registry.cancel_operation(operation_id)
        each.join(*each.ids)


@pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": False})], ids=["asyncio"])
async def test_a_registry_for_threads_on_a_real_flask_application(working: Callable[..., Working]) -> None:
    flask = pytest.importorskip("flask")
    app = flask.Flask("snippet")

    @app.url_value_preprocessor  # type: ignore[untyped-decorator]
    def who_asks(endpoint: str | None, values: dict[str, Any] | None) -> None:
        """The snippet's last view takes an argument that its route does not name."""
        if endpoint == "cancel_all_user_jobs" and values is not None:
            values["user_id"] = flask.request.args["user_id"]

    await run("A registry for threads", app=app)
    await anyio.to_thread.run_sync(use_the_routes, app, working)


def use_the_routes(app: Any, working: Callable[..., Working]) -> None:
    client = app.test_client()
    before = client.get("/stats").json
    jobs = working("user_42_export", "user_42_import", "user_421_export", "report")

    answer = client.post(f"/jobs/{jobs.ids['report']}/cancel")
    assert (answer.status_code, answer.json) == (200, {"status": "cancelled"})
    jobs.join("report")
    assert jobs.ended == {"report": OperationStatus.CANCELLED}
    context = ThreadSafeRegistry().get_operation(jobs.ids["report"])
    assert context is not None
    assert context.message == "User requested cancel"
    assert client.post("/jobs/nobody/cancel").status_code == 200  # the snippet does not look at the answer

    during = client.get("/stats").json
    assert {key: during[key] - before[key] for key in during} == {"total": 4, "running": 3, "cancelled": 1}

    answer = client.post("/jobs/cancel-all?user_id=42")
    assert (answer.status_code, answer.json) == (200, {"status": "all_cancelled"})
    jobs.join("user_42_export", "user_42_import")
    assert set(jobs.ended) == {"report", "user_42_export", "user_42_import"}
    after = client.get("/stats").json
    assert {key: after[key] - before[key] for key in after} == {"total": 4, "running": 1, "cancelled": 3}


async def test_context_that_follows_into_a_thread(capsys: pytest.CaptureFixture[str]) -> None:
    names = await run("Context that follows into a thread", Cancelable=Cancelable, current_operation=current_operation)
    await names["main"]()
    assert capsys.readouterr().out == "Operation: parent\n"


class Database:
    """One slow query."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self.release = threading.Event()
        self.ended = threading.Event()

    def execute_slow_query(self) -> str:
        self.started.set()
        try:
            happens(self.release)
            return "rows"
        finally:
            self.ended.set()


async def test_blocking_work_in_a_thread() -> None:
    database = Database()
    database.release.set()
    names = await run("Blocking work in a thread", Cancelable=Cancelable, database=database)
    assert names["result"] == "rows"
    assert names["cancel"].status is OperationStatus.COMPLETED


async def cancel_it_in_its_thread() -> float:
    """Run the snippet, cancel it while its query sits there; returns how long the await took to end."""
    registry = ThreadSafeRegistry()
    abandoned_before = registry.get_statistics().abandoned_threads
    database = Database()
    cancelled_at: list[float] = []

    def cancel() -> None:
        happens(database.started)
        (operation,) = registry.list_operations()
        cancelled_at.append(time.monotonic())
        assert registry.cancel_operation(operation.id, "User requested cancel")

    canceller = threading.Thread(target=cancel)
    canceller.start()
    try:
        with anyio.fail_after(DEADLINE_SECONDS):
            with pytest.raises(OperationCancelled, match="User requested cancel"):
                await run("Blocking work in a thread", Cancelable=Cancelable, database=database)
        seconds = time.monotonic() - cancelled_at[0]
        assert not database.ended.is_set()  # the call still sits there
        assert registry.list_operations() == []
        assert registry.get_statistics().abandoned_threads == abandoned_before + 1
    finally:
        database.release.set()
    await becomes_true(lambda: registry.get_statistics().abandoned_threads == abandoned_before)
    assert database.ended.is_set()
    canceller.join(DEADLINE_SECONDS)
    return seconds


async def test_it_respects_cancelation_even_while_running_in_a_thread() -> None:
    best = DEADLINE_SECONDS
    for _ in range(TRIES):
        best = min(best, await cancel_it_in_its_thread())
        if best < LATEST_SECONDS:
            return
    pytest.fail(f"the await ended {best:.3f} s after the cancel, at best")


@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])
async def test_from_a_thread_to_the_loop(is_async: bool) -> None:
    items = 2_500  # more than the buffer holds
    processed: list[int] = []
    threads: set[int] = set()

    def process_item(item: int) -> None:
        processed.append(item)
        threads.add(threading.get_ident())

    async def process_item_later(item: int) -> None:
        process_item(item)
        await anyio.lowlevel.checkpoint()

    async def process_all_items() -> None:
        await becomes_true(lambda: len(processed) == items)

    names = await run(
        "From a thread to the loop",
        threading=threading,
        generate_data=lambda: range(items),
        process_item=process_item_later if is_async else process_item,
        process_all_items=process_all_items,
    )
    names["thread"].join(DEADLINE_SECONDS)
    assert not names["thread"].is_alive()
    assert processed == list(range(items))
    assert threads == {threading.get_ident()}
    statistics = names["bridge"].statistics
    assert (statistics.accepted, statistics.completed, statistics.unfinished) == (items, items, 0)
