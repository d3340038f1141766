"""Which live entries have which name: exact names in one step, ``prefix*`` by bisection, other globs by their literal start."""

from __future__ import annotations

import fnmatch
import re
from bisect import bisect_left, bisect_right
from typing import Generic, TypeVar

__all__ = ["NameIndex", "name_matcher"]

E = TypeVar("E")

_WILD = re.compile(r"[*?\[]")


def name_matcher(pattern: str) -> re.Pattern[str]:
    """The compiled form of a glob, as `fnmatch.fnmatchcase` reads it; matching is linear whatever the pattern."""
    return re.compile(fnmatch.translate(pattern))


class NameIndex(Generic[E]):
    """Buckets by name, and the names in order. Not thread-safe: its store holds a lock around every call."""

    def __init__(self) -> None:
        self._buckets: dict[str, dict[E, None]] = {}
        self._sorted: list[str] = []  # may hold names that are gone, or one twice
        self._unsorted: list[str] = []

    def add(self, name: str, entry: E) -> None:
        """Put an entry under its name; O(1) amortised."""
        bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._buckets[name] = {}
            self._unsorted.append(name)
            if len(self._sorted) + len(self._unsorted) > 2 * len(self._buckets) + 64:
                self._sorted, self._unsorted = [], list(self._buckets)
        bucket[entry] = None

    def remove(self, name: str, entry: E) -> None:
        """Take an entry out; O(1)."""
        bucket = self._buckets[name]
        del bucket[entry]
        if not bucket:
            del self._buckets[name]

    def candidates(self, pattern: str) -> list[str]:
        """The names that could match: those that share the pattern's literal start."""
        wild = _WILD.search(pattern)
        if wild is None:
            return [pattern] if pattern in self._buckets else []
        prefix = pattern[: wild.start()]
        if not prefix:
            return list(self._buckets)
        if self._unsorted:
            self._sorted = sorted({*self._sorted, *self._unsorted} & self._buckets.keys())
            self._unsorted = []
        start = bisect_left(self._sorted, prefix)
        end = bisect_right(self._sorted, prefix, lo=start, key=lambda name: name[: len(prefix)])
        return self._sorted[start:end]

    def entries(self, names: list[str]) -> list[E]:
        """The entries under these names."""
        return [entry for name in names for entry in self._buckets.get(name, ())]
