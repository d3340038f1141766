"""What went wrong, as the client reads it; and the answers to requests whose own operation was cancelled."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from cancelable_core.errors import OperationCancelled, OperationTimedOut, QueueFull
from cancelable_core.http_api import (
    EndpointResponse,
    ProblemCode,
    Settings,
    cancelled_response,
    problem_response,
    queue_full_response,
)
from cancelable_core.models import CancelationReason
from cancelable_core.servers import RequestOperation
from cancelable_core.store import OperationStore

EVERY_REASON = list(CancelationReason)


def read(response: EndpointResponse) -> dict[str, Any]:
    assert dict(response.headers)["Content-Type"] == "application/problem+json"
    payload: dict[str, Any] = json.loads(response.body)
    return payload


@pytest.mark.parametrize("code", list(ProblemCode))
def test_every_problem_has_the_standard_members_first(code: ProblemCode) -> None:
    response = problem_response(code, "This and that.", extra=1)
    payload = read(response)
    assert list(payload) == ["type", "title", "status", "detail", "extra"]
    assert payload["type"] == f"urn:cancelable:{code}"
    assert payload["title"]
    assert payload["status"] == response.status
    assert 400 <= response.status <= 599


@pytest.mark.parametrize("code", list(ProblemCode))
def test_a_code_is_a_plain_urn(code: ProblemCode) -> None:
    assert code.replace("-", "").isalpha()
    assert code.islower()


class TestCancelledRequests:
    @pytest.mark.parametrize("reason", [None, *EVERY_REASON])
    def test_the_status_tells_the_reason(self, reason: CancelationReason | None) -> None:
        error = OperationCancelled("it ended", operation_id="42", name="GET /", reason=reason, message="enough", origin="me")
        response = cancelled_response(error, Settings())
        special = {CancelationReason.TIMEOUT: 504, CancelationReason.SHUTDOWN: 503}
        assert response.status == (special.get(reason, 499) if reason else 499)
        payload = read(response)
        assert list(payload) == ["type", "title", "status", "detail", "operation_id", "reason", "message"]
        assert (payload["operation_id"], payload["reason"], payload["message"]) == ("42", reason, "enough")
        assert payload["status"] == response.status

    def test_a_timeout_without_a_reason_is_one(self) -> None:
        assert cancelled_response(OperationTimedOut(), Settings()).status == 504

    def test_who_cancelled_is_not_told(self) -> None:
        error = OperationCancelled("it ended", operation_id="42", reason=CancelationReason.MANUAL, origin="http:mallory")
        assert b"mallory" not in cancelled_response(error, Settings()).body

    @pytest.mark.parametrize("status", [400, 408, 503])
    def test_the_setting_is_for_the_other_reasons_only(self, status: int) -> None:
        settings = Settings(cancelled_status=status)
        found = {reason: cancelled_response(OperationCancelled("x", reason=reason), settings).status for reason in EVERY_REASON}
        assert found.pop(CancelationReason.TIMEOUT) == 504
        assert found.pop(CancelationReason.SHUTDOWN) == 503
        assert set(found.values()) == {status}

    @pytest.mark.parametrize("reason", EVERY_REASON)
    def test_only_a_shutdown_says_when_to_come_back(self, reason: CancelationReason) -> None:
        headers = dict(cancelled_response(OperationCancelled("x", reason=reason), Settings()).headers)
        assert ("Retry-After" in headers) == (reason is CancelationReason.SHUTDOWN)
        assert headers["Cache-Control"] == "no-store"

    def test_the_one_line_in_the_log_is_written_where_the_operation_ends(self, caplog: pytest.LogCaptureFixture) -> None:
        operation = RequestOperation("GET\n", lambda: "/a\nb", store=OperationStore())
        with caplog.at_level(logging.DEBUG, "cancelable_core"):
            operation.begin()
            operation.cancel_sync("\x1b[31m\u202e", origin="http:eve\nCRITICAL")
            error = operation.error()
            cancelled_response(error, Settings())
            assert not caplog.records
            operation.end(error)
            operation.end(error)
        (record,) = caplog.records
        assert (record.levelno, record.exc_info) == (logging.INFO, None)
        assert record.getMessage().isascii()
        assert record.getMessage().isprintable()


@pytest.mark.parametrize("limit", [None, 1000])
def test_a_full_queue_is_unavailable_for_a_while(limit: int | None) -> None:
    response = queue_full_response(QueueFull("full", limit=limit))
    assert response.status == 503
    assert int(dict(response.headers)["Retry-After"]) > 0
    payload = read(response)
    assert payload["type"] == "urn:cancelable:queue-full"
    assert ("1000" in payload["detail"]) == (limit is not None)
