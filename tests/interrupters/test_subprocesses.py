"""Commands end with the operation that runs them: all they started, and nothing else."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import anyio
import pytest

from cancelable_core import (
    Cancelable,
    CancelationReason,
    JobRunner,
    OperationCancelled,
    OperationStatus,
    OperationStore,
    OperationTimedOut,
    current_operation,
)
from cancelable_core.interrupters import process_groups, subprocesses
from tests.core.helpers import DEADLINE_SECONDS, becomes_true_soon

from .processes import Canceller, cancel_when, is_running, number_in, our_zombies, wait_for

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc to see who is still there"),
]

CANCELS = int(os.environ.get("CANCELABLE_PROCESS_CANCELS", "200"))


@pytest.fixture
def ready(tmp_path: Path) -> Path:
    """Scripts get it as READY, and write a process id there when they have come so far."""
    return tmp_path / "ready"


STUBBORN = "trap '' TERM; echo $$ >$READY; while :; do sleep 1; done"
TIDY = "trap 'sleep 0.2; echo tidied; exit' TERM; echo $$ >$READY; while :; do sleep 0.01; done"


def shell(script: str, ready: Path) -> list[str]:
    """``sh -c "$STUBBORN" &`` in a script is a grandchild of ours."""
    return ["env", f"READY={ready}", f"STUBBORN={STUBBORN}", f"TIDY={TIDY}", "sh", "-c", script]


def cause(error: OperationCancelled) -> subprocess.CalledProcessError:
    assert isinstance(error.__cause__, subprocess.CalledProcessError)
    return error.__cause__


# --- as subprocess.run


def test_result_and_output() -> None:
    with Cancelable(register=False) as operation:
        done = operation.run_process(["sh", "-c", "cat; echo oops >&2; exit 3"], input=b"fed")
    assert (done.returncode, done.stdout, done.stderr) == (3, b"fed", b"oops\n")


def test_text() -> None:
    with Cancelable(register=False) as operation:
        done = operation.run_process(["cat"], input="gr\N{LATIN SMALL LETTER U WITH DIAERESIS}n\r\nblau\n", encoding="utf-8")
    assert done.stdout == "gr\N{LATIN SMALL LETTER U WITH DIAERESIS}n\nblau\n"


def test_a_status_raises_where_asked() -> None:
    with Cancelable(register=False) as operation:
        with pytest.raises(subprocess.CalledProcessError) as caught:
            operation.run_process(["sh", "-c", "echo said; exit 3"], check=True)
    assert (caught.value.returncode, caught.value.stdout) == (3, b"said\n")
    assert operation.status is OperationStatus.COMPLETED


def test_megabytes_in_and_out_at_the_same_time_do_not_block(tmp_path: Path) -> None:
    data = random.Random(5).randbytes(3_000_000)
    with Cancelable(register=False) as operation:
        done = operation.run_process(["sh", "-c", "tee /dev/stderr"], input=data)
    assert done.stdout == data
    assert done.stderr == data


def test_a_command_that_does_not_read_its_input_is_no_error() -> None:
    with Cancelable(register=False) as operation:
        assert operation.run_process(["true"], input=bytes(1_000_000)).returncode == 0


def test_output_may_go_elsewhere(tmp_path: Path) -> None:
    with Cancelable(register=False) as operation, (tmp_path / "out").open("wb") as file:
        done = operation.run_process(["echo", "said"], stdout=file, stderr=subprocess.DEVNULL, cwd=tmp_path)
    assert (done.stdout, done.stderr) == (None, None)
    assert (tmp_path / "out").read_text() == "said\n"


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"input": "text"}, TypeError),
        ({"input": b"", "stdin": subprocess.DEVNULL}, ValueError),
        ({"grace_seconds": -1}, ValueError),
        ({"grace_seconds": float("nan")}, ValueError),
        ({"start_new_session": False}, TypeError),
        ({"no_such_option": 1}, TypeError),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing(options: dict[str, object], error: type[Exception]) -> None:
    with Cancelable(register=False) as operation:
        with pytest.raises(error):
            operation.run_process(["cat"], **options)  # type: ignore[arg-type]
    assert our_zombies() == []


def test_a_missing_command_is_the_usual_error() -> None:
    with Cancelable(register=False) as operation:
        with pytest.raises(FileNotFoundError):
            operation.run_process(["/no/such/command"])


# --- cancelled


def test_output_until_then_is_kept(ready: Path) -> None:
    script = "echo so far; echo half a line, grün >&2; printf 'gr\\303'; echo $$ >$READY; exec sleep 60"
    operation = Cancelable(register=False)
    cancelled = cancel_when(operation, ready)
    with pytest.raises(OperationCancelled) as caught:
        with operation:
            operation.run_process(shell(script, ready), encoding="utf-8")
    cancelled.result()
    assert cause(caught.value).stdout == "so far\ngr�"
    assert cause(caught.value).stderr == "half a line, grün\n"
    assert cause(caught.value).returncode == -signal.SIGTERM
    assert not is_running(number_in(ready))


def test_a_grandchild_that_ignores_term_is_gone_when_the_grace_is_over(ready: Path) -> None:
    operation = Cancelable(register=False)
    cancelled = cancel_when(operation, ready)
    with pytest.raises(OperationCancelled) as caught:
        with operation:
            operation.run_process(shell('echo started; sh -c "$STUBBORN" & wait', ready), grace_seconds=0.3)
    ended = time.monotonic()
    assert not is_running(number_in(ready))
    assert 0.3 <= ended - cancelled.result() < DEADLINE_SECONDS / 2, "waited for more than its grace"
    assert cause(caught.value).stdout == b"started\n"


def test_the_grace_is_for_the_whole_group_and_not_used_up(ready: Path) -> None:
    """The shell ends at once; what it started may still tidy up, and is not killed meanwhile."""
    operation = Cancelable(register=False)
    cancelled = cancel_when(operation, ready)
    with pytest.raises(OperationCancelled) as caught:
        with operation:
            operation.run_process(shell('sh -c "$TIDY" & wait', ready), grace_seconds=60)
    cancelled.result()
    assert cause(caught.value).stdout == b"tidied\n"
    assert not is_running(number_in(ready))


def test_a_process_that_ends_well_after_term_was_cancelled_all_the_same(ready: Path) -> None:
    script = "trap 'echo bye; exit 0' TERM; echo $$ >$READY; while :; do sleep 0.01; done"
    operation = Cancelable(register=False)
    cancelled = cancel_when(operation, ready)
    with pytest.raises(OperationCancelled) as caught:
        with operation:
            operation.run_process(shell(script, ready))
    cancelled.result()
    assert (cause(caught.value).returncode, cause(caught.value).stdout) == (0, b"bye\n")
    assert operation.status is OperationStatus.CANCELLED


def test_what_left_the_group_does_not_hold_us_by_the_pipe_it_took_along(ready: Path) -> None:
    script = "echo said; setsid sh -c 'echo $$ >$READY; exec sleep 60' & wait"
    operation = Cancelable(register=False)
    cancelled = cancel_when(operation, ready)
    try:
        with pytest.raises(OperationCancelled) as caught:
            with operation:
                operation.run_process(shell(script, ready))
        assert cause(caught.value).stdout == b"said\n"
        assert time.monotonic() - cancelled.result() < DEADLINE_SECONDS / 2
    finally:
        os.kill(number_in(ready), signal.SIGKILL)


def test_output_without_end_does_not_hold_us_either(ready: Path) -> None:
    operation = Cancelable(register=False)
    cancelled = cancel_when(operation, ready)
    with pytest.raises(OperationCancelled) as caught:
        with operation:
            operation.run_process(
                shell("trap '' TERM; echo yes; echo $$ >$READY; while :; do echo yes; done", ready), grace_seconds=0
            )
    cancelled.result()
    assert cause(caught.value).stdout.startswith(b"yes\n")
    assert cause(caught.value).returncode == -signal.SIGKILL


def shut_down(operation: Cancelable) -> None:
    operation.cancel_sync(CancelationReason.SHUTDOWN, origin="SIGTERM")


@pytest.mark.parametrize("cancel", [Cancelable.cancel_sync, shut_down])
def test_by_any_thread_for_any_reason(ready: Path, cancel: Canceller) -> None:
    operation = Cancelable(register=False)
    cancelled = cancel_when(operation, ready, cancel)
    with pytest.raises(OperationCancelled) as caught:
        with operation:
            operation.run_process(shell("echo $$ >$READY; exec sleep 60", ready))
    cancelled.result()
    assert caught.value.reason is operation.token.reason
    assert not is_running(number_in(ready))


def test_by_a_deadline(ready: Path) -> None:
    with pytest.raises(OperationTimedOut) as caught:
        with Cancelable(timeout=0.3, register=False) as operation:
            operation.run_process(shell("echo said; exec sleep 60", ready))
    assert cause(caught.value).returncode == -signal.SIGTERM


def test_by_the_parents_cancel(ready: Path) -> None:
    parent = Cancelable("parent", register=False)
    cancelled = cancel_when(parent, ready)
    with pytest.raises(OperationCancelled) as caught:
        with parent, Cancelable("child", register=False) as child:
            child.run_process(shell("echo said; echo $$ >$READY; exec sleep 60", ready))
    cancelled.result()
    assert isinstance(caught.value.__cause__, OperationCancelled)
    assert cause(caught.value.__cause__).stdout == b"said\n"


def test_in_a_job(ready: Path, store: OperationStore) -> None:
    def work() -> object:
        operation = current_operation()
        assert operation is not None
        return operation.run_process(shell("echo $$ >$READY; exec sleep 60", ready))

    runner = JobRunner(store)
    try:
        job = runner.submit(work)
        wait_for(ready)
        assert job.cancel_sync()
        with pytest.raises(OperationCancelled):
            job.result(DEADLINE_SECONDS)
        assert job.status is OperationStatus.CANCELLED
        assert not is_running(number_in(ready))
    finally:
        runner.close()


@pytest.mark.parametrize("abandon_on_cancel", [True, False])
async def test_from_async_code(ready: Path, abandon_on_cancel: bool, store: OperationStore) -> None:
    """Left behind, the thread ends the process soon; waited for, it brings the output."""
    operation = Cancelable(registry=store)
    cancelled = cancel_when(operation, ready)
    command = shell("echo said; echo $$ >$READY; exec sleep 60", ready)
    with anyio.fail_after(DEADLINE_SECONDS):
        with pytest.raises(OperationCancelled) as caught:
            async with operation:
                await operation.run_in_thread(operation.run_process, command, abandon_on_cancel=abandon_on_cancel)
    cancelled.result()
    if not abandon_on_cancel:
        assert cause(caught.value).stdout == b"said\n"
        assert not is_running(number_in(ready))
    await becomes_true_soon(lambda: not is_running(number_in(ready)))
    await becomes_true_soon(lambda: store.statistics().abandoned_threads == 0)


async def test_a_loop_is_not_blocked() -> None:
    async with Cancelable(register=False) as operation:
        with pytest.raises(RuntimeError, match="run_in_thread"):
            operation.run_process(["true"])
        with pytest.raises(RuntimeError, match="run_in_thread"):
            with operation.open_process(["true"]):
                pass


def test_cancelled_before_it_starts_nothing(tmp_path: Path) -> None:
    with pytest.raises(OperationCancelled):
        with Cancelable(register=False) as operation:
            operation.cancel_sync()
            operation.run_process(["touch", str(tmp_path / "file")])
    assert not (tmp_path / "file").exists()


def test_in_a_shield_it_runs_to_its_end(ready: Path) -> None:
    operation = Cancelable(register=False)
    cancelled = cancel_when(operation, ready)
    results = []
    with pytest.raises(OperationCancelled):
        with operation:
            with operation.shield():
                results.append(operation.run_process(shell("echo $$ >$READY; sleep 0.3; echo done", ready)))
            operation.check()
    cancelled.result()
    assert results[0].stdout == b"done\n"


# --- open_process


def test_talk_to_a_process() -> None:
    with Cancelable(register=False) as operation:
        with operation.open_process(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            print("hello", file=process.stdin, flush=True)
            assert process.stdout.readline() == "hello\n"
        assert process.returncode == 0
    assert our_zombies() == []


def test_a_reader_is_woken_and_the_block_says_why(ready: Path) -> None:
    operation, lines = Cancelable(register=False), []
    cancelled = cancel_when(operation, ready)
    with pytest.raises(OperationCancelled):
        with operation:
            command = shell('echo one; echo two; sh -c "$STUBBORN" & wait', ready)
            with operation.open_process(command, grace_seconds=0.1, stdout=subprocess.PIPE, text=True) as process:
                lines.extend(process.stdout)
    cancelled.result()
    assert lines == ["one\n", "two\n"]
    assert process.returncode is not None
    assert not is_running(number_in(ready))


def test_an_error_in_the_block_ends_the_process_and_passes(ready: Path) -> None:
    with Cancelable(register=False) as operation:
        with pytest.raises(ZeroDivisionError):
            with operation.open_process(shell(STUBBORN, ready), grace_seconds=0.1) as process:
                wait_for(ready)
                raise ZeroDivisionError
    assert process.returncode == -signal.SIGKILL


def test_pipes_are_closed_before_it_is_waited_for() -> None:
    with Cancelable(register=False) as operation:
        with operation.open_process(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            pass
    assert process.returncode == 0
    assert process.stdin.closed
    assert process.stdout.closed


# --- what stays behind


def test_no_zombies_and_no_open_files_after_many_cancels() -> None:
    """At random moments: before the process has started, while it runs, and while it ends."""
    rng, before = random.Random(7), len(os.listdir("/proc/self/fd"))
    outcomes = set()
    for _ in range(CANCELS):
        operation = Cancelable(register=False)
        timer = threading.Timer(rng.uniform(0, 0.02), operation.cancel_sync)
        try:
            with operation:
                timer.start()
                operation.run_process(["sh", "-c", "sleep 0.01 & sleep 60 & sleep 0.01; exec sleep 60"], grace_seconds=5)
        except OperationCancelled as error:
            outcomes.add(type(error.__cause__))
        timer.join()
    assert subprocesses.ProcessInterrupted in outcomes
    assert our_zombies() == []
    assert len(os.listdir("/proc/self/fd")) <= before + 2  # the interpreter's own may come and go


def test_a_group_of_another_user_is_given_up_and_reported(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As with sudo, whose process may not be signalled."""
    monkeypatch.setattr(process_groups, "_KILL_SECONDS", 0.05)

    def refuse(pid: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(process_groups.os, "killpg", refuse)
    group = process_groups.ProcessGroup(grace_seconds=0)
    group.led_by(2**22, lambda: None)
    group.end()
    assert "cannot be ended" in caplog.text


def test_errors_say_what_became_of_the_command() -> None:
    assert str(subprocesses.ProcessInterrupted(-15, ["sort"])) == "['sort'] was told to end, and did with -15"
