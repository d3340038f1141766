"""An adapter for `requests.Session` whose requests end with the operation that makes them."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from .urllib3 import instrument

if TYPE_CHECKING:
    import requests.adapters

__all__ = ["interruptible_adapter"]


def interruptible_adapter(**options: Any) -> requests.adapters.HTTPAdapter:
    """An adapter to mount once on a session, which may be shared by threads and operations as before::

        session = requests.Session()
        session.mount("https://", interruptible_adapter())
        session.mount("http://", interruptible_adapter())

    A cancel of the operation that is current where a request is made ends its waiting in every phase: while it connects, shakes
    hands, sends, waits for the answer, or reads the body. The connection is discarded, also a reused one; the pool goes on.

    Args:
        options: What `requests.adapters.HTTPAdapter` takes.

    Raises:
        OperationCancelled: From the request, instead of an error of requests'; a timeout's is an `OperationTimedOut` once it
            leaves the operation, see `instrument`.
    """
    return _adapter_class()(**options)


@cache
def _adapter_class() -> type[requests.adapters.HTTPAdapter]:
    import requests.adapters

    class InterruptibleAdapter(requests.adapters.HTTPAdapter):
        def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
            super().init_poolmanager(*args, **kwargs)
            instrument(self.poolmanager)

        def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
            if proxy in self.proxy_manager:
                return self.proxy_manager[proxy]
            return instrument(super().proxy_manager_for(proxy, **kwargs))

    return InterruptibleAdapter
