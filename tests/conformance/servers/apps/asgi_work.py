"""Applications for the tests of ASGI servers: FastAPI, Django and bare ASGI in one, told apart by the path's first part."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from typing import Any

import anyio
import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path
from fastapi import BackgroundTasks, FastAPI, Request, WebSocket
from fastapi.responses import FileResponse, StreamingResponse

from cancelable_core import Cancelable, current_operation
from cancelable_core.http_api import AllowAll
from cancelable_core.servers import CancelableAsgi
from cancelable_django import cancelable_view
from cancelable_django.asgi import wrap
from cancelable_fastapi import CurrentOperation, install
from cancelable_fastapi import cancelable_view as fastapi_view

from .events import tell
from .work import FILE, await_, wait

api = FastAPI()
install(api, policy=AllowAll())


@api.get("/fastapi/hello")
async def hello(operation: CurrentOperation) -> str:
    return "hello"


@api.get("/fastapi/async/{key}")
async def fastapi_async(key: str, operation: CurrentOperation) -> str:
    return await await_(key)


@api.get("/fastapi/sync/{key}")
def fastapi_sync(key: str, operation: CurrentOperation) -> str:
    return wait(key)


@api.post("/fastapi/body")
async def fastapi_body(request: Request, operation: CurrentOperation) -> dict[str, Any]:
    await anyio.sleep(0.02)  # longer than a client is left unwatched: some of the body is read ahead by now
    body = b"".join([chunk async for chunk in request.stream()])
    return {"size": len(body), "digest": hashlib.sha256(body).hexdigest()}


@api.get("/fastapi/file")
async def fastapi_file(operation: CurrentOperation) -> FileResponse:
    await anyio.sleep(0.02)
    return FileResponse(FILE)


@api.get("/fastapi/background/{key}")
async def background(key: str, tasks: BackgroundTasks, operation: CurrentOperation) -> str:
    async def work() -> None:
        await anyio.sleep(0.1)
        tell("background", key=key)

    tasks.add_task(work)
    return "done"


def _stalled(key: str) -> AsyncIterator[bytes]:
    async def source() -> AsyncIterator[bytes]:
        operation = current_operation()
        assert operation is not None
        tell("begun", key=key, id=operation.id)
        try:
            yield b"first,"
            await anyio.sleep(60)
        finally:
            tell("closed", key=key)

    return source()


@api.get("/fastapi/stream/{key}")
async def stream(key: str, operation: CurrentOperation) -> StreamingResponse:
    return StreamingResponse(operation.stream(_stalled(key)), media_type="text/event-stream")


@api.get("/fastapi/limited/{key}")
@fastapi_view(timeout_seconds=0.5)
async def limited(key: str, operation: CurrentOperation) -> StreamingResponse:
    return StreamingResponse(operation.stream(_stalled(key)), media_type="text/event-stream")


@api.websocket("/fastapi/socket/{key}")
async def socket(key: str, websocket: WebSocket, operation: CurrentOperation) -> None:
    await websocket.accept()
    await websocket.send_text("accepted")
    await await_(key)


class PlainOnly:
    """A middleware for plain code only, as old projects have them."""

    sync_capable = True
    async_capable = False

    def __init__(self, get_response: Any) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response: HttpResponse = self._get_response(request)
        return response


@cancelable_view
def django_sync(request: HttpRequest, key: str) -> HttpResponse:
    return HttpResponse(wait(key))


@cancelable_view
async def django_async(request: HttpRequest, key: str) -> HttpResponse:
    return HttpResponse(await await_(key))


urlpatterns = [path("django/sync/<str:key>", django_sync), path("django/async/<str:key>", django_async)]

settings.configure(
    SECRET_KEY="tests only",
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["cancelable_django"],
    MIDDLEWARE=["cancelable_django.middleware.CancelableMiddleware", f"{__name__}.PlainOnly"],
    LOGGING={"version": 1, "disable_existing_loggers": False},
)
django.setup()
pages = wrap(get_asgi_application())


async def _bare(scope: Any, receive: Any, send: Any) -> None:
    key = scope["path"].rpartition("/")[2]
    async with Cancelable("inside"):
        await await_(key)


bare = CancelableAsgi(_bare)


async def app(scope: Any, receive: Any, send: Any) -> None:
    """By the path; the lifespan is FastAPI's."""
    others = {"django": pages, "bare": bare}
    first = scope.get("path", "/").split("/")[1]
    await others.get(first, api)(scope, receive, send)
