"""What is in the wheel, and what its metadata say."""

from __future__ import annotations

from email import message_from_bytes
from email.message import Message
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.packaging.source import PACKAGES, ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def contents(wheel: Path) -> frozenset[str]:
    with ZipFile(wheel) as archive:
        return frozenset(archive.namelist())


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return message_from_bytes(archive.read(name))


def test_the_wheel_holds_the_four_packages_and_nothing_else(contents: frozenset[str]) -> None:
    tops = {name.partition("/")[0] for name in contents}
    assert tops == {*PACKAGES, "cancelable_suite-0.1.0.dist-info"}


@pytest.mark.parametrize("package", PACKAGES)
def test_every_source_file_is_in_the_wheel(package: str, contents: frozenset[str]) -> None:
    tree = {str(path.relative_to(ROOT)) for path in (ROOT / package).rglob("*") if path.suffix in (".py", ".html", ".lua")}
    assert f"{package}/__init__.py" in tree
    assert tree <= contents
    assert not [name for name in contents if "__pycache__" in name]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_says_that_it_is_typed(package: str, contents: frozenset[str]) -> None:
    assert f"{package}/py.typed" in contents


def test_anyio_is_all_that_is_required(metadata: Message) -> None:
    required = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert len(required) == 1
    assert required[0].startswith("anyio>=")


def test_each_framework_is_an_extra_and_all_has_them_all(metadata: Message) -> None:
    assert set(metadata.get_all("Provides-Extra", [])) == {"flask", "django", "fastapi", "all"}
    lines = metadata.get_all("Requires-Dist", [])
    needed = {
        extra: {line.partition(";")[0] for line in lines if line.endswith(f"extra == '{extra}'")}
        for extra in ("flask", "django", "fastapi", "all")
    }
    assert all(needed.values())
    assert needed["all"] == needed["flask"] | needed["django"] | needed["fastapi"]


def test_the_licence_travels_with_the_wheel(contents: frozenset[str], metadata: Message) -> None:
    assert metadata["License-Expression"] == "MIT"
    assert "cancelable_suite-0.1.0.dist-info/licenses/LICENSE" in contents
