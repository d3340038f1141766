"""Reports while they are built, and after: what was found until the end, or until it was cancelled, is kept."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from subprocess import CalledProcessError, CompletedProcess
from tempfile import TemporaryDirectory
from typing import Any

from cancelable_core import Cancelable, Job, OperationCancelled
from cancelable_flask import current_operation

from .corpus import SourceFile, Unreadable
from .passes import PASSES, CommandPass, FilePass, Pass

__all__ = ["Report", "Reports", "build_report"]

SKIPPED_SHOWN = 20


class Report:
    """One report: what was asked for, and what was found so far.

    Concurrency:
        One thread builds it; any thread may ask for its findings at any time.
    """

    job: Job[None]
    """The job that builds it."""

    def __init__(self, corpus: Path, pattern: str, files: Sequence[str], passes: Sequence[str]) -> None:
        self.corpus = corpus
        self.pattern = pattern
        self.files = files
        self.passes: dict[str, Pass] = {name: PASSES[name]() for name in passes}
        self._lock = threading.Lock()
        self._files_read = dict.fromkeys(passes, 0)
        self._words_read = 0
        self._skipped: dict[str, str] = {}

    @property
    def steps(self) -> list[tuple[str, str | None]]:
        """Every file of every pass; None for all of them at once."""
        return [
            (name, path) for name, one in self.passes.items() for path in (self.files if isinstance(one, FilePass) else [None])
        ]

    @property
    def words_read(self) -> int:
        """How many words were read so far, in all passes."""
        return self._words_read

    def look(self, pass_name: str, path: str | None) -> None:
        """Take one step."""
        one_pass = self.passes[pass_name]
        if isinstance(one_pass, CommandPass):
            self._run(pass_name, one_pass)
        elif isinstance(one_pass, FilePass) and path is not None:
            self._read(pass_name, one_pass, path)

    def _read(self, pass_name: str, one_pass: FilePass[Any], path: str) -> None:
        try:
            file = SourceFile(self.corpus, path)
        except Unreadable as error:
            with self._lock:
                self._files_read[pass_name] += 1
                self._skipped[path] = str(error)
            return
        words, found = len(file.words), one_pass.examine(file)
        with self._lock:
            one_pass.merge(found)
            self._files_read[pass_name] += 1
            self._words_read += words

    def _run(self, pass_name: str, one_pass: CommandPass) -> None:
        """A command over all files. A cancel ends it, with all it started; what it said until then is kept."""
        operation = _current_operation()
        with TemporaryDirectory() as folder:
            try:
                said = operation.run_process(
                    one_pass.command(folder), input="\n".join(self.files), encoding="utf-8", cwd=self.corpus
                )
            except OperationCancelled as error:
                if isinstance(error.__cause__, CalledProcessError):
                    self._heard(pass_name, one_pass, error.__cause__)
                raise
            self._heard(pass_name, one_pass, said)

    def _heard(self, pass_name: str, one_pass: CommandPass, said: CompletedProcess[str] | CalledProcessError) -> None:
        with self._lock:
            self._files_read[pass_name] = one_pass.merge(said.stdout, said.stderr)

    def as_json(self) -> dict[str, Any]:
        """Everything there is to tell, partial or not."""
        context = self.job.context  # first: a status that is final comes with the findings that are
        with self._lock:
            return {
                "id": context.id,
                "status": context.status,
                "pattern": self.pattern,
                "files": len(self.files),
                "words_read": self._words_read,
                "skipped": dict(list(self._skipped.items())[:SKIPPED_SHOWN]),
                "passes": {
                    name: {"title": one.title, "files_read": self._files_read[name], "findings": one.findings()}
                    for name, one in self.passes.items()
                },
            }


def build_report(report: Report) -> None:
    """The job: look at all files, one after the other, in each pass."""
    operation = _current_operation()
    steps = report.steps
    for done, (pass_name, path) in enumerate(operation.iterate(steps)):  # raises between two steps once it was cancelled
        message = f"{report.passes[pass_name].title}: {path or 'all files'}"
        operation.report_progress(message, current=done, total=len(steps), words_found=report.words_read)
        report.look(pass_name, path)
    operation.report_progress("all files were read", current=len(steps), total=len(steps), words_found=report.words_read)


def _current_operation() -> Cancelable:
    operation = current_operation()
    assert operation is not None, "runs as a job"
    return operation


class Reports:
    """The newest reports of all visitors, in memory. When there are too many, the oldest that has ended is let go.

    Args:
        limit: How many are kept.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._reports: OrderedDict[str, Report] = OrderedDict()

    def add(self, report: Report) -> None:
        """Keep a report whose job was submitted."""
        with self._lock:
            self._reports[report.job.id] = report
            if len(self._reports) > self._limit:
                ended = (id_ for id_, kept in self._reports.items() if kept.job.status.is_final)
                self._reports.pop(next(ended, ""), None)

    def get(self, report_id: str) -> Report | None:
        """The report with this id, if there is one."""
        with self._lock:
            return self._reports.get(report_id)
