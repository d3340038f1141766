"""All settings of all adapters, in one table."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, Self, TypedDict

from ..errors import ConfigurationError
from ..jobs import default_workers
from ..registry import OperationRegistry, ThreadSafeRegistry
from ..store import default_store
from . import checks
from .policy import AuthorizationPolicy, OwnerOrStaff

if TYPE_CHECKING:
    from ..store import OperationStore
    from ..transports.base import Transport

__all__ = ["Settings", "SettingsOptions", "registry_of"]

_NOT_YET = frozenset(
    {
        "registry_url",
        "registry_namespace",
        "lease_seconds",
    }
)
"""Names that are taken and have no effect in this version. One that gets its effect moves into the table below."""

_USUAL_HISTORY_LIMIT = 1000


def _checked(check: checks.Check) -> dict[str, checks.Check]:
    return {"check": check}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What an application can choose; the same names in every adapter, in its framework's spelling.

    Raises:
        ConfigurationError: For a value that cannot work.
    """

    policy: AuthorizationPolicy = field(default_factory=OwnerOrStaff, metadata=_checked(checks.policy))
    """Decides who may list, see and cancel which operations."""

    principal: Callable[..., Any] | None = field(default=None, metadata=_checked(checks.function))
    """Called with the framework's request, says who is asking: see `as_principal`. None leaves it to the adapter."""

    staff: Callable[[Any], object] | None = field(default=None, metadata=_checked(checks.function))
    """Called with the user, says whether it is staff. None: the user's ``is_staff``."""

    url_prefix: str = field(default="/jobs", metadata=_checked(checks.prefix))
    """The path that the routes lie under, where the adapter chooses it. Everything under it is answered by them."""

    registry: ThreadSafeRegistry | OperationRegistry | OperationStore | Transport | None = field(
        default=None, metadata=_checked(checks.registry)
    )
    """Whose operations to show. None: those of the process's default store."""

    history_limit: int = field(default=_USUAL_HISTORY_LIMIT, metadata=_checked(checks.whole(minimum=0)))
    """How many finished operations of each kind are remembered."""

    request_timeout_seconds: float | None = field(
        default=None, metadata=_checked(checks.seconds(above_minimum=True, unset=True))
    )
    """How long a request may take until its response starts, in seconds. None: as long as it likes."""

    cancel_on_disconnect: Literal["scoped", "all", "never"] = field(
        default="scoped", metadata=_checked(checks.one_of("scoped", "all", "never"))
    )
    """Which requests are cancelled when their client leaves: those whose route asked for its operation, all, or none."""

    response_header: Literal["scoped", "all", "never"] = field(
        default="scoped", metadata=_checked(checks.one_of("scoped", "all", "never"))
    )
    """Which responses name their operation in ``X-Operation-ID``: those whose route asked for it, all, or none."""

    accept_operation_ids: bool = field(default=False, metadata=_checked(checks.flag))
    """Whether clients may choose their request's id, by sending ``X-Operation-ID``; each asker has a namespace of his own."""

    trusted_origins: tuple[str, ...] = field(default=(), metadata=_checked(checks.origins))
    """Other origins whose pages may cancel, such as ``https://app.example.com``; exact, without wildcards."""

    cancelled_status: int = field(default=499, metadata=_checked(checks.whole(minimum=400, maximum=599)))
    """The status of a request that was cancelled for other reasons than a timeout (504) or a shutdown (503)."""

    max_wait_seconds: float = field(default=30.0, metadata=_checked(checks.seconds()))
    """The longest ``wait_seconds`` a client may ask for, in seconds."""

    max_waiting: int | None = field(default=None, metadata=_checked(checks.whole(minimum=0, unset=True)))
    """How many requests of this process may wait for an operation's end at once. None: 4 on WSGI, 100 on ASGI."""

    job_workers: int = field(default_factory=default_workers, metadata=_checked(checks.whole(minimum=1)))
    """How many threads run jobs. By default the number of cores plus four, at most 32."""

    job_queue_limit: int = field(default=1000, metadata=_checked(checks.whole(minimum=0)))
    """How many jobs may be pending; the next one is refused."""

    drain_seconds: float = field(default=0.0, metadata=_checked(checks.seconds()))
    """How long running operations may go on once the process was told to end, in seconds. Pending jobs may not."""

    shutdown_hook: bool = field(default=True, metadata=_checked(checks.flag))
    """Whether the signal that ends the process cancels this application's operations; under ASGI its lifespan sees to it."""

    expose_metadata: bool = field(default=False, metadata=_checked(checks.flag))
    """Whether the operations' ``metadata`` is part of the answers."""

    def __post_init__(self) -> None:
        for key, check in _CHECKS.items():
            object.__setattr__(self, key, _check(check, getattr(self, key), named=key))

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any], *, spelled: Callable[[str], str] = str) -> Self:
        """Read an application's own settings.

        Args:
            mapping: Values by name, in any case: ``max_wait_seconds`` or ``MAX_WAIT_SECONDS``.
            spelled: How the application writes a name, for messages: ``lambda key: f"CANCELABLE_{key.upper()}"``.

        Raises:
            ConfigurationError: For an unknown name, one given twice, one without effect, or a value that cannot work; its
                ``setting`` is the name as in this class.
        """
        values: dict[str, Any] = {}
        for written, value in mapping.items():
            key = str(written).lower()
            _refuse_unknown(key, spelled)
            if key in values:
                raise ConfigurationError(f"{spelled(key)} is given twice, in different cases", setting=key)
            values[key] = _check(_CHECKS[key], value, named=spelled(key), key=key)
        if "history_limit" in values and values.get("registry") is not None:
            raise ConfigurationError(
                f"{spelled('history_limit')} has no effect on {spelled('registry')}, which has a history of its own:"
                " give the limit to its OperationStore",
                setting="history_limit",
            )
        return cls(**values)


class SettingsOptions(TypedDict, total=False):
    """`Settings` as keywords, for functions that pass them on: ``**options: Unpack[SettingsOptions]``.

    Wider where `Settings` makes one form of several.
    """

    policy: AuthorizationPolicy
    principal: Callable[..., Any] | None
    staff: Callable[[Any], object] | None
    url_prefix: str
    registry: ThreadSafeRegistry | OperationRegistry | OperationStore | Transport | None
    history_limit: int
    request_timeout_seconds: float | timedelta | None
    cancel_on_disconnect: Literal["scoped", "all", "never"]
    response_header: Literal["scoped", "all", "never"]
    accept_operation_ids: bool
    trusted_origins: Collection[str]
    cancelled_status: int
    max_wait_seconds: float | timedelta
    max_waiting: int | None
    job_workers: int
    job_queue_limit: int
    drain_seconds: float | timedelta
    shutdown_hook: bool
    expose_metadata: bool


def registry_of(settings: Settings) -> ThreadSafeRegistry:
    """The registry that an application chose, as the face for threads.

    Without a choice it is the process's default store, where operations register unless told otherwise; a ``history_limit``
    that differs from the usual one is then applied to it.
    """
    chosen = settings.registry
    if isinstance(chosen, ThreadSafeRegistry):
        return chosen
    if isinstance(chosen, OperationRegistry):
        return ThreadSafeRegistry(chosen.transport)
    if chosen is None and settings.history_limit != _USUAL_HISTORY_LIMIT:
        default_store().history_limit = settings.history_limit
    return ThreadSafeRegistry(chosen)


_CHECKS: dict[str, checks.Check] = {item.name: item.metadata["check"] for item in fields(Settings)}


def _refuse_unknown(key: str, spelled: Callable[[str], str]) -> None:
    if key in _CHECKS:
        return
    if key in _NOT_YET:
        raise ConfigurationError(f"{spelled(key)} is not available in this version", setting=key)
    nearest = difflib.get_close_matches(key, [*_CHECKS, *sorted(_NOT_YET)], n=1, cutoff=0.0)[0]
    raise ConfigurationError(f"there is no setting {spelled(key)}; the nearest is {spelled(nearest)}", setting=key)


def _check(check: checks.Check, value: object, *, named: str, key: str | None = None) -> Any:
    try:
        return check(value)
    except ValueError as error:
        raise ConfigurationError(f"{named} {error}, not {_shown(value)}", setting=key or named) from None


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}…"
