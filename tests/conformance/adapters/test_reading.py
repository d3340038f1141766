"""What can be seen: the list, one operation, statistics; and which methods there are."""

from __future__ import annotations

from collections import Counter

import pytest

from .clients import AdapterClient
from .differences import DIFFERENCES
from .everywhere import same_everywhere

UNHEARD_OF = DIFFERENCES["an unheard-of method"]
SLASH = DIFFERENCES["a list without a slash"]

COMMON = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
READING, WRITING = "GET, HEAD, OPTIONS", "POST, OPTIONS"

OPERATION_FIELDS = [
    "id",
    "name",
    "kind",
    "status",
    "owner",
    "parent_id",
    "created_at",
    "started_at",
    "ended_at",
    "duration_seconds",
    "reason",
    "message",
    "progress",
]

EVERY_ENDING = {"quick": "completed", "failing": "failed"}


@same_everywhere
def test_an_empty_list(client: AdapterClient) -> None:
    answer = client.get("/jobs/", user="alice")
    assert (answer.status, answer.body) == (200, b'{"operations":[],"next":null}')
    assert dict(answer.headers) == {"content-type": "application/json", "content-length": "29", **COMMON}


@same_everywhere(apart=SLASH.adapters)
def test_the_list_with_and_without_trailing_slash(client: AdapterClient) -> None:
    client.start("stubborn", "mine", user="alice")
    with_slash, without = (client.get(path, user="alice") for path in ("/jobs/", "/jobs"))
    if client.name in SLASH.adapters:
        assert without.status in SLASH.statuses
    else:
        assert without == with_slash
    assert with_slash.ids == ["mine"]


@pytest.mark.parametrize("submit", ["submit", "asubmit"])
@same_everywhere
def test_jobs_are_listed_newest_first(client: AdapterClient, submit: str) -> None:
    for work in ("stubborn", "async-stubborn"):
        client.start(work, f"{work}-job", user="alice", submit=submit, query="name=export")
    answer = client.get("/jobs/", user="alice")
    assert answer.ids == ["async-stubborn-job", "stubborn-job"]
    (one, other) = answer.json["operations"]
    assert list(one) == OPERATION_FIELDS
    assert {key: one[key] for key in ("name", "kind", "status", "owner", "parent_id", "ended_at", "reason")} == {
        "name": "export",
        "kind": "job",
        "status": "running",
        "owner": "alice",
        "parent_id": None,
        "ended_at": None,
        "reason": None,
    }
    assert client.get("/jobs/stubborn-job", user="alice").json == other


@pytest.mark.parametrize("submit", ["submit", "asubmit"])
@pytest.mark.parametrize("prefix", ["", "async-"])
@pytest.mark.parametrize("ending", EVERY_ENDING)
@same_everywhere
def test_how_a_job_ended(client: AdapterClient, ending: str, prefix: str, submit: str) -> None:
    client.submit(prefix + ending, "mine", user="alice", submit=submit)
    client.ended("mine")
    answer = client.get("/jobs/mine", user="alice")
    assert answer.json["status"] == EVERY_ENDING[ending]
    assert answer.json["duration_seconds"] >= 0


@same_everywhere
def test_filters(client: AdapterClient) -> None:
    client.start("stubborn", "running", user="alice", query="name=export-1")
    client.submit("quick", "ended", user="alice", query="name=export-2")
    client.submit("quick", "other", user="bob", query="name=import")
    client.ended("ended")
    client.ended("other")
    for query, ids in {
        "status=running": {"running"},
        "status=completed": {"ended", "other"},
        "status=completed&status=running": {"running", "ended", "other"},
        "name=export-*": {"running", "ended"},
        "name=export-%3f": {"running", "ended"},
        "name=export-%5B1%5D": {"running"},
        "owner=bob": {"other"},
        "kind=operation": set(),
        "kind=job&name=import": {"other"},
        "name=import+": set(),
    }.items():
        assert set(client.get("/jobs/", user="root", query=query).ids) == ids, query


@same_everywhere
def test_a_thousand_operations_in_pages(client: AdapterClient) -> None:
    for number in range(1_000):
        client.seed(f"op-{number:04}", owner="alice")
    found: list[str] = []
    after = ""
    while after is not None:
        answer = client.get("/jobs/", user="alice", query=f"limit=300{after and f'&after={after}'}")
        found += answer.ids
        after = answer.json["next"]
    assert found == [f"op-{number:04}" for number in reversed(range(1_000))]
    assert len(client.transcript) == 4


@same_everywhere
def test_statistics(client: AdapterClient) -> None:
    client.start("stubborn", "stubborn", user="alice")
    client.start("obedient", "obedient", user="alice")
    for work in EVERY_ENDING:
        client.submit(work, work, user="alice")
        client.ended(work)
    client.post("/jobs/obedient/cancel", {"wait_seconds": 20}, user="alice")
    answer = client.get("/jobs/stats", user="root", query="kind=job")
    counts = Counter({"total": 4, "running": 1, "cancelled": 1, "completed": 1, "failed": 1})
    assert {key: value for key, value in answer.json.items() if isinstance(value, int) and value} == counts
    assert answer.json["by_reason"]["manual"] == 1
    assert answer.json["by_kind"] == {"job": 4, "request": 0, "operation": 0}
    assert client.get("/jobs/stats", user="alice").status == 403


PATHS = {
    "/jobs/": READING,
    "/jobs/stats": READING,
    "/jobs/mine": READING,
    "/jobs/unknown": READING,
    "/jobs/mine/cancel": WRITING,
    "/jobs/cancel-all": WRITING,
}

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE"]


@pytest.mark.parametrize("path", PATHS)
@same_everywhere
def test_options(client: AdapterClient, path: str) -> None:
    answer = client.request("OPTIONS", path)
    assert (answer.status, answer.body, answer["content-length"]) == (204, b"", None)
    assert dict(answer.headers) == {"allow": PATHS[path], **COMMON}


@pytest.mark.parametrize("path", PATHS)
@same_everywhere
def test_every_other_method_is_told_which_there_are(client: AdapterClient, path: str) -> None:
    client.seed("mine", owner="alice")
    for method in METHODS:
        answer = client.request(method, path, user="alice")
        if method not in PATHS[path]:
            assert (answer.status, answer["allow"]) == (405, PATHS[path])
            assert method == "HEAD" or answer.code == "method-not-allowed"
        else:
            assert answer.status != 405


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["QUERY", "PROPFIND", "BREW", "X-ODD.METHOD"])
@same_everywhere(apart=UNHEARD_OF.adapters)
def test_an_unheard_of_method(client: AdapterClient, method: str, path: str) -> None:
    answer = client.request(method, path, user="alice")
    assert answer.status == 405
    if client.name not in UNHEARD_OF.adapters:
        assert (answer["allow"], answer.code) == (PATHS[path], "method-not-allowed")


@pytest.mark.parametrize("path", [path for path in PATHS if PATHS[path] == READING])
@pytest.mark.parametrize("user", ["root", "alice"])
@same_everywhere
def test_head_is_get_without_the_body(client: AdapterClient, path: str, user: str) -> None:
    client.seed("mine", owner="alice")
    by_get, by_head = (client.request(method, path, user=user) for method in ("GET", "HEAD"))
    assert by_head.body == b""
    assert by_head.status == by_get.status
    assert by_head.headers == by_get.headers
    assert by_head["content-length"] == str(len(by_get.body))


@same_everywhere
def test_methods_in_lower_case_are_read_as_frameworks_do(client: AdapterClient) -> None:
    assert client.request("get", "/jobs/", user="alice").status == 200
