"""What endpoints ask for: ``async def search(operation: CurrentOperation, jobs: CurrentJobs)``."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from cancelable_core import Cancelable, OperationRegistry, OwnedJobs
from cancelable_core.servers import REQUEST_KEY, LatentRequest

from .middleware import INSTALLED_KEY, Installed

__all__ = ["CurrentJobs", "CurrentOperation", "CurrentRegistry"]


def _installed(connection: HTTPConnection) -> Installed:
    installed = connection.scope.get(INSTALLED_KEY)
    if not isinstance(installed, Installed):
        raise RuntimeError("cancelable_fastapi is not installed in this application: call install(app)")
    return installed


async def _operation(connection: HTTPConnection) -> Cancelable:
    _installed(connection)
    latent: LatentRequest | None = connection.scope.get(REQUEST_KEY)
    operation = None if latent is None else latent.make()
    if operation is None:
        raise RuntimeError("this connection is no operation: requests and WebSockets are, our own routes excepted")
    operation.note_use()
    return operation


async def _registry(connection: HTTPConnection) -> OperationRegistry:
    return OperationRegistry(_installed(connection).application.registry.transport)


async def _jobs(connection: HTTPConnection) -> OwnedJobs:
    installed = _installed(connection)
    principal = await installed.resolver.resolve(connection)
    return OwnedJobs(installed.application.jobs, principal.id)


CurrentOperation = Annotated[Cancelable, Depends(_operation)]
"""The operation that the request, or the WebSocket, is. Its id goes into the response's ``X-Operation-ID``."""

CurrentRegistry = Annotated[OperationRegistry, Depends(_registry)]
"""The application's operations, to be awaited."""

CurrentJobs = Annotated[OwnedJobs, Depends(_jobs)]
"""The application's jobs; whoever is asking owns what is submitted."""
