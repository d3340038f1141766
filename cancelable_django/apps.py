"""The Django app: registers the system checks. Starts nothing: ``ready`` runs in every management command."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from django.core import checks
from django.core.signals import setting_changed

from cancelable_core import ConfigurationError

from .checks import check_configuration
from .conf import SETTING, interrupts_queries
from .database import interrupt_queries

__all__ = ["CancelableConfig"]


class CancelableConfig(AppConfig):
    """What ``"cancelable_django"`` in ``INSTALLED_APPS`` stands for."""

    name = "cancelable_django"
    label = "cancelable"
    verbose_name = "Cancelable operations"

    def ready(self) -> None:
        """Register the system checks, and have queries interrupted if the settings say so."""
        checks.register(check_configuration, "cancelable")
        _follow_setting(setting=SETTING)
        setting_changed.connect(_follow_setting)


def _follow_setting(*, setting: str, **_: Any) -> None:
    if setting != SETTING:
        return
    try:
        enabled = interrupts_queries()
    except ConfigurationError:  # the system check says so, and the first request
        enabled = False
    interrupt_queries(enabled)
