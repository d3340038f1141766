"""What a ``gunicorn.conf.py`` needs. This form, which imports late, is right for gevent workers, too."""


def post_worker_init(worker: object) -> None:
    from cancelable_core.servers import gunicorn

    gunicorn.post_worker_init(worker)
