"""Drives a WSGI application (PEP 3333) as a threaded server does, a thread for each request."""

from __future__ import annotations

import io
import sys
import threading
from abc import abstractmethod
from collections.abc import Callable, Iterable
from contextvars import copy_context
from functools import partial
from typing import Any
from urllib.parse import unquote_to_bytes

from .base import AdapterClient, Exchange, SentRequest

__all__ = ["WsgiClient"]


class WsgiClient(AdapterClient):
    """Calls a WSGI application."""

    is_asgi = False

    input_terminated = True
    """Whether the server says that the body's end can be read to; gunicorn does."""

    @property
    @abstractmethod
    def application(self) -> Callable[..., Iterable[bytes]]:
        """What a server is pointed to."""

    def _send(self, exchange: Exchange) -> None:
        # with the caller's context, as in-process test clients have it; tasks inherit it anyway
        serve = partial(copy_context().run, self._serve, exchange)
        threading.Thread(target=serve, name="server", daemon=True).start()

    def _serve(self, exchange: Exchange) -> None:
        left = threading.Event()
        exchange.when_left(left.set)
        head: list[Any] = []
        is_complete = False

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], None]:
            assert all(isinstance(part, str) for pair in headers for part in pair), headers
            head[:] = [(int(status[:3]), tuple((name.lower(), value) for name, value in headers))]
            return exchange.post

        def post_head() -> None:
            if head:
                exchange.post(head.pop())

        try:
            body = self.application(self._environ(exchange.sent), start_response)
            try:
                for chunk in body:
                    if left.is_set():
                        break
                    post_head()
                    if chunk:
                        exchange.post(chunk)
                else:
                    is_complete = True
                    post_head()
            finally:
                close = getattr(body, "close", None)
                if close is not None:
                    close()
        except BaseException as error:
            exchange.error = error
        finally:
            exchange.post(is_complete)

    def _environ(self, sent: SentRequest) -> dict[str, Any]:
        environ: dict[str, Any] = {
            "REQUEST_METHOD": sent.method,
            "SCRIPT_NAME": "",
            "PATH_INFO": unquote_to_bytes(sent.path).decode("latin-1"),
            "QUERY_STRING": sent.query.decode("latin-1"),
            "RAW_URI": sent.path,
            "REMOTE_ADDR": "127.0.0.1",
            "SERVER_NAME": "testserver",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(sent.body),
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }
        if self.input_terminated:
            environ["wsgi.input_terminated"] = True
        for name, value in sent.headers:
            key = name.upper().replace("-", "_")
            key = key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"
            environ[key] = f"{environ[key]},{value}" if key in environ else value
        return environ
