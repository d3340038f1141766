"""``application = wrap(get_asgi_application())``: every request hears its client leave, and a server its end."""

from __future__ import annotations

from django.core.handlers.asgi import ASGIHandler

from cancelable_core.servers import AsgiApplication, Receive, Scope, Send, answer_lifespan, watching_client

from .conf import get_application

__all__ = ["wrap"]


def wrap(application: AsgiApplication) -> AsgiApplication:
    """Have requests under ASGI hear that their client has gone, in every view, and the process that it is told to end.

    Django itself tells async views, and plain ones below nothing but async middleware. Below a middleware that is for sync only
    nobody is told. It knows no lifespan either, by which the shutdown hook is installed.

    Args:
        application: What ``get_asgi_application()`` returns, or anything around it, which then has its own lifespan.

    Returns:
        The application to serve.
    """
    watched = watching_client(application)
    if type(application) is not ASGIHandler:
        return watched

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await answer_lifespan(get_application(), receive, send)
        else:
            await watched(scope, receive, send)

    return wrapped
