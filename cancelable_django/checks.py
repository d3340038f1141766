"""What users get wrong, said by ``manage.py check``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning
from django.utils.module_loading import import_string

from cancelable_core import ConfigurationError

from .conf import read_settings

__all__ = ["check_configuration"]

MIDDLEWARE = "cancelable_django.middleware.CancelableMiddleware"
AUTHENTICATION = "django.contrib.auth.middleware.AuthenticationMiddleware"


def check_configuration(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """Check the ``CANCELABLE`` settings and the middleware."""
    messages: list[CheckMessage] = []
    try:
        read_settings()
    except ConfigurationError as error:
        messages.append(Error(str(error), id="cancelable.E001"))
    layers = {name: _load(name) for name in settings.MIDDLEWARE}
    ours = [place for place, layer in enumerate(layers.values()) if _is_a(layer, MIDDLEWARE)]
    if not ours:
        missing = "Requests are no operations: the middleware is missing."
        hint = f"Add {MIDDLEWARE!r} to MIDDLEWARE, best as its last entry."
        return [*messages, Warning(missing, hint=hint, id="cancelable.W001")]
    below = dict(list(layers.items())[ours[-1] + 1 :])
    return [*messages, *_misplaced(below)]


def _misplaced(below: dict[str, Any]) -> Iterator[CheckMessage]:
    """What is said of the layers between our middleware and the views."""
    hint = f"Move {MIDDLEWARE!r} down in MIDDLEWARE, best to its end."
    for name, layer in below.items():
        if _is_a(layer, AUTHENTICATION):
            unknown = f"Who owns a request is asked before it is known: {name!r} stands below the middleware."
            yield Warning(unknown, hint=hint, id="cancelable.W002")
        elif layer is not None and not getattr(layer, "async_capable", False):
            text = (
                f"{name!r} is for sync code only and stands below the middleware, which then is sync too under ASGI:"
                " async views are not interrupted unless they are marked, and no view hears its client leave unless the"
                " application is wrapped."
            )
            wrapping = f"{hint} Or serve cancelable_django.asgi.wrap(get_asgi_application())."
            yield Warning(text, hint=wrapping, id="cancelable.W003")


def _load(name: str) -> Any:
    try:
        return import_string(name)
    except ImportError:
        return None  # Django says so at the first request


def _is_a(layer: Any, name: str) -> bool:
    """Whether a layer is the class of this name, or a project's own subclass; told by names, since not all are installed."""
    lineage = layer.__mro__ if isinstance(layer, type) else ()
    return any(f"{kind.__module__}.{kind.__qualname__}" == name for kind in lineage)
