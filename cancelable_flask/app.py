"""`CancelableFlask`: Flask with a method to register extensions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from flask import Flask

__all__ = ["CancelableFlask", "Extension"]


class Extension(Protocol):
    """What Flask's extensions have in common."""

    @property
    def init_app(self) -> Callable[..., object]:
        """Sets the extension up for one application; some take options of their own."""
        ...


E = TypeVar("E", bound=Extension)


class CancelableFlask(Flask):
    """A Flask application that extensions are registered on; otherwise Flask as it is."""

    def register_extension(self, extension: E, **options: Any) -> E:
        """Set up any Flask extension for this application, by its ``init_app``.

        Args:
            extension: The extension.
            options: Handed on to its ``init_app``, where that takes any.

        Returns:
            The extension.
        """
        extension.init_app(self, **options)
        return extension
