"""A request as an operation, and what servers can tell about it. No framework is known here."""

from .application import WebApplication
from .asgi import (
    AsgiApplication,
    AsgiRequest,
    CancelableAsgi,
    close_code,
    find_owner_soon,
    is_operation,
    leaves_cut_streams_open,
    watching_client,
)
from .asgi_client import AsgiClient, Receive, Scope, Send
from .latent import REQUEST_KEY, LatentRequest
from .request_scope import CLIENT_KEY, ClientWatch, RequestOperation, current_request
from .shutdown import ShutdownHook, answer_lifespan, install_shutdown_hook, lifespan_of
from .view_options import ViewMark, ViewOptions, any_view_is_marked, cancelable_view, view_options
from .wsgi import CLIENT_ID_KEY, CancelableWsgi, WsgiRequest, is_request, iterate_wsgi_body, run_wsgi
from .wsgi_client import WsgiClient

__all__ = [
    "CLIENT_ID_KEY",
    "CLIENT_KEY",
    "REQUEST_KEY",
    "AsgiApplication",
    "AsgiClient",
    "AsgiRequest",
    "CancelableAsgi",
    "CancelableWsgi",
    "ClientWatch",
    "LatentRequest",
    "Receive",
    "RequestOperation",
    "Scope",
    "Send",
    "ShutdownHook",
    "ViewMark",
    "ViewOptions",
    "WebApplication",
    "WsgiClient",
    "WsgiRequest",
    "answer_lifespan",
    "any_view_is_marked",
    "cancelable_view",
    "close_code",
    "current_request",
    "find_owner_soon",
    "install_shutdown_hook",
    "is_operation",
    "is_request",
    "iterate_wsgi_body",
    "leaves_cut_streams_open",
    "lifespan_of",
    "run_wsgi",
    "view_options",
    "watching_client",
]
