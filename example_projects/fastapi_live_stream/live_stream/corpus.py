"""Real text that every Python brings along: its language reference to learn from, its own sources to search in."""

from __future__ import annotations

import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics

__all__ = ["articles", "source_files"]

_RULE = re.compile(r"^[=*\-~\"^+| ]{3,}$", re.MULTILINE)
"""A line under a heading, or between the rows of a table."""
_SPACE = re.compile(r"[ \t]*\n[ \t]*(?!\n)|[ \t]+")


def articles() -> Iterator[str]:
    """The articles behind ``help("CLASSES")`` and the like, without their layout: paragraphs of running text."""
    for text in topics.values():
        paragraphs = _RULE.sub("", text).split("\n\n")
        yield "\n\n".join(filter(None, (_SPACE.sub(" ", paragraph).strip() for paragraph in paragraphs)))


def source_files() -> list[Path]:
    """The standard library's modules, in a fixed order."""
    root = Path(sysconfig.get_path("stdlib"))
    return sorted(path for path in root.rglob("*.py") if "site-packages" not in path.parts)
