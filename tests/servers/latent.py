"""Requests of no server, for tests of what requests have in common before anybody looks at them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cancelable_core import OperationStore
from cancelable_core.http_api import Settings
from cancelable_core.servers import ClientWatch, LatentRequest, RequestOperation, WebApplication, WsgiRequest, run_wsgi

__all__ = ["Request", "begun", "made", "wsgi_application"]


class Request(LatentRequest):
    """Named ``GET /x``."""

    __slots__ = ("_client", "_route", "web")

    def __init__(
        self,
        store: OperationStore,
        *,
        client: ClientWatch | None = None,
        route: Callable[[], str] = lambda: "/x",
        **settings: Any,
    ) -> None:
        self.native = object()
        self.web = WebApplication(Settings(registry=store, **settings))
        self._client = client
        self._route = route

    def _create(self, native: Any) -> RequestOperation:
        return self.web.new_request("GET", self._route, native=native, client=self._client)


def begun(store: OperationStore, **options: Any) -> Request:
    """One that has begun here."""
    request = Request(store, **options)
    request.begin(request.web)
    return request


def made(request: LatentRequest) -> RequestOperation:
    """Look at one that is there."""
    operation = request.make()
    assert operation is not None
    return operation


def wsgi_application(
    application: Callable[..., Any], client: ClientWatch | None, *, seen: list[WsgiRequest] | None = None, **settings: Any
) -> Callable[..., Any]:
    """An application whose requests follow this client, and no server's.

    Args:
        seen: Where to put the requests.
    """
    web = WebApplication(Settings(**{"registry": OperationStore(), **settings}))

    def whole(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        request = WsgiRequest(web, environ, start_response, lambda environ: "/route")
        request._client = client  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
        if seen is not None:
            seen.append(request)
        return run_wsgi(application, environ, request)

    return whole
