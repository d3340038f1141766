"""What each pass finds in sources that are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cancelable_core import Cancelable
from report_builder import passes
from report_builder.corpus import SourceFile, Unreadable, find_files
from report_builder.passes import PASSES, Compiler, FilePass


def findings(name: str, corpus: Path) -> dict[str, Any]:
    one = PASSES[name]()
    assert isinstance(one, FilePass)
    for path in find_files(corpus, "*"):
        one.merge(one.examine(SourceFile(corpus, path)))
    return one.findings()


def test_words_are_identifiers_and_what_comments_and_docstrings_say(corpus: Path) -> None:
    found = findings("words", corpus)
    assert found["top"][0] == {"word": "apples", "occurrences": 5, "files": 2}
    words = {row["word"] for row in found["top"]}
    assert {"counts", "red", "pears"} <= words
    assert not {"docstring", "return"} & words
    assert found["distinct_words"] == len(words)


def test_lines_are_counted_and_measured(corpus: Path) -> None:
    found = findings("lines", corpus)
    assert found["lines"] == 6
    assert found["blank_lines"] == 1
    assert found["code_lines"] == 5
    assert found["longest"] == {"file": "package/second.py", "line": 1, "length": 25}
    assert found["mean_length"] == round((20 + 0 + 24 + 25 + 25 + 22) / 6, 1)


def test_neighbours_are_counted_once_per_statement(corpus: Path) -> None:
    found = findings("neighbours", corpus)
    assert found["top"][0] == {"names": ["apples", "pears"], "statements": 2}


def test_rare_neighbours_are_let_go_when_there_are_too_many(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "PAIRS_LIMIT", 2)
    assert findings("neighbours", corpus)["top"] == [{"names": ["apples", "pears"], "statements": 2}]


def test_similar_files_are_found(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "VOCABULARY_MINIMUM", 1)
    (corpus / "twin.py").write_text((corpus / "package" / "third.py").read_text())
    found = findings("similar", corpus)
    assert found["pairs_compared"] == 6
    assert found["top"][0] == {"files": ["package/third.py", "twin.py"], "similarity": 1.0}


def test_the_compiler_names_what_it_refuses_and_counts_its_warnings(corpus: Path, tmp_path: Path) -> None:
    (corpus / "bad.py").write_text("(")
    (corpus / "odd.py").write_text("1 is 1\n")
    compiler, files = Compiler(), find_files(corpus, "*")
    with Cancelable(register=False) as operation:
        said = operation.run_process(compiler.command(str(tmp_path)), input="\n".join(files), encoding="utf-8", cwd=corpus)
    assert compiler.merge(said.stdout, said.stderr) == len(files) == 5
    assert compiler.findings() == {"warnings": 1, "refused": 1, "top": [{"file": "bad.py"}]}
    assert not list(corpus.rglob("*.pyc")), "written into somebody's library"


def test_half_of_what_the_compiler_says_is_understood() -> None:
    compiler = Compiler()
    assert compiler.merge("Compiling 'a.py'...\nCompiling 'b.py'...\n***   File \"b.p", "") == 2
    assert compiler.findings() == {"warnings": 0, "refused": 0, "top": []}


@pytest.mark.parametrize("name", PASSES)
def test_a_pass_without_files_found_nothing(name: str) -> None:
    found = PASSES[name]().findings()
    assert not any(value for value in found.values())


@pytest.mark.parametrize("content", [b"'''never closed", b"# coding: nonsense\n", b"\xff\xfe"])
def test_what_is_no_source_is_unreadable(corpus: Path, content: bytes) -> None:
    (corpus / "bad.py").write_bytes(content)
    with pytest.raises(Unreadable):
        SourceFile(corpus, "bad.py")


def test_a_pattern_chooses_among_the_sources_below_the_corpus_only(corpus: Path) -> None:
    (corpus.parent / "outside.py").write_text("secret = 1\n")
    (corpus / "notes.txt").write_text("no source\n")
    (corpus / "two\nlines.py").write_text("")
    (corpus / "site-packages").mkdir()
    (corpus / "site-packages" / "foreign.py").write_text("")
    assert find_files(corpus, "*") == ["first.py", "package/second.py", "package/third.py"]
    assert find_files(corpus, "package/*") == ["package/second.py", "package/third.py"]
    assert find_files(corpus, "../*") == find_files(corpus, f"{corpus.parent}/*") == []
