"""The drivers, one for each way in which an application can run."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.test import override_settings

from tests import django_project

from ..apps import django_app, fastapi_app, flask_app
from .asgi import AsgiClient
from .base import AdapterClient
from .wsgi import WsgiClient

__all__ = ["ADAPTERS", "DjangoAsgiClient", "DjangoWsgiClient", "FastapiClient", "FlaskClient"]


class FlaskClient(WsgiClient):
    """Flask."""

    name = "flask"
    template = flask_app.TEMPLATE

    def _start(self, **settings: Any) -> None:
        self._app, self._cancelable = flask_app.make_app(**settings)

    @property
    def application(self) -> Any:
        return self._app

    def _close_jobs(self) -> None:
        self._cancelable.jobs.close()

    def _stop(self) -> None:
        pass


def _django_settings(settings: dict[str, Any]) -> override_settings:
    django_project.configure()
    return override_settings(
        ROOT_URLCONF=django_app.__name__,
        MIDDLEWARE=["cancelable_django.middleware.CancelableMiddleware"],
        CANCELABLE=django_app.settings(**settings),
    )


def _close_django_jobs() -> None:
    django_app.jobs.close()


class DjangoWsgiClient(WsgiClient):
    """Django under WSGI."""

    name = "django_wsgi"
    template = django_app.TEMPLATE

    def _start(self, **settings: Any) -> None:
        self._stack = ExitStack()
        self._stack.enter_context(_django_settings(settings))
        self._handler = WSGIHandler()

    @property
    def application(self) -> Any:
        return self._handler

    def _close_jobs(self) -> None:
        _close_django_jobs()

    def _stop(self) -> None:
        self._stack.close()


class DjangoAsgiClient(AsgiClient):
    """Django under ASGI."""

    name = "django_asgi"
    template = django_app.TEMPLATE

    def _start(self, **settings: Any) -> None:
        super()._start()
        self._loop.enter_context(_django_settings(settings))
        self._handler = ASGIHandler()

    @property
    def application(self) -> Any:
        return self._handler

    def _close_jobs(self) -> None:
        _close_django_jobs()


class FastapiClient(AsgiClient):
    """FastAPI."""

    name = "fastapi"
    template = fastapi_app.TEMPLATE

    def _start(self, **settings: Any) -> None:
        super()._start()
        self._app, self._cancelable = fastapi_app.make_app(**settings)

    @property
    def application(self) -> Any:
        return self._app

    def _close_jobs(self) -> None:
        self._cancelable.jobs.close()


ADAPTERS: tuple[type[AdapterClient], ...] = (FlaskClient, DjangoWsgiClient, DjangoAsgiClient, FastapiClient)
