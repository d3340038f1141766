"""What users get wrong, said by ``manage.py check``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning
from django.utils.module_loading import import_string

from cancelable_core import ConfigurationError

from .conf import read_settings
from .middleware import CancelableMiddleware

__all__ = ["check_configuration"]

MIDDLEWARE = f"{CancelableMiddleware.__module__}.{CancelableMiddleware.__qualname__}"


def check_configuration(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """Check the ``CANCELABLE`` settings and the middleware."""
    messages: list[CheckMessage] = []
    try:
        read_settings()
    except ConfigurationError as error:
        messages.append(Error(str(error), id="cancelable.E001"))
    if not any(_is_ours(name) for name in settings.MIDDLEWARE):
        messages.append(
            Warning(
                "Requests are no operations: the middleware is missing.",
                hint=f"Add {MIDDLEWARE!r} to MIDDLEWARE, best as its last entry.",
                id="cancelable.W001",
            )
        )
    return messages


def _is_ours(name: str) -> bool:
    """Whether a layer is our middleware, or a project's own subclass of it."""
    try:
        layer: object = import_string(name)
    except ImportError:
        return False  # Django says so at the first request
    return isinstance(layer, type) and issubclass(layer, CancelableMiddleware)
