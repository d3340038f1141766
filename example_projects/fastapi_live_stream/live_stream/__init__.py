"""Text that arrives piece by piece, a slow search, and generations in the background: all of it can be stopped."""

from .application import app, create_app

__all__ = ["app", "create_app"]
