"""Where a framework cannot give the answer that the others give: the whole list, each with its reason."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["DIFFERENCES", "Difference"]


class Difference(NamedTuple):
    """One difference.

    Attributes:
        adapters: Where the answer is another one.
        statuses: What is answered there.
        reason: Why, and why it stays so.
    """

    adapters: tuple[str, ...]
    statuses: frozenset[int]
    reason: str


DIFFERENCES: dict[str, Difference] = {
    "a list without a slash": Difference(
        ("django_wsgi", "django_asgi"),
        frozenset({404}),
        "`path('jobs/', include(...))` is where Django's resolver looks for the slash; without it nothing of ours is asked. A"
        " project with CommonMiddleware redirects.",
    ),
    "a chunked body": Difference(
        ("django_wsgi",),
        frozenset({411}),
        "Django's WSGIRequest reads as many bytes as Content-Length says, and a chunked body has none.",
    ),
    "an unheard-of method": Difference(
        ("flask", "fastapi"),
        frozenset({405}),
        "Their routers take lists of methods and answer for others themselves; those of RFC 9110 and PATCH are in our lists.",
    ),
    "an impossible host": Difference(
        ("django_wsgi", "django_asgi"),
        frozenset({400}),
        "Django refuses every request whose Host is not in ALLOWED_HOSTS, whatever it asks for.",
    ),
}
