"""Cancelable operations for Flask: an extension, request operations, jobs, and the routes under ``/jobs``."""

from cancelable_core import Cancelable, OperationCancelled, cancelable, current_operation
from cancelable_core.extras import require
from cancelable_core.servers import cancelable_view

require("flask", extra="flask")

from .app import CancelableFlask  # noqa: E402
from .extension import CancelableExtension  # noqa: E402

__all__ = [
    "Cancelable",
    "CancelableExtension",
    "CancelableFlask",
    "OperationCancelled",
    "cancelable",
    "cancelable_view",
    "current_operation",
]
