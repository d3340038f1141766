"""``application = wrap(get_asgi_application())``: every request hears its client leave, whatever middleware lies around its view."""

from __future__ import annotations

from cancelable_core.servers import AsgiApplication, watching_client

__all__ = ["wrap"]


def wrap(application: AsgiApplication) -> AsgiApplication:
    """Have requests under ASGI hear that their client has gone, in every view.

    Django itself tells async views, and plain ones below nothing but async middleware. Below a middleware that is for sync only
    nobody is told, nor is a stream that Django iterates in a thread.

    Args:
        application: What ``get_asgi_application()`` returns, or anything around it.

    Returns:
        The application to serve. Its lifespan and WebSockets pass through.
    """
    return watching_client(application)
