"""Which part of the core stands on which. A module may import from its own layer and from those below it."""

from __future__ import annotations

LAYERS: tuple[frozenset[str], ...] = (
    # values
    frozenset({"callables", "ending", "errors", "extras", "forks", "identifiers", "instances", "models", "verdicts"}),
    # state
    frozenset({"flags", "names", "store", "timer_thread", "token", "waiters", "wakeup"}),
    frozenset(
        {
            "bridges",
            "decorator",
            "operation",
            "progress",
            "regions",
            "scopes",
            "shielding",
            "sources",
            "streams",
            "threads",
        }
    )
    | {"interrupters"},  # stand on operations, whose methods hand over to them when they are called
    frozenset({"jobs", "registry", "transports"}),
    # cancelable_core/__init__.py: the public names of all of the above
    frozenset({""}),
    # decided once, as plain values
    frozenset({"http_api"}),
    frozenset({"servers"}),
    # for the users' tests: may use everything
    frozenset({"testing"}),
)
"""From the ground up, by the first part of the name below ``cancelable_core``."""


def layer(module: str) -> int | None:
    """The height of a module of the core; None when it has no place yet."""
    part = module.partition(".")[2].partition(".")[0]
    return next((height for height, parts in enumerate(LAYERS) if part in parts), None)
