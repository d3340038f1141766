"""The application on FastAPI, whose lifespan installs the hook."""

from __future__ import annotations

from fastapi import FastAPI, Response, WebSocket
from fastapi.responses import StreamingResponse

from cancelable_fastapi import install

from .shutdown_work import DRAIN_SECONDS, async_stream, async_work, store, work

app = FastAPI()
cancelable = install(app, registry=store, drain_seconds=DRAIN_SECONDS)
app.get("/sync")(work)
app.get("/async")(async_work)


@app.get("/quick")
async def quick() -> str:
    return "quick"


@app.get("/stream")
async def streaming() -> StreamingResponse:
    return StreamingResponse(async_stream(), media_type="text/event-stream")


@app.websocket("/socket")
async def socket(websocket: WebSocket) -> None:
    await websocket.accept()
    await async_work()


@app.post("/jobs-of/{kind}")
async def submit(kind: str) -> Response:
    return Response(cancelable.jobs.submit(async_work if kind == "async" else work).id, 202)
