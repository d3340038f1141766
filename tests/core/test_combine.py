"""``combine``: several operations' and tokens' reasons in one."""

from __future__ import annotations

import signal

import anyio
import pytest

from cancelable_core import (
    Cancelable,
    CancelationReason,
    CancelationToken,
    OperationCancelled,
    OperationKind,
    OperationStatus,
    OperationTimedOut,
    ThreadSafeRegistry,
)

from .helpers import in_thread


@pytest.mark.parametrize("which", range(4))
async def test_it_is_cancelled_when_any_part_is_with_that_parts_reason(registry: ThreadSafeRegistry, which: int) -> None:
    own, given, bare = Cancelable("own", registry=registry), CancelationToken(), CancelationToken()
    other = Cancelable.with_token(given)
    combined = own.combine(other, bare)
    cancel = [own.cancel_sync, other.cancel_sync, given.cancel_sync, bare.cancel_sync][which]
    with anyio.fail_after(10):
        with pytest.raises(OperationCancelled) as caught:
            async with combined:
                in_thread(cancel, CancelationReason.SHUTDOWN, f"part {which}")
                await anyio.sleep_forever()
    assert (caught.value.reason, caught.value.message) == (CancelationReason.SHUTDOWN, f"part {which}")
    assert caught.value.operation_id == own.id
    assert combined.status is OperationStatus.CANCELLED
    assert not given._watchers
    assert not bare._watchers


def test_it_takes_the_first_ones_id_name_and_options(registry: ThreadSafeRegistry) -> None:
    first = Cancelable("first", operation_id="id-1", owner="ada", metadata={"a": 1}, raise_on_cancel=False, registry=registry)
    combined = first.combine(Cancelable("second", owner="bob", metadata={"b": 2}))
    with combined:
        context = registry.get_operation("id-1")
        assert context is not None
        assert (context.name, context.owner, context.metadata, context.id_is_secret) == ("first", "ada", {"a": 1}, False)
        combined.cancel_sync()
        combined.check()
    assert Cancelable().combine(Cancelable()).id_is_secret


@pytest.mark.parametrize(("timeouts", "nearest"), [((5, 50), 5), ((None, 50), 50), ((50, None), 50), ((None, None), None)])
def test_the_nearest_deadline_counts_from_entering_the_combination(
    timeouts: tuple[float | None, float | None], nearest: float | None
) -> None:
    first, second = (Cancelable(timeout=timeout, register=False) for timeout in timeouts)
    combined = first.combine(second)
    assert combined.remaining_seconds == nearest
    with combined:
        assert combined.remaining_seconds is None or 0 < combined.remaining_seconds <= (nearest or 0)


def test_a_deadline_of_a_part_strikes() -> None:
    combined = Cancelable(register=False).combine(Cancelable(timeout=0.01))
    with pytest.raises(OperationTimedOut):
        with combined:
            combined.sleep(30)


def test_sources_of_the_parts_watch() -> None:
    combined = Cancelable(register=False).combine(
        Cancelable.with_condition(lambda: False, 60), Cancelable.with_signal(signal.SIGUSR1)
    )
    before = signal.getsignal(signal.SIGUSR1)
    with pytest.raises(OperationCancelled) as caught:
        with combined:
            signal.raise_signal(signal.SIGUSR1)
            combined.check()
    assert caught.value.reason is CancelationReason.SIGNAL
    assert signal.getsignal(signal.SIGUSR1) is before


def test_combinations_combine() -> None:
    tokens = [CancelationToken() for _ in range(3)]
    inner = Cancelable.with_token(tokens[0], register=False).combine(tokens[1])
    with pytest.raises(OperationCancelled, match="deep"):
        with inner.combine(tokens[2]) as combined:
            tokens[1].cancel_sync("deep")
            combined.check()


def test_a_part_cancelled_before_keeps_the_body_from_running() -> None:
    part = Cancelable()
    part.cancel_sync("before")
    with pytest.raises(OperationCancelled, match="before"):
        with Cancelable(register=False).combine(part):
            raise AssertionError("ran")


def test_an_explicit_parent_of_a_part_counts() -> None:
    with Cancelable("parent", register=False) as parent:
        combined = Cancelable(register=False, parent=None).combine(Cancelable(parent=parent))
        with pytest.raises(OperationCancelled) as caught:
            with combined:
                parent.cancel_sync("from above")
                combined.check()
    assert (caught.value.reason, caught.value.message) == (CancelationReason.PARENT, "from above")


def test_entered_parts_are_refused() -> None:
    with Cancelable(register=False) as entered:
        with pytest.raises(RuntimeError, match="not entered"):
            entered.combine(Cancelable())
        with pytest.raises(RuntimeError, match="not entered"):
            Cancelable().combine(entered)
    part = Cancelable(register=False)
    part.combine()
    with pytest.raises(RuntimeError):
        part.combine(CancelationToken())
    with pytest.raises(RuntimeError):
        with part:
            raise AssertionError("a part was entered")


@pytest.mark.parametrize("part", ["text", None, 5, object()])
def test_what_is_neither_is_refused_and_uses_nothing_up(part: object) -> None:
    operation = Cancelable(register=False)
    with pytest.raises(TypeError):
        operation.combine(part)  # type: ignore[arg-type]
    with operation:
        pass


def test_of_nothing_else_it_is_the_same_again() -> None:
    operation = Cancelable("alone", register=False)
    with operation.combine() as combined:
        assert (combined.id, combined.name) == (operation.id, "alone")


class OfTheJobKind(Cancelable):
    __slots__ = ()

    kind = OperationKind.JOB


def test_the_kind_of_the_first_part_is_kept(registry: ThreadSafeRegistry) -> None:
    with OfTheJobKind(registry=registry).combine(CancelationToken()) as combined:
        assert combined.kind is combined.context.kind is OperationKind.JOB
        assert [context.id for context in registry.list_operations(kind=OperationKind.JOB)] == [combined.id]
    assert Cancelable().combine(OfTheJobKind()).kind is OperationKind.OPERATION
    assert repr(combined).startswith("<Cancelable ")


def test_who_follows_the_progress_of_a_part_hears_of_the_combinations() -> None:
    heard: list[tuple[str, object]] = []
    first, second = Cancelable(register=False), Cancelable(register=False)
    for name, part in (("first", first), ("second", second)):
        part.on_progress(lambda report, name=name: heard.append((name, report["message"])))  # type: ignore[misc]
    removed = second.on_progress(lambda report: heard.append(("removed", report["message"])))
    first.report_progress("before")
    with first.combine(second) as combined:
        progress = combined.context.progress
        assert progress is not None
        assert progress["message"] == "before"
        removed.remove()
        combined.report_progress("after")
    assert heard == [("first", "before"), ("first", "after"), ("second", "after")]


def test_a_part_that_is_named_twice_counts_once() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    operation = Cancelable.with_signal(signal.SIGUSR1, register=False)
    with operation.combine(operation) as combined:
        assert len(combined._sources) == 1
    assert signal.getsignal(signal.SIGUSR1) is before


def test_parts_that_watch_the_same_signal_put_back_what_was_there() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    first, second = (Cancelable.with_signal(signal.SIGUSR1, register=False) for _ in range(2))
    with first.combine(second):
        assert signal.getsignal(signal.SIGUSR1) is not before
    assert signal.getsignal(signal.SIGUSR1) is before
