"""A scope that is entered when it is cancelled does what the same scope does that was entered at the beginning."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from cancelable_core import late_scope
from cancelable_core.late_scope import LateScope

PROGRAMS = 1_500
STEPS_TO_CANCEL = 14

Program = tuple[Any, ...]


class EarlyScope:
    """What a `LateScope` stands for."""

    def __init__(self) -> None:
        self._scope = anyio.CancelScope()
        self._scope.__enter__()
        self.cancel = self._scope.cancel

    def __exit__(self, *exc_info: Any) -> bool:
        return bool(self._scope.__exit__(*exc_info))

    @property
    def cancelled_caught(self) -> bool:
        return self._scope.cancelled_caught


@pytest.fixture
def on_its_own() -> Iterator[None]:
    """What is known about anyio is forgotten before and after."""
    kept = late_scope._running_task
    late_scope._running_task = late_scope._find_running_task
    yield
    late_scope._running_task = kept


# --- programs of scopes, tasks and waits, by the seed


def make_program(chance: random.Random, depth: int = 0) -> Program:
    kinds = ["wait", "wait", "pass"] if depth > 3 else ["wait", "scope", "shield", "own", "group", "finally", "catch", "then"]
    kind = chance.choice(kinds)
    if kind == "wait":
        return ("wait", chance.randint(1, 4))
    if kind == "pass":
        return ("pass",)
    if kind == "own":
        return ("own", chance.randint(0, 3), make_program(chance, depth + 1))
    if kind in ("group", "then"):
        return (kind, *(make_program(chance, depth + 1) for _ in range(chance.randint(1, 3))))
    return (kind, make_program(chance, depth + 1))


async def run_program(program: Program, log: list[str], name: str = "0") -> None:
    kind, *rest = program
    log.append(f"{name} {kind}")
    if kind == "wait":
        for number in range(rest[0]):
            await anyio.sleep(0)
            log.append(f"{name} waited {number}")
    elif kind in ("scope", "shield"):
        with anyio.CancelScope(shield=kind == "shield") as scope:
            await run_program(rest[0], log, f"{name}.0")
        log.append(f"{name} caught {scope.cancelled_caught}")
    elif kind == "own":
        with anyio.CancelScope() as scope:
            asyncio.get_running_loop().call_soon(count_down, rest[0], scope.cancel)
            await run_program(rest[1], log, f"{name}.0")
        log.append(f"{name} caught {scope.cancelled_caught}")
    elif kind == "group":
        async with anyio.create_task_group() as tasks:
            for number, each in enumerate(rest):
                tasks.start_soon(run_program, each, log, f"{name}.{number}")
            await anyio.sleep(0)
            log.append(f"{name} started")
    elif kind == "finally":
        try:
            await run_program(rest[0], log, f"{name}.0")
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0)
            log.append(f"{name} cleaned up")
    elif kind == "catch":
        try:
            await run_program(rest[0], log, f"{name}.0")
        except asyncio.CancelledError:
            log.append(f"{name} was cancelled")  # and goes on: the next wait says it again
    else:
        for number, each in enumerate(rest):
            await run_program(each, log, f"{name}.{number}")
    log.append(f"{name} done")


def count_down(steps: int, call: Callable[[], object]) -> None:
    """Call it after so many rounds of the loop."""
    if steps == 0:
        call()
    else:
        asyncio.get_running_loop().call_soon(count_down, steps - 1, call)


async def run_inside(make: Callable[[], Any], program: Program, chance: random.Random) -> list[str]:
    """Run a program inside a scope that is cancelled meanwhile, or after, by somebody; what happened."""
    log: list[str] = []
    steps, by_task = chance.randrange(STEPS_TO_CANCEL), chance.random() < 0.3
    is_nested, is_stopped = chance.random() < 0.4, chance.random() < 0.1
    outer = anyio.CancelScope()
    cancellers: list[asyncio.Task[None]] = []

    async def body() -> None:
        task = asyncio.current_task()
        assert task is not None
        scope = make()
        if by_task:
            cancellers.append(asyncio.create_task(cancel_later(scope)))
        else:
            count_down(steps, lambda: cancel(scope))
        if is_stopped:
            count_down(chance.randrange(STEPS_TO_CANCEL), task.cancel)
        try:
            await run_program(program, log)
        except BaseException as error:
            log.append(f"raised {type(error).__name__}")
            if not scope.__exit__(type(error), error, error.__traceback__):
                raise
        else:
            scope.__exit__(None, None, None)
        log.append(f"left: caught {scope.cancelled_caught}, {task.cancelling()} left")
        try:
            for number in range(3):
                await anyio.sleep(0)
                log.append(f"after {number}")
        finally:
            for canceller in cancellers:
                canceller.cancel()

    async def cancel_later(scope: Any) -> None:
        for _ in range(steps):
            await asyncio.sleep(0)
        cancel(scope)
        assert asyncio.current_task() in cancellers  # as who it was before

    def cancel(scope: Any) -> None:
        log.append("cancel")
        scope.cancel()

    try:
        if is_nested:
            with outer:
                if chance.random() < 0.5:
                    count_down(chance.randrange(2 * STEPS_TO_CANCEL), outer.cancel)
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(body)
                    await body()
            log.append(f"outer caught {outer.cancelled_caught}, knows {outer._child_scopes}")
        else:
            await body()
    except BaseException as error:
        log.append(f"ended with {type(error).__name__}")
    return log


async def in_a_task(make: Callable[[], Any], seed: int) -> list[str]:
    chance = random.Random(seed)
    log = await asyncio.create_task(run_inside(make, make_program(chance), chance))
    for _ in range(2 * STEPS_TO_CANCEL):
        await asyncio.sleep(0)  # whoever came too late has been there
    return log


@pytest.mark.parametrize("anyio_backend", [("asyncio", {}), ("asyncio", {"use_uvloop": True})], ids=["asyncio", "uvloop"])
async def test_programs_cannot_tell_when_it_was_entered(anyio_backend: object) -> None:
    cancelled = 0
    for seed in range(PROGRAMS):
        early, late = await in_a_task(EarlyScope, seed), await in_a_task(LateScope, seed)
        assert late == early, f"seed {seed}"
        cancelled += any(line.startswith("left: caught True") for line in late)
    assert cancelled > PROGRAMS / 10  # else they are no test of anything


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_where_anyio_is_not_as_expected_it_is_entered_at_once(on_its_own: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late_scope, "_is_as_expected", lambda module, scope: False)
    assert await in_a_task(EarlyScope, 3) == await in_a_task(LateScope, 3)
    scope = LateScope()
    with anyio.CancelScope(), pytest.raises(RuntimeError, match="current cancel scope"):
        scope.__exit__(None, None, None)  # not the innermost: so it is there already
    scope.__exit__(None, None, None)


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_it_interrupts_again_until_it_is_left_and_nothing_after(anyio_backend: str) -> None:
    scope = LateScope()
    scope.cancel()
    assert scope.cancel_called
    for _ in range(3):
        with pytest.raises(anyio.get_cancelled_exc_class()):
            await anyio.sleep_forever()
    assert not scope.__exit__(None, None, None) or anyio_backend == "trio"  # where a scope says so of every end
    scope.cancel()
    await anyio.lowlevel.checkpoint()


async def test_what_is_cancelled_after_its_end_interrupts_nothing() -> None:
    scope = LateScope()
    scope.__exit__(None, None, None)
    scope.cancel()
    assert not scope.cancel_called
    await anyio.lowlevel.checkpoint()


async def test_no_loop_no_scope() -> None:
    with pytest.raises(AssertionError, match="running event loop"):
        await anyio.to_thread.run_sync(LateScope)
