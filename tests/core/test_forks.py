"""After a fork the child begins anew: nothing of the parent's shows, runs, or is locked there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")

SCRIPT = Path(__file__).with_name("fork_script.py")
ROOT = Path(__file__).parents[2]

SCENARIOS = [
    "the_childs_store_is_empty",
    "inherited_operations_are_inert",
    "a_token_that_is_shared_with_inherited_operations_does_not_reach_them",
    "an_inherited_cancelled_operation_raises_nowhere_in_the_child",
    "the_timer_thread_works_again",
    "jobs_run_again",
    "a_runner_that_was_closed_before_the_fork_is_new_in_the_child",
    "an_inherited_bridge_is_closed_and_its_loop_is_left_alone",
    "ids_differ",
    "forks_at_any_moment",
]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_after_a_fork(scenario: str) -> None:
    done = subprocess.run(
        # the warning is about locks held by threads that the child does not have: what this test is about
        [sys.executable, "-W", "error", "-W", "ignore:This process:DeprecationWarning", SCRIPT, scenario],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "passed\n", "")


def test_every_scenario_is_run() -> None:
    """A scenario in the script that nobody runs proves nothing."""
    text = SCRIPT.read_text(encoding="utf-8")
    helpers = {"in_child", "thread_names", "time_out_a_sleep", "threading_result"}
    written = {line.split("(")[0].removeprefix("def ") for line in text.splitlines() if line.startswith("def ")}
    assert written - helpers == set(SCENARIOS)
