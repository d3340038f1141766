"""Frameworks and drivers are optional; whoever misses one is told what to install."""

from __future__ import annotations

from importlib import import_module

__all__ = ["require"]


def require(module: str, *, extra: str) -> None:
    """Import an optional dependency.

    Args:
        module: The module that is needed.
        extra: The extra that brings it.

    Raises:
        ImportError: It is missing; the message is the command that installs it.
    """
    try:
        import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise  # it is there, and broken
        raise ImportError(f'{module!r} is missing: pip install "cancelable-suite[{extra}]"', name=module) from error
