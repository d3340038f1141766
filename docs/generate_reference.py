"""Writes `reference/core.md` and `reference/settings.md` from the docstrings: ``make docs``. A test checks them."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import sys
import textwrap
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import cancelable_core
from cancelable_core.http_api import Settings
from cancelable_core.http_api import settings as settings_module

REFERENCE = Path(__file__).parent / "reference"


def core_page() -> str:
    """Every public name of the core, with its docstring."""
    parts = ["# The core", "Everything below is imported from `cancelable_core`. Written by `make docs` from the docstrings."]
    for name in sorted(cancelable_core.__all__, key=str.lower):
        parts += _entry(name, getattr(cancelable_core, name))
    return "\n\n".join(parts) + "\n"


def _entry(name: str, thing: Any) -> Iterator[str]:
    yield f"## {name}"
    if inspect.isclass(thing) and issubclass(thing, Enum):
        yield _docstring(thing)
        yield ", ".join(f"`{member.name}`" for member in thing)
        return
    if callable(thing):
        yield f"```text\n{_signature(name, thing)}\n```"
    yield _docstring(thing)
    if inspect.isclass(thing):
        for member_name, member in sorted(vars(thing).items()):
            if not member_name.startswith("_"):
                yield from _member(member_name, member)


def _member(name: str, member: Any) -> Iterator[str]:
    if isinstance(member, property):
        yield f"### {name}\n\n{_docstring(member)}"
    elif isinstance(member, staticmethod | classmethod) or inspect.isfunction(member):
        func = member if inspect.isfunction(member) else member.__func__
        if func.__doc__:
            yield f"### {name}\n\n```text\n{_signature(name, func)}\n```\n\n{_docstring(func)}"


def _signature(name: str, thing: Any) -> str:
    try:
        signature = str(inspect.signature(thing))
    except (TypeError, ValueError):
        return name
    return f"{name}{signature}".replace("'", "").replace("(self, ", "(").replace("(self)", "()").replace("(cls, ", "(")


def _docstring(thing: Any) -> str:
    return textwrap.dedent(inspect.getdoc(thing) or "").strip()


def settings_page() -> str:
    """The table of all settings, with the docstring under each field."""
    rows = ["| setting | default | |", "|---|---|---|"]
    texts = _field_docstrings()
    for field in dataclasses.fields(Settings):
        rows.append(f"| `{field.name}` | {_default(field)} | {' '.join(texts[field.name].split())} |")
    intro = textwrap.dedent("""\
        # Settings

        One table for all adapters. Flask: `CANCELABLE_<UPPER>` in `app.config`, which goes first, or keywords of
        `CancelableExtension`. Django: `CANCELABLE = {"<UPPER>": …}`. FastAPI: keywords of `install`. An unknown key is an error
        that names the nearest one; a key that this version does not implement is refused. Written by `make docs`.

        Django alone has `INTERRUPT_QUERIES` (`False`): whether a cancel ends the queries of its database connections, see
        [Stop blocking work](../how-to/stop-blocking-work.md#queries). Elsewhere that is a matter of the engine or connection.

        """)
    return intro + "\n".join(rows) + "\n"


def _default(field: dataclasses.Field[Any]) -> str:
    if field.name == "job_workers":
        return "cores + 4, at most 32"
    value = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
    return f"`{value!r}`"


def _field_docstrings() -> dict[str, str]:
    tree = ast.parse(inspect.getsource(settings_module))
    body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Settings")
    texts: dict[str, str] = {}
    for field, text in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
            texts[field.target.id] = ast.literal_eval(text.value)
    return texts


PAGES = {"core.md": core_page, "settings.md": settings_page}


def main() -> int:
    """Write the pages, or with ``--check`` say which are not current."""
    stale = [name for name, page in PAGES.items() if not _is_current(name, page())]
    if "--check" not in sys.argv:
        for name in stale:
            (REFERENCE / name).write_text(PAGES[name](), encoding="utf-8")
        return 0
    for name in stale:
        print(f"docs/reference/{name} is not current: make docs")
    return 1 if stale else 0


def _is_current(name: str, text: str) -> bool:
    path = REFERENCE / name
    return path.exists() and path.read_text(encoding="utf-8") == text


if __name__ == "__main__":
    sys.exit(main())
