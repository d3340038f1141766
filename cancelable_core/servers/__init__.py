"""A request as an operation, and what servers can tell about it. No framework is known here."""

from .application import WebApplication
from .asgi import (
    AsgiApplication,
    CancelableAsgi,
    close_code,
    find_owner_soon,
    is_operation,
    leaves_cut_streams_open,
    run_asgi,
    watching_client,
)
from .asgi_client import AsgiClient, Receive, Scope, Send
from .request_scope import CLIENT_KEY, ClientWatch, RequestOperation, current_request
from .shutdown import ShutdownHook, answer_lifespan, install_shutdown_hook, lifespan_of
from .view_options import ViewMark, ViewOptions, cancelable_view, view_options
from .wsgi import CLIENT_ID_KEY, OPERATION_KEY, CancelableWsgi, has_operation, iterate_wsgi_body, run_wsgi
from .wsgi_client import WsgiClient, client_of

__all__ = [
    "CLIENT_ID_KEY",
    "CLIENT_KEY",
    "OPERATION_KEY",
    "AsgiApplication",
    "AsgiClient",
    "CancelableAsgi",
    "CancelableWsgi",
    "ClientWatch",
    "Receive",
    "RequestOperation",
    "Scope",
    "Send",
    "ShutdownHook",
    "ViewMark",
    "ViewOptions",
    "WebApplication",
    "WsgiClient",
    "answer_lifespan",
    "cancelable_view",
    "client_of",
    "close_code",
    "current_request",
    "find_owner_soon",
    "has_operation",
    "install_shutdown_hook",
    "is_operation",
    "iterate_wsgi_body",
    "leaves_cut_streams_open",
    "lifespan_of",
    "run_asgi",
    "run_wsgi",
    "view_options",
    "watching_client",
]
