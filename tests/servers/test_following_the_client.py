"""When a request ends with its client: what the setting and the route say, whatever the server is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import pytest

from cancelable_core import Cancelable, CancelationReason, OperationCancelled, OperationStatus, OperationStore
from cancelable_core.servers import RequestOperation, ViewOptions, cancelable_view, view_options

Setting = Literal["scoped", "all", "never"]


class Client:
    """A client that leaves when a test says so."""

    def __init__(self) -> None:
        self.is_watched = False
        self._tell: Callable[[], object] = lambda: None

    def start(self, client_has_gone: Callable[[], object]) -> None:
        self.is_watched = True
        self._tell = client_has_gone

    def stop(self) -> None:
        self.is_watched = False
        self._tell = lambda: None

    def leave(self) -> None:
        self._tell()


@pytest.fixture
def client() -> Client:
    return Client()


@pytest.fixture
def begun(client: Client) -> Iterator[Callable[[Setting], RequestOperation]]:
    """Begins a request, which the test or this fixture ends."""
    requests: list[RequestOperation] = []

    def begin(setting: Setting) -> RequestOperation:
        request = RequestOperation("GET", lambda: "/x", store=OperationStore(), client=client, cancel_on_disconnect=setting)
        requests.append(request)
        request.begin()
        return request

    yield begin
    for request in requests:
        request.end()


Begun = Callable[[Setting], RequestOperation]


def test_a_request_that_nobody_asked_for_is_not_watched(begun: Begun, client: Client) -> None:
    begun("scoped")
    assert not client.is_watched


def test_every_request_is_watched_where_the_application_says_so(begun: Begun, client: Client) -> None:
    begun("all")
    assert client.is_watched


def test_a_request_is_watched_from_the_moment_its_route_makes_use_of_it(begun: Begun, client: Client) -> None:
    begun("scoped").note_use()
    assert client.is_watched


def test_a_request_is_watched_once_an_operation_is_opened_inside(begun: Begun, client: Client) -> None:
    request = begun("scoped")
    with Cancelable("inner", registry=OperationStore()):
        assert client.is_watched
    assert request.is_scoped


def test_an_application_that_never_follows_its_clients_watches_none(begun: Begun, client: Client) -> None:
    begun("never").note_use()
    assert not client.is_watched


@pytest.mark.parametrize("setting", ["scoped", "all", "never"])
@pytest.mark.parametrize("wanted", [True, False])
def test_a_route_decides_for_itself_whatever_the_application_says(
    begun: Begun, client: Client, setting: Setting, wanted: bool
) -> None:
    request = begun(setting)
    request.adopt(ViewOptions(cancel_on_disconnect=wanted))
    request.note_use()
    assert client.is_watched is wanted


def test_a_client_that_leaves_cancels_its_request(begun: Begun, client: Client) -> None:
    request = begun("all")
    client.leave()
    with pytest.raises(OperationCancelled) as raised:
        request.check()
    assert (raised.value.reason, raised.value.origin) == (CancelationReason.DISCONNECT, "client")


def test_a_request_that_has_ended_is_not_watched_any_more(begun: Begun, client: Client) -> None:
    request = begun("all")
    request.end()
    assert not client.is_watched
    request.note_use()
    assert not client.is_watched
    assert request.status is OperationStatus.COMPLETED


def test_the_mark_carries_the_choice() -> None:
    @cancelable_view(cancel_on_disconnect=False)
    def view() -> None: ...

    options = view_options(view)
    assert options is not None
    assert options.cancel_on_disconnect is False
