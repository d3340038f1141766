"""Reports by HTTP: started, watched, cancelled, fetched, each by whom they belong to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from cancelable_core import OperationStatus
from report_builder import create_app
from report_builder.extensions import cancelable
from report_builder.passes import Compiler

BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


def start(client: FlaskClient, **fields: Any) -> str:
    answer = client.post("/reports", json=fields)
    assert answer.status_code == 202, answer.text
    return str(answer.json["id"])  # type: ignore[index]


def end_of(app: Flask, report_id: str) -> OperationStatus:
    with app.app_context():
        context = cancelable.registry.wait_for(report_id, 10)
    assert context is not None
    return context.status


def test_a_report_reads_all_files_in_all_passes(app: Flask, visitor: FlaskClient) -> None:
    report_id = start(visitor)
    assert end_of(app, report_id) == "completed"
    report = visitor.get(f"/reports/{report_id}").json
    assert report["id"] == report_id
    assert report["status"] == "completed"
    assert report["files"] == 3
    assert report["skipped"] == {}
    assert [one["files_read"] for one in report["passes"].values()] == [3, 3, 3, 3, 3]
    assert report["passes"]["lines"]["findings"]["lines"] == 6
    progress = visitor.get(f"/jobs/{report_id}").json["progress"]
    assert (progress["current"], progress["total"], progress["words_found"]) == (13, 13, report["words_read"])


def test_what_was_found_until_the_cancel_is_kept(app: Flask, visitor: FlaskClient, gate: Path) -> None:
    report_id = start(visitor, passes=["words"])
    with gate.open("wb"):  # opens once the report stands at the second file
        progress = visitor.get(f"/jobs/{report_id}").json["progress"]
        assert progress["message"] == "word index: gate.py"
        assert (progress["current"], progress["total"]) == (1, 4)
        answer = visitor.post(f"/jobs/{report_id}/cancel", json={"message": "enough"})
        assert answer.status_code == 202
        assert visitor.get(f"/reports/{report_id}").json["status"] == "cancelling"
    assert end_of(app, report_id) == "cancelled"
    report = visitor.get(f"/reports/{report_id}").json
    assert report["status"] == "cancelled"
    assert report["passes"]["words"]["files_read"] == 2
    assert report["passes"]["words"]["findings"]["top"][0] == {"word": "apples", "occurrences": 3, "files": 1}
    assert visitor.get(f"/jobs/{report_id}").json["message"] == "enough"


def test_a_cancel_ends_the_command_of_a_pass_and_keeps_what_it_said(
    app: Flask, visitor: FlaskClient, gate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The compiler leaves out what is no regular file, so that another command stands at the gate in its place."""
    command = ["sh", "-c", """echo "Compiling 'first.py'..."; echo "Compiling 'gate.py'..."; cat gate.py; echo never"""]
    monkeypatch.setattr(Compiler, "command", lambda *_: command)
    report_id = start(visitor, passes=["compiler"])
    with gate.open("wb", buffering=0) as writer:  # opens once the command stands there
        assert visitor.get(f"/jobs/{report_id}").json["progress"]["message"] == "compiler: all files"
        answer = visitor.post(f"/jobs/{report_id}/cancel", json={"wait_seconds": 10})
        assert answer.json["operation"]["status"] == "cancelled"
        with pytest.raises(BrokenPipeError):  # nobody reads any more
            writer.write(b"pass\n")
    report = visitor.get(f"/reports/{report_id}").json
    assert report["passes"]["compiler"]["files_read"] == 2


def test_a_file_that_is_no_source_is_left_out_and_named(app: Flask, visitor: FlaskClient, corpus: Path) -> None:
    (corpus / "bad.py").write_text("'''never closed")
    report_id = start(visitor, passes=["lines"])
    assert end_of(app, report_id) == "completed"
    report = visitor.get(f"/reports/{report_id}").json
    assert list(report["skipped"]) == ["bad.py"]
    assert report["passes"]["lines"]["files_read"] == 4


def test_passes_and_pattern_can_be_chosen_by_a_form(app: Flask, visitor: FlaskClient) -> None:
    answer = visitor.post("/reports", data={"pattern": "package/*", "passes": ["lines", "words", "lines"]})
    assert answer.status_code == 202
    report_id = answer.json["id"]  # type: ignore[index]
    assert end_of(app, report_id) == "completed"
    report = visitor.get(f"/reports/{report_id}").json
    assert report["files"] == 2
    assert set(report["passes"]) == {"lines", "words"}


@pytest.mark.parametrize(
    ("fields", "invalid"),
    [
        ({"passes": []}, ["passes"]),
        ({"passes": "words"}, ["passes"]),
        ({"passes": ["nonsense"]}, ["passes"]),
        ({"passes": [["words"]]}, ["passes"]),
        ({"passes": None}, ["passes"]),
        ({"pattern": ""}, ["pattern"]),
        ({"pattern": 7}, ["pattern"]),
        ({"pattern": "*" * 201}, ["pattern"]),
        ({"pattern": "a\x00b"}, ["pattern"]),
        ({"pattern": "../*.py"}, ["pattern"]),
        ({"pattern": "nothing-like-it"}, ["pattern"]),
        ({"patern": "*"}, ["patern"]),
        ({"passes": [], "pattern": ""}, ["passes", "pattern"]),
    ],
)
def test_a_field_that_cannot_be_is_named(visitor: FlaskClient, fields: dict[str, Any], invalid: list[str]) -> None:
    answer = visitor.post("/reports", json=fields)
    assert answer.status_code == 422
    assert sorted(answer.json["errors"]) == invalid  # type: ignore[index]
    assert visitor.get("/jobs").json["operations"] == []


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"{", "application/json", 400),
        (b"[]", "application/json", 400),
        (b"pattern=*", "text/plain", 415),
        (b"pattern=" + b"x" * 20_000, "application/x-www-form-urlencoded", 413),
    ],
)
def test_a_body_that_cannot_be_read_is_refused(visitor: FlaskClient, body: bytes, content_type: str, status: int) -> None:
    answer = visitor.post("/reports", data=body, content_type=content_type)
    assert answer.status_code == status
    assert answer.json["error"]  # type: ignore[index]


def test_a_foreign_report_is_answered_like_an_unknown_one(app: Flask, visitor: FlaskClient, stranger: FlaskClient) -> None:
    report_id = start(visitor)
    stranger.get("/")
    for path in ("/reports/{}", "/jobs/{}"):
        foreign, unknown = stranger.get(path.format(report_id)), stranger.get(path.format("0" * 32))
        assert foreign.status_code == unknown.status_code == 404
        assert foreign.data == unknown.data
    for path in ("/reports/{}/cancel", "/jobs/{}/cancel"):
        assert stranger.post(path.format(report_id)).status_code == 404
    assert end_of(app, report_id) == "completed"


def test_a_report_started_anew_takes_the_place_of_the_one_before(app: Flask, visitor: FlaskClient, gate: Path) -> None:
    before = start(visitor, pattern="*", passes=["words"])
    with gate.open("wb"):
        again = start(visitor, pattern="*", passes=["words"])
        assert visitor.get(f"/jobs/{before}").json["status"] == "cancelling"
        visitor.post(f"/jobs/{again}/cancel")
    assert {end_of(app, before), end_of(app, again)} == {"cancelled"}
    assert visitor.get(f"/jobs/{before}").json["message"] == "started anew"


@pytest.mark.parametrize(("who", "pattern"), [("visitor", "*.py"), ("stranger", "gate*"), ("visitor", "gat?.py")])
def test_it_leaves_reports_about_other_files_and_of_others_alone(
    app: Flask, request: pytest.FixtureRequest, visitor: FlaskClient, gate: Path, who: str, pattern: str
) -> None:
    report_id = start(visitor, pattern="gate*", passes=["words"])
    with gate.open("wb"):
        other = start(request.getfixturevalue(who), pattern=pattern, passes=["lines"])
        assert visitor.get(f"/jobs/{report_id}").json["status"] == "running"
        app.extensions["reports"].get(other).job.cancel_sync()
    assert (end_of(app, report_id), end_of(app, other)) == ("completed", "cancelled")


def test_a_visitor_lists_his_own_reports_only(app: Flask, visitor: FlaskClient, stranger: FlaskClient) -> None:
    mine, others = start(visitor), start(stranger)
    assert [one["id"] for one in visitor.get("/jobs").json["operations"]] == [mine]
    assert visitor.get("/jobs/stats").status_code == 403
    assert {end_of(app, mine), end_of(app, others)} == {"completed"}


def test_the_operator_sees_and_cancels_everything(app: Flask, visitor: FlaskClient, operator: FlaskClient, gate: Path) -> None:
    report_id = start(visitor, passes=["words"])
    with gate.open("wb"):
        assert operator.get(f"/reports/{report_id}").json["status"] == "running"
        assert operator.get("/jobs/stats").json["running"] == 1
        answer = operator.post("/jobs/cancel-all", json={"name": "report *"})
        assert answer.json == {"requested": 1}
    assert end_of(app, report_id) == "cancelled"


@pytest.mark.parametrize("key", ["", "wrong", "Ünsinn"])
def test_a_wrong_key_is_nobodys_whatever_the_cookie_says(app: Flask, visitor: FlaskClient, key: str) -> None:
    report_id = start(visitor)
    headers = {"Authorization": f"Bearer {key}".encode().decode("latin-1")}
    assert visitor.get(f"/reports/{report_id}", headers=headers).status_code == 404
    assert visitor.get("/jobs/stats", headers=headers).status_code == 403
    assert visitor.post("/reports", json={}, headers=headers).status_code == 401
    assert end_of(app, report_id) == "completed"


def test_without_a_key_there_is_no_operator(app: Flask, operator: FlaskClient) -> None:
    app.config["OPERATOR_KEY"] = None
    assert operator.get("/jobs/stats").status_code == 403
    for key in ("", "None"):
        assert app.test_client().get("/jobs/stats", headers={"Authorization": f"Bearer {key}"}).status_code == 403


def test_a_page_of_another_site_cannot_start_or_cancel(app: Flask, visitor: FlaskClient, gate: Path) -> None:
    foreign = {"Sec-Fetch-Site": "cross-site"}
    assert visitor.post("/reports", data={"pattern": "*"}, headers=foreign).status_code == 403
    report_id = start(visitor, passes=["words"])
    with gate.open("wb"):
        for path in (f"/reports/{report_id}/cancel", f"/jobs/{report_id}/cancel"):
            assert visitor.post(path, headers=foreign).status_code == 403
        assert visitor.get(f"/jobs/{report_id}").json["status"] == "running"
    assert end_of(app, report_id) == "completed"


def test_the_oldest_reports_that_have_ended_are_let_go(app: Flask, visitor: FlaskClient) -> None:
    reports = app.extensions["reports"]
    reports._limit = 2
    started = []
    for _ in range(3):
        started.append(start(visitor, pattern="first.py"))
        assert end_of(app, started[-1]) == "completed"
    assert [visitor.get(f"/reports/{one}").status_code for one in started] == [404, 200, 200]


def test_the_page_starts_lists_and_cancels_without_javascript(app: Flask, visitor: FlaskClient, gate: Path) -> None:
    assert "<table" not in visitor.get("/", headers=BROWSER).text
    answer = visitor.post("/reports", data={"pattern": "*", "passes": "words"}, headers=BROWSER)
    assert (answer.status_code, answer.location) == (303, "/")
    with gate.open("wb"):
        page = visitor.get("/", headers=BROWSER).text
        action = page.partition('action="/reports/')[2].partition('"')[0]
        assert action.endswith("/cancel")
        answer = visitor.post(f"/reports/{action}", headers=BROWSER)
        assert (answer.status_code, answer.location) == (303, "/")
    report_id = action.removesuffix("/cancel")
    assert end_of(app, report_id) == "cancelled"
    page = visitor.get("/", headers=BROWSER).text
    assert '<td class="status">cancelled</td>' in page
    assert "/cancel" not in page
    report = visitor.get(f"/reports/{report_id}", headers=BROWSER).text
    assert "<td>apples</td>" in report
    assert "gate.py (" in report


def test_pages_escape_what_comes_from_outside(app: Flask, visitor: FlaskClient, corpus: Path) -> None:
    (corpus / "<b>.py").write_text("'''never closed")
    page = visitor.post("/reports", data={"pattern": '"><script>'}, headers=BROWSER)
    assert page.status_code == 422
    assert "<script>" not in page.text
    assert "matches no file" in page.text
    visitor.post("/reports", data={"pattern": "<b>*"}, headers=BROWSER)
    page = visitor.get("/", headers=BROWSER)
    report_id = page.text.partition('data-id="')[2].partition('"')[0]
    assert end_of(app, report_id) == "completed"
    for text in (page.text, visitor.get(f"/reports/{report_id}", headers=BROWSER).text):
        assert "&lt;b&gt;" in text
        assert "<b>" not in text


def test_pages_take_nothing_from_elsewhere(visitor: FlaskClient) -> None:
    answer = visitor.get("/")
    assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    with visitor.get("/static/page.js") as script:
        assert script.status_code == 200


def test_the_environment_configures_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPORT_OPERATOR_KEY", "12345")
    monkeypatch.setenv("REPORT_CANCELABLE_URL_PREFIX", "/work")
    app = create_app()
    assert app.test_client().get("/work/stats", headers={"Authorization": "Bearer 12345"}).status_code == 200
    assert app.test_client().get("/jobs/stats", buffered=True).status_code == 404
