"""Cross-site requests change nothing, whatever the framework."""

from __future__ import annotations

import pytest

from .clients import AdapterClient
from .clients.base import HOST
from .differences import DIFFERENCES
from .everywhere import same_everywhere

TRUSTED = "https://app.example.com"
BAD_HOST = DIFFERENCES["an impossible host"]

ALLOWED = [
    {},
    {"Sec-Fetch-Site": "same-origin"},
    {"Sec-Fetch-Site": "none"},
    {"Sec-Fetch-Site": "cross-site", "Origin": TRUSTED},
    {"Origin": TRUSTED},
    {"Origin": f"http://{HOST}"},
    {"Origin": f"https://{HOST}"},
    {"Origin": f"http://{HOST}:80"},
    {"Origin": f"http://{HOST}:8000", "Host": f"{HOST}:8000"},
    {"Origin": "https://evil.example", "Authorization": "Bearer abc"},
    {"Sec-Fetch-Site": "same-origin", "Authorization": "Basic YTpi"},
]

REFUSED = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": ""},
    {"Sec-Fetch-Site": "cross-site", "Origin": "null"},
    {"Sec-Fetch-Site": "same-site", "Origin": f"http://{HOST}"},
    {"Origin": "null"},
    {"Origin": ""},
    {"Origin": "https://evil.example"},
    {"Origin": f"https://{HOST}.evil.example"},
    {"Origin": f"http://{HOST}:8000"},
    {"Origin": f"http://{HOST}", "Host": f"{HOST}:8000"},
    {"Origin": "https://evil.example", "Authorization": "Basic YTpi"},
    {"Origin": "https://evil.example", "Authorization": "Negotiate YTpi"},
    {"Origin": "https://evil.example", "Cookie": "session=1"},
    {"Origin": "https://evil.example", "X-Forwarded-Host": "evil.example"},
]


@pytest.mark.parametrize("path", ["/jobs/cancel-all", "/jobs/mine/cancel"])
@pytest.mark.parametrize("headers", ALLOWED, ids=str)
@same_everywhere(trusted_origins=[TRUSTED])
def test_allowed(client: AdapterClient, headers: dict[str, str], path: str) -> None:
    client.seed("mine", owner="alice")
    body = {"all": True} if path.endswith("all") else None
    assert client.post(path, body, headers=headers.items(), user="alice").status == 202


@pytest.mark.parametrize("path", ["/jobs/cancel-all", "/jobs/mine/cancel"])
@pytest.mark.parametrize("headers", REFUSED, ids=str)
@same_everywhere(trusted_origins=[TRUSTED])
def test_refused(client: AdapterClient, headers: dict[str, str], path: str) -> None:
    operation = client.seed("mine", owner="alice")
    answer = client.post(path, {"all": True}, headers=headers.items(), user="alice")
    assert (answer.status, answer.code) == (403, "cross-origin")
    assert not operation.token.is_cancelled


@pytest.mark.parametrize("repeated", [("same-origin", "cross-site"), ("cross-site", "same-origin"), ("none", "none")])
@same_everywhere
def test_a_repeated_header_is_no_proof(client: AdapterClient, repeated: tuple[str, str]) -> None:
    headers = [("Sec-Fetch-Site", value) for value in repeated]
    assert client.post("/jobs/cancel-all", {"all": True}, headers=headers, user="alice").code == "cross-origin"


@same_everywhere
def test_reading_needs_no_check(client: AdapterClient) -> None:
    headers = {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}
    assert client.get("/jobs/", headers=headers.items(), user="alice").status == 200


@pytest.mark.parametrize("host", ["", "evil host", "evil.example/", "[", "a,b", "ä", "evil.example:x"])
@same_everywhere(apart=BAD_HOST.adapters)
def test_an_impossible_host_is_nobodys_own(client: AdapterClient, host: str) -> None:
    headers = {"Host": host, "Origin": f"http://{host}"}
    answer = client.post("/jobs/cancel-all", {"all": True}, headers=headers.items(), user="alice")
    if client.name in BAD_HOST.adapters:
        assert answer.status in BAD_HOST.statuses
    else:
        assert answer.status in (202, 400, 403)


FORM = "application/x-www-form-urlencoded"
EVIL = "https://evil.example"

CHROMIUM = {
    "a form": {
        "Content-Type": FORM,
        "Origin": EVIL,
        "Referer": f"{EVIL}/",
        "Sec-Fetch-Site": "cross-site",
        "Sec-Fetch-Mode": "navigate",
        "Sec-Fetch-User": "?1",
        "Sec-Fetch-Dest": "document",
        "Upgrade-Insecure-Requests": "1",
    },
    "a form in a sandboxed frame": {
        "Content-Type": FORM,
        "Origin": "null",
        "Sec-Fetch-Site": "cross-site",
        "Sec-Fetch-Mode": "navigate",
        "Sec-Fetch-Dest": "iframe",
    },
    "a form on a page that came without TLS": {
        "Content-Type": FORM,
        "Origin": "http://evil.example",
        "Referer": "http://evil.example/",
        "Upgrade-Insecure-Requests": "1",
    },
    "a form of another host of the same site": {
        "Content-Type": FORM,
        "Origin": f"https://shop.{HOST}",
        "Sec-Fetch-Site": "same-site",
        "Sec-Fetch-Mode": "navigate",
        "Sec-Fetch-Dest": "document",
    },
    "fetch without CORS": {
        "Content-Type": "text/plain;charset=UTF-8",
        "Origin": EVIL,
        "Referer": f"{EVIL}/",
        "Sec-Fetch-Site": "cross-site",
        "Sec-Fetch-Mode": "no-cors",
        "Sec-Fetch-Dest": "empty",
    },
    "fetch with CORS": {
        "Content-Type": FORM,
        "Origin": EVIL,
        "Sec-Fetch-Site": "cross-site",
        "Sec-Fetch-Mode": "cors",
        "Sec-Fetch-Dest": "empty",
    },
    "sendBeacon": {
        "Content-Type": FORM,
        "Origin": EVIL,
        "Sec-Fetch-Site": "cross-site",
        "Sec-Fetch-Mode": "no-cors",
        "Sec-Fetch-Dest": "empty",
    },
}
"""What Chromium sends from a page of another origin, by what the page does."""


@pytest.mark.parametrize("path", ["/jobs/cancel-all", "/jobs/mine/cancel"])
@pytest.mark.parametrize("headers", CHROMIUM.values(), ids=CHROMIUM)
@same_everywhere
def test_another_page_of_chromium_changes_nothing(client: AdapterClient, headers: dict[str, str], path: str) -> None:
    operation = client.seed("mine", owner="alice")
    answer = client.post(path, body=b"all=true", headers=headers.items(), user="alice")
    assert (answer.status, answer.code) == (403, "cross-origin")
    assert not operation.token.is_cancelled


@pytest.mark.parametrize("path", ["/jobs/cancel-all", "/jobs/mine/cancel"])
@same_everywhere
def test_nobody_is_promised_cors(client: AdapterClient, path: str) -> None:
    headers = {
        "Origin": EVIL,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type",
        "Sec-Fetch-Site": "cross-site",
        "Sec-Fetch-Mode": "cors",
        "Sec-Fetch-Dest": "empty",
    }
    answer = client.request("OPTIONS", path, headers=headers.items())
    assert answer.status == 204
    assert not [name for name, _ in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize("mode", ["navigate", "cors"])
@same_everywhere
def test_its_own_page_in_chromium_may(client: AdapterClient, mode: str) -> None:
    client.seed("mine", owner="alice")
    headers = {
        "Content-Type": FORM,
        "Origin": f"https://{HOST}",
        "Referer": f"https://{HOST}/",
        "Sec-Fetch-Site": "same-origin",
        "Sec-Fetch-Mode": mode,
        "Sec-Fetch-Dest": "document" if mode == "navigate" else "empty",
    }
    assert client.post("/jobs/mine/cancel", body=b"message=enough", headers=headers.items(), user="alice").status == 202
