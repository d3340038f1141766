"""Tokens made of tokens: any_of, all_of, trees."""

from __future__ import annotations

import gc
import itertools
import weakref
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from cancelable_core import Cancelable, CancelationReason, CancelationToken, CompositeToken, Registration
from cancelable_core.flags import LINK, WAKE, StrongLink, Watcher

from .helpers import InterruptedAt, Running, at_every_line

Compose = Callable[..., CompositeToken]


def tokens(count: int) -> list[CancelationToken]:
    return [CancelationToken() for _ in range(count)]


@pytest.mark.parametrize("which", [0, 1, 2])
def test_any_of_takes_over_the_verdict_of_the_first_part(which: int) -> None:
    parts = tokens(3)
    composite = CancelationToken.any_of(*parts)
    parts[which].cancel_sync(CancelationReason.DISCONNECT, "gone", origin="socket")
    assert (composite.reason, composite.message, composite.origin) == (CancelationReason.DISCONNECT, "gone", "socket")
    assert composite.cancelled_at == parts[which].cancelled_at
    parts[which - 1].cancel_sync("too late")
    assert composite.message == "gone"


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_all_of_waits_for_the_last_part_and_takes_over_its_verdict(order: tuple[int, ...]) -> None:
    parts = tokens(3)
    composite = CancelationToken.all_of(*parts)
    for place in order[:-1]:
        parts[place].cancel_sync(f"part {place}")
        assert not composite.is_cancelled
    parts[order[-1]].cancel_sync(CancelationReason.SHUTDOWN, "the last one")
    assert (composite.reason, composite.message) == (CancelationReason.SHUTDOWN, "the last one")


@pytest.mark.parametrize("compose", [CancelationToken.any_of, CancelationToken.all_of])
class TestBoth:
    def test_no_parts_make_no_composite(self, compose: Compose) -> None:
        with pytest.raises(ValueError):
            compose()

    def test_of_one_it_is_that_one(self, compose: Compose) -> None:
        (part,) = tokens(1)
        composite = compose(part)
        part.cancel_sync("it")
        assert composite.message == "it"

    def test_of_the_same_one_twice_it_is_that_one(self, compose: Compose) -> None:
        (part,) = tokens(1)
        composite = compose(part, part)
        part.cancel_sync("it")
        assert composite.message == "it"

    def test_cancelling_it_cancels_no_part(self, compose: Compose) -> None:
        parts = tokens(2)
        composite = compose(*parts)
        assert composite.cancel_sync("only me") is True
        assert [part.is_cancelled for part in parts] == [False, False]
        assert [len(part._watchers) for part in parts] == [0, 0]
        parts[0].cancel_sync()
        assert composite.message == "only me"

    def test_a_closed_one_no_longer_listens(self, compose: Compose) -> None:
        parts = tokens(2)
        called: list[object] = []
        with compose(*parts) as composite:
            composite.on_cancel(called.append)
        composite.close()
        for part in parts:
            assert not part._watchers
            part.cancel_sync()
        assert not composite.is_cancelled
        assert called == []

    def test_parts_hold_it_weakly_while_nobody_waits(self, compose: Compose) -> None:
        parts = tokens(2)
        gone = weakref.ref(compose(*parts))
        gc.collect()
        assert gone() is None
        assert [len(part._watchers) for part in parts] == [0, 0]

    def test_parts_keep_it_as_long_as_a_callback_depends_on_it(self, compose: Compose) -> None:
        parts = tokens(2)
        called: list[CancelationToken] = []
        registration = compose(*parts).on_cancel(called.append)
        gc.collect()
        for part in parts:
            part.cancel_sync("reached")
        assert [told.message for told in called] == ["reached"]
        registration.remove()

    def test_taking_the_callback_back_lets_it_go(self, compose: Compose) -> None:
        parts = tokens(2)
        composite = compose(*parts)
        registration = composite.on_cancel(print)
        gone = weakref.ref(composite)
        registration.remove()
        del composite, registration
        gc.collect()
        assert gone() is None
        assert [len(part._watchers) for part in parts] == [0, 0]

    def test_a_chain_whose_middle_nobody_holds_still_carries(self, compose: Compose) -> None:
        (part,) = tokens(1)
        called: list[object] = []
        compose(compose(compose(part))).on_cancel(called.append)
        gc.collect()
        part.cancel_sync()
        assert len(called) == 1

    def test_a_chain_that_was_let_go_leaves_nothing(self, compose: Compose) -> None:
        (part,) = tokens(1)
        compose(compose(compose(part))).on_cancel(print).remove()
        gc.collect()
        assert not part._watchers

    def test_a_thread_waits_on_one_that_nobody_else_holds(self, compose: Compose) -> None:
        parts = tokens(2)
        waiting = Running(lambda: compose(*parts).wait(10))
        while not any(link.anchor for part in parts for link in part._watchers):  # type: ignore[attr-defined]
            assert waiting.is_alive
        gc.collect()
        for part in parts:
            part.cancel_sync()
        assert waiting.result() is True
        gc.collect()
        assert [len(part._watchers) for part in parts] == [0, 0]

    async def test_a_task_waits_on_one_that_nobody_else_holds(self, compose: Compose) -> None:
        parts = tokens(2)
        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(compose(*parts).wait_for_cancel)
                await anyio.wait_all_tasks_blocked()
                gc.collect()
                for part in parts:
                    part.cancel_sync()

    def test_it_is_dropped_a_hundred_thousand_times_from_a_lasting_token(self, compose: Compose) -> None:
        lasting = CancelationToken()
        for _ in range(100_000):
            compose(lasting, CancelationToken())
        gc.collect()
        assert not lasting._watchers

    def test_with_cancelled_parts_it_is_cancelled_from_the_start(self, compose: Compose) -> None:
        parts = tokens(2)
        for number, part in enumerate(parts):
            part.cancel_sync(f"{number}")
        composite = compose(*parts)
        called: list[object] = []
        composite.on_cancel(called.append)
        assert composite.is_cancelled
        assert called == [composite]
        assert [len(part._watchers) for part in parts] == [0, 0]
        composite.close()

    def test_ten_thousand_deep(self, compose: Compose) -> None:
        deep = root = CancelationToken()
        for _ in range(10_000):
            deep = compose(deep)
        root.cancel_sync("from the bottom")
        assert deep.message == "from the bottom"

    def test_a_cancel_in_the_middle_of_composing_reaches_it(self, compose: Compose) -> None:
        def scenario(step: int) -> bool:
            parts = tokens(2)
            parts[1].cancel_sync()
            called: list[object] = []
            with InterruptedAt(step, parts[0].cancel_sync) as interruption:
                composite = compose(parts[0], parts[1])
                composite.on_cancel(called.append)
            if interruption.fired:
                assert composite.is_cancelled
            if composite.is_cancelled:
                assert called == [composite], step
            return interruption.fired

        at_every_line(scenario)


def test_all_of_parts_that_were_cancelled_before_takes_over_the_last_verdict() -> None:
    parts = tokens(3)
    for place in (1, 2, 0):
        parts[place].cancel_sync(f"part {place}")
        while not parts[place].cancelled_at < _now():  # type: ignore[operator]
            pass  # the clock ticks before the next one
    assert CancelationToken.all_of(*parts).message == "part 0"
    assert CancelationToken.all_of(*reversed(parts)).message == "part 0"


def test_any_of_parts_that_were_cancelled_before_takes_over_the_first_verdict() -> None:
    parts = tokens(3)
    for place in (1, 2, 0):
        parts[place].cancel_sync(f"part {place}")
        while not parts[place].cancelled_at < _now():  # type: ignore[operator]
            pass
    assert CancelationToken.any_of(*parts).message == "part 1"


def _now() -> object:
    from datetime import UTC, datetime

    return datetime.now(UTC)


def test_a_sealed_part_never_completes_a_composite() -> None:
    first, second = tokens(2)
    first.seal()
    both, either = CancelationToken.all_of(first, second), CancelationToken.any_of(first, second)
    second.cancel_sync("second")
    assert not both.is_cancelled
    assert either.message == "second"


def test_the_base_class_leaves_the_condition_open() -> None:
    with pytest.raises(NotImplementedError):
        CompositeToken(tuple(tokens(1))).part_was_cancelled()


@pytest.mark.parametrize("depth", [10, 10_000])
def test_links_as_deep_as_you_like_are_flagged_before_the_first_callback(depth: int) -> None:
    chain = tokens(depth)
    for upper, lower in itertools.pairwise(chain):
        upper.watch(StrongLink(lower), LINK)
    seen: list[bool] = []
    chain[0].on_cancel(lambda _: seen.append(chain[-1].is_cancelled))
    assert chain[0].cancel_sync("all of you")
    assert seen == [True]
    assert {token.message for token in chain} == {"all of you"}


def test_a_tree_runs_every_callback_once() -> None:
    root = CancelationToken()
    called: list[CancelationToken] = []
    level = [root]
    everyone = [root]
    for _ in range(5):
        level = [CancelationToken.any_of(parent) for parent in level for _ in range(3)]
        everyone += level
    for token in everyone:
        token.on_cancel(called.append)
    root.cancel_sync()
    assert len(called) == len(everyone) == len({id(token) for token in called})


def test_a_diamond_runs_its_callback_once() -> None:
    top = CancelationToken()
    left, right = CancelationToken.any_of(top), CancelationToken.any_of(top)
    bottom = CancelationToken.any_of(left, right)
    called: list[object] = []
    bottom.on_cancel(called.append)
    top.cancel_sync()
    assert called == [bottom]


def test_a_ring_of_links_is_walked_once() -> None:
    ring = tokens(3)
    for token, following in zip(ring, [*ring[1:], ring[0]], strict=True):
        token.watch(StrongLink(following), LINK)
    assert ring[1].cancel_sync("round")
    assert {token.message for token in ring} == {"round"}


class TokenGraph(RuleBasedStateMachine):
    """Random graphs of tokens against a model that is recomputed from scratch."""

    made = Bundle("made")
    registered = Bundle("registered")

    def __init__(self) -> None:
        super().__init__()
        self.tokens: list[CancelationToken] = []
        self.parts: dict[int, tuple[str, list[int]]] = {}
        self.closed: set[int] = set()
        self.verdicts: dict[int, str] = {}
        self.calls: list[tuple[int, str | None]] = []
        self.registrations: list[tuple[int, Registration, bool]] = []

    def _add(self, token: CancelationToken) -> int:
        self.tokens.append(token)
        return len(self.tokens) - 1

    @rule(target=made)
    def plain(self) -> int:
        return self._add(CancelationToken())

    @rule(target=made, how=st.sampled_from(["any", "all"]), parts=st.lists(made, min_size=1, max_size=4))
    def composite(self, how: str, parts: list[int]) -> int:
        compose = CancelationToken.any_of if how == "any" else CancelationToken.all_of
        number = self._add(compose(*(self.tokens[part] for part in parts)))
        self.parts[number] = (how, parts)
        cancelled = [part for part in parts if part in self.verdicts]
        if cancelled and (how == "any" or len(cancelled) == len(parts)):
            self.verdicts[number] = self.tokens[number].message or ""
            assert self.verdicts[number] in {self.verdicts[part] for part in cancelled}
        return number

    @rule(number=made, words=st.sampled_from("abc"))
    def cancel(self, number: int, words: str) -> None:
        first = number not in self.verdicts
        assert self.tokens[number].cancel_sync(words) is first
        if first:
            self._spread(number, words)

    def _spread(self, number: int, words: str) -> None:
        self.verdicts[number] = words
        for composite, (how, parts) in self.parts.items():
            if composite in self.verdicts or composite in self.closed or number not in parts:
                continue
            if how == "any" or all(part in self.verdicts for part in parts):
                self._spread(composite, words)

    @rule(number=made)
    def close(self, number: int) -> None:
        token = self.tokens[number]
        if isinstance(token, CompositeToken):
            token.close()
            self.closed.add(number)

    @rule(number=made)
    def register(self, number: int) -> None:
        place = len(self.registrations)
        registration = self.tokens[number].on_cancel(lambda token, place=place: self.calls.append((place, token.message)))
        self.registrations.append((number, registration, False))

    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        if self.registrations:
            place = data.draw(st.integers(0, len(self.registrations) - 1))
            number, registration, removed = self.registrations[place]
            registration.remove()
            self.registrations[place] = (number, registration, removed or number not in self.verdicts)

    @rule()
    def collect(self) -> None:
        gc.collect(0)  # what was made here is young

    @invariant()
    def flags_and_words_are_the_models(self) -> None:
        for number, token in enumerate(self.tokens):
            assert token.is_cancelled == (number in self.verdicts)
            assert token.message == self.verdicts.get(number)

    @invariant()
    def callbacks_ran_exactly_once(self) -> None:
        expected = {
            (place, self.verdicts[number])
            for place, (number, _, removed) in enumerate(self.registrations)
            if number in self.verdicts and not removed
        }
        assert len(self.calls) == len(set(self.calls))
        assert set(self.calls) == expected

    @invariant()
    def nothing_is_left_on_decided_tokens(self) -> None:
        for token in self.tokens:
            if token.is_cancelled:
                assert not token._watchers


TestTokenGraph = TokenGraph.TestCase
TestTokenGraph.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)


@pytest.mark.parametrize("part", ["text", None, 5, Cancelable(register=False)])
def test_what_is_no_token_is_refused_and_nothing_is_linked(part: Any) -> None:
    token = CancelationToken()
    for compose in (CancelationToken.any_of, CancelationToken.all_of):
        with pytest.raises(TypeError, match="token"):
            compose(token, part)
    assert not token._watchers


def test_the_deepest_of_a_tree_are_woken_first() -> None:
    woken: list[str] = []

    class Sleeper(Watcher):
        def __init__(self, name: str) -> None:
            self.name = name

        def wake(self) -> None:
            woken.append(self.name)

    tokens = [CancelationToken() for _ in range(3)]
    links = [StrongLink(tokens[1]), StrongLink(tokens[2])]
    tokens[0].watch(links[0], LINK)
    tokens[1].watch(links[1], LINK)
    sleepers = [Sleeper(name) for name in ("outer", "middle", "inner")]
    for token, sleeper in zip(tokens, sleepers, strict=True):
        token.watch(sleeper, WAKE)
    tokens[0].cancel_sync()
    assert woken == ["inner", "middle", "outer"]
