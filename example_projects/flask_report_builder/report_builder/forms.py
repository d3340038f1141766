"""What a request for a report may say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .corpus import find_files
from .passes import PASSES

__all__ = ["InvalidFields", "ReportForm"]

PATTERN_LIMIT = 200


class InvalidFields(Exception):
    """Some fields cannot be.

    Attributes:
        errors: What each of them must be, by its name.
    """

    def __init__(self, errors: Mapping[str, str]) -> None:
        super().__init__(", ".join(errors))
        self.errors = dict(errors)


@dataclass(frozen=True, slots=True)
class ReportForm:
    """A request for a report that can be built.

    Attributes:
        passes: Names of passes, each once.
        pattern: A glob of files.
        files: The files that match; at least one.
    """

    passes: Sequence[str]
    pattern: str
    files: Sequence[str]

    @classmethod
    def read(cls, fields: Mapping[str, Any], corpus: Path) -> ReportForm:
        """Check what was sent.

        Raises:
            InvalidFields: It cannot be.
        """
        errors = dict.fromkeys(fields.keys() - {"passes", "pattern"}, "is not known; there are passes and pattern")
        passes = fields.get("passes", list(PASSES))
        if not isinstance(passes, list) or not passes or not all(isinstance(name, str) and name in PASSES for name in passes):
            errors["passes"] = f"must be a list of at least one of {', '.join(PASSES)}"
        pattern = fields.get("pattern", "*.py")
        files: Sequence[str] = ()
        if not isinstance(pattern, str) or not 0 < len(pattern) <= PATTERN_LIMIT or not pattern.isprintable():
            errors["pattern"] = f"must be a glob such as asyncio/*.py, of at most {PATTERN_LIMIT} characters"
        else:
            files = find_files(corpus, pattern)
            if not files:
                errors["pattern"] = "matches no file"
        if errors:
            raise InvalidFields(errors)
        return cls(list(dict.fromkeys(passes)), pattern, files)
