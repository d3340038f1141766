"""Django is configured once per process; each test then serves views of its own. ASGI means asyncio: Django knows no other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from django.urls import clear_script_prefix, set_urlconf

from tests.django_project import close_connections, configure, user

configure()

from .helpers import Answer, Running, ask_asgi, ask_async_client, ask_client  # noqa: E402


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """Django's ASGI handler and asgiref know asyncio only."""
    return "asyncio"


@pytest.fixture(autouse=True)
def connections_are_closed() -> Iterator[None]:
    """Clients, other than servers, leave database connections open."""
    yield
    close_connections()


@pytest.fixture(autouse=True)
def handlers_leave_no_trace() -> Iterator[None]:
    """Django's handlers leave the last request's mount prefix and URLconf in the thread; the next request replaces them."""
    yield
    clear_script_prefix()
    set_urlconf(None)


@pytest.fixture
def alice() -> Any:
    return user("alice")


@pytest.fixture
def bob() -> Any:
    return user("bob")


@pytest.fixture
def admin() -> Any:
    return user("admin", is_staff=True)


@pytest.fixture(
    params=[
        pytest.param(ask_client, id="client"),
        pytest.param(ask_async_client, id="async client"),
        pytest.param(ask_asgi, id="asgi"),
    ]
)
def ask(request: pytest.FixtureRequest) -> Callable[..., Running[Answer]]:
    """Ask for a path under WSGI or ASGI, in a thread of its own."""
    return partial(Running, request.param)
