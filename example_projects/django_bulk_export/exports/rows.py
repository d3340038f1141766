"""What an export says about each character: properties, forms, and the most similar name nearby, which is the long part."""

from __future__ import annotations

import hashlib
import unicodedata
from collections import deque
from collections.abc import Iterator
from difflib import SequenceMatcher

from .models import Character

HEADER = (
    "code_point",
    "name",
    "category",
    "bidirectional",
    "combining",
    "east_asian_width",
    "mirrored",
    "decomposition",
    "nfc",
    "nfd",
    "nfkc",
    "nfkd",
    "casefold",
    "utf8",
    "utf16",
    "sha256",
    "similar_name",
    "similarity",
)
PAGE_SIZE = 500
NEIGHBOURS = 256
"""Among how many characters before a character its most similar name is looked for: about the size of a Unicode block."""


def export_rows() -> Iterator[tuple[object, ...]]:
    """All rows of the export, without its header, in the order of their code points."""
    neighbours: deque[str] = deque(maxlen=NEIGHBOURS)
    for code_point, name, category in _stored_characters():
        yield code_point, name, category, *_properties(chr(code_point)), *_most_similar(name, neighbours)
        neighbours.append(name)


def _stored_characters() -> Iterator[tuple[int, str, str]]:
    """The table in pages: a cursor left open for minutes would keep SQLite from writing."""
    last = -1
    characters = Character.objects.order_by("code_point").values_list("code_point", "name", "category")
    while page := list(characters.filter(code_point__gt=last)[:PAGE_SIZE]):
        yield from page
        last = page[-1][0]


def _properties(character: str) -> tuple[object, ...]:
    utf8 = character.encode("utf-8")
    return (
        unicodedata.bidirectional(character),
        unicodedata.combining(character),
        unicodedata.east_asian_width(character),
        unicodedata.mirrored(character),
        unicodedata.decomposition(character),
        *(_code_points(unicodedata.normalize(form, character)) for form in ("NFC", "NFD", "NFKC", "NFKD")),
        _code_points(character.casefold()),
        utf8.hex(" "),
        character.encode("utf-16-be").hex(" ", 2),
        hashlib.sha256(utf8).hexdigest(),
    )


def _code_points(text: str) -> str:
    return " ".join(f"{ord(character):04X}" for character in text)


def _most_similar(name: str, candidates: deque[str]) -> tuple[str, str]:
    """The candidate that looks most like ``name``, and how much, from 0 to 1."""
    matcher = SequenceMatcher(autojunk=False)
    matcher.set_seq2(name)  # difflib remembers what it found out about the second one
    found, best = "", 0.0
    for candidate in candidates:
        matcher.set_seq1(candidate)
        if matcher.real_quick_ratio() > best and matcher.quick_ratio() > best and (ratio := matcher.ratio()) > best:
            found, best = candidate, ratio
    return found, f"{best:.3f}"
