"""The project's settings, ``CANCELABLE = {"MAX_WAIT_SECONDS": 10, …}``, and what is built from them."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, cast

import anyio
from asgiref.sync import AsyncToSync, SyncToAsync, ThreadSensitiveContext, sync_to_async
from django.conf import settings as django_settings
from django.core.signals import setting_changed
from django.db import close_old_connections, connections

from cancelable_core import ConfigurationError, ThreadSafeRegistry
from cancelable_core.http_api import Settings
from cancelable_core.servers import WebApplication

from ._asking import runs_on_lasting_loop, submitting_principal_id

__all__ = ["get_application", "interrupts_queries", "read_settings", "registry"]

SETTING = "CANCELABLE"

_INTERRUPT_QUERIES = "interrupt_queries"
"""Django's only: elsewhere the application has the engine in its hands."""

_lock = threading.Lock()
_application: WebApplication | None = None


def read_settings() -> Settings:
    """The project's settings.

    Raises:
        ConfigurationError: A key is unknown or has a value that cannot work.
    """
    interrupts_queries()
    mapping = {key: value for key, value in _written().items() if str(key).lower() != _INTERRUPT_QUERIES}
    if any(key.lower() == "url_prefix" for key in mapping):
        text = f"{SETTING}['URL_PREFIX'] has no effect: urls.py says where the routes lie"
        raise ConfigurationError(text, setting="url_prefix")
    return Settings.from_mapping(mapping, spelled=lambda key: f"{SETTING}['{key.upper()}']")


def interrupts_queries() -> bool:
    """Whether a cancel interrupts database queries: ``CANCELABLE = {"INTERRUPT_QUERIES": True}``.

    Raises:
        ConfigurationError: It is neither True nor False, or given twice.
    """
    values = [value for key, value in _written().items() if str(key).lower() == _INTERRUPT_QUERIES]
    if len(values) > 1 or any(not isinstance(value, bool) for value in values):
        text = f"{SETTING}['{_INTERRUPT_QUERIES.upper()}'] must be True or False, once, not {values[-1]!r}"
        raise ConfigurationError(text, setting=_INTERRUPT_QUERIES)
    return values == [True]


def _written() -> Mapping[str, Any]:
    written: object = getattr(django_settings, SETTING, {})
    if not isinstance(written, Mapping):
        raise ConfigurationError(f"{SETTING} must be a dictionary", setting=SETTING)
    return cast("Mapping[str, Any]", written)


def get_application() -> WebApplication:
    """What is built from the settings, once; anew after a test has overridden them."""
    global _application
    if _application is None:
        with _lock:
            if _application is None:
                _application = _build()
    return _application


def registry() -> ThreadSafeRegistry:
    """The registry that the routes show."""
    return get_application().registry


def _build() -> WebApplication:
    settings = read_settings()
    return WebApplication(
        settings,
        asker=lambda: submitting_principal_id(settings),
        job_context=_fresh_connections,
        async_job_context=_afresh_connections,
        keeps_variable=lambda variable: variable is not SyncToAsync.thread_sensitive_context,
        use_running_loop=runs_on_lasting_loop,
    )


@contextmanager
def _fresh_connections() -> Generator[None]:
    """Database connections as a request has them: none too old at the start, none kept longer than allowed at the end."""
    close_old_connections()
    try:
        yield
    finally:
        close_old_connections()


@asynccontextmanager
async def _afresh_connections() -> AsyncGenerator[None]:
    """The same in a task, whose plain code gets a thread of its own, as a request's does under ASGI.

    The submitting request's thread, which the context still names, is gone by then, or its end would wait for the job.
    """
    AsyncToSync.executors.current = None
    async with ThreadSensitiveContext():
        try:
            yield
        finally:
            with anyio.CancelScope(shield=True):  # of all places here, where a cancel ends the job
                await sync_to_async(connections.close_all)()  # nobody could use them again: the thread ends, too


def _forget(*, setting: str, **_: Any) -> None:
    global _application
    if setting == SETTING:
        before, _application = _application, None
        if before is not None:
            before.jobs.close()


setting_changed.connect(_forget)
