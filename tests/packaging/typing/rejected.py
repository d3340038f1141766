"""Read by type checkers only: each marked line is an error, and an ignore that is not needed is one as well."""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=error

from __future__ import annotations

from cancelable_core import Cancelable, JobRunner, cancelable


@cancelable
def bare(path: str, *, pages: int = 1) -> bytes:
    return path.encode() * pages


@cancelable(timeout=5)
async def configured(year: int) -> str:
    return str(year)


def total(first: int, second: int = 0) -> float:
    return first + second


async def signatures_are_kept() -> None:
    bare(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    bare("x", 2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await configured("2026")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    number: int = bare("x")  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    del number


def states_are_read_only(operation: Cancelable) -> None:
    operation.name = "mine"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    operation.context.message = "mine"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


def results_have_their_functions_type(runner: JobRunner) -> None:
    text: str = runner.submit(total, 1).result(1.0)  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    del text
