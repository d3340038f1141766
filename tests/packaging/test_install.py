"""What a user gets who installs the suite with one extra, or with none."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.packaging.conftest import Environment
from tests.packaging.test_boundaries import FRAMEWORKS, LOADED_WITH_ANYIO

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

EXTRAS = ("flask", "django", "fastapi")

EnvironmentWith = Callable[[str], Environment]


def test_the_core_alone_brings_anyio_only(environment_with: EnvironmentWith) -> None:
    code = "from importlib.metadata import distributions; print(*(d.name.replace('-', '_') for d in distributions()))"
    result = environment_with("").run(code)
    assert result.returncode == 0, result.stderr
    assert {"cancelable_suite", "anyio"} <= set(result.stdout.split()) <= {"cancelable_suite"} | LOADED_WITH_ANYIO


def test_the_core_works_without_any_framework(environment_with: EnvironmentWith) -> None:
    code = "\n".join(
        [
            "import cancelable_core as core",
            "with core.Cancelable('work', raise_on_cancel=False) as operation:",
            "    assert core.ThreadSafeRegistry().cancel_operation(operation.id, 'enough')",
            "    operation.check()",
            "print(operation.status, operation.context.message)",
        ]
    )
    result = environment_with("").run(code)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "cancelled enough\n"


@pytest.mark.parametrize("extra", EXTRAS)
def test_an_adapter_without_its_framework_says_what_to_install(extra: str, environment_with: EnvironmentWith) -> None:
    code = f"try: import cancelable_{extra}\nexcept ImportError as error: print(error)"
    result = environment_with("").run(code)
    assert result.returncode == 0, result.stderr
    assert f'pip install "cancelable-suite[{extra}]"' in result.stdout


@pytest.mark.parametrize("extra", EXTRAS)
def test_an_adapter_loads_with_its_own_extra_only(extra: str, environment_with: EnvironmentWith) -> None:
    others = set().union(*(names for adapter, names in FRAMEWORKS.items() if adapter != f"cancelable_{extra}"))
    code = f"import sys, cancelable_{extra}\nprint(*({{name.partition('.')[0] for name in sys.modules}} & {others!r}))"
    result = environment_with(extra).run(code)
    assert result.returncode == 0, result.stderr
    assert not result.stdout.split()
