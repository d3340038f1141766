"""Django under ASGI: ``application = wrap(get_asgi_application())``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from cancelable_core.servers import watching_client

__all__ = ["wrap"]


def wrap(application: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """Let every request under ASGI hear of its client, plain views below plain middleware as well.

    Django cancels the task of a request whose client has left. What runs in a thread hears of that from `CancelableMiddleware`,
    but only where the middleware runs in the task, not where a layer below it that is for sync code only has made Django run
    it in a thread, too. With this around the application, the request is told in any case.

    Args:
        application: What ``get_asgi_application()`` returns, or a router of Channels around it.

    Async views are cancelled by Django itself, whatever ``cancel_on_disconnect`` says.
    """
    wrapped: Callable[..., Any] = watching_client(application)
    return wrapped
