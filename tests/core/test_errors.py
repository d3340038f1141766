"""Every error pickles and copies, keeps its data, and is what its callers expect it to be."""

from __future__ import annotations

import copy
import pickle
import traceback
from collections.abc import Callable

import pytest

from cancelable_core import (
    BridgeClosed,
    BridgeFull,
    Cancelable,
    CancelableError,
    CancelationReason,
    ConfigurationError,
    DuplicateOperation,
    InvalidOperationId,
    OperationCancelled,
    OperationTimedOut,
    QueueFull,
)
from cancelable_core.verdicts import Verdict, cancelation_error

FULL = {"operation_id": "id-1", "name": "report", "reason": CancelationReason.SHUTDOWN, "message": "m", "origin": "o"}

ERRORS = [
    CancelableError("text"),
    OperationCancelled(),
    OperationCancelled("text", **FULL),
    OperationTimedOut("text", **{**FULL, "reason": CancelationReason.TIMEOUT}),
    OperationTimedOut(),
    DuplicateOperation("text", operation_id="x"),
    InvalidOperationId("text", operation_id="a b"),
    InvalidOperationId("text"),
    BridgeClosed("text"),
    BridgeFull("text"),
    QueueFull("text", limit=5),
    ConfigurationError("text", setting="max_wait"),
]


def data(error: BaseException) -> dict[str, object]:
    return {key: value for key, value in vars(error).items() if key != "_lineage"}


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(
    "clone",
    [
        copy.copy,
        copy.deepcopy,
        *(
            lambda error, protocol=protocol: pickle.loads(pickle.dumps(error, protocol))
            for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
        ),
    ],
)
def test_errors_copy_and_pickle(error: CancelableError, clone: Callable[[BaseException], BaseException]) -> None:
    error.add_note("noted")
    twin = clone(error)
    assert type(twin) is type(error)
    assert twin is not error
    assert (str(twin), twin.args) == (str(error), error.args)
    assert data(twin) == data(error)
    assert twin.__notes__ == error.__notes__
    assert "noted" in "".join(traceback.format_exception(twin))


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_one_base_and_one_text(error: CancelableError) -> None:
    assert isinstance(error, CancelableError)
    assert isinstance(error, Exception)
    assert len(error.args) == 1
    assert str(error) == error.args[0]


@pytest.mark.parametrize("reason", [CancelationReason.TIMEOUT, CancelationReason.DISCONNECT])
@pytest.mark.parametrize("clone", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
def test_the_error_of_a_live_operation_travels_without_it(
    reason: CancelationReason, clone: Callable[[OperationCancelled], OperationCancelled]
) -> None:
    with Cancelable("report", operation_id="travels", register=False) as operation:
        operation.cancel_sync(reason, "why", origin="who")
        error = operation.error()
        assert error.lineage is operation
        twin = clone(error)
    assert twin.lineage is None
    assert (twin.operation_id, twin.name, twin.reason, twin.message, twin.origin) == (
        "travels",
        "report",
        reason,
        "why",
        "who",
    )
    assert twin.reason is reason
    assert isinstance(twin, TimeoutError) is (reason is CancelationReason.TIMEOUT)


def test_a_timeout_is_caught_as_each_of_its_kinds() -> None:
    for kind in (OperationTimedOut, OperationCancelled, CancelableError, TimeoutError, OSError, Exception):
        with pytest.raises(kind):
            raise OperationTimedOut("x")
    assert not issubclass(OperationCancelled, TimeoutError)
    error = OperationTimedOut("x")
    assert (error.errno, error.strerror, error.filename) == (None, None, None)


@pytest.mark.parametrize("error", [InvalidOperationId, ConfigurationError])
def test_wrong_values_are_value_errors(error: type[Exception]) -> None:
    assert issubclass(error, ValueError)


@pytest.mark.parametrize(
    ("verdict", "operation_id", "name", "text"),
    [
        (Verdict(CancelationReason.MANUAL, None, None, 0), None, None, "operation was cancelled (manual)"),
        (Verdict(CancelationReason.MANUAL, "why", None, 0), "id", None, "operation 'id' was cancelled (manual): why"),
        (Verdict(CancelationReason.TIMEOUT, None, "deadline", 0), "id", "report", "operation 'report' timed out"),
        (Verdict(CancelationReason.DISCONNECT, "", None, 0), "id", "report", "operation 'report' was cancelled (disconnect)"),
    ],
)
def test_the_text_names_the_operation_and_the_reason(
    verdict: Verdict, operation_id: str | None, name: str | None, text: str
) -> None:
    assert str(cancelation_error(verdict, operation_id=operation_id, name=name)) == text


def test_the_text_cannot_be_broken_into_lines_by_a_name() -> None:
    error = cancelation_error(Verdict(CancelationReason.MANUAL, None, None, 0), operation_id="id", name="a\nb")
    assert "\n" not in str(error)


def test_errors_are_told_apart_by_their_own_lineage_only() -> None:
    with Cancelable(operation_id="same", register=False) as first:
        first.cancel_sync()
        with Cancelable(register=False, parent=None) as other:
            other.cancel_sync()
            assert first.error().lineage is not other.error().lineage
