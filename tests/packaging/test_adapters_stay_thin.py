"""An adapter translates: what is answered, and to whom, the core decides once."""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator
from typing import TypeGuard

import pytest

from cancelable_core.http_api import METADATA_FIELD, OPERATION_FIELDS, STAFF_FIELDS, STATISTICS_FIELDS
from tests.packaging.source import ADAPTERS, modules, modules_of, tree

DOCUMENTATION = "cancelable_fastapi._documentation"
"""Says in OpenAPI's words what the core answers, and answers nothing; it is held against real answers by a test of its own."""

STATUSES = {
    DOCUMENTATION: range(100, 600),
    "cancelable_fastapi.router": range(100, 600),
    "cancelable_fastapi.middleware": {500},
}
"""Where statuses may stand: those that OpenAPI shows, and the key under which Starlette keeps a handler."""

TOOLS = (DOCUMENTATION, "cancelable_django.checks", "cancelable_django.management", "cancelable_flask.cli")
"""What stands beside an adapter: no request goes through it."""

MOST_LINES = 450
"""Django comes near it: it has both protocols and both modes, so that most hooks stand there twice, and its own CSRF check."""

FIELDS = {*OPERATION_FIELDS, METADATA_FIELD, *STAFF_FIELDS, *STATISTICS_FIELDS, "operations", "next", "outcome", "requested"}

NOT_ONLY_FIELDS = {"id", "name", "operations", "host", "owner", "status", "kind", "message", "progress"}
"""Words that frameworks, options and command lines have as well."""


def _strings(module: str) -> Iterator[tuple[int, str]]:
    documentation = {id(node.value) for node in ast.walk(tree(module)) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            yield node.lineno, node.value


def code_lines(package: str) -> int:
    """Lines that do something: no docstrings, comments or empty lines, nor imports and ``__all__``."""
    return sum(len(_code_lines(module)) for module in modules_of(package) if not module.startswith(TOOLS))


def _only_says(node: ast.AST) -> TypeGuard[ast.stmt]:
    if isinstance(node, ast.Assign):
        return any(isinstance(target, ast.Name) and target.id == "__all__" for target in node.targets)
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    return isinstance(node, ast.Import | ast.ImportFrom)


def _code_lines(module: str) -> set[int]:
    text = modules()[module].read_text(encoding="utf-8")
    without = {
        number
        for node in ast.walk(tree(module))
        if _only_says(node)
        for number in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    ignored = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    tokens = [token for token in tokenize.generate_tokens(io.StringIO(text).readline) if token.type not in ignored]
    return {number for token in tokens for number in range(token.start[0], token.end[0] + 1)} - without


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_an_adapter_is_neither_empty_nor_a_second_core(adapter: str) -> None:
    assert 150 <= code_lines(adapter) <= MOST_LINES


@pytest.mark.parametrize("module", [module for adapter in ADAPTERS for module in modules_of(adapter)])
def test_an_adapter_makes_up_no_status(module: str) -> None:
    found = [
        f"{module}:{node.lineno}: {node.value}"
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Constant) and type(node.value) is int and 100 <= node.value <= 599
        if node.value not in STATUSES.get(module, ())
    ]
    assert not found, found


@pytest.mark.parametrize("module", [module for adapter in ADAPTERS for module in modules_of(adapter)])
def test_an_adapter_writes_no_json_and_names_none_of_its_keys(module: str) -> None:
    imported = [node for node in ast.walk(tree(module)) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert not any("json" in ast.unparse(node).split() for node in imported), module
    if module != DOCUMENTATION:
        found = [(line, text) for line, text in _strings(module) if text in FIELDS - NOT_ONLY_FIELDS]
        assert not found, (module, found)


@pytest.mark.parametrize("module", [module for adapter in ADAPTERS for module in modules_of(adapter)])
def test_an_adapter_compares_no_owners(module: str) -> None:
    compared = [node for node in ast.walk(tree(module)) if isinstance(node, ast.Compare)]
    words = ("owner", "is_staff", "principal.id", "is_authenticated")
    found = [
        ast.unparse(node)
        for node in compared
        if any(word in ast.unparse(part) for part in (node.left, *node.comparators) for word in words)
        and not all(isinstance(part, ast.Constant) for part in (node.left,))  # `"owner" in kwargs` asks for a keyword
    ]
    assert not found, (module, found)
