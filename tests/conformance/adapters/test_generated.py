"""Requests that schemathesis makes up from FastAPI's OpenAPI document, sent to every adapter: never a 5xx, never two answers.

``CANCELABLE_GENERATED_CASES=5000`` makes so many of them; a few hundred are made by default.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections import Counter
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode

from cancelable_core import Cancelable

from .apps.fastapi_app import make_app
from .clients import AdapterClient
from .everywhere import same_everywhere

CASES = int(os.environ.get("CANCELABLE_GENERATED_CASES", "300"))

ROUTES = (
    "GET /jobs/",
    "GET /jobs/stats",
    "GET /jobs/{operation_id}",
    "POST /jobs/{operation_id}/cancel",
    "POST /jobs/cancel-all",
)
USERS = ("alice", "bob", "root", "", None)
IDS = ("hers", "his", "ended", "nobodys")


@functools.cache
def _document() -> dict[str, Any]:
    app, suite = make_app()
    suite.jobs.close()
    described: dict[str, Any] = app.openapi()
    return described


def _sent(case: Any) -> dict[str, Any]:
    """A made-up case as `requests` would put it on the wire."""
    prepared = requests.Request(**case.as_transport_kwargs(base_url="http://testserver")).prepare()
    parts = urlsplit(str(prepared.url))
    body = prepared.body or b""
    dropped = ("content-length", "transfer-encoding", "x-test-user", "host")
    headers = [(name, _text(value)) for name, value in prepared.headers.items() if name.lower() not in dropped]
    return {
        "method": str(prepared.method),
        "path": parts.path,
        "query": parts.query.encode(),
        "headers": headers,
        "body": body.encode() if isinstance(body, str) else body,
    }


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


@functools.cache
def _made_up(route: str, mode: GenerationMode) -> tuple[dict[str, Any], ...]:
    """Requests to one route, the same for every adapter."""
    method, _, path = route.partition(" ")
    described = schemathesis.openapi.from_dict(_document())[path][method]
    requests_made: list[dict[str, Any]] = []

    @seed(20_261_125)
    @settings(
        max_examples=max(CASES // (2 * len(ROUTES) - 1), 1),
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @given(case=described.as_strategy(generation_mode=mode), user=st.sampled_from(USERS), data=st.data())
    def make(case: Any, user: str | None, data: st.DataObject) -> None:
        if "operation_id" in (case.path_parameters or {}) and data.draw(st.booleans()):
            case.path_parameters["operation_id"] = data.draw(st.sampled_from(IDS))
        requests_made.append({**_sent(case), "user": user})

    make()
    return tuple(requests_made)


@pytest.mark.timeout(120 + CASES)
@pytest.mark.parametrize(
    ("route", "mode"),
    [
        pytest.param(route, mode, id=f"{mode.value} {route}")
        for route, mode in itertools.product(ROUTES, GenerationMode)
        if (route, mode) != ("GET /jobs/{operation_id}", GenerationMode.NEGATIVE)  # it takes any text: nothing is wrong there
    ],
)
@same_everywhere(max_wait_seconds=0.001, expose_metadata=True)
def test_all_give_the_same_answer(client: AdapterClient, route: str, mode: GenerationMode) -> None:
    client.seed("hers", owner="alice", name="report-1", metadata={"table": "orders"})
    client.seed("his", owner="bob", name="report-2")
    client.seed("nobodys")
    with Cancelable(operation_id="ended", owner="alice", parent=None, registry=client.store):
        pass
    method, _, path = route.partition(" ")
    documented = {int(status) for status in _document()["paths"][path][method.lower()]["responses"]}
    statuses: Counter[int] = Counter()
    for sent in _made_up(route, mode):
        answer = client.request(**sent)
        assert answer.status < 500, (sent, answer)
        # a made-up id may lead to another route, or to none
        assert answer.status in documented | {404, 405}, f"{sent}: {answer} is in no document"
        statuses[answer.status] += 1
    assert statuses.total() >= CASES // (2 * len(ROUTES) - 1)
    assert len(statuses) > 1, "all of them met the same fate: they tell nothing"
