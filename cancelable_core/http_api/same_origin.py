"""Whether an unsafe request comes from the application's own pages, judged by what browsers say about themselves."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    from .exchange import EndpointRequest

__all__ = ["comes_from_same_origin"]

_DEFAULT_PORTS = (":80", ":443")

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?")
"""What a host can be. Some frameworks believe whatever the client wrote, and then it proves nothing."""


def comes_from_same_origin(request: EndpointRequest, trusted_origins: Collection[str]) -> bool:
    """Whether the request may change something.

    ``Sec-Fetch-Site`` decides where it is sent (Fetch Metadata, W3C), else ``Origin`` (RFC 6454). A request without either is
    no browser's. A bearer token proves intent, since no browser sends one by itself; Basic and Negotiate prove nothing.
    """
    headers = request.headers
    if headers.get("authorization", "").lower().startswith("bearer "):
        return True
    origin = headers.get("origin")
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none") or origin in trusted_origins
    return origin is None or origin in trusted_origins or _is_own(origin, request.origin)


def _is_own(origin: str, own: str | None) -> bool:
    """Compare hosts with their ports. The scheme is left out: behind a TLS proxy the framework often believes ``http``."""
    scheme, separator, host = origin.partition("://")
    own_host = _host((own or "").rpartition("://")[2])
    return bool(scheme and separator) and _HOST.fullmatch(own_host) is not None and _host(host) == own_host


def _host(text: str) -> str:
    host = text.lower()
    for port in _DEFAULT_PORTS:
        host = host.removesuffix(port)
    return host
