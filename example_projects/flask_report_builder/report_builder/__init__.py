"""A report builder: word indexes and statistics over Python sources, minutes of work that its visitors may cancel."""

from .app import create_app

__all__ = ["create_app"]
