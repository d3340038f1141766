"""The one Django project of a test process: settings can be configured once only, so that all tests share these.

Tests change what they need with ``django.test.override_settings`` (``ROOT_URLCONF``, ``MIDDLEWARE``, ``CANCELABLE``).
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path
from typing import Any

import django
from django.conf import settings

__all__ = ["MIDDLEWARE", "close_connections", "configure", "user"]

MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "cancelable_django.middleware.CancelableMiddleware",
]
"""What a usual project has, and ours behind it."""


def configure() -> None:
    """Configure Django, unless that was done, with a database file of this process that has its tables."""
    if settings.configured:
        return
    directory = Path(tempfile.mkdtemp(prefix="cancelable-django-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    settings.configure(
        SECRET_KEY="tests only",
        ALLOWED_HOSTS=["testserver", "127.0.0.1", "localhost"],
        ROOT_URLCONF="tests.adapters.django.urls",
        INSTALLED_APPS=[
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.sessions",
            "cancelable_django",
        ],
        MIDDLEWARE=MIDDLEWARE,
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": directory / "db.sqlite3",
                "OPTIONS": {"timeout": 20, "transaction_mode": "IMMEDIATE"},
            }
        },
        MIGRATION_MODULES={"auth": None, "contenttypes": None, "sessions": None},  # tables at once, without their history
        PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],  # the quickest
        TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        USE_TZ=True,
        CANCELABLE={},
    )
    django.setup()
    _create_tables()


def user(name: str, *, is_staff: bool = False) -> Any:
    """The user of that name, made on first use; for ``client.force_login``."""
    from django.contrib.auth import get_user_model

    found, _ = get_user_model().objects.update_or_create(username=name, defaults={"is_staff": is_staff})
    return found


def close_connections() -> None:
    """Close the database connections that tests opened in this thread and in the one that asgiref keeps for async code."""
    from asgiref.sync import SyncToAsync
    from django.db import connections

    connections.close_all()
    SyncToAsync.single_thread_executor.submit(connections.close_all).result()


def _create_tables() -> None:
    from django.core.management import call_command
    from django.db import connections

    call_command("migrate", run_syncdb=True, verbosity=0)
    connections.close_all()
