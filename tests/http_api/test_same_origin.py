"""Cross-site requests change nothing."""

from __future__ import annotations

import pytest

from .world import NOBODY, World

TRUSTED = ("https://app.example.com",)


def status(headers: dict[str, str], *, origin: str | None = "shop.example.com", path: str = "/cancel-all") -> int:
    world = World(trusted_origins=TRUSTED)
    return world.post(path, {"all": True}, headers=headers, origin=origin).status


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"sec-fetch-site": "same-origin"},
        {"sec-fetch-site": "none"},
        {"sec-fetch-site": "same-origin", "origin": "https://evil.example"},
        {"sec-fetch-site": "same-origin", "origin": "null"},
        {"sec-fetch-site": "cross-site", "origin": "https://app.example.com"},
        {"sec-fetch-site": "same-site", "origin": "https://app.example.com"},
        {"origin": "https://app.example.com"},
        {"origin": "https://shop.example.com"},
        {"origin": "http://shop.example.com"},
        {"origin": "https://SHOP.example.com"},
        {"origin": "https://evil.example", "authorization": "Bearer abc"},
        {"sec-fetch-site": "cross-site", "authorization": "bearer abc"},
    ],
)
def test_allowed(headers: dict[str, str]) -> None:
    assert status(headers) == 202


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "same-site", "origin": "https://shop.example.com"},
        {"sec-fetch-site": ""},
        {"sec-fetch-site": "Same-Origin"},
        {"sec-fetch-site": "same-origin, cross-site"},
        {"sec-fetch-site": "cross-site", "origin": "null"},
        {"origin": "null"},
        {"origin": ""},
        {"origin": "shop.example.com"},
        {"origin": "https://evil.example"},
        {"origin": "https://shop.example.com.evil.example"},
        {"origin": "https://shop.example.com:8443"},
        {"origin": "https://app.example.com.evil.example"},
        {"origin": "https://app.example.com, https://shop.example.com"},
        {"origin": "http://app.example.com"},
        {"origin": "https://evil.example", "authorization": "Basic YTpi"},
        {"origin": "https://evil.example", "authorization": "Negotiate YTpi"},
        {"origin": "https://evil.example", "authorization": "Bearer"},
    ],
)
@pytest.mark.parametrize("path", ["/cancel-all", "/42/cancel"])
def test_refused(headers: dict[str, str], path: str) -> None:
    assert status(headers, path=path) == 403


@pytest.mark.parametrize(
    ("own", "origin", "expected"),
    [
        ("https://shop.example.com", "https://shop.example.com", 202),
        ("http://shop.example.com", "https://shop.example.com", 202),
        ("shop.example.com:443", "https://shop.example.com", 202),
        ("shop.example.com:80", "http://shop.example.com", 202),
        ("shop.example.com:8000", "http://shop.example.com:8000", 202),
        ("[::1]:8000", "http://[::1]:8000", 202),
        ("shop.example.com:8000", "http://shop.example.com", 403),
        ("shop.example.com", "http://shop.example.com:8080", 403),
        ("", "https://shop.example.com", 403),
        (None, "https://shop.example.com", 403),
        (None, "https://", 403),
        ("", "://", 403),
        *(
            (f"http://{host}", f"http://{host}", 403)
            for host in ("[", "a,b", "evil host", "evil.example/", "ä", "a:x", "a:b@c")
        ),
    ],
)
def test_the_host_must_be_the_applications_own(own: str | None, origin: str, expected: int) -> None:
    assert status({"origin": origin}, origin=own) == expected


def test_reading_needs_no_check(world: World) -> None:
    assert world.get("/", headers={"sec-fetch-site": "cross-site", "origin": "https://evil.example"}).status == 200


def test_the_refusal_says_what_to_set(world: World) -> None:
    answer = world.post("/cancel-all", headers={"origin": "https://evil.example"}, principal=NOBODY)
    assert answer.json["type"] == "urn:cancelable:cross-origin"
    assert "`trusted_origins`" in answer.json["detail"]
