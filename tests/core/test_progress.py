"""Progress: the newest report, cheap, from any thread, small enough to be shown."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Mapping
from typing import Any

import pytest

from cancelable_core import Cancelable, ThreadSafeRegistry

from .helpers import InterruptedAt, at_every_line


@pytest.fixture
def operation(registry: ThreadSafeRegistry) -> Any:
    with Cancelable("report", registry=registry) as operation:
        yield operation


def test_nothing_was_reported(operation: Cancelable) -> None:
    assert operation.context.progress is None


def test_the_newest_report_shows_everywhere(operation: Cancelable, registry: ThreadSafeRegistry) -> None:
    operation.report_progress("reading", current=1, total=10, file="a.csv")
    operation.report_progress("writing", current=2.5)
    expected = {"message": "writing", "current": 2.5, "total": None}
    assert operation.context.progress == expected
    context = registry.get_operation(operation.id)
    assert context is not None
    assert context.progress == expected


def test_the_last_report_stays_after_the_end_and_later_ones_change_nothing(registry: ThreadSafeRegistry) -> None:
    with Cancelable(registry=registry) as operation:
        operation.report_progress("half")
    operation.report_progress("too late")
    assert operation.context.progress is not None
    assert operation.context.progress["message"] == "half"
    assert registry.get_history()[0].progress == operation.context.progress


def test_a_report_is_a_snapshot(operation: Cancelable) -> None:
    files = ["a"]
    operation.report_progress(files=files)
    files.append(object())  # type: ignore[arg-type]
    context = operation.context
    assert context.progress is not None
    assert context.progress["files"] == ["a"]


def test_callbacks_get_every_report_in_the_reporting_thread(operation: Cancelable) -> None:
    seen: list[tuple[int, Mapping[str, Any]]] = []
    with operation.on_progress(lambda report: seen.append((threading.get_ident(), report))) as registration:
        for number in range(3):
            operation.report_progress(current=number)
    registration.remove()
    operation.report_progress(current=99)
    assert [(ident, report["current"]) for ident, report in seen] == [(threading.get_ident(), number) for number in range(3)]


def test_what_a_callback_raises_is_logged_and_stops_nobody(operation: Cancelable, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[object] = []

    def bad(_: object) -> None:
        raise ZeroDivisionError

    operation.on_progress(bad)
    operation.on_progress(seen.append)
    operation.report_progress("x")
    assert len(seen) == 1
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_a_callback_may_subscribe_and_unsubscribe(operation: Cancelable) -> None:
    seen: list[str] = []

    def once(_: object) -> None:
        seen.append("once")
        registration.remove()
        operation.on_progress(lambda _: seen.append("next"))

    registration = operation.on_progress(once)
    operation.report_progress()
    operation.report_progress()
    assert seen == ["once", "next"]


async def a_coroutine_function(_: object) -> None:
    raise AssertionError("never called")


@pytest.mark.parametrize("callback", [a_coroutine_function, None, 5])
def test_callbacks_that_are_none(operation: Cancelable, callback: object) -> None:
    with pytest.raises(TypeError):
        operation.on_progress(callback)  # type: ignore[arg-type]


class Odd:
    """Not JSON."""


def deep(levels: int) -> list[Any]:
    inner: list[Any] = []
    for _ in range(levels):
        inner = [inner]
    return inner


@pytest.mark.parametrize(
    "fields",
    [
        {"current": math.nan},
        {"total": math.inf},
        {"current": -math.inf},
        {"value": Odd()},
        {"value": b"bytes"},
        {"value": {1, 2}},
        {"value": {Odd(): 1}},
        {"value": deep(100_000)},
        {"message": "x" * 2_100},
        {"message": "\U0001f600" * 180},
        {"text": ["x" * 500] * 5},
    ],
    ids=range(11),
)
def test_what_could_not_be_shown_is_refused_and_changes_nothing(operation: Cancelable, fields: dict[str, Any]) -> None:
    operation.report_progress("before")
    before = operation.context.progress
    with pytest.raises(ValueError):
        operation.report_progress(**fields)
    assert operation.context.progress == before


def test_something_that_contains_itself_is_refused(operation: Cancelable) -> None:
    ring: list[Any] = []
    ring.append(ring)
    with pytest.raises(ValueError):
        operation.report_progress(value=ring)


def test_two_kibibytes_of_json_fit_and_one_byte_more_does_not(operation: Cancelable) -> None:
    empty = len('{"message":"","current":null,"total":null}')
    operation.report_progress("x" * (2_048 - empty))
    with pytest.raises(ValueError, match="2048"):
        operation.report_progress("x" * (2_049 - empty))


def test_fields_may_have_any_name_but_ours(operation: Cancelable) -> None:
    operation.report_progress("m", **{"self_": 1, "": 2, "ü": 3, "report": 4})
    assert operation.context.progress == {
        "message": "m",
        "current": None,
        "total": None,
        "self_": 1,
        "": 2,
        "ü": 3,
        "report": 4,
    }


def test_before_entry_it_can_be_reported_already() -> None:
    operation = Cancelable(register=False)
    operation.report_progress("queued")
    assert operation.context.progress is not None


def test_a_subscription_in_the_middle_of_the_first_report_is_not_lost() -> None:
    def scenario(step: int) -> bool:
        operation = Cancelable(register=False)
        seen: list[object] = []
        with InterruptedAt(step, lambda: operation.on_progress(seen.append)) as interruption:
            operation.report_progress("first")
        operation.report_progress("second")
        assert (len(seen) > 0) is interruption.fired, step
        assert operation.context.progress is not None
        assert operation.context.progress["message"] == "second"
        return interruption.fired

    at_every_line(scenario)
