"""What is public says so, exists, and is described."""

from __future__ import annotations

import ast
import importlib
import inspect

import pytest

from tests.packaging.source import ADAPTERS, CORE, PACKAGES, declared, imports, is_public, modules, modules_of, tree

PUBLIC_MODULES = [module for module in modules() if is_public(module)]

PROMISED = {
    CORE: """
        AnyioBridge BridgeClosed BridgeFull CancelResult Cancelable CancelableError CancelationReason CancelationToken
        ContextBridge DuplicateOperation InvalidOperationId Job JobRunner OperationCancelled OperationContext OperationRegistry
        OperationStatistics OperationStatus OperationStore OperationTimedOut QueueFull ThreadSafeRegistry cancelable
        current_operation escape_pattern
    """,
    "cancelable_flask": "CancelableExtension CancelableFlask",
    "cancelable_django": "jobs",
    "cancelable_fastapi": "CurrentJobs CurrentOperation install",
}
"""What the documents tell users to import from the top of a package."""


@pytest.mark.parametrize("module", PUBLIC_MODULES)
def test_a_public_module_declares_its_names(module: str) -> None:
    names = declared(module)
    if names is None:
        pytest.fail(f"{module} has no __all__")
    assert len(set(names)) == len(names), "named twice"
    assert not [name for name in names if name.startswith("_") and name != "__version__"]
    assert not set(names) - _bound(module), "declared, but not there"


@pytest.mark.parametrize("package", PACKAGES)
def test_the_top_of_a_package_declares_everything_it_gathers(package: str) -> None:
    gathered = {
        taken.name
        for taken in imports(package)
        if taken.distribution == package and taken.name is not None and not (taken.late or taken.type_only)
    }
    assert not {name for name in gathered if not name.startswith("_")} - set(declared(package) or ())


@pytest.mark.parametrize("package", PACKAGES)
def test_the_names_that_users_are_told_of_are_at_the_top(package: str) -> None:
    assert not set(PROMISED[package].split()) - set(declared(package) or ())


@pytest.mark.parametrize("package", PACKAGES)
def test_declared_names_exist_and_are_described(package: str) -> None:
    loaded = importlib.import_module(package)
    assert inspect.getdoc(loaded), "the package itself has no docstring"
    assert declared(package)
    undescribed = []
    for name in declared(package) or ():
        value = getattr(loaded, name)
        if (inspect.isclass(value) or inspect.isroutine(value)) and not _own_docstring(value):
            undescribed.append(name)
    assert not undescribed


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_every_module_of_an_adapter_says_what_it_is_for(adapter: str) -> None:
    silent = [module for module in modules_of(adapter) if is_public(module) and not ast.get_docstring(tree(module))]
    assert not silent


def _own_docstring(value: object) -> str | None:
    docstring = vars(value).get("__doc__") if inspect.isclass(value) else getattr(value, "__doc__", None)
    if docstring and docstring.startswith(f"{getattr(value, '__name__', '')}("):
        return None  # made up by @dataclass from the fields
    return docstring


def _bound(module: str) -> set[str]:
    """Names that the module's own code binds at its top level, or hands out through ``__getattr__``."""
    bound: set[str] = set()
    for node in ast.walk(tree(module)):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                bound.add(name)
            case ast.Name(id=name, ctx=ast.Store()):
                bound.add(name)
            case ast.alias(name=name, asname=asname):
                bound.add(asname or name.partition(".")[0])
            case ast.Constant(value=str() as name) if name.isidentifier() and "__getattr__" in bound:
                bound.add(name)
            case _:
                pass
    return bound
