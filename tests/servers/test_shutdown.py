"""The shutdown hook, in processes that get real signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("shutdown_script.py")
ROOT = Path(__file__).parents[2]

BY_SIGTERM = "cancelled shutdown signal SIGTERM"
FOUND = "found handler SIGTERM"

SCENARIOS: dict[str, tuple[int, list[str]]] = {
    "the_handler_found_is_called_too": (0, [FOUND, BY_SIGTERM]),
    "nobody_else_handles_it": (-signal.SIGTERM, [f"thread {BY_SIGTERM}"]),
    "nobody_else_handles_it_and_the_program_exits": (128 + signal.SIGTERM, [f"thread {BY_SIGTERM}", "exits 143"]),
    "an_operation_that_never_looks_does_not_hold_it_up": (128 + signal.SIGTERM, ["exits"]),
    "control_c_stays_a_keyboard_interrupt": (0, ["thread cancelled shutdown signal SIGINT", "interrupted"]),
    "twice_is_once": (0, [FOUND, BY_SIGTERM]),
    "removed": (0, [FOUND, "completed None None"]),
    "removed_below_another": (-signal.SIGTERM, ["above"]),
    "ignored_signals_stay_ignored": (0, ["completed None None"]),
    "in_another_thread_it_is_an_error": (
        0,
        ["install_shutdown_hook works in the main thread only: Python delivers signals nowhere else"],
    ),
    "a_forked_child_is_without_it": (0, [FOUND, "child 0", "completed None None"]),
    "a_forked_child_ends_as_it_did": (0, ["child -15"]),
    "a_storm_of_signals": (0, ["{'" + BY_SIGTERM + "'} True"]),
    "jobs_and_operations_during_the_drain": (
        0,
        [
            FOUND,
            "pending shutdown signal SIGTERM running",
            "refused: the job runner was closed",
            "during completed None None",
            "running shutdown signal SIGTERM",
            f"after {BY_SIGTERM}",
        ],
    ),
    "an_application_may_do_without": (0, [FOUND, f"thread {BY_SIGTERM}", "without completed None None", "its jobs run"]),
    "the_interpreters_end_waits_for_jobs": (0, [FOUND, "cleaned"]),
    "a_cancel_from_outside_is_for_that_reason": (0, [FOUND, *["cancelled shutdown outer scope"] * 2]),
    "a_lifespan_installs_and_removes_it": (0, ["ran", "cancelled shutdown lifespan"] * 2),
}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_in_a_process_of_its_own(scenario: str) -> None:
    done = subprocess.run(
        # the warning is about locks held by threads that the child does not have; ours are new there
        [sys.executable, "-W", "error", "-W", "ignore:This process:DeprecationWarning", SCRIPT, scenario],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stdout.splitlines(), done.stderr) == (*SCENARIOS[scenario], "")
