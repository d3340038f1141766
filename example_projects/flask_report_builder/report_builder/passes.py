"""What a report looks for. Each pass looks at every file once and can say at any time what it has found so far."""

from __future__ import annotations

import heapq
import math
import sys
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from typing import Any, Generic, TypeVar

from .corpus import SourceFile

__all__ = ["PASSES", "Pass"]

T = TypeVar("T")

SHOWN = 20
"""How many of the most frequent, longest or most similar are shown."""

PAIRS_LIMIT = 200_000
"""How many pairs of identifiers are counted at once."""

STATEMENT_LIMIT = 20
"""A statement with more identifiers than this is a table, and says nothing about which of them belong together."""

VOCABULARY_MINIMUM = 100
"""Files with fewer different words than this are too short to be called similar."""


class Pass(ABC):
    """One way to look at the files.

    Concurrency:
        `findings`, and what adds to them, is quick and shares a lock, which whoever calls it holds.
    """

    title: str

    @abstractmethod
    def findings(self) -> dict[str, Any]:
        """What was found so far, as plain values."""


class FilePass(Pass, Generic[T]):
    """A pass that reads one file after the other.

    Concurrency:
        `examine` does the work, and one thread at a time calls it, without the lock.
    """

    @abstractmethod
    def examine(self, file: SourceFile) -> T:
        """Look at one file."""

    @abstractmethod
    def merge(self, found: T) -> None:
        """Add what was found in one file."""


class CommandPass(Pass):
    """A pass that is a command: it reads the names of all files, one in a line."""

    @abstractmethod
    def command(self, folder: str) -> Sequence[str]:
        """The command.

        Args:
            folder: Empty; for what it has to write.
        """

    @abstractmethod
    def merge(self, output: str, errors: str) -> int:
        """Add what it said, maybe only half of it, and tell at how many files it looked."""


class WordIndex(FilePass[Counter[str]]):
    """How often each word occurs, and in how many files."""

    title = "word index"

    def __init__(self) -> None:
        self._occurrences: Counter[str] = Counter()
        self._files: Counter[str] = Counter()

    def examine(self, file: SourceFile) -> Counter[str]:
        return Counter(file.words)

    def merge(self, found: Counter[str]) -> None:
        self._occurrences.update(found)
        self._files.update(found.keys())

    def findings(self) -> dict[str, Any]:
        top = self._occurrences.most_common(SHOWN)
        return {
            "distinct_words": len(self._occurrences),
            "top": [{"word": word, "occurrences": count, "files": self._files[word]} for word, count in top],
        }


class LineStatistics(FilePass[tuple[str, list[int], int, int]]):
    """How long lines are, and what is on them."""

    title = "line statistics"

    def __init__(self) -> None:
        self._lengths: Counter[int] = Counter()
        self._blank = 0
        self._code = 0
        self._longest: dict[str, Any] | None = None

    def examine(self, file: SourceFile) -> tuple[str, list[int], int, int]:
        lines = file.text.splitlines()
        blank = sum(not line.strip() for line in lines)
        return file.path, [len(line) for line in lines], blank, len(file.code_lines)

    def merge(self, found: tuple[str, list[int], int, int]) -> None:
        path, lengths, blank, code = found
        self._lengths.update(lengths)
        self._blank += blank
        self._code += code
        longest = max(lengths, default=0)
        if longest > (self._longest or {"length": 0})["length"]:
            self._longest = {"file": path, "line": lengths.index(longest) + 1, "length": longest}

    def findings(self) -> dict[str, Any]:
        lines = self._lengths.total()
        mean = sum(length * count for length, count in self._lengths.items()) / lines if lines else 0.0
        variance = sum(count * (length - mean) ** 2 for length, count in self._lengths.items()) / lines if lines else 0.0
        return {
            "lines": lines,
            "blank_lines": self._blank,
            "code_lines": self._code,
            "mean_length": round(mean, 1),
            "standard_deviation": round(math.sqrt(variance), 1),
            "longest": self._longest,
        }


class Neighbours(FilePass[Counter[tuple[str, str]]]):
    """Which identifiers stand together in one statement.

    There are millions of such pairs, most of them seen once. When there are too many, the rarest are let go (lossy counting):
    the frequent ones, which are what is shown, lose next to nothing.
    """

    title = "neighbours"

    def __init__(self) -> None:
        self._pairs: Counter[tuple[str, str]] = Counter()

    def examine(self, file: SourceFile) -> Counter[tuple[str, str]]:
        pairs: Counter[tuple[str, str]] = Counter()
        for names in file.statements():
            if len(names) <= STATEMENT_LIMIT:
                pairs.update(combinations(sorted(map(sys.intern, names)), 2))
        return pairs

    def merge(self, found: Counter[tuple[str, str]]) -> None:
        self._pairs.update(found)
        least = 1
        while len(self._pairs) > PAIRS_LIMIT:
            self._pairs = Counter({pair: count for pair, count in self._pairs.items() if count > least})
            least += 1

    def findings(self) -> dict[str, Any]:
        top = self._pairs.most_common(SHOWN)
        return {"top": [{"names": list(pair), "statements": count} for pair, count in top]}


class SimilarFiles(FilePass[tuple[str, frozenset[str], list[tuple[float, str]]]]):
    """Which files use the same words: every file against every other."""

    title = "similar files"

    def __init__(self) -> None:
        self._vocabularies: dict[str, frozenset[str]] = {}
        self._best: list[tuple[float, str, str]] = []
        self._compared = 0

    def examine(self, file: SourceFile) -> tuple[str, frozenset[str], list[tuple[float, str]]]:
        words = frozenset(map(sys.intern, file.words))
        similarities = [(_similarity(words, others), path) for path, others in self._vocabularies.items()]
        return file.path, words, similarities

    def merge(self, found: tuple[str, frozenset[str], list[tuple[float, str]]]) -> None:
        path, words, similarities = found
        self._vocabularies[path] = words
        self._compared += len(similarities)
        new = [(similarity, other, path) for similarity, other in similarities if similarity > 0]
        self._best = heapq.nlargest(SHOWN, [*self._best, *new])

    def findings(self) -> dict[str, Any]:
        top = [{"files": [one, other], "similarity": round(similarity, 3)} for similarity, one, other in self._best]
        return {"pairs_compared": self._compared, "top": top}


def _similarity(one: frozenset[str], other: frozenset[str]) -> float:
    """How much of two vocabularies is common (Jaccard index); 0 where there is too little to say."""
    if min(len(one), len(other)) < VOCABULARY_MINIMUM:
        return 0.0
    common = len(one & other)
    return common / (len(one) + len(other) - common)


class Compiler(CommandPass):
    """What Python's own compiler says about the files."""

    title = "compiler"

    def __init__(self) -> None:
        self._refused: list[str] = []
        self._warnings = 0

    def command(self, folder: str) -> Sequence[str]:
        # unbuffered, so that what it said is there when it is cancelled; and what it makes goes into nobody's library
        return [sys.executable, "-I", "-u", "-X", f"pycache_prefix={folder}", "-m", "compileall", "-f", "-i", "-"]

    def merge(self, output: str, errors: str) -> int:
        lines = output.splitlines()
        self._refused = [line.split('"')[1] for line in lines if line.startswith("***   File ") and line.count('"') > 1]
        self._warnings = sum("Warning: " in line for line in errors.splitlines())
        return sum(line.startswith("Compiling ") for line in lines)

    def findings(self) -> dict[str, Any]:
        top = [{"file": path} for path in self._refused[:SHOWN]]
        return {"warnings": self._warnings, "refused": len(self._refused), "top": top}


PASSES: dict[str, type[Pass]] = {
    "words": WordIndex,
    "lines": LineStatistics,
    "neighbours": Neighbours,
    "similar": SimilarFiles,
    "compiler": Compiler,
}
"""All passes, by the names that requests use."""
