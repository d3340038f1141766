"""A search that takes its time: every line of the standard library's sources, in a thread."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from difflib import SequenceMatcher
from functools import cache
from pathlib import Path

from typing_extensions import TypedDict  # pydantic needs its own before Python 3.12

from cancelable_fastapi import current_operation

__all__ = ["Found", "Match", "search_sources"]

_WORD = re.compile(r"[A-Za-z]{3,}")
_SIMILAR = 0.8
_LINES_PER_CHECK = 500


class Match(TypedDict):
    """One line."""

    file: str
    line: int
    text: str


class Found(TypedDict):
    """What a search says in the end."""

    matches: list[Match]
    files: int
    lines: int


def search_sources(files: Sequence[Path], text: str, *, fuzzy: bool = False, limit: int = 50) -> Found:
    """Find the lines that have ``text`` in them or, if ``fuzzy``, a word that looks like it.

    Concurrency:
        Blocks; runs in a thread of the current operation, and raises there as soon as that is cancelled.
    """
    operation = current_operation()
    assert operation is not None
    is_match = _looks_like(text.lower()) if fuzzy else re.compile(re.escape(text), re.IGNORECASE).search
    found = Found(matches=[], files=0, lines=0)
    for path in operation.iterate(files):
        for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), start=1):
            if number % _LINES_PER_CHECK == 0:
                operation.check()
            found["lines"] += 1
            if is_match(line):
                found["matches"].append(Match(file=path.name, line=number, text=line.strip()))
                if len(found["matches"]) == limit:
                    return found
        found["files"] += 1
        operation.report_progress(current=found["files"], total=len(files), matches=len(found["matches"]))
    return found


def _looks_like(wanted: str) -> Callable[[str], bool]:
    @cache
    def is_similar(word: str) -> bool:
        matcher = SequenceMatcher(None, wanted, word)
        return matcher.real_quick_ratio() >= _SIMILAR and matcher.ratio() >= _SIMILAR

    return lambda line: any(is_similar(word.lower()) for word in _WORD.findall(line))
