"""The OpenAPI document: our routes are in it, truthfully, and nothing of ours is in the application's own."""

from __future__ import annotations

import re
from typing import Any

import pytest
from fastapi import FastAPI
from pydantic import BaseModel

from cancelable_core.http_api import METADATA_FIELD, OPERATION_FIELDS, STATISTICS_FIELDS, AllowAll, Route
from cancelable_fastapi import CurrentJobs, CurrentOperation, CurrentRegistry
from cancelable_fastapi._documentation import EXAMPLES, CancelableOperation, CancelableStatistics

from .helpers import ask, client_of, installed


@pytest.fixture
def document() -> dict[str, Any]:
    with installed() as (app, _):
        return app.openapi()


def _operations(document: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(method, path): item for path, methods in document["paths"].items() for method, item in methods.items()}


def test_the_five_routes_are_documented_and_nothing_else(document: dict[str, Any]) -> None:
    posts = (Route.CANCEL, Route.CANCEL_ALL)
    assert set(_operations(document)) == {("post" if route in posts else "get", f"/jobs{route}") for route in Route}


def test_the_document_is_sound(document: dict[str, Any]) -> None:
    """Every parameter of a path is described, every reference leads somewhere, every id is there once."""
    operations = _operations(document)
    for (_, path), operation in operations.items():
        described = {parameter["name"] for parameter in operation.get("parameters", ()) if parameter["in"] == "path"}
        assert described == set(re.findall(r"{(\w+)}", path))
        assert operation["tags"] == ["operations"]
        assert operation["summary"]
    ids = [operation["operationId"] for operation in operations.values()]
    assert len(set(ids)) == len(ids)
    references = set(re.findall(r"'#/components/schemas/(\w+)'", str(document)))
    assert references <= set(document["components"]["schemas"])
    enumerations = {"CancelOutcome", "CancelationReason", "OperationKind", "OperationStatus"}
    assert all(name.startswith("Cancelable") for name in references - enumerations)


def test_models_of_the_application_keep_their_names() -> None:
    class Operation(BaseModel):
        of_mine: int

    class Statistics(BaseModel):
        of_mine: int

    app = FastAPI()
    app.get("/operation", response_model=Operation)(lambda: None)
    app.get("/statistics", response_model=Statistics)(lambda: None)
    with installed(app):
        assert {"Operation", "Statistics"} <= set(app.openapi()["components"]["schemas"])


@pytest.mark.parametrize("in_class", [False, True])
def test_our_dependencies_add_no_parameters(in_class: bool) -> None:
    """What a client could set would be his to decide: a time limit, for instance."""
    with installed(principal=lambda: None, request_timeout_seconds=5) as (app, _):

        @app.get("/work/{number}")
        async def work(
            number: int, operation: CurrentOperation, jobs: CurrentJobs, registry: CurrentRegistry, word: str = ""
        ) -> None:
            pass

        operation = app.openapi()["paths"]["/work/{number}"]["get"]
    assert [(one["name"], one["in"]) for one in operation["parameters"]] == [("number", "path"), ("word", "query")]
    assert "requestBody" not in operation


async def test_unknown_query_parameters_never_reach_the_operation() -> None:
    with installed(request_timeout_seconds=30) as (app, _):

        @app.get("/work")
        async def work(operation: CurrentOperation) -> float | None:
            return operation.remaining_seconds

        answer = await ask(app, "/work?timeout=0.001&timeout_seconds=0.001&request_timeout_seconds=0.001&operation_id=mine")
    assert (answer.status_code, answer.json() > 10) == (200, True)
    assert answer.headers["x-operation-id"] != "mine"


def test_unique_ids_of_the_application_s_own_making_stay_unique() -> None:
    """As FastAPI's documentation proposes for generated clients."""
    app = FastAPI(generate_unique_id_function=lambda route: f"{route.tags[0] if route.tags else ''}-{route.name}")
    with installed(app):
        ids = [operation["operationId"] for operation in _operations(app.openapi()).values()]
    assert len(set(ids)) == 5


def test_routes_have_names_to_find_them_by() -> None:
    with installed(prefix="/api/jobs") as (app, _):
        assert app.url_path_for("cancelable:operations") == "/api/jobs/"
        assert app.url_path_for("cancelable:stats") == "/api/jobs/stats"
        assert app.url_path_for("cancelable:cancel-all") == "/api/jobs/cancel-all"
        assert app.url_path_for("cancelable:operation", operation_id="ab12") == "/api/jobs/ab12"
        assert app.url_path_for("cancelable:cancel", operation_id="ab12") == "/api/jobs/ab12/cancel"


def _resolved(document: dict[str, Any], path: str, method: str, status: int) -> dict[str, Any]:
    schema = document["paths"][path][method]["responses"][str(status)]["content"]["application/json"]["schema"]
    found: dict[str, Any] = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return found


def test_schemas_have_the_fields_that_are_answered(document: dict[str, Any]) -> None:
    assert tuple(_resolved(document, "/jobs/{operation_id}", "get", 200)["properties"]) == OPERATION_FIELDS
    assert tuple(_resolved(document, "/jobs/stats", "get", 200)["properties"]) == STATISTICS_FIELDS
    assert METADATA_FIELD not in OPERATION_FIELDS  # others may follow
    assert _resolved(document, "/jobs/{operation_id}", "get", 200)["additionalProperties"] is True


async def test_answers_fit_their_schemas(document: dict[str, Any]) -> None:
    with installed(policy=AllowAll()) as (app, suite):
        job = suite.jobs.submit(str)
        await job.wait()
        for path, documented, method in (
            ("/jobs", "/jobs/", "GET"),
            ("/jobs/stats", "/jobs/stats", "GET"),
            (f"/jobs/{job.id}", "/jobs/{operation_id}", "GET"),
            ("/jobs/cancel-all", "/jobs/cancel-all", "POST"),
        ):
            body = {"json": {"name": "nothing-like-it"}} if method == "POST" else {}
            answer = await ask(app, path, method, **body)
            schema = _resolved(document, documented, method.lower(), answer.status_code)
            assert set(schema["required"]) == set(schema["properties"])
            assert set(schema["properties"]) == set(answer.json())


async def test_every_documented_parameter_is_understood_and_no_other(document: dict[str, Any]) -> None:
    """The core decides what is read; this finds out when the document says something else."""
    values = {"status": "running", "kind": "job", "name": "x*", "owner": "alice", "limit": "5"}
    with installed(policy=AllowAll()) as (app, _):
        async with client_of(app) as client:
            for path in ("/jobs/", "/jobs/stats"):
                names = [one["name"] for one in document["paths"][path]["get"].get("parameters", ())]
                understood = []
                for name in [*values, "after", "all", "message", "wait_seconds"]:
                    answer = await client.get(path, params={name: values.get(name, "x")})
                    unknown = answer.status_code == 422 and "is not known here" in answer.text
                    understood += [] if unknown else [name]
                assert sorted(understood) == sorted(names)


async def test_every_documented_field_is_understood_and_no_other(document: dict[str, Any]) -> None:
    with installed(policy=AllowAll()) as (app, _):
        async with client_of(app) as client:
            for documented in ("/jobs/cancel-all", "/jobs/{operation_id}/cancel"):
                content = document["paths"][documented]["post"]["requestBody"]["content"]
                assert set(content) == {"application/json", "application/x-www-form-urlencoded"}
                fields = content["application/json"]["schema"]["properties"]
                path = documented.replace("{operation_id}", "ab12")
                understood = []
                for name in ("name", "owner", "kind", "status", "all", "message", "wait_seconds", "limit", "after"):
                    answer = await client.post(path, json={name: None, "name": None})
                    named = [error["field"] for error in answer.json().get("errors", ()) if "not known" in error["message"]]
                    understood += [] if name in named else [name]
                assert sorted(understood) == sorted(fields)


async def test_documented_limits_are_the_core_s() -> None:
    with installed(policy=AllowAll()) as (app, _):
        operations = _operations(app.openapi())
        limit = next(one for one in operations["get", "/jobs/"]["parameters"] if one["name"] == "limit")["schema"]
        message = operations["post", "/jobs/{operation_id}/cancel"]["requestBody"]["content"]["application/json"]["schema"]
        longest = message["properties"]["message"]["maxLength"]
        async with client_of(app) as client:
            for number, status in ((limit["maximum"], 200), (limit["maximum"] + 1, 422), (limit["minimum"] - 1, 422)):
                assert (await client.get("/jobs", params={"limit": number})).status_code == status
            for length, status in ((longest, 404), (longest + 1, 422)):
                answer = await client.post("/jobs/ab12/cancel", json={"message": "x" * length})
                assert answer.status_code == status


async def test_the_pages_that_show_the_document_are_served() -> None:
    with installed() as (app, _):
        for path in ("/docs", "/redoc", "/openapi.json"):
            assert (await ask(app, path)).status_code == 200


def test_every_answer_and_body_has_an_example_and_the_examples_are_true(document: dict[str, Any]) -> None:
    for operation in _operations(document).values():
        media = [media for response in operation["responses"].values() for media in response.get("content", {}).values()]
        media += operation.get("requestBody", {}).get("content", {}).values()
        assert all("example" in each for each in media), operation
    for model, example in EXAMPLES.items():
        model.model_validate(example)
    assert tuple(EXAMPLES[CancelableOperation]) == OPERATION_FIELDS
    assert tuple(EXAMPLES[CancelableStatistics]) == STATISTICS_FIELDS


async def test_the_example_of_a_problem_is_what_is_answered(document: dict[str, Any]) -> None:
    described = document["paths"]["/jobs/{operation_id}/cancel"]["post"]["responses"]
    sent: dict[str, Any] = {
        "400": {"content": b"[]"},
        "404": {},
        "415": {"content": b"a", "headers": {"Content-Type": "text/plain"}},
    }
    with installed() as (app, _):
        for status, options in sent.items():
            options.setdefault("headers", {"Content-Type": "application/json"})
            answer = await ask(app, "/jobs/ab12/cancel", "POST", **options)
            assert answer.json() == described[status]["content"]["application/problem+json"]["example"], status
