"""Who may import whom. Read from the syntax trees, so that a late import inside a function counts as well."""

from __future__ import annotations

import subprocess
import sys
from graphlib import CycleError, TopologicalSorter

import pytest

from tests.packaging.layers import layer
from tests.packaging.source import (
    ADAPTERS,
    CORE,
    PACKAGES,
    ROOT,
    Import,
    declared,
    imports,
    is_public,
    modules,
    modules_of,
)

FRAMEWORKS = {
    "cancelable_flask": {"flask", "flask_login", "werkzeug", "jinja2", "markupsafe", "itsdangerous", "blinker", "quart"},
    "cancelable_django": {"django"},
    "cancelable_fastapi": {"fastapi", "starlette", "pydantic"},
}
"""What belongs to one framework only. asgiref and click are libraries that more than one of them stands on."""

LOADED_WITH_ANYIO = {"anyio", "idna", "sniffio", "typing_extensions"}


def listed(found: list[Import]) -> str:
    return "\n".join(map(str, found))


def test_the_core_imports_no_framework() -> None:
    frameworks = set().union(*FRAMEWORKS.values(), {"asgiref", "gunicorn", "uvicorn"})
    found = [taken for module in modules_of(CORE) for taken in imports(module) if taken.distribution in frameworks]
    assert not found, listed(found)


def test_the_core_imports_no_adapter() -> None:
    found = [taken for module in modules_of(CORE) for taken in imports(module) if taken.distribution in ADAPTERS]
    assert not found, listed(found)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_an_adapter_knows_its_own_framework_only(adapter: str) -> None:
    others = {name for name in ADAPTERS if name != adapter}
    foreign = others.union(*(FRAMEWORKS[other] for other in others))
    found = [taken for module in modules_of(adapter) for taken in imports(module) if taken.distribution in foreign]
    assert not found, listed(found)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_an_adapter_imports_public_names_of_the_core_only(adapter: str) -> None:
    taken_from_core = [taken for module in modules_of(adapter) for taken in imports(module) if taken.distribution == CORE]
    assert taken_from_core, f"{adapter} stands on nothing"
    found = [
        taken
        for taken in taken_from_core
        if not is_public(taken.module) or (taken.name is not None and taken.name not in (declared(taken.module) or ()))
    ]
    assert not found, "not in the __all__ of the module it is taken from:\n" + listed(found)


def test_every_module_of_the_core_has_a_layer() -> None:
    homeless = [module for module in modules_of(CORE) if layer(module) is None]
    assert not homeless, f"give them a line in tests/packaging/layers.py: {homeless}"


def test_imports_of_the_core_point_down() -> None:
    """Late ones count; a name for annotations only may be of a higher layer, since it loads nothing."""
    found = [
        taken
        for module in modules_of(CORE)
        for taken in imports(module)
        if taken.distribution == CORE and not taken.type_only and (layer(taken.module) or 0) > (layer(module) or 0)
    ]
    assert not found, listed(found)


@pytest.mark.parametrize("package", PACKAGES)
def test_modules_do_not_import_each_other_in_a_circle(package: str) -> None:
    needs = {
        module: {taken.module for taken in imports(module) if taken.module in modules() and not (taken.late or taken.type_only)}
        for module in modules_of(package)
    }
    assert needs
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(reversed(error.args[1])))


def test_the_core_loads_anyio_and_the_standard_library_only() -> None:
    """Its parts too, as far as they are not for tests: drivers and frameworks are imported by whoever asks for them."""
    names = [module for module in modules_of(CORE) if layer(module) != layer(f"{CORE}.testing")]
    code = "\n".join(
        [
            "import importlib, sys",
            "before = set(sys.modules)",
            f"for name in {names!r}: importlib.import_module(name)",
            "loaded = {name.partition('.')[0] for name in set(sys.modules) - before}",
            "print(*sorted(loaded - sys.stdlib_module_names))",
        ]
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    loaded = {name for name in result.stdout.split() if not name.startswith(("_sysconfigdata", "__mp_main__"))}
    assert {CORE, "anyio"} <= loaded <= {CORE} | LOADED_WITH_ANYIO


def test_loading_the_core_starts_no_thread_and_sets_no_signal_handler() -> None:
    code = "\n".join(
        [
            "import signal, threading",
            "handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}",
            "import cancelable_core",
            "assert threading.active_count() == 1, threading.enumerate()",
            "assert handlers == {number: signal.getsignal(number) for number in signal.valid_signals()}",
        ]
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr


def test_loading_the_core_loads_nothing_that_only_interrupters_need() -> None:
    """Their methods load it when they are called."""
    code = "import sys, cancelable_core; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    loaded = set(result.stdout.split())
    assert not loaded & {"ctypes", "multiprocessing", "cancelable_core.interrupters.subprocesses", "http.client", "httpx"}


def test_loading_the_core_loads_no_loop_and_no_framework() -> None:
    """An application under WSGI may have no use for asyncio, which takes longer to load than all of the suite."""
    code = "import sys; before = set(sys.modules); import {}; print(*set(sys.modules) - before)"
    loaded = {}
    for package in (CORE, "anyio"):
        command = [sys.executable, "-c", code.format(package)]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        assert result.returncode == 0, result.stderr
        loaded[package] = {name.partition(".")[0] for name in result.stdout.split()}
    more = loaded[CORE] - loaded["anyio"]
    assert not more & {"asyncio", "trio", "uvloop", "ssl", "subprocess"}
    assert {CORE} <= more - sys.stdlib_module_names <= {CORE} | LOADED_WITH_ANYIO
