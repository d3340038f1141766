"""Whatever is sent, the answer is a refusal in the same words everywhere, and never an error of the server's."""

from __future__ import annotations

import pytest

from .clients import AdapterClient
from .differences import DIFFERENCES
from .everywhere import same_everywhere

CHUNKED = DIFFERENCES["a chunked body"]

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"

BODY_LIMIT = 65_536
MEBIBYTE = 1_048_576

STRANGE_IDS = {
    "unknown": "unknown",
    "spaces": "%20mine%20",
    "plus": "mi+ne",
    "nul": "mine%00",
    "only nul": "%00",
    "line break": "mine%0A",
    "carriage return": "mine%0D%0ASet-Cookie:%20a=b",
    "slash": "a%2Fb",
    "backslash": "..%5Cmine",
    "encoded dots": "%2E%2E%2Fmine",
    "twice encoded": "mine%2500",
    "not UTF-8": "%FF%FE",
    "overlong": "%C0%AE",
    "300 characters": "a" * 300,
    "5000 characters": "a" * 5_000,
    "Unicode": "%E2%82%AC%F0%9F%98%80",
    "decomposed": "e%CC%81",
    "bidi": "%E2%80%AEenim",
    "percent": "100%25",
    "bare percent": "%zz",
    "query in the path": "mine%3Flimit=1",
    "fragment": "mine%23",
    "semicolon": "mine;a=b",
    "pattern": "*",
    "a word in capitals": "STATS",
    "a reserved word": "health",
    "braces": "%7Boperation_id%7D",
    "markup": "%3Cscript%3E",
    "format": "%25s%25n%7B0%7D",
}


@pytest.mark.parametrize("user", ["alice", "root", None])
@pytest.mark.parametrize("strange", STRANGE_IDS.values(), ids=STRANGE_IDS)
@same_everywhere
def test_an_id_that_cannot_be_is_unknown(client: AdapterClient, strange: str, user: str | None) -> None:
    client.seed("mine", owner="alice")
    for method, path in (("GET", "/jobs/{}"), ("HEAD", "/jobs/{}"), ("POST", "/jobs/{}/cancel")):
        answer = client.request(method, path.format(strange), user=user)
        assert answer.status == 404, answer
        assert method == "HEAD" or answer.code == "not-found"


@pytest.mark.parametrize(
    "path",
    [
        "/jobs/mine/",
        "/jobs/mine/cancel/",
        "/jobs/mine/cancel/x",
        "/jobs/mine/other",
        "/jobs/mine/CANCEL",
        "/jobs//",
        "/jobs//mine",
        "/jobs//cancel",
        "/jobs/mine//cancel",
        "/jobs/stats/",
        "/jobs/cancel-all/",
        "/jobs/stats/cancel/x",
        "/jobs/a/b/c/d/e",
        "/jobs/" + "a/" * 500,
        "/jobs/%2F",
        "/jobs/mine%2Fcancel%2F",
    ],
    ids=lambda path: path[:30],
)
@same_everywhere
def test_a_path_that_leads_nowhere(client: AdapterClient, path: str) -> None:
    client.seed("mine", owner="alice")
    for method in ("GET", "POST"):
        answer = client.request(method, path, user="alice")
        assert (answer.status, answer.code) == (404, "not-found")


@pytest.mark.parametrize("path", ["/jobs/../jobs/mine", "/jobs/./mine", "/jobs/mine/..", "/jobs/mine/../mine/cancel"])
@same_everywhere
def test_dots_are_not_resolved(client: AdapterClient, path: str) -> None:
    client.seed("mine", owner="alice")
    for method in ("GET", "POST"):
        assert client.request(method, path, user="alice").code == "not-found"


# --- bodies

UNREADABLE = {
    "nothing but a brace": b"{",
    "spaces": b"   ",
    "text": b"cancel please",
    "an array": b"[]",
    "a string": b'"message"',
    "null": b"null",
    "NaN": b'{"wait_seconds":NaN}',
    "Infinity": b'{"wait_seconds":Infinity}',
    "minus Infinity": b'{"wait_seconds":-Infinity}',
    "the same key twice": b'{"message":"a","message":"b"}',
    "the same key twice inside": b'{"message":{"a":1,"a":2}}',
    "half a surrogate pair": b'{"message":"\\ud800"}',
    "half a pair as a key": b'{"\\udfff":1}',
    "half a pair in UTF-8": b'{"message":"\xed\xa0\x80"}',
    "60,000 brackets": b"[" * 60_000,
    "60,000 braces": b'{"a":' * 12_000,
    "10,000 digits": b'{"wait_seconds":' + b"9" * 10_000 + b"}",
    "Latin-1": b'{"message":"caf\xe9"}',
    "UTF-16": '{"message":"a"}'.encode("utf-16"),
    "a byte order mark": b'\xef\xbb\xbf{"message":"a"}',
    "a comment": b'{/* */"message":"a"}',
    "single quotes": b"{'message':'a'}",
    "a trailing comma": b'{"message":"a",}',
    "two objects": b"{}{}",
    "a control character": b'{"message":"a\nb"}',
    "an unfinished string": b'{"message":"' + b"\\" * 60_000,
    "NUL": b"\x00",
}

BOTH_WRITING = pytest.mark.parametrize("path", ["/jobs/mine/cancel", "/jobs/cancel-all"])


@BOTH_WRITING
@pytest.mark.parametrize("body", UNREADABLE.values(), ids=UNREADABLE)
@same_everywhere
def test_a_body_that_is_no_json_object(client: AdapterClient, body: bytes, path: str) -> None:
    operation = client.seed("mine", owner="alice")
    answer = client.post(path, body=body, headers=[("Content-Type", JSON)], user="alice")
    assert (answer.status, answer.code) == (400, "malformed")
    assert not operation.token.is_cancelled


@pytest.mark.parametrize(
    "body",
    [b"message=%FF", b"message", b"=&=&message=%ED%A0%80", b"message=\xff", b"a=1&" * 200 + b"a=1", b"message=a&&wait_seconds"],
    ids=lambda body: body[:20],
)
@same_everywhere
def test_a_body_that_is_no_form(client: AdapterClient, body: bytes) -> None:
    operation = client.seed("mine", owner="alice")
    answer = client.post("/jobs/mine/cancel", body=body, headers=[("Content-Type", FORM)], user="alice")
    assert (answer.status, answer.code) == (400, "malformed")
    assert not operation.token.is_cancelled


@BOTH_WRITING
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": ""},
        {"Content-Type": "text/plain"},
        {"Content-Type": "text/plain; application/json"},
        {"Content-Type": "application/jsonx"},
        {"Content-Type": "application/vnd.api+json"},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {"Content-Type": "multipart/form-data"},
        {"Content-Type": "application/json; charset=latin-1"},
        {"Content-Type": "application/json; charset=no-such-thing"},
        {"Content-Type": "application/x-www-form-urlencoded; charset=utf-7"},
        {"Content-Type": JSON, "Content-Encoding": "gzip"},
    ],
    ids=str,
)
@same_everywhere
def test_a_type_that_is_not_taken(client: AdapterClient, headers: dict[str, str], path: str) -> None:
    operation = client.seed("mine", owner="alice")
    answer = client.post(path, body=b'{"all":true}', headers=headers.items(), user="alice")
    assert (answer.status, answer.code) == (415, "unsupported-media-type")
    assert not operation.token.is_cancelled


@pytest.mark.parametrize("content_type", [JSON, FORM, "multipart/form-data; boundary=x", "text/plain", None])
@pytest.mark.parametrize("size", [BODY_LIMIT + 1, MEBIBYTE])
@BOTH_WRITING
@same_everywhere
def test_a_body_that_is_too_large(client: AdapterClient, path: str, size: int, content_type: str | None) -> None:
    operation = client.seed("mine", owner="alice")
    headers = [] if content_type is None else [("Content-Type", content_type)]
    answer = client.post(path, body=b"x" * size, headers=headers, user="alice")
    assert (answer.status, answer.code) == (413, "too-large")
    assert not operation.token.is_cancelled


@same_everywhere
def test_the_largest_body_that_is_taken(client: AdapterClient) -> None:
    client.seed("mine", owner="alice")
    body = b'{"message":"a"'.ljust(BODY_LIMIT - 1) + b"}"
    assert client.post("/jobs/mine/cancel", body=body, headers=[("Content-Type", JSON)], user="alice").status == 202


@same_everywhere(apart=CHUNKED.adapters)
def test_a_chunked_body_that_is_too_large(client: AdapterClient) -> None:
    client.seed("mine", owner="alice")
    answer = client.post("/jobs/mine/cancel", body=b"x" * MEBIBYTE, chunked=True, user="alice")
    assert answer.status in (CHUNKED.statuses if client.name in CHUNKED.adapters else {413})


@same_everywhere(apart=CHUNKED.adapters)
def test_a_chunked_body(client: AdapterClient) -> None:
    operation = client.seed("mine", owner="alice")
    answer = client.post("/jobs/mine/cancel", {"message": "in chunks"}, chunked=True, user="alice")
    if client.name in CHUNKED.adapters:
        assert (answer.status, answer.code) == (411, "length-required")
        assert not operation.token.is_cancelled
    else:
        assert (answer.status, operation.token.message) == (202, "in chunks")


@pytest.mark.parametrize("length", ["999999999999", "9" * 30, "1e9", "-1", "abc", "", "65537"])
@same_everywhere
def test_a_content_length_that_is_wrong(client: AdapterClient, length: str) -> None:
    client.seed("mine", owner="alice")
    answer = client.post("/jobs/mine/cancel", headers=[("Content-Length", length)], user="alice")
    assert answer.status == (413 if length.isdigit() else 202)


@same_everywhere
def test_a_body_on_a_reading_request_is_not_looked_at(client: AdapterClient) -> None:
    client.seed("mine", owner="alice")
    for path in ("/jobs/", "/jobs/mine"):
        for content_type in (JSON, "text/plain", "multipart/form-data; boundary=x"):
            answer = client.get(path, body=b"{[", headers=[("Content-Type", content_type)], user="alice")
            assert answer.status == 200


# --- fields

BAD_FIELDS = [
    ({"wait_seconds": "abc"}, ["wait_seconds"]),
    ({"wait_seconds": "5"}, ["wait_seconds"]),
    ({"wait_seconds": -1}, ["wait_seconds"]),
    ({"wait_seconds": 30.001}, ["wait_seconds"]),
    ({"wait_seconds": 10**90}, ["wait_seconds"]),
    ({"wait_seconds": True}, ["wait_seconds"]),
    ({"wait_seconds": [1]}, ["wait_seconds"]),
    ({"message": 5}, ["message"]),
    ({"message": "x" * 501}, ["message"]),
    ({"message": "a\nb"}, ["message"]),
    ({"message": "a\x00b"}, ["message"]),
    ({"message": "a\u202eb"}, ["message"]),
    ({"message": "a\u2028b"}, ["message"]),
    ({"message": "a\u0085b"}, ["message"]),
    ({"reason": "timeout"}, ["reason"]),
    ({"operation": "other", "timeout": 1}, ["operation", "timeout"]),
    ({"Message": "a"}, ["Message"]),
    ({"": "a"}, [""]),
    ({"wait_seconds": "abc", "message": 1, "more": 1}, ["message", "wait_seconds", "more"]),
    ({f"field{number}": 1 for number in range(30)}, [f"field{number}" for number in range(20)]),
    ({"x" * 1000: 1}, ["x" * 100 + "…"]),
]


@pytest.mark.parametrize(("body", "fields"), BAD_FIELDS, ids=[str(body)[:40] for body, _ in BAD_FIELDS])
@same_everywhere
def test_fields_of_a_cancel(client: AdapterClient, body: dict[str, object], fields: list[str]) -> None:
    operation = client.seed("mine", owner="alice")
    assert client.post("/jobs/mine/cancel", body, user="alice").fields == fields
    assert not operation.token.is_cancelled


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (b"message=a&message=b", ["message"]),
        (b"wait_seconds=1&wait_seconds=1", ["wait_seconds"]),
        (b"wait_seconds=abc", ["wait_seconds"]),
        (b"wait_seconds=NaN", ["wait_seconds"]),
        (b"wait_seconds=-1", ["wait_seconds"]),
        (b"wait_seconds=+1", ["wait_seconds"]),
        (b"wait_seconds=1_0", ["wait_seconds"]),
        (b"wait_seconds=%D9%A1", ["wait_seconds"]),
        (b"message=a%0D%0Ab", ["message"]),
        (b"message=a;wait_seconds=abc&more=", ["more"]),
    ],
)
@same_everywhere
def test_fields_of_a_form(client: AdapterClient, body: bytes, fields: list[str]) -> None:
    operation = client.seed("mine", owner="alice")
    answer = client.post("/jobs/mine/cancel", body=body, headers=[("Content-Type", FORM)], user="alice")
    assert answer.fields == fields
    assert not operation.token.is_cancelled


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({"all": "true"}, ["all"]),
        ({"all": 1}, ["all"]),
        ({"all": True, "kind": "task"}, ["kind"]),
        ({"all": True, "kind": []}, ["kind"]),
        ({"all": True, "kind": {}}, ["kind"]),
        ({"all": True, "status": "completed"}, ["status"]),
        ({"all": True, "message": "no"}, ["message"]),
        ({"name": ""}, ["name", "all"]),
        ({"name": "x" * 501}, ["name", "all"]),
        ({"owner": 7}, ["owner", "all"]),
    ],
    ids=lambda value: str(value)[:40],
)
@same_everywhere
def test_fields_of_cancel_all(client: AdapterClient, body: dict[str, object], fields: list[str]) -> None:
    operation = client.seed("mine", owner="alice")
    assert client.post("/jobs/cancel-all", body, user="alice").fields == fields
    assert not operation.token.is_cancelled


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        (b"limit=-1", ["limit"]),
        (b"limit=0", ["limit"]),
        (b"limit=501", ["limit"]),
        (b"limit=abc", ["limit"]),
        (b"limit=", ["limit"]),
        (b"limit=1.0", ["limit"]),
        (b"limit=%D9%A1", ["limit"]),
        (b"limit=" + b"9" * 5_000, ["limit"]),
        (b"limit=1&limit=2", ["limit"]),
        (b"limit=1" + b"&limit" * 10_000, ["limit"]),
        (b"limit", ["limit"]),
        (b"status=dead", ["status"]),
        (b"status=running&status=dead", ["status"]),
        (b"status=running,pending", ["status"]),
        (b"kind=", ["kind"]),
        (b"name=", ["name"]),
        (b"name=" + b"x" * 501, ["name"]),
        (b"name=a&name=b", ["name"]),
        (b"owner=a&owner=b", ["owner"]),
        (b"after=abc", ["after"]),
        (b"after=" + b"A" * 400, ["after"]),
        (b"after=MTox%0A", ["after"]),
        (b"Limit=1", ["Limit"]),
        (b"page=2&sort=name", ["page", "sort"]),
        (b"%FF=1", ["\ufffd"]),
        (b"=", [""]),
        (b"limit[]=1", ["limit[]"]),
        (b"a;b=1", ["a;b"]),
        (b"limit=x&status=y&kind=z&more", ["status", "kind", "limit", "more"]),
    ],
    ids=lambda value: str(value)[:40],
)
@same_everywhere
def test_fields_of_the_list(client: AdapterClient, query: bytes, fields: list[str]) -> None:
    assert client.get("/jobs/", query=query, user="alice").fields == fields


@pytest.mark.parametrize("path", ["/jobs/mine", "/jobs/unknown"])
@pytest.mark.parametrize("query", ["verbose=1", "limit=1", "=", "id=other"])
@same_everywhere
def test_one_operation_takes_no_query(client: AdapterClient, query: str, path: str) -> None:
    client.seed("mine", owner="alice")
    assert client.get(path, query=query, user="alice").fields == [query.partition("=")[0]]


@BOTH_WRITING
@pytest.mark.parametrize("body", [None, {"all": True}, {"wait_seconds": 1}])
@same_everywhere
def test_a_post_takes_no_query(client: AdapterClient, body: dict[str, object] | None, path: str) -> None:
    operation = client.seed("mine", owner="alice")
    assert "wait_seconds" in client.post(path, body, query="wait_seconds=1&all=true", user="alice").fields
    assert not operation.token.is_cancelled


# --- the order of checks: of all that is wrong, the first is told

WRONG = [
    ("GET", "/jobs/mine/cancel", [], b"", 405),
    ("POST", "/jobs/a/b/c", [("Origin", "null")], b"{", 404),
    ("POST", "/jobs/mine", [("Origin", "null")], b"{", 405),
    ("POST", "/jobs/cancel-all", [("Origin", "null")], b"x" * (BODY_LIMIT + 1), 403),
    ("POST", "/jobs/unknown/cancel", [], b"x" * (BODY_LIMIT + 1), 413),
    ("POST", "/jobs/unknown/cancel", [], b"{", 415),
    ("POST", "/jobs/unknown/cancel", [("Content-Type", JSON)], b"{", 400),
    ("POST", "/jobs/unknown/cancel", [("Content-Type", JSON)], b'{"more":1}', 422),
    ("POST", "/jobs/unknown/cancel", [("Content-Type", JSON)], b"{}", 404),
]


@pytest.mark.parametrize(("method", "path", "headers", "body", "status"), WRONG)
@pytest.mark.parametrize("user", ["alice", "bob", "root", None])
@same_everywhere
def test_the_order_of_checks(
    client: AdapterClient,
    method: str,
    path: str,
    headers: list[tuple[str, str]],
    body: bytes,
    status: int,
    user: str | None,
) -> None:
    client.seed("mine", owner="alice")
    assert client.request(method, path, headers=headers, body=body, user=user).status == status


@pytest.mark.parametrize("body", [b"{", b"x" * (BODY_LIMIT + 1)], ids=["malformed", "too large"])
@same_everywhere
def test_whoever_may_not_is_told_so_before_his_body_is_read(client: AdapterClient, body: bytes) -> None:
    answer = client.post("/jobs/cancel-all", body=body, headers=[("Content-Type", JSON)])
    assert (answer.status, answer.code) == (403, "forbidden")
