"""A request's operation around a WSGI application (PEP 3333): it ends when the server closes the response."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .request_scope import RequestOperation

__all__ = ["OPERATION_KEY", "run_wsgi"]

OPERATION_KEY = "cancelable.operation"
"""Where the request's operation stands in the WSGI environ, and in the ASGI scope."""

WsgiApplication = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def run_wsgi(
    application: WsgiApplication,
    environ: dict[str, Any],
    start_response: Callable[..., Any],
    operation: RequestOperation,
    *,
    response_header: str,
) -> Iterable[bytes]:
    """Call an application inside ``operation``, which is found under `OPERATION_KEY` meanwhile.

    Args:
        response_header: The setting: which responses name their operation.

    Returns:
        The response's body. The operation ends when the server calls its ``close()``, as PEP 3333 demands of every server,
        or when it is exhausted or raises.
    """

    def start(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
        operation.response_started()
        present = {name.lower() for name, _ in headers}
        added = operation.response_headers(response_header, int(status[:3]), present)
        return start_response(status, [*headers, *added], *exc_info)

    environ[OPERATION_KEY] = operation
    operation.begin()
    try:
        body = application(environ, start)
    except BaseException as error:
        operation.end(error)
        raise
    return _Body(body, operation)


class _Body:
    """A response's body whose operation ends with it.

    Closed between its first and its last chunk, the client has gone: no server stops reading otherwise.
    """

    __slots__ = ("_body", "_is_under_way", "_items", "_operation")

    def __init__(self, body: Iterable[bytes], operation: RequestOperation) -> None:
        self._body = body
        self._items = iter(body)
        self._operation = operation
        self._is_under_way = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            chunk = next(self._items)
            if self._is_under_way:
                self._operation.check_stream()
            self._is_under_way = True
            return chunk
        except StopIteration:
            self._is_under_way = False
            self._operation.end()
            raise
        except BaseException as error:
            self._is_under_way = False
            self._operation.failed_with(error)
            raise

    def close(self) -> None:
        """Close the application's body, and end the request."""
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        finally:
            if self._is_under_way:
                self._operation.failed_with(GeneratorExit())
            self._operation.end()
