"""On Django, by its own connections; as ``wsgi`` and as ``asgi``."""

from __future__ import annotations

import os

import django
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.urls import path

from tests.interrupters.served.sqlite import sqlite_query
from tests.interrupters.statements import ON_POSTGRES

settings.configure(
    SECRET_KEY="tests only",
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["cancelable_django"],
    MIDDLEWARE=["cancelable_django.middleware.CancelableMiddleware"],
    LOGGING_CONFIG=None,
    CANCELABLE={"INTERRUPT_QUERIES": True},
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": "postgres",
            "USER": os.environ["CANCELABLE_TEST_POSTGRES_USER"],
            "HOST": "127.0.0.1",
            "PORT": os.environ["CANCELABLE_TEST_POSTGRES_PORT"],
            "CONN_MAX_AGE": None,
        }
    },
)
django.setup()

from django.core.asgi import get_asgi_application  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.db import connection  # noqa: E402

from cancelable_django import cancelable_view  # noqa: E402

wsgi, asgi = get_wsgi_application(), get_asgi_application()


@cancelable_view
def query(request: HttpRequest, name: str) -> HttpResponse:
    with connection.cursor() as cursor:
        cursor.execute(ON_POSTGRES.get(name, "SELECT 1"))
        return HttpResponse(str(cursor.fetchone()[0]))


@cancelable_view
def on_sqlite(request: HttpRequest) -> HttpResponse:
    return HttpResponse(sqlite_query())


urlpatterns = [path("query/<str:name>", query), path("sqlite", on_sqlite)]
