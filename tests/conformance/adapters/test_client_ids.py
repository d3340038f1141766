"""Ids that clients choose for their own requests, with ``accept_operation_ids``."""

from __future__ import annotations

import pytest

from cancelable_core import OperationContext
from cancelable_core.http_api import Principal, canonical_operation_id

from .apps.work import gate
from .clients import AdapterClient, Exchange
from .clients.base import becomes_true
from .conftest import Connect

CHOSEN = "tPz3Yw9xQm-1_kLr7VbNc2"

VIEWS = pytest.mark.parametrize("view", ["/sync/wait-and-finish", "/async/wait-and-finish"])


def _begin(client: AdapterClient, view: str, chosen: str, user: str | None = "alice") -> Exchange:
    exchange = client.open("GET", view, headers=[("X-Operation-ID", chosen)], user=user)
    gate("view").wait_until_reached()
    return exchange


def _only(client: AdapterClient) -> OperationContext:
    (request,) = client.running_requests()
    return request


@VIEWS
def test_a_client_cancels_its_request_before_it_has_any_answer(connect: Connect, view: str) -> None:
    client = connect(accept_operation_ids=True)
    exchange = _begin(client, view, CHOSEN)
    shown = client.get(f"/jobs/{CHOSEN}", user="alice")
    assert (shown.status, shown.json["id"], shown.json["owner"]) == (200, _only(client).id, None)
    assert client.post(f"/jobs/{CHOSEN}/cancel", user="alice").json["outcome"] == "requested"
    assert client.post(f"/jobs/{CHOSEN}/cancel", user="alice").json["outcome"] == "already_requested"
    gate("view").open()
    exchange.answer()


@VIEWS
def test_nobody_else_finds_it_by_the_chosen_id(connect: Connect, view: str) -> None:
    client = connect(accept_operation_ids=True)
    exchange = _begin(client, view, CHOSEN)
    for user in ("bob", "root", "", None):
        assert client.get(f"/jobs/{CHOSEN}", user=user).status == 404
        assert client.post(f"/jobs/{CHOSEN}/cancel", user=user).status == 404
    assert _only(client).cancel_requested_at is None
    gate("view").open()
    assert exchange.answer().text == "finished"


def test_whom_nobody_knows_may_choose_too(connect: Connect) -> None:
    client = connect(accept_operation_ids=True)
    exchange = _begin(client, "/sync/wait-and-finish", CHOSEN, user=None)
    assert client.get(f"/jobs/{CHOSEN}", user="alice").status == 404
    assert client.post(f"/jobs/{CHOSEN}/cancel").status == 202
    gate("view").open()
    exchange.answer()


def test_two_askers_with_one_choice_have_two_requests(connect: Connect) -> None:
    client = connect(accept_operation_ids=True)
    exchanges = [_begin(client, "/sync/wait-and-finish", CHOSEN, user=user) for user in ("alice", "bob")]
    shown = [client.get(f"/jobs/{CHOSEN}", user=user).json["id"] for user in ("alice", "bob")]
    assert shown == [canonical_operation_id(Principal(user), CHOSEN) for user in ("alice", "bob")]
    gate("view").open()
    for exchange in exchanges:
        assert exchange.answer().text == "finished"


def test_a_choice_that_is_taken_gives_way_silently(connect: Connect) -> None:
    client = connect(accept_operation_ids=True)
    first = _begin(client, "/sync/wait-and-finish", CHOSEN)
    id_of_first = _only(client).id
    second = client.open("GET", "/sync/wait-and-finish", headers=[("X-Operation-ID", CHOSEN)], user="alice")
    becomes_true(lambda: len(client.running_requests()) == 2)
    assert client.get(f"/jobs/{CHOSEN}", user="alice").json["id"] == id_of_first
    gate("view").open()
    for exchange in (first, second):
        assert exchange.answer().text == "finished"


def test_what_was_cancelled_keeps_its_id_in_the_history(connect: Connect) -> None:
    client = connect(accept_operation_ids=True)
    exchange = client.open("GET", "/sync/sleep", headers=[("X-Operation-ID", CHOSEN)], user="alice")
    gate("view").wait_until_reached()
    assert client.post(f"/jobs/{CHOSEN}/cancel", user="alice").status == 202
    assert exchange.answer().status == 499
    client.ended(client.get(f"/jobs/{CHOSEN}", user="alice").json["id"])
    assert client.request("GET", "/sync/hello", headers=[("X-Operation-ID", CHOSEN)], user="alice").text == "hello"
    assert client.get(f"/jobs/{CHOSEN}", user="alice").json["status"] == "cancelled"


@pytest.mark.parametrize(
    "chosen", ["short", "x" * 129, "a.b" * 10, "../../../../../../../../etc", "x" * 22 + " y", "\xe4" * 22, ""]
)
def test_another_form_is_as_if_nothing_had_been_chosen(connect: Connect, chosen: str) -> None:
    client = connect(accept_operation_ids=True, response_header="all")
    answer = client.get("/sync/hello", headers=[("X-Operation-ID", chosen)], user="alice")
    assert (answer.status, answer.text) == (200, "hello")
    assert answer["x-operation-id"] not in (None, chosen, canonical_operation_id(Principal("alice"), chosen))


@VIEWS
def test_nobody_chooses_unless_the_setting_says_so(connect: Connect, view: str) -> None:
    client = connect()
    exchange = _begin(client, view, CHOSEN)
    assert _only(client).id != canonical_operation_id(Principal("alice"), CHOSEN)
    assert client.get(f"/jobs/{CHOSEN}", user="alice").status == 404
    gate("view").open()
    assert exchange.answer().text == "finished"


def test_the_answer_names_the_id_that_everybody_knows_it_by(connect: Connect) -> None:
    client = connect(accept_operation_ids=True, response_header="all")
    answer = client.get("/sync/hello", headers=[("X-Operation-ID", CHOSEN)], user="alice")
    assert answer["x-operation-id"] == canonical_operation_id(Principal("alice"), CHOSEN)
