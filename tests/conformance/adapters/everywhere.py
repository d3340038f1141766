"""`same_everywhere`: one test, run on all adapters, whose answers must then be the same byte for byte."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection
from typing import Any

from .clients import ADAPTERS, AdapterClient, Answer, normalised

__all__ = ["same_everywhere"]

Test = Callable[..., None]


def same_everywhere(test: Test | None = None, /, *, apart: Collection[str] = (), **settings: Any) -> Any:
    """Run a test with a fresh application on each framework in turn, and compare what they answered.

    The test takes the `AdapterClient` as ``client``. Its own assertions say what the answers must be; the comparison says that
    nothing else about them differs. Generated ids, instants, lengths of time and cursors are replaced before.

    Args:
        test: The test.
        apart: Adapters that are not compared, where a test knows that their framework cannot give the same answer; each of them
            stands, with the reason, in `differences.DIFFERENCES`.
        settings: The adapter's settings.
    """
    if test is None:
        return functools.partial(same_everywhere, apart=apart, **settings)
    signature = inspect.signature(test)

    @functools.wraps(test)
    def run_everywhere(**arguments: Any) -> None:
        transcripts = {adapter.name: _transcript(adapter, test, arguments, settings) for adapter in ADAPTERS}
        for name in apart:
            del transcripts[name]
        _compare(transcripts)

    others = [parameter for parameter in signature.parameters.values() if parameter.name != "client"]
    vars(run_everywhere)["__signature__"] = signature.replace(parameters=others)
    return run_everywhere


def _transcript(adapter: type[AdapterClient], test: Test, arguments: dict[str, Any], settings: dict[str, Any]) -> list[Any]:
    try:
        with adapter(**settings) as client:
            test(client=client, **arguments)
    except BaseException as error:
        error.add_note(f"on {adapter.name}")
        raise
    return normalised(client.transcript)


def _compare(transcripts: dict[str, list[Any]]) -> None:
    for exchanges in zip(*transcripts.values(), strict=True):
        for sent, answer in exchanges:
            assert answer.status < 500 or _is_ours(answer), (sent, answer)
        by_adapter = {name: answer for name, (_, answer) in zip(transcripts, exchanges, strict=True)}
        assert len(set(by_adapter.values())) == 1, f"{exchanges[0][0]}\n" + "\n".join(
            f"{name:>12}: {answer}" for name, answer in by_adapter.items()
        )


def _is_ours(answer: Answer) -> bool:
    """Whether a 5xx is one that we mean: a timeout, a shutdown, a full queue."""
    return answer["content-type"] == "application/problem+json" and answer.code in ("timed-out", "shutting-down", "queue-full")
