"""The application that the tests of servers start: ``uvicorn tests.adapters.fastapi.served:app``."""

from collections.abc import AsyncIterator
from typing import Annotated

import anyio
from fastapi import FastAPI, Header, Request
from fastapi.responses import StreamingResponse
from starlette.middleware.base import RequestResponseEndpoint
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from cancelable_fastapi import CurrentJobs, CurrentOperation, current_operation, install


def current_user(x_user: Annotated[str | None, Header()] = None) -> str | None:
    return x_user


main, limited, layered = FastAPI(), FastAPI(), FastAPI()
install(main, principal=current_user, staff=lambda user: user == "root")
install(limited, request_timeout_seconds=0.05)
install(layered)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Three applications in one server; they share the process's store."""
    others = {"/too-slow": limited, "/sum": layered}
    await others.get(scope.get("path", ""), main)(scope, receive, send)


@layered.middleware("http")
async def await_first(request: Request, call_next: RequestResponseEndpoint) -> Response:
    await anyio.sleep(0.005)
    response: Response = await call_next(request)
    return response


@main.get("/hello")
async def hello() -> str:
    return "hello"


@main.get("/wait/async")
async def wait_async() -> None:
    await anyio.sleep(60)


@main.get("/wait/sync")
def wait_sync() -> None:
    operation = current_operation()
    assert operation is not None
    operation.sleep(60)


@main.get("/stream")
async def stream(operation: CurrentOperation) -> StreamingResponse:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"first,"
        await anyio.sleep(60)

    return StreamingResponse(operation.stream(chunks()), media_type="text/plain")


@limited.get("/too-slow")
async def too_slow() -> None:
    await anyio.sleep(60)


@layered.post("/sum")
async def add_up(values: list[int]) -> int:
    return sum(values)


@main.post("/start")
async def start(jobs: CurrentJobs) -> dict[str, str]:
    return {"id": jobs.submit(anyio.sleep, 60, name="sleep").id}
