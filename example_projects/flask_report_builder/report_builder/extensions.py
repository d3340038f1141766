"""The extension, set up for each application by its factory."""

from __future__ import annotations

from cancelable_flask import CancelableExtension

from .identity import who_is_asking

__all__ = ["cancelable"]

cancelable = CancelableExtension(principal=who_is_asking)
