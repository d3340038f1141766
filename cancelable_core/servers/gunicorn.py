"""For ``gunicorn.conf.py``: ``from cancelable_core.servers.gunicorn import post_worker_init``."""

from __future__ import annotations

from .shutdown import install_shutdown_hook

__all__ = ["post_worker_init"]


def post_worker_init(worker: object) -> None:
    """Install the shutdown hook in a worker that has loaded its application.

    Of gunicorn's hooks this is the one: its own handlers are in place by then, in the process that serves, with ``--preload``
    too. The hooks for the end come only after the requests did.
    """
    install_shutdown_hook()
