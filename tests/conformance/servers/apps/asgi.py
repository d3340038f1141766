"""All ASGI applications in one process: ``tests.conformance.servers.apps.asgi:app``. Each server has to start only once."""

from __future__ import annotations

import gc
import logging
from typing import Any

from a2wsgi import WSGIMiddleware

from cancelable_core.servers import AsgiApplication, CancelableAsgi, Receive, Scope, Send, watching_client

from . import django_app, fastapi_app, flask_app, work

__all__ = ["app"]

logging.basicConfig(level=logging.INFO)


async def _application(scope: Scope, receive: Receive, send: Send) -> None:
    """What needs no framework."""
    what, _, key = scope["path"].removeprefix(scope["root_path"]).strip("/").partition("/")
    headers = [(b"content-type", b"text/plain")]
    if what == "collect":
        gc.collect()
    if what == "fail":
        raise LookupError(key)
    if what == "await-stalled":
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        async for chunk in work.await_stalled_chunks(key):
            await send({"type": "http.response.body", "body": chunk.encode(), "more_body": True})
        await send({"type": "http.response.body"})
        return
    endpoints = {"await": work.await_, "await-quick": work.await_quick, "collect": work.await_quick}
    body = (await endpoints[what](key)).encode()
    length = str(len(body)).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [*headers, (b"content-length", length)]})
    await send({"type": "http.response.body", "body": body})


_flask: Any = WSGIMiddleware(flask_app.make_app())

APPLICATIONS: dict[str, AsgiApplication] = {
    "/fastapi": fastapi_app.make_app(),
    "/layered": fastapi_app.make_layered_app(),
    "/django": django_app.make_asgi_app(),
    "/old-django": django_app.make_old_asgi_app(),
    "/older-django": django_app.make_older_asgi_app(),
    "/bare": CancelableAsgi(_application, route=lambda scope: str(scope["path"]).rpartition("/")[0]),
    "/flask": watching_client(_flask),
    "/wrapped-flask": CancelableAsgi(_flask),
    "/plain-fastapi": fastapi_app.make_app(with_suite=False),
    "/plain-django": django_app.make_asgi_app(with_suite=False),
}


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Pass on to the application that the path's first part names; the lifespan is FastAPI's."""
    prefix = "/" + scope.get("path", "/fastapi").split("/")[1]
    await APPLICATIONS[prefix]({**scope, "root_path": prefix}, receive, send)
