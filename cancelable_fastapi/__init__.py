"""Cancelable operations for FastAPI: ``install(app)``, dependencies, jobs, and the routes under ``/jobs``."""

from cancelable_core import Cancelable, OperationCancelled, cancelable, current_operation
from cancelable_core.extras import require
from cancelable_core.servers import cancelable_view

require("fastapi", extra="fastapi")

from .dependencies import CurrentJobs, CurrentOperation, CurrentRegistry  # noqa: E402
from .install import CancelableSuite, install  # noqa: E402
from .middleware import CancelableMiddleware  # noqa: E402

__all__ = [
    "Cancelable",
    "CancelableMiddleware",
    "CancelableSuite",
    "CurrentJobs",
    "CurrentOperation",
    "CurrentRegistry",
    "OperationCancelled",
    "cancelable",
    "cancelable_view",
    "current_operation",
    "install",
]
