"""Texts in the background: whose they are, how they grow, and what a cancel leaves."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from live_stream.generations import GenerationShelf
from live_stream.visitors import OPERATOR_KEY


def order(client: httpx.Client, **fields: Any) -> str:
    answer = client.post("/generations", json={"prompt": "The class", **fields})
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"/generations/{answer.json()['id']}"
    return str(answer.json()["id"])


def test_a_generation_is_written_to_its_end(site: Any, visitor: httpx.Client) -> None:
    job_id = order(visitor, max_pieces=20)
    site.becomes(lambda: visitor.get(f"/generations/{job_id}").json()["status"] == "completed")
    generation = visitor.get(f"/generations/{job_id}").json()
    assert (generation["id"], generation["prompt"], generation["pieces"]) == (job_id, "The class", 20)
    assert generation["words"] > 0
    assert generation["text"].strip()
    progress = visitor.get(f"/jobs/{job_id}").json()["progress"]
    assert progress == {"message": None, "current": 20, "total": 20, "words": generation["words"]}


def test_what_was_written_until_the_cancel_stays(site: Any, visitor: httpx.Client) -> None:
    job_id = order(visitor)
    site.becomes(lambda: visitor.get(f"/generations/{job_id}").json()["pieces"] > 2)
    answer = visitor.post(f"/jobs/{job_id}/cancel", json={"message": "enough", "wait_seconds": 10})
    assert (answer.status_code, answer.json()["operation"]["status"]) == (200, "cancelled")
    generation = visitor.get(f"/generations/{job_id}").json()
    assert (generation["status"], generation["pieces"] > 2) == ("cancelled", True)
    assert visitor.get(f"/generations/{job_id}").json() == generation
    assert visitor.post(f"/jobs/{job_id}/cancel").status_code == 409


def test_a_foreign_generation_is_answered_like_an_unknown_one(visitor: httpx.Client, stranger: httpx.Client) -> None:
    job_id = order(visitor)
    for path in ("/generations/{}", "/jobs/{}"):
        foreign, unknown = stranger.get(path.format(job_id)), stranger.get(path.format("0" * 32))
        assert foreign.status_code == unknown.status_code == 404
        assert foreign.content == unknown.content
    assert stranger.post(f"/jobs/{job_id}/cancel").status_code == 404
    assert stranger.post("/jobs/cancel-all", json={"all": True}).json() == {"requested": 0}
    assert visitor.get(f"/generations/{job_id}").json()["status"] == "running"
    assert visitor.post("/jobs/cancel-all", json={"name": "generation"}).json() == {"requested": 1}


def test_the_operator_sees_and_cancels_everything(visitor: httpx.Client, operator: httpx.Client) -> None:
    job_id = order(visitor)
    assert operator.get(f"/generations/{job_id}").json()["status"] == "running"
    assert operator.get("/jobs/stats", params={"kind": "job"}).json()["running"] >= 1
    answer = operator.post(f"/jobs/{job_id}/cancel", json={"wait_seconds": 10})
    assert answer.json()["operation"]["status"] == "cancelled"


def test_statistics_are_for_the_operator(visitor: httpx.Client) -> None:
    assert visitor.get("/jobs/stats").status_code == 403


@pytest.mark.parametrize("header", ["Bearer wrong", "Bearer", "Basic open", "Bearer \N{LATIN SMALL LETTER U WITH DIAERESIS}"])
def test_a_wrong_key_starts_nothing(operator: httpx.Client, header: str) -> None:
    before = operator.get("/jobs/stats").json()["by_kind"]["job"]
    wrong = {"Authorization": header.encode("latin-1")}
    for answer in (
        operator.post("/generations", json={}, headers=wrong),  # type: ignore[arg-type]
        operator.get(f"/generations/{'0' * 32}", headers=wrong),  # type: ignore[arg-type]
    ):
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert operator.get("/jobs", headers=wrong).status_code == 403  # type: ignore[arg-type]
    assert operator.get("/jobs/stats").json()["by_kind"]["job"] == before


def test_without_a_key_there_is_no_operator(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in (None, ""):
        if key is None:
            monkeypatch.delenv(OPERATOR_KEY, raising=False)
        else:
            monkeypatch.setenv(OPERATOR_KEY, key)
        for header in ("Bearer", "Bearer None"):
            assert site.client(Authorization=header).get("/jobs/stats").status_code == 403


def test_a_page_of_another_site_cannot_cancel(visitor: httpx.Client) -> None:
    job_id = order(visitor)
    answer = visitor.post(f"/jobs/{job_id}/cancel", headers={"Sec-Fetch-Site": "cross-site"})
    assert (answer.status_code, answer.json()["type"]) == (403, "urn:cancelable:cross-origin")
    assert visitor.post(f"/jobs/{job_id}/cancel").status_code == 202


def test_a_visitor_keeps_his_cookie_and_gets_another_for_nonsense(site: Any, visitor: httpx.Client) -> None:
    cookie = visitor.get("/").headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert "set-cookie" not in visitor.get("/").headers
    assert "set-cookie" in site.client(Cookie="visitor=short").get("/").headers


@pytest.mark.parametrize("fields", [{"max_pieces": 0}, {"prompt": "x" * 501}, {"prompt": None}, {"stop": "x" * 101}])
def test_what_cannot_be_is_refused(visitor: httpx.Client, fields: dict[str, Any]) -> None:
    assert visitor.post("/generations", json=fields).status_code == 422


def test_the_shelf_keeps_the_newest() -> None:
    class Job:
        def __init__(self, number: int) -> None:
            self.id = str(number)

    shelf = GenerationShelf()
    for number in range(250):
        shelf.add(object(), Job(number))  # type: ignore[arg-type]
    assert [job.id for _, job in shelf._kept.values()] == [str(number) for number in range(50, 250)]
