"""Run by test_shutdown.py in a process of its own, since it gets signals: one function per scenario.

Each says line by line what happened; how the process ends is part of it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from types import FrameType

import anyio

from cancelable_core import Cancelable, OperationCancelled, OperationStore, QueueFull, current_operation
from cancelable_core.http_api import Settings
from cancelable_core.servers import WebApplication, install_shutdown_hook, lifespan_of

SECONDS = 30.0
"""Reached by failing tests only."""


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())  # whole: threads and signal handlers say something, too


def term() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def sleep_in_an_operation(store: OperationStore | None = None, *, seconds: float = SECONDS) -> str:
    operation = Cancelable(registry=store)
    try:
        with operation:
            operation.sleep(seconds)
    except OperationCancelled:
        pass
    context = operation.context
    return f"{context.status} {context.reason} {context.origin}"


def in_a_thread(*args: object, **options: object) -> threading.Thread:
    def run() -> None:
        say("thread", sleep_in_an_operation(*args, **options))  # type: ignore[arg-type]

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def note(number: int, frame: FrameType | None) -> None:
    say("found handler", signal.Signals(number).name)


def the_handler_found_is_called_too() -> None:
    signal.signal(signal.SIGTERM, note)
    install_shutdown_hook()
    threading.Timer(0.05, term).start()
    say(sleep_in_an_operation())


def nobody_else_handles_it() -> None:
    install_shutdown_hook(drain_seconds=0.2)
    thread = in_a_thread()
    term()
    thread.join()
    time.sleep(SECONDS)  # in which the signal does what it did


def nobody_else_handles_it_and_the_program_exits() -> None:
    install_shutdown_hook(exits=True)
    thread = in_a_thread()
    try:
        term()
        time.sleep(SECONDS)
    except SystemExit as end:
        thread.join()
        say("exits", end.code)
        raise


def an_operation_that_never_looks_does_not_hold_it_up() -> None:
    install_shutdown_hook(exits=True, grace_seconds=0.2)
    with Cancelable():
        term()
        try:
            time.sleep(SECONDS)
        except SystemExit:
            say("exits")
            raise


def control_c_stays_a_keyboard_interrupt() -> None:
    install_shutdown_hook()
    thread = in_a_thread()
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(SECONDS)
    except KeyboardInterrupt:
        thread.join()
        say("interrupted")


def twice_is_once() -> None:
    calls: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: calls.append(number))
    hook = install_shutdown_hook()
    before = signal.getsignal(signal.SIGTERM)
    assert install_shutdown_hook() is hook
    assert signal.getsignal(signal.SIGTERM) is before
    signal.signal(signal.SIGTERM, note)  # as a server does that comes later
    assert install_shutdown_hook() is hook
    threading.Timer(0.05, term).start()
    say(sleep_in_an_operation())
    assert calls == []


def removed() -> None:
    signal.signal(signal.SIGTERM, note)
    hook = install_shutdown_hook()
    hook.remove()
    assert signal.getsignal(signal.SIGTERM) is note
    threading.Timer(0.05, term).start()
    say(sleep_in_an_operation(seconds=0.2))
    assert install_shutdown_hook() is not hook  # and it can come back


def removed_below_another() -> None:
    hook = install_shutdown_hook()
    ours = signal.getsignal(signal.SIGTERM)
    assert callable(ours)

    def above(number: int, frame: FrameType | None) -> None:
        say("above")
        ours(number, frame)

    signal.signal(signal.SIGTERM, above)
    hook.remove()
    assert signal.getsignal(signal.SIGTERM) is above
    term()  # what we would have passed on to ends the process
    time.sleep(SECONDS)


def ignored_signals_stay_ignored() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    install_shutdown_hook()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    term()
    say(sleep_in_an_operation(seconds=0))


def in_another_thread_it_is_an_error() -> None:
    def install() -> None:
        try:
            install_shutdown_hook()
        except RuntimeError as error:
            say(error)

    thread = threading.Thread(target=install)
    thread.start()
    thread.join()


def a_forked_child_is_without_it() -> None:
    signal.signal(signal.SIGTERM, note)
    install_shutdown_hook()

    def fork() -> None:
        child = os.fork()
        if child == 0:
            term()  # the handler found is called
            text = sleep_in_an_operation(seconds=0)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            hook = install_shutdown_hook(signals=[signal.SIGUSR1], exits=True)
            threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1)).start()
            own = sleep_in_an_operation()
            hook.remove()
            os._exit(0 if (text, own) == ("completed None None", "cancelled shutdown signal SIGUSR1") else 2)
        say("child", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    thread = threading.Thread(target=fork)
    thread.start()
    thread.join()
    say(sleep_in_an_operation(seconds=0))


def a_forked_child_ends_as_it_did() -> None:
    install_shutdown_hook(exits=True)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, b"!")  # Python itself forgets the signals that come before
        time.sleep(SECONDS)
        os._exit(0)
    os.read(read, 1)
    os.kill(child, signal.SIGTERM)
    say("child", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def a_storm_of_signals() -> None:
    calls: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: calls.append(number))
    install_shutdown_hook()
    stop = threading.Event()

    def storm() -> None:
        while not stop.is_set():
            term()

    def open_and_close() -> None:
        while not stop.is_set():
            try:
                with Cancelable() as operation:
                    operation.check()
            except OperationCancelled:
                pass

    threads = [threading.Thread(target=target) for target in (storm, open_and_close)]
    for thread in threads:
        thread.start()
    ended = [sleep_in_an_operation() for _ in range(5)]
    deadline = time.monotonic() + SECONDS
    while len(calls) < 100 and time.monotonic() < deadline:
        try:
            with Cancelable() as operation:
                operation.check()
        except OperationCancelled:
            pass
    stop.set()
    for thread in threads:
        thread.join()
    say(set(ended), len(calls) >= 100)


def jobs_and_operations_during_the_drain() -> None:
    application = WebApplication(Settings(drain_seconds=0.5, job_workers=1))
    signal.signal(signal.SIGTERM, note)
    install_shutdown_hook()
    started = threading.Event()

    def job() -> None:
        started.set()
        operation = current_operation()
        assert operation is not None
        operation.sleep(SECONDS)

    running = application.jobs.submit(job)
    pending = application.jobs.submit(say, "a pending job ran")
    started.wait(SECONDS)
    term()
    try:
        pending.result(SECONDS)
    except OperationCancelled as error:
        say("pending", error.reason, error.origin, running.status)
    try:
        application.jobs.submit(say, "a new job ran")
    except QueueFull as error:
        say("refused:", error)
    say("during", sleep_in_an_operation(seconds=0.01))
    try:
        running.result(SECONDS)
    except OperationCancelled as error:
        say("running", error.reason, error.origin)
    say("after", sleep_in_an_operation())


def an_application_may_do_without() -> None:
    store, other = OperationStore(), OperationStore()
    without = WebApplication(Settings(registry=store, shutdown_hook=False, drain_seconds=SECONDS))
    signal.signal(signal.SIGTERM, note)
    install_shutdown_hook()
    thread = in_a_thread(other)
    term()
    thread.join()
    say("without", sleep_in_an_operation(store, seconds=0.2))
    say(without.jobs.submit(lambda: "its jobs run").result(SECONDS))


def the_interpreters_end_waits_for_jobs() -> None:
    application = WebApplication(Settings())
    signal.signal(signal.SIGTERM, note)
    install_shutdown_hook()
    started = threading.Event()

    def job() -> None:
        try:
            started.set()
            sleep_in_an_operation()
        finally:
            time.sleep(0.2)
            say("cleaned")

    application.jobs.submit(job)
    started.wait(SECONDS)
    term()


def a_cancel_from_outside_is_for_that_reason() -> None:
    signal.signal(signal.SIGTERM, note)
    install_shutdown_hook(drain_seconds=SECONDS, grace_seconds=0)
    application = WebApplication(Settings())

    async def main() -> None:
        request = application.new_request("GET", lambda: "/slow", native=None)
        operation = Cancelable()
        with anyio.CancelScope() as outer:
            async with request, operation:
                term()
                outer.cancel()
                await anyio.sleep(SECONDS)
        for each in (request, operation):
            say(each.status, each.context.reason, each.context.origin)

    asyncio.run(main())
    os._exit(0)  # nothing to drain for


def a_lifespan_installs_and_removes_it() -> None:
    signal.signal(signal.SIGTERM, note)
    application = WebApplication(Settings())

    async def main() -> None:
        for _ in range(2):
            async with lifespan_of(application):
                assert signal.getsignal(signal.SIGTERM) is not note
                say(await asyncio.to_thread(application.jobs.submit(lambda: "ran").result, SECONDS))
                job = application.jobs.submit(anyio.sleep, SECONDS)
                await anyio.sleep(0.01)
            assert signal.getsignal(signal.SIGTERM) is note
            say(job.status, job.context.reason, job.context.origin)
        async with lifespan_of(WebApplication(Settings(shutdown_hook=False))):
            assert signal.getsignal(signal.SIGTERM) is note

    asyncio.run(main())


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests in the background has it ignored
    globals()[sys.argv[1]]()
