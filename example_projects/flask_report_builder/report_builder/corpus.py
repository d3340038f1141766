"""The text that reports are about: Python sources below one folder."""

from __future__ import annotations

import io
import keyword
import os
import re
import token
import tokenize
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path

__all__ = ["SourceFile", "Unreadable", "find_files"]

_WORD = re.compile(r"[^\W\d_]{3,}")
_LEFT_OUT = {"site-packages", "dist-packages", "__pycache__"}
_NO_CODE = {token.COMMENT, token.NL, token.NEWLINE, token.INDENT, token.DEDENT, token.ENCODING, token.ENDMARKER}


class Unreadable(Exception):
    """A file that is no Python source: wrong encoding, wrong syntax, or gone."""


def find_files(corpus: Path, pattern: str) -> list[str]:
    """The sources below ``corpus`` that match a glob, as sorted relative paths; ``*`` matches slashes, too.

    The pattern chooses among the files that there are. It is never used as a path, so that it leads nowhere else.
    """
    return [path for path in _all_files(corpus) if fnmatchcase(path, pattern)]


def _all_files(corpus: Path) -> list[str]:
    found: list[str] = []
    for folder, subfolders, names in os.walk(corpus):
        subfolders[:] = [name for name in subfolders if name not in _LEFT_OUT]
        found += [Path(folder, name).relative_to(corpus).as_posix() for name in names if name.endswith(".py")]
    return sorted(path for path in found if path.isprintable())  # a name with a line end would be two in a list of names


class SourceFile:
    """One source, read and split into tokens.

    Raises:
        Unreadable: It cannot be.
    """

    def __init__(self, corpus: Path, path: str) -> None:
        self.path = path
        try:
            with tokenize.open(corpus / path) as file:
                self.text = file.read()
            self.tokens = list(tokenize.generate_tokens(io.StringIO(self.text).readline))
        except (OSError, SyntaxError, UnicodeError, tokenize.TokenError) as error:
            raise Unreadable(type(error).__name__) from error

    @cached_property
    def words(self) -> list[str]:
        """The identifiers, and the words of comments and docstrings, in lower case."""
        return [word.lower() for text in self._texts() for word in _WORD.findall(text)]

    @cached_property
    def code_lines(self) -> set[int]:
        """The numbers of the lines that have code on them, docstrings included."""
        code = [item for item in self.tokens if item.type not in _NO_CODE]
        return {number for item in code for number in range(item.start[0], item.end[0] + 1)}

    def statements(self) -> Iterator[set[str]]:
        """The identifiers of each statement."""
        names: set[str] = set()
        for item in self.tokens:
            if item.type == token.NAME and not keyword.iskeyword(item.string):
                names.add(item.string)
            elif item.type == token.NEWLINE:
                yield names
                names = set()

    def _texts(self) -> Iterator[str]:
        at_start_of_statement = True
        for item in self.tokens:
            is_docstring = item.type == token.STRING and at_start_of_statement
            is_name = item.type == token.NAME and not keyword.iskeyword(item.string)
            if is_docstring or is_name or item.type == token.COMMENT:
                yield item.string
            if item.type not in (token.COMMENT, token.NL):
                at_start_of_statement = item.type in (token.NEWLINE, token.INDENT, token.DEDENT, token.ENCODING)
