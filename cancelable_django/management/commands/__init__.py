"""``manage.py cancelable``."""

__all__: list[str] = []
