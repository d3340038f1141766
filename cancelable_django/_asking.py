"""Who submits a job, found from inside a view: through the operation that its request is."""

from __future__ import annotations

import asyncio
from typing import cast

from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest

from cancelable_core import current_operation
from cancelable_core.http_api import Settings
from cancelable_core.servers import current_request

from ._translate import aprincipal_of, principal_of

__all__ = ["asubmitting_principal_id", "runs_on_lasting_loop", "submitting_principal_id"]


def submitting_principal_id(settings: Settings) -> str | None:
    """Who is asking, where a job is submitted for a request; None elsewhere.

    Raises:
        RuntimeError: In an async view, where finding out must be awaited.
    """
    request = _request()
    if request is None:
        return None
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return principal_of(request, settings).id
    raise RuntimeError("in an async view, use await jobs.asubmit(...), which can ask who is logged in; or give an owner")


async def asubmitting_principal_id(settings: Settings) -> str | None:
    """The same in async code."""
    request = _request()
    return None if request is None else (await aprincipal_of(request, settings)).id


def runs_on_lasting_loop() -> bool:
    """Whether the running loop outlives the request: under ASGI it does, under WSGI Django makes one for each async view."""
    request = _request()
    return request is None or isinstance(request, ASGIRequest)


def _request() -> HttpRequest | None:
    operation = current_request(current_operation())
    return None if operation is None else cast("HttpRequest | None", operation.native)
