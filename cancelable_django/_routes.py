"""Where a project's URLs lead to our own endpoints, which are no operations."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from django.http import HttpRequest
from django.urls import URLResolver, get_resolver

from . import urls

__all__ = ["is_ours"]


def is_ours(request: HttpRequest) -> bool:
    """Whether our own endpoints are asked for.

    Nearly every request is told apart by the prefixes alone. Where one matches, the resolver decides: a project may have routes
    of its own under it.
    """
    resolver = get_resolver(getattr(request, "urlconf", None))
    path = request.path_info
    return any(_lies_under(mount, path) for mount in _mounts(resolver)) and urls.app_name in resolver.resolve(path).app_names


@lru_cache(maxsize=8)
def _mounts(resolver: URLResolver) -> tuple[tuple[Any, ...], ...]:
    """The patterns that lead to each place where ``cancelable_django.urls`` is included, from the root on."""
    return tuple(_find_mounts(resolver, ()))


def _find_mounts(resolver: URLResolver, above: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    chain = (*above, resolver.pattern)
    if resolver.app_name == urls.app_name:
        yield chain
        return
    for pattern in resolver.url_patterns:
        if isinstance(pattern, URLResolver):
            yield from _find_mounts(pattern, chain)


def _lies_under(mount: tuple[Any, ...], path: str) -> bool:
    for pattern in mount:
        match = pattern.match(path)
        if match is None:
            return False
        path = match[0]
    return True
