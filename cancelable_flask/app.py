"""`CancelableFlask`: Flask with a method to register extensions."""

from __future__ import annotations

from typing import Protocol, TypeVar

from flask import Flask

__all__ = ["CancelableFlask", "Extension"]


class Extension(Protocol):
    """What Flask's extensions have in common."""

    def init_app(self, app: Flask) -> object:
        """Set the extension up for one application."""
        ...


E = TypeVar("E", bound=Extension)


class CancelableFlask(Flask):
    """A Flask application that extensions are registered on; otherwise Flask as it is."""

    def register_extension(self, extension: E) -> E:
        """Set up any Flask extension for this application, by its ``init_app``.

        Returns:
            The extension.
        """
        extension.init_app(self)
        return extension
