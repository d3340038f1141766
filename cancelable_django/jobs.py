"""Background jobs: ``jobs.submit(export, table, name="export")`` in a view, ``await jobs.asubmit(…)`` in an async one.

Whoever is logged in owns what he submits. A job has fresh database connections, and keeps none longer than a request would.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar, overload

from django.db import transaction

from cancelable_core import Job
from cancelable_core.callables import refuse_ambiguous_keywords
from cancelable_core.identifiers import new_operation_id

from ._asking import asubmitting_principal_id, submitting_principal_id
from .conf import get_application

__all__ = ["asubmit", "close", "submit", "submit_on_commit"]

R = TypeVar("R")


@overload
def submit(func: Callable[..., Coroutine[Any, Any, R]], /, *args: Any, **kwargs: Any) -> Job[R]: ...
@overload
def submit(func: Callable[..., R], /, *args: Any, **kwargs: Any) -> Job[R]: ...
def submit(func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Job[Any]:
    """Run ``func(*args, **kwargs)`` in the background; see `cancelable_core.JobRunner.submit` for the keywords.

    Inside ``transaction.atomic`` the job may run before the transaction has committed; see `submit_on_commit`.

    Raises:
        RuntimeError: In an async view, without an ``owner``: use `asubmit` there.
    """
    return get_application().jobs.submit(func, *args, **kwargs)


@overload
async def asubmit(func: Callable[..., Coroutine[Any, Any, R]], /, *args: Any, **kwargs: Any) -> Job[R]: ...
@overload
async def asubmit(func: Callable[..., R], /, *args: Any, **kwargs: Any) -> Job[R]: ...
async def asubmit(func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Job[Any]:
    """The same in an async view."""
    application = get_application()
    if "owner" not in kwargs:
        kwargs["owner"] = await asubmitting_principal_id(application.settings)
    return application.jobs.submit(func, *args, **kwargs)


def submit_on_commit(
    func: Callable[..., Any], /, *args: Any, using: str | None = None, job_id: str | None = None, **kwargs: Any
) -> str:
    """Submit when the current transaction has committed; at once without one. Rolled back, there is no job.

    Args:
        func: See `submit`.
        using: The database alias whose transaction is meant.
        job_id: An id of your own.

    Returns:
        The job's id, which is unknown to the routes until then.

    Raises:
        TypeError: ``func`` has a keyword of the same name as one of ours; bind that with `functools.partial`.
        RuntimeError: In an async view. Transactions are for sync code.
    """
    application = get_application()
    job_id = new_operation_id() if job_id is None else job_id
    # now, not when the transaction has committed
    refuse_ambiguous_keywords(
        "submit_on_commit", func, {"job_id": job_id} if using is None else {"job_id": job_id, "using": using}
    )
    if "owner" not in kwargs:
        kwargs["owner"] = submitting_principal_id(application.settings)
    transaction.on_commit(partial(application.jobs.submit, func, *args, job_id=job_id, **kwargs), using=using)
    return job_id


def close(drain_seconds: float = 0) -> None:
    """Accept no more jobs, let the running ones take ``drain_seconds``, then cancel them with reason ``shutdown``."""
    get_application().jobs.close(drain_seconds)
