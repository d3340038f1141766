"""The application, on FastAPI."""

from __future__ import annotations

from typing import Annotated, Any

import anyio
from fastapi import BackgroundTasks, FastAPI, Request, Response, UploadFile, WebSocket, WebSocketDisconnect
from fastapi.responses import FileResponse, PlainTextResponse, StreamingResponse
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from cancelable_core.http_api import AllowAll
from cancelable_fastapi import CancelableMiddleware, CurrentOperation, cancelable_view, install, prepare

from . import work
from .events import is_open, tell

__all__ = ["make_app", "make_layered_app"]

patient = cancelable_view(timeout_seconds=None)
limited = cancelable_view(timeout_seconds=work.LIMIT_SECONDS)


def make_app(*, with_suite: bool = True) -> FastAPI:
    """A fresh application. Without the suite it has the endpoints that do not need it, for comparison."""
    app = FastAPI(default_response_class=PlainTextResponse)
    if with_suite:
        install(app, policy=AllowAll(), request_timeout_seconds=work.LIMIT_SECONDS)
        _add_cancelable_endpoints(app)
    app.add_middleware(FailOnDemand)
    _add_endpoints(app)
    return app


def make_layered_app() -> FastAPI:
    """The application between two of Starlette's own middleware, which have a task and a ``receive`` of their own."""
    suite = prepare(policy=AllowAll())
    around = Middleware(BaseHTTPMiddleware, dispatch=_pass_on)
    app = FastAPI(
        default_response_class=PlainTextResponse, middleware=[around, Middleware(CancelableMiddleware, suite=suite), around]
    )
    _add_cancelable_endpoints(app)
    _add_endpoints(app)
    return app


async def _pass_on(request: Request, call_next: Any) -> Response:
    response: Response = await call_next(request)
    return response


class FailOnDemand:
    """A middleware that may fail."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("query_string") == b"fail":
            raise ZeroDivisionError
        await self._app(scope, receive, send)


def _add_endpoints(app: FastAPI) -> None:
    @app.api_route("/hello", methods=["GET", "HEAD"])
    async def hello() -> str:
        return "hello"

    @app.get("/status/{status}")
    async def with_status(status: int) -> Response:
        return Response(status_code=status, headers={"ETag": '"one"'})

    @app.api_route("/file", methods=["GET", "HEAD"])
    async def file() -> FileResponse:
        return FileResponse(work.FILE)

    @app.get("/error")
    async def error() -> str:
        raise ZeroDivisionError


def _add_cancelable_endpoints(app: FastAPI) -> None:
    @app.get("/wait/{key}")
    @patient
    def wait(key: str) -> str:
        return work.wait(key)

    @app.get("/ask/{key}")
    @patient
    def ask(key: str) -> str:
        return work.ask(key)

    @app.get("/await/{key}")
    @patient
    async def await_(key: str) -> str:
        return await work.await_(key)

    @app.get("/asked/{key}")
    async def asked(key: str, operation: CurrentOperation) -> str:
        operation.response_started()  # type: ignore[attr-defined]  # lifts the application's limit
        return await work.await_(key)

    @app.get("/unfollowed/{key}")
    @cancelable_view(timeout_seconds=None, cancel_on_disconnect=False)
    def unfollowed(key: str) -> str:
        return work.wait_for_gate(key)

    @app.get("/await-quick/{key}")
    @patient
    async def await_quick(key: str) -> str:
        return await work.await_quick(key)

    @app.get("/too-long/{key}")
    def too_long(key: str) -> str:
        return work.wait(key)

    @app.get("/await-too-long/{key}")
    async def await_too_long(key: str) -> str:
        return await work.await_(key)

    @app.get("/limited/{key}")
    @limited
    async def limited_view(key: str) -> str:
        return await work.await_(key)

    @app.get("/limited-stream/{key}")
    @limited
    async def limited_stream(key: str) -> StreamingResponse:
        return StreamingResponse(work.await_stalled_chunks(key), media_type="text/event-stream")

    @app.get("/stalled/{key}")
    @patient
    async def stalled(key: str) -> StreamingResponse:
        return StreamingResponse(work.stalled_chunks(key), media_type="text/event-stream")

    @app.get("/await-stalled/{key}")
    @patient
    async def await_stalled(key: str) -> StreamingResponse:
        return StreamingResponse(work.await_stalled_chunks(key), media_type="text/event-stream")

    @app.get("/managed-stalled/{key}")
    @patient
    async def managed_stalled(key: str, operation: CurrentOperation) -> StreamingResponse:
        return StreamingResponse(operation.stream(work.await_stalled_chunks(key)), media_type="text/event-stream")

    @app.post("/body")
    @patient
    async def body(request: Request) -> str:
        await anyio.sleep(0.02)  # longer than a client is left unfollowed: some of the body is read ahead by now
        return work.digest([chunk async for chunk in request.stream()])

    @app.post("/asking")
    @patient
    async def asking(request: Request) -> str:
        """Asks whether somebody is there. Starlette answers by throwing the next message away: not in the middle of a body."""
        chunks = [chunk async for chunk in request.stream()]
        for _ in range(5):
            await anyio.sleep(0.005)
            assert not await request.is_disconnected()
        return work.digest(chunks)

    @app.post("/late/{key}")
    @patient
    async def late(request: Request, key: str) -> str:
        """Lets a body wait until the test opens the gate, and takes it piece by piece."""
        tell("begun", key=key, id=work.operation().id)
        while not is_open(key):
            await anyio.sleep(0.01)
        length = 0
        async for chunk in request.stream():
            length += len(chunk)
        return str(length)

    @app.post("/json")
    @patient
    async def json_body(text: Annotated[dict[str, str], "JSON"]) -> str:
        await anyio.sleep(0.02)
        return work.digest([text["text"].encode()])

    @app.post("/upload")
    @patient
    async def uploaded(file: UploadFile) -> str:
        await anyio.sleep(0.02)
        return work.digest([await file.read()])

    @app.get("/late-file")
    @patient
    async def late_file() -> FileResponse:
        await anyio.sleep(0.02)
        return FileResponse(work.FILE)

    @app.get("/background/{key}")
    @patient
    async def background(key: str, tasks: BackgroundTasks) -> str:
        await anyio.sleep(0.02)
        tasks.add_task(_work_on, key)
        return "started"

    @app.websocket("/working/{key}")
    async def working(websocket: WebSocket, key: str, operation: CurrentOperation) -> None:
        await websocket.accept()
        await websocket.send_text("accepted")
        await work.await_(key)

    @app.websocket("/echo/{key}")
    async def echo(websocket: WebSocket, key: str, operation: CurrentOperation) -> None:
        await websocket.accept()
        tell("begun", key=key, id=operation.id)
        try:
            while True:
                await websocket.send_text(await websocket.receive_text())
        except WebSocketDisconnect as error:
            await anyio.sleep(0.01)  # it may take its time
            tell("disconnected", key=key, code=error.code)


async def _work_on(key: str) -> None:
    while not is_open(key):
        await anyio.sleep(0.01)
    tell("background", key=key)
