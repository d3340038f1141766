"""The four packages as syntax trees: their modules, what each imports and where, and what it declares public."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CORE = "cancelable_core"
ADAPTERS = ("cancelable_flask", "cancelable_django", "cancelable_fastapi")
PACKAGES = (CORE, *ADAPTERS)


@dataclass(frozen=True, slots=True)
class Import:
    """One imported module, or one name taken from it.

    Attributes:
        importer: The module that says it.
        line: Where.
        module: The absolute module: for ``from x import y`` with ``y`` a module of ours, ``x.y``.
        name: The name taken from ``module``; None when it is the module itself.
        late: Said inside a function.
        type_only: Said under ``if TYPE_CHECKING``.
    """

    importer: str
    line: int
    module: str
    name: str | None
    late: bool
    type_only: bool

    def __str__(self) -> str:
        taken = f"import {self.module}" if self.name is None else f"from {self.module} import {self.name}"
        return f"{self.importer}:{self.line}: {taken}"

    @property
    def distribution(self) -> str:
        """The top-level package."""
        return self.module.partition(".")[0]


@cache
def modules() -> dict[str, Path]:
    """Every module of the four packages."""
    found: dict[str, Path] = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def modules_of(package: str) -> list[str]:
    """The package itself and every module below it."""
    return [name for name in modules() if name == package or name.startswith(f"{package}.")]


def is_public(module: str) -> bool:
    """Whether no part of its dotted name starts with an underscore. Migrations are Django's, not ours to describe."""
    return not any(part.startswith("_") or part == "migrations" for part in module.split("."))


@cache
def tree(module: str) -> ast.Module:
    """The module's syntax tree."""
    return ast.parse(modules()[module].read_text(encoding="utf-8"))


@cache
def imports(module: str) -> tuple[Import, ...]:
    """Everything ``module`` imports, in any place of it."""
    return tuple(_imports(module, tree(module).body, late=False, type_only=False))


def declared(module: str) -> tuple[str, ...] | None:
    """Its ``__all__``, additions included; None when it has none."""
    names: tuple[str, ...] | None = None
    for node in tree(module).body:
        match node:
            case ast.Assign(targets=[ast.Name(id="__all__")], value=value) | ast.AugAssign(ast.Name(id="__all__"), value=value):
                names = (names or ()) + tuple(ast.literal_eval(value))
            case ast.AnnAssign(target=ast.Name(id="__all__"), value=ast.expr() as value):
                names = tuple(ast.literal_eval(value))
            case _:
                pass
    return names


def _imports(module: str, body: list[ast.stmt], *, late: bool, type_only: bool) -> Iterator[Import]:
    for node in body:
        match node:
            case ast.Import(names=names):
                for alias in names:
                    yield Import(module, node.lineno, alias.name, None, late, type_only)
            case ast.ImportFrom(names=names):
                source = _absolute(module, node)
                for alias in names:
                    inner = f"{source}.{alias.name}"
                    if inner in modules():
                        yield Import(module, node.lineno, inner, None, late, type_only)
                    else:
                        yield Import(module, node.lineno, source, alias.name, late, type_only)
            case ast.If(test=test, body=then, orelse=otherwise):
                for_types = ast.unparse(test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
                yield from _imports(module, then, late=late, type_only=type_only or for_types)
                yield from _imports(module, otherwise, late=late, type_only=type_only)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                yield from _imports(module, node.body, late=True, type_only=type_only)
            case _:
                for inner_body in _bodies(node):
                    yield from _imports(module, inner_body, late=late, type_only=type_only)


def _bodies(node: ast.AST) -> Iterator[list[ast.stmt]]:
    for field in ("body", "orelse", "finalbody"):
        if isinstance(statements := getattr(node, field, None), list):
            yield statements
    for field in ("handlers", "cases"):
        for part in getattr(node, field, ()):
            yield part.body


def _absolute(module: str, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    package = module.split(".") if modules()[module].name == "__init__.py" else module.split(".")[:-1]
    base = package[: len(package) - node.level + 1]
    return ".".join([*base, node.module] if node.module else base)
