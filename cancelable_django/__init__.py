"""Cancelable operations for Django: an app, a middleware, jobs, and the routes.

Add ``"cancelable_django"`` to ``INSTALLED_APPS``, ``"cancelable_django.middleware.CancelableMiddleware"`` to ``MIDDLEWARE``,
and ``path("jobs/", include("cancelable_django.urls"))`` to the URLs.
"""

from cancelable_core import Cancelable, OperationCancelled, cancelable, current_operation
from cancelable_core.extras import require

require("django", extra="django")

from . import jobs  # noqa: E402
from .marking import cancelable_view  # noqa: E402

__all__ = ["Cancelable", "OperationCancelled", "cancelable", "cancelable_view", "current_operation", "jobs"]
