"""What one web application holds: its settings, registry, jobs and endpoints. Every adapter keeps one of these."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from contextvars import ContextVar
from typing import Any

from ..http_api import HttpApi, Principal, Settings, canonical_operation_id, is_client_id, registry_of
from ..jobs import JobRunner
from ..models import CancelationReason
from .request_scope import ClientWatch, RequestOperation
from .shutdown import know_application

__all__ = ["WebApplication"]

WAITING_THREADS = 4
"""How many requests may wait at once, unless the application says otherwise, where each holds a thread of the server."""

WAITING_TASKS = 100
"""The same where each holds a task."""


class WebApplication:
    """The parts that an adapter wires into its framework.

    Args:
        settings: What the application chose.
        asker: Says who submits a job, where it is known.
        job_context: Opened around every plain job, in its thread.
        async_job_context: Opened around every async job.
        keeps_variable: Which context variables come along into a job; by default all.
        use_running_loop: See `JobRunner`.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        asker: Callable[[], str | None] | None = None,
        job_context: Callable[[], AbstractContextManager[object]] | None = None,
        async_job_context: Callable[[], AbstractAsyncContextManager[object]] | None = None,
        keeps_variable: Callable[[ContextVar[Any]], bool] | None = None,
        use_running_loop: bool | Callable[[], bool] = True,
    ) -> None:
        self.settings = settings
        self.registry = registry_of(settings)
        self.store = self.registry.store
        self.has_latent_requests = (
            settings.request_timeout_seconds is None
            and settings.cancel_on_disconnect != "all"
            and settings.response_header != "all"
        )
        """Whether requests may wait for somebody to look: time limits, clients and headers wait for nobody."""
        self.wsgi_api = HttpApi(self.registry, settings, default_max_waiting=WAITING_THREADS)
        self.asgi_api = HttpApi(self.registry, settings, default_max_waiting=WAITING_TASKS)
        self.jobs = JobRunner(
            self.registry.store,
            workers=settings.job_workers,
            queue_limit=settings.job_queue_limit,
            context=job_context,
            async_context=async_job_context,
            asker=asker,
            keeps_variable=keeps_variable,
            use_running_loop=use_running_loop,
        )
        know_application(self)

    def client_id(self, header: str | None) -> str | None:
        """The id that a client chose for its request, from the header named `CLIENT_ID_HEADER`.

        Returns:
            None where clients may not choose, or where it is none. Only otherwise need anybody find out who is asking.
        """
        return header if header is not None and self.settings.accept_operation_ids and is_client_id(header) else None

    def new_request(
        self,
        method: str,
        route: Callable[[], str | None],
        *,
        native: object,
        client_id: str | None = None,
        asker: Principal | None = None,
        client: ClientWatch | None = None,
    ) -> RequestOperation:
        """The operation of a request; see `RequestOperation`.

        Args:
            client_id: What `client_id` returned.
            asker: Who chose it.
        """
        chosen = None if client_id is None else canonical_operation_id(asker or Principal(), client_id)
        return RequestOperation(
            method,
            route,
            store=self.store,
            operation_id=chosen,
            timeout_seconds=self.settings.request_timeout_seconds,
            outside_reason=CancelationReason.DISCONNECT,  # servers cancel around an application for little else
            client=client,
            cancel_on_disconnect=self.settings.cancel_on_disconnect,
            native=native,
        )

    def serves(self, path: str) -> bool:
        """Whether a path, below the application's mount point, belongs to our own endpoints, which are no operations."""
        prefix = self.settings.url_prefix
        return path == prefix or path.startswith(prefix + "/")
