"""PostgreSQL as a database of the one Django project of this process, with queries that are interrupted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.postgres import PostgreSQL

ALIAS = "postgres"


@contextmanager
def django_connection(postgres: PostgreSQL, **options: Any) -> Iterator[Any]:
    """The connection under an alias of its own, with the setting on."""
    from django.db import connections
    from django.test import override_settings

    connections.databases[ALIAS] = connections.configure_settings(
        {
            "default": connections.databases["default"],
            ALIAS: {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": "postgres",
                "USER": postgres.user,
                "HOST": "127.0.0.1",
                "PORT": postgres.port,
                "CONN_MAX_AGE": None,
                **options,
            },
        }
    )[ALIAS]
    try:
        with override_settings(CANCELABLE={"INTERRUPT_QUERIES": True}):
            yield connections[ALIAS]
    finally:
        connections[ALIAS].close()
        del connections[ALIAS]
        del connections.databases[ALIAS]
