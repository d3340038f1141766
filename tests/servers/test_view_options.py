"""What `cancelable_view` writes on a view is found again, whatever was put around the view."""

from __future__ import annotations

import functools
import subprocess
import sys
from datetime import timedelta
from typing import Any

import pytest

from cancelable_core.servers import ViewOptions, cancelable_view, view_options


def _view() -> str:
    return "seen"


def _fresh() -> Any:
    return functools.wraps(_view)(lambda: _view())


def test_a_view_without_a_mark_asks_for_nothing() -> None:
    assert view_options(_fresh()) is None
    assert view_options(None) is None


def test_a_bare_mark_asks_for_nothing_in_particular() -> None:
    view = _fresh()
    assert cancelable_view(view) is view
    assert view_options(view) == ViewOptions()


def test_options_are_written_on_the_view_itself() -> None:
    view = _fresh()
    assert cancelable_view(timeout_seconds=5, owner=True, name="report")(view) is view
    assert view_options(view) == ViewOptions(timeout_seconds=5.0, owner=True, name="report")
    assert view() == "seen"


@pytest.mark.parametrize(("given", "limit"), [(timedelta(minutes=1), 60.0), (0.5, 0.5), (None, None)])
def test_a_limit_is_seconds_or_none_at_all(given: Any, limit: float | None) -> None:
    options = view_options(cancelable_view(timeout_seconds=given)(_fresh()))
    assert options == ViewOptions(timeout_seconds=limit)


@pytest.mark.parametrize("given", [0, -1, float("nan"), float("inf"), "5", True, timedelta(0)])
def test_a_limit_that_cannot_be_one_is_refused(given: Any) -> None:
    with pytest.raises(ValueError, match=r"^timeout_seconds must be a finite number of seconds, more than 0"):
        cancelable_view(timeout_seconds=given)


def test_a_name_that_is_no_text_is_refused() -> None:
    with pytest.raises(TypeError, match="name must be text"):
        cancelable_view(name=5)  # type: ignore[call-overload]


@pytest.mark.parametrize("view", ["a name", 5, []])
def test_what_is_no_view_is_refused(view: Any) -> None:
    with pytest.raises(TypeError, match="give options by their names"):
        cancelable_view(view)


def test_what_takes_no_marks_is_refused_in_words() -> None:
    with pytest.raises(TypeError, match="mark the function or the class"):
        cancelable_view("".join)


def test_marks_add_up_and_the_one_above_wins() -> None:
    view = cancelable_view(name="outer", owner=False)(cancelable_view(timeout_seconds=5, owner=True, name="inner")(_fresh()))
    assert view_options(view) == ViewOptions(timeout_seconds=5.0, owner=False, name="outer")


def test_decorators_that_use_wraps_keep_the_mark() -> None:
    view = functools.wraps(marked := cancelable_view(name="report")(_fresh()))(lambda: marked())
    assert view_options(view) == ViewOptions(name="report")


def test_a_partial_is_as_its_function() -> None:
    assert view_options(functools.partial(cancelable_view(name="report")(_fresh()))) == ViewOptions(name="report")


def test_a_class_hands_its_mark_to_the_function_made_of_it_and_to_its_heirs() -> None:
    @cancelable_view(timeout_seconds=5)
    class Reports:
        def __call__(self) -> None: ...

    @cancelable_view(name="heir")
    class Heir(Reports): ...

    view = _fresh()
    view.view_class = Heir
    assert view_options(view) == ViewOptions(timeout_seconds=5.0, name="heir")
    assert view_options(Reports) == ViewOptions(timeout_seconds=5.0)


def test_a_foreign_attribute_of_that_name_is_no_mark() -> None:
    view = _fresh()
    view.__cancelable_view__ = {"timeout_seconds": 5}
    assert view_options(view) is None


def test_it_is_known_whether_any_view_is_marked() -> None:
    of_a_process = """
from cancelable_core.servers import any_view_is_marked, cancelable_view
assert not any_view_is_marked()
cancelable_view(lambda: None)
assert any_view_is_marked()
"""
    subprocess.run([sys.executable, "-c", of_a_process], check=True)
