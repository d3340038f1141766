"""The Django app: registers the system checks. Starts nothing: ``ready`` runs in every management command."""

from __future__ import annotations

from django.apps import AppConfig
from django.core import checks

from .checks import check_configuration

__all__ = ["CancelableConfig"]


class CancelableConfig(AppConfig):
    """What ``"cancelable_django"`` in ``INSTALLED_APPS`` stands for."""

    name = "cancelable_django"
    label = "cancelable"
    verbose_name = "Cancelable operations"

    def ready(self) -> None:
        """Register the system checks."""
        checks.register(check_configuration, "cancelable")
