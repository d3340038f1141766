"""The application: what it offers, and how it is put together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Query, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel, Field

from cancelable_fastapi import CurrentJobs, CurrentOperation, install

from .alike import Alike, files_alike
from .corpus import source_files
from .events import EventStream, event
from .generations import Generation, GenerationShelf, write_into
from .language_model import LanguageModel, trained_model
from .search import Found, search_sources
from .visitors import Asker, VisitorCookie, who_is_asking

__all__ = ["app", "create_app"]

PAGE = Path(__file__).with_name("page.html")
MOST_PIECES = 20_000
USUAL_PIECES = 4_000
"""Some minutes of text."""


class GenerationOrder(BaseModel):
    """What to write in the background."""

    prompt: str = Field("", max_length=500)
    max_pieces: int = Field(USUAL_PIECES, ge=1, le=MOST_PIECES)
    stop: str | None = Field(None, max_length=100)


def create_app(*, piece_seconds: float = 0.05) -> FastAPI:
    """The application.

    Args:
        piece_seconds: How long the model takes for a piece of text, on average.
    """
    app = FastAPI(title="Live stream")
    app.add_middleware(VisitorCookie)
    install(app, prefix="/jobs", principal=who_is_asking)
    shelf = GenerationShelf()

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE, media_type="text/html")

    @app.get("/stream", response_class=EventStream)
    async def stream(
        operation: CurrentOperation,
        prompt: Annotated[str, Query(max_length=500)] = "",
        max_pieces: Annotated[int, Query(ge=1, le=MOST_PIECES)] = USUAL_PIECES,
        stop: Annotated[str | None, Query(max_length=100)] = None,
    ) -> EventStream:
        model = await operation.run_in_thread(trained_model)
        pieces = model.write(prompt, max_pieces=max_pieces, stop=stop, piece_seconds=piece_seconds)

        async def events() -> AsyncIterator[str]:
            yield event("started", operation_id=operation.id)
            count = 0
            async for piece in pieces:
                count += 1
                yield event("piece", text=piece)
            yield event("finished", pieces=count)

        return EventStream(events(), operation)

    @app.get("/search")
    async def search(
        operation: CurrentOperation,
        q: Annotated[str, Query(min_length=2, max_length=100)],
        fuzzy: bool = False,
        limit: Annotated[int, Query(ge=1, le=1_000)] = 50,
    ) -> Found:
        files = await operation.run_in_thread(source_files)
        return await operation.run_in_thread(search_sources, files, q, fuzzy=fuzzy, limit=limit)

    @app.get("/alike")
    async def alike(operation: CurrentOperation, limit: Annotated[int, Query(ge=1, le=1_000)] = 10) -> Alike:
        files = await operation.run_in_thread(source_files)
        return await operation.run_in_thread(files_alike, files, limit=limit)

    # the dependency refuses a wrong key; CurrentJobs alone would take whoever shows it for nobody, whose text nobody can read
    @app.post("/generations", status_code=202, dependencies=[Depends(who_is_asking)])
    async def start_generation(
        order: GenerationOrder, jobs: CurrentJobs, operation: CurrentOperation, response: Response
    ) -> Any:
        model: LanguageModel = await operation.run_in_thread(trained_model)
        generation = Generation(order.prompt)
        pieces = model.write(order.prompt, max_pieces=order.max_pieces, stop=order.stop, piece_seconds=piece_seconds)
        job = jobs.submit(write_into, generation, pieces, max_pieces=order.max_pieces, name="generation")
        shelf.add(generation, job)
        response.headers["Location"] = f"/generations/{job.id}"
        return {"id": job.id}

    @app.get("/generations/{job_id}")
    async def show_generation(job_id: str, asker: Asker) -> Any:
        found = shelf.find(job_id, asker)
        if found is None:
            raise HTTPException(404, "There is no such generation, or it is not yours.")
        generation, job = found
        progress = job.context.progress or {}
        return {
            "id": job.id,
            "status": job.status,
            "prompt": generation.prompt,
            "pieces": len(generation.pieces),
            "words": progress.get("words", 0),
            "text": generation.text,
        }

    return app


app = create_app()
