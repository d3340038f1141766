"""What is optional says how to get it; what is there and broken says what is broken."""

from __future__ import annotations

from pathlib import Path

import pytest

from cancelable_core.extras import require


def test_what_is_there_is_fine() -> None:
    require("anyio", extra="flask")


def test_what_is_missing_names_the_command_that_installs_it() -> None:
    with pytest.raises(ImportError, match=r'pip install "cancelable-suite\[redis\]"') as caught:
        require("a_driver_that_nobody_has", extra="redis")
    assert caught.value.name == "a_driver_that_nobody_has"


def test_what_is_broken_is_not_called_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a_broken_driver.py").write_text("import what_it_needs_itself\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError) as caught:
        require("a_broken_driver", extra="redis")
    assert caught.value.name == "what_it_needs_itself"
