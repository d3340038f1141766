"""Owners, staff, and those whom nobody knows."""

from __future__ import annotations

import logging
from urllib.parse import urlencode

import pytest

from .apps.work import gate
from .clients import AdapterClient
from .everywhere import same_everywhere

UNKNOWN = "0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize("submit", ["submit", "asubmit"])
@pytest.mark.parametrize("work", ["stubborn", "async-stubborn"])
@same_everywhere
def test_whoever_submits_owns_it(client: AdapterClient, work: str, submit: str) -> None:
    for user in ("alice", "None", "", None):
        place = f"gate of {user!r}"
        job_id = client.submit(work, "any", user=user, submit=submit, query=urlencode({"gate": place}))
        gate(place).wait_until_reached()
        assert client.get(f"/jobs/{job_id}", user="root").json["owner"] == ("alice" if user == "alice" else None)


@same_everywhere
def test_somebody_elses_operation_is_like_an_unknown_one(client: AdapterClient) -> None:
    client.start("stubborn", "hers", user="alice")
    for user in ("bob", "Alice", " alice ", "alice,alice", "", None):
        asked = user and user.strip()
        for method, path in (("GET", "/jobs/{}"), ("HEAD", "/jobs/{}"), ("POST", "/jobs/{}/cancel")):
            foreign, unknown = (client.request(method, path.format(job_id), user=user) for job_id in ("hers", UNKNOWN))
            if asked != "alice":
                assert foreign == unknown
                assert foreign.status == 404
    assert client.get("/jobs/", user="bob").ids == []
    assert client.get("/jobs/", user="bob", query="owner=alice").ids == []
    assert client.get("/jobs/hers", user="alice").json["status"] == "running"


@same_everywhere
def test_staff_sees_and_cancels_everything(client: AdapterClient) -> None:
    client.start("stubborn", "hers", user="alice")
    client.start("stubborn", "his", user="bob")
    assert client.get("/jobs/", user="root").ids == ["his", "hers"]
    seen = client.get("/jobs/hers", user="root").json
    assert {"host", "pid", "role", "origin"} <= seen.keys()
    assert not {"host", "pid", "role", "origin", "metadata"} & client.get("/jobs/hers", user="alice").json.keys()
    answer = client.post("/jobs/hers/cancel", user="root")
    assert (answer.status, answer.json["operation"]["origin"]) == (202, "http:root")


@same_everywhere
def test_nobody_may_touch_what_nobody_owns_if_he_knows_its_secret_id(client: AdapterClient) -> None:
    secret = client.submit("stubborn", "any")
    gate("any").wait_until_reached()
    client.start("stubborn", "guessable")
    assert client.get("/jobs/guessable").status == 404
    assert client.post("/jobs/guessable/cancel").status == 404
    for user in (None, "bob"):
        assert client.get(f"/jobs/{secret}", user=user).status == 200
        assert client.post(f"/jobs/{secret}/cancel", user=user).status == 202
    assert client.get("/jobs/guessable", user="root").status == 200


@pytest.mark.parametrize(("method", "path"), [("GET", "/jobs/"), ("GET", "/jobs/stats"), ("POST", "/jobs/cancel-all")])
@pytest.mark.parametrize("user", [None, "", "None"])
@same_everywhere
def test_nobody_is_told_what_to_set(client: AdapterClient, method: str, path: str, user: str | None) -> None:
    answer = client.request(method, path, user=user)
    assert (answer.status, answer.code) == (403, "forbidden")
    assert "`principal`" in answer.json["detail"]


@same_everywhere
def test_names_are_more_than_ascii(client: AdapterClient) -> None:
    wire = "Zoë".encode().decode("latin-1")
    client.start("stubborn", "hers", user=wire)
    answer = client.get("/jobs/hers", user=wire)
    assert answer.json["owner"] == wire
    assert client.get("/jobs/hers", user="Zoë").status == 404


@same_everywhere(expose_metadata=True)
def test_metadata_where_the_setting_says_so(client: AdapterClient) -> None:
    client.seed("mine", owner="alice", metadata={"table": "orders", "when": object})
    assert client.get("/jobs/mine", user="alice").json["metadata"] == {"table": "orders", "when": "<class 'object'>"}


@pytest.mark.parametrize("user", ["*", "?????", "[a-z]*", "ali*", "%", ".*"])
@same_everywhere
def test_a_pattern_in_a_users_name_reaches_nobody_elses(client: AdapterClient, user: str) -> None:
    foreign = client.seed("hers", owner="alice", name="user_alice_report")
    client.seed("own", owner=user, name=f"user_{user}_report")
    assert client.get("/jobs/", user=user).ids == ["own"]
    assert client.get("/jobs/", user=user, query=urlencode({"owner": user, "name": "user_*"})).ids == ["own"]
    assert client.get("/jobs/hers", user=user).status == 404
    for body in ({"all": True}, {"name": "*", "all": True}, {"name": "user_*"}, {"owner": "alice"}, {"owner": "*"}):
        client.post("/jobs/cancel-all", body, user=user)
    assert not foreign.token.is_cancelled


@pytest.mark.parametrize("user", ["al\x1b[31mice", "a\x85b", "a\u00adb", "\x9b2J"])
def test_nothing_from_outside_reaches_a_log_unescaped(
    client: AdapterClient, user: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "cancelable_core")
    client.seed("mine", owner=user, name="a\x1b[2Jname\n2026 ERROR forged")
    assert client.post("/jobs/mine/cancel", {"message": "caf\xe9"}, user=user).status == 202
    assert client.post("/jobs/cancel-all", {"name": "a\x1b\n*"}, user=user).status == 202
    view = client.open("GET", "/sync/sleep", user=user)
    gate("view").wait_until_reached()
    (request,) = client.running_requests()
    assert client.post(f"/jobs/{request.id}/cancel", {"message": "caf\xe9"}, user=user).status == 202
    assert view.answer().status == 499
    client.ended(request.id)
    said = [record.getMessage() for record in caplog.records if record.name == "cancelable_core"]
    assert len(said) >= 4
    assert all(line.isascii() and line.isprintable() for line in said), said
