"""Names are found by exact name, by prefix and by glob, and leave nothing behind."""

from __future__ import annotations

import fnmatch
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cancelable_core import escape_pattern
from cancelable_core.names import NameIndex, name_matcher

LETTERS = st.text(alphabet="ab*?[]!-_\n\U0010ffff", max_size=6)


def found(index: NameIndex[int], pattern: str) -> list[int]:
    """As the store asks."""
    matcher = name_matcher(pattern)
    return index.entries([name for name in index.candidates(pattern) if matcher.match(name)])


@given(names=st.lists(LETTERS, max_size=12), pattern=LETTERS, removed=st.sets(st.integers(0, 11)))
def test_globs_find_what_fnmatchcase_finds(names: list[str], pattern: str, removed: set[int]) -> None:
    index: NameIndex[int] = NameIndex()
    for number, name in enumerate(names):
        index.add(name, number)
    index.candidates("a*")  # sorts what is there now; what follows must not be missed
    left = dict(enumerate(names))
    for number in removed & left.keys():
        index.remove(left.pop(number), number)
    expected = [number for number, name in left.items() if fnmatch.fnmatchcase(name, pattern)]
    assert sorted(found(index, pattern)) == expected
    index.add("a", 100)
    assert sorted(found(index, pattern)) == expected + [100] * fnmatch.fnmatchcase("a", pattern)


@given(text=LETTERS, other=LETTERS)
def test_an_escaped_pattern_matches_its_text_and_nothing_else(text: str, other: str) -> None:
    pattern = escape_pattern(text)
    assert name_matcher(pattern).match(text)
    assert bool(name_matcher(pattern).match(other)) is (text == other)
    assert name_matcher(f"{pattern}_*").match(f"{text}_{other}")


@pytest.mark.parametrize(
    ("pattern", "candidates"),
    [
        ("user_42_*", ["user_42_a", "user_42_b"]),
        ("user_42_a", ["user_42_a"]),
        ("user_42_c", []),
        ("user_42_?", ["user_42_a", "user_42_b"]),
        ("zzz*", []),
        ("user_42_a*", ["user_42_a"]),
    ],
)
def test_only_names_that_share_the_literal_start_are_looked_at(pattern: str, candidates: list[str]) -> None:
    """Cancelling one user's operations must not cost a look at everybody's."""
    index: NameIndex[int] = NameIndex()
    for number, name in enumerate(["user_42_b", "user_42_a", *(f"user_{user}_a" for user in range(100, 1_000))]):
        index.add(name, number)
    assert index.candidates(pattern) == candidates


def test_a_name_that_begins_with_the_last_character_is_found() -> None:
    index: NameIndex[int] = NameIndex()
    index.add("a\U0010ffff", 1)
    index.add("a\U0010ffffb", 2)
    index.add("b", 3)
    assert found(index, "a*") == [1, 2]


def test_one_name_holds_many_entries_in_the_order_they_came() -> None:
    index: NameIndex[int] = NameIndex()
    for number in range(5):
        index.add("export", number)
    index.remove("export", 2)
    assert found(index, "export") == [0, 1, 3, 4]
    assert found(index, "exp*") == [0, 1, 3, 4]
    for number in (0, 1, 3, 4):
        index.remove("export", number)
    assert index.candidates("export") == []
    assert found(index, "exp*") == []


def test_a_name_that_comes_back_is_found_once() -> None:
    index: NameIndex[int] = NameIndex()
    for number in range(5):
        index.add("export", number)
        assert found(index, "exp*") == [number]
        index.remove("export", number)
    index.add("export", 7)
    assert found(index, "*") == found(index, "e*") == found(index, "export") == [7]


@pytest.mark.parametrize("asked", [True, False], ids=["asked meanwhile", "never asked"])
def test_names_that_are_gone_leave_nothing(asked: bool) -> None:
    """Names made from ids are never seen again: the index must not remember a million of them."""
    index: NameIndex[int] = NameIndex()
    rng = random.Random(7)
    for number in range(20_000):
        index.add(f"export {number}", number)
        if asked and rng.random() < 0.01:
            assert found(index, "export *") == [number]
        index.remove(f"export {number}", number)
    assert not index._buckets
    assert len(index._sorted) + len(index._unsorted) < 200
