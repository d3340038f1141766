"""The management command."""

__all__: list[str] = []
