"""Texts that are written in the background, and kept in memory for whoever ordered them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from cancelable_core import Job
from cancelable_core.http_api import Principal
from cancelable_fastapi import current_operation

__all__ = ["Generation", "GenerationShelf", "write_into"]

_KEPT = 200


@dataclass(slots=True)
class Generation:
    """A text that grows. Its one writer is its job."""

    prompt: str
    pieces: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """What has been written so far."""
        return "".join(self.pieces)


async def write_into(generation: Generation, pieces: AsyncIterator[str], *, max_pieces: int) -> int:
    """The job: write it all, telling how far it is. What is there when it is cancelled stays readable."""
    operation = current_operation()
    assert operation is not None
    words = 0
    async with operation.stream(pieces) as stream:
        async for piece in stream:
            generation.pieces.append(piece)
            words += any(map(str.isalnum, piece))
            operation.report_progress(current=len(generation.pieces), total=max_pieces, words=words)
    return words


class GenerationShelf:
    """The newest generations with their jobs, for those who may read them."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, tuple[Generation, Job[Any]]] = OrderedDict()

    def add(self, generation: Generation, job: Job[Any]) -> None:
        """Keep one more; the oldest one goes when there are too many."""
        self._kept[job.id] = (generation, job)
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)

    def find(self, job_id: str, asker: Principal) -> tuple[Generation, Job[Any]] | None:
        """A generation, if the asker ordered it or is the operator."""
        found = self._kept.get(job_id)
        if found is None or not (asker.is_staff or asker.id == found[1].context.owner):
            return None
        return found
