"""What a ``gunicorn.conf.py`` needs."""

from cancelable_core.servers.gunicorn import post_worker_init as post_worker_init
