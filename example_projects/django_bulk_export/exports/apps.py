"""The app."""

from django.apps import AppConfig


class ExportsConfig(AppConfig):
    """What ``"exports"`` in ``INSTALLED_APPS`` stands for."""

    name = "exports"
