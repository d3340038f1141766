"""The exports: a background job that writes a file, and a stream."""

from __future__ import annotations

import csv
from collections.abc import AsyncIterator, Iterator

from asgiref.sync import sync_to_async

from cancelable_django import OperationCancelled, current_operation

from .models import Character, Export
from .rows import HEADER, export_rows


def write_export() -> None:
    """The job: write all rows into the file of the export that has this job's id.

    Cancelled, in a query or between two rows, it removes what it has written so far, since nobody could tell half a table from
    a whole one. How many rows that were stays visible: in the operation's progress, and in the `Export`.
    """
    operation = current_operation()
    assert operation is not None
    export = Export.objects.get(pk=operation.id)
    total = Character.objects.count()
    export.unfinished_file.parent.mkdir(parents=True, exist_ok=True)
    export.outcome = "failed"
    try:
        with export.unfinished_file.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(HEADER)
            for row in operation.iterate(export_rows()):
                writer.writerow(row)
                export.rows_written += 1
                operation.report_progress("writing rows", current=export.rows_written, total=total)
        export.unfinished_file.replace(export.file)
        export.outcome = "completed"
    except OperationCancelled:
        export.outcome = "cancelled"
        raise
    finally:
        export.unfinished_file.unlink(missing_ok=True)
        with operation.shield():  # a cancelled operation starts no other query
            export.save()


def csv_lines() -> Iterator[str]:
    """The same table as text, line by line, for a response that streams; made only as fast as the client reads."""
    operation = current_operation()
    writer = csv.writer(_Line())
    yield writer.writerow(HEADER)
    for count, row in enumerate(export_rows(), start=1):
        yield writer.writerow(row)
        if operation is not None:
            operation.report_progress("sending rows", current=count)


async def acsv_lines() -> AsyncIterator[str]:
    """The same under ASGI, where Django would otherwise collect all lines before it sends the first."""
    lines = csv_lines()
    while (line := await sync_to_async(next)(lines, None)) is not None:
        yield line


class _Line:
    """A file for `csv.writer` that gives back what is written to it."""

    def write(self, line: str) -> str:
        return line
