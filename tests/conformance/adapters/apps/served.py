"""The applications as real servers load them: ``tests.conformance.adapters.apps.served:flask`` and so on."""

from __future__ import annotations

from typing import Any

from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.test import override_settings

from tests import django_project

from . import django_app, fastapi_app, flask_app


def __getattr__(name: str) -> Any:
    if name == "flask":
        return flask_app.make_app()[0]
    if name == "fastapi":
        return fastapi_app.make_app()[0]
    if name not in ("django_wsgi", "django_asgi"):
        raise AttributeError(name)
    django_project.configure()
    override_settings(
        ROOT_URLCONF=django_app.__name__,
        MIDDLEWARE=["cancelable_django.middleware.CancelableMiddleware"],
        CANCELABLE=django_app.settings(),
    ).enable()
    return get_wsgi_application() if name == "django_wsgi" else get_asgi_application()
