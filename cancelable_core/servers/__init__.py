"""A request as an operation, and what servers can tell about it. No framework is known here."""

from .application import WebApplication
from .request_scope import ClientWatch, RequestOperation, current_request
from .view_options import ViewOptions, cancelable_view, view_options
from .wsgi import OPERATION_KEY, run_wsgi

__all__ = [
    "OPERATION_KEY",
    "ClientWatch",
    "RequestOperation",
    "ViewOptions",
    "WebApplication",
    "cancelable_view",
    "current_request",
    "run_wsgi",
    "view_options",
]
