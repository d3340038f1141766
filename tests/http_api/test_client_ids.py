"""Ids that clients choose."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cancelable_core.http_api import Principal, canonical_operation_id

from .world import ALICE, BOB, NOBODY, STAFF, World

CHOSEN = "tPz3Yw9xQm-1_kLr7VbNc2"

CLIENT_IDS = st.from_regex(r"[A-Za-z0-9_-]{22,128}", fullmatch=True)
PRINCIPALS = st.builds(Principal, st.none() | st.text(max_size=20))


def test_it_never_changes_so_that_processes_of_two_versions_agree() -> None:
    assert canonical_operation_id(ALICE, CHOSEN) == "0799890caa6a3736e486a6282385c738"


@given(PRINCIPALS, CLIENT_IDS)
def test_it_looks_like_a_generated_id(asker: Principal, chosen: str) -> None:
    assert re.fullmatch(r"[0-9a-f]{32}", canonical_operation_id(asker, chosen) or "")


@given(PRINCIPALS, CLIENT_IDS, PRINCIPALS, CLIENT_IDS)
def test_two_askers_or_two_choices_never_meet(asker: Principal, chosen: str, other: Principal, other_chosen: str) -> None:
    same = (asker.id, chosen) == (other.id, other_chosen)
    assert (canonical_operation_id(asker, chosen) == canonical_operation_id(other, other_chosen)) == same


@pytest.mark.parametrize(
    "chosen", ["", "x" * 21, "x" * 129, "x" * 21 + ".", "x" * 21 + "\n", "x" * 22 + "\n", "é" * 22, "x " * 11]
)
def test_another_form_is_no_choice(chosen: str) -> None:
    assert canonical_operation_id(ALICE, chosen) is None


def test_an_id_that_reads_like_nobody_is_somebody_elses() -> None:
    assert canonical_operation_id(Principal("nobody"), CHOSEN) != canonical_operation_id(NOBODY, CHOSEN)


class TestLookup:
    def world(self, *, accepting: bool = True, owner: str | None = "alice") -> World:
        world = World(accept_operation_ids=accepting)
        world.pending("GET /search", operation_id=canonical_operation_id(ALICE, CHOSEN), owner=owner)
        return world

    def test_the_asker_finds_it_by_the_chosen_id(self) -> None:
        world = self.world()
        canonical = canonical_operation_id(ALICE, CHOSEN)
        assert world.get(f"/{CHOSEN}", principal=ALICE).json["id"] == canonical
        assert world.get(f"/{canonical}", principal=ALICE).status == 200
        assert world.post(f"/{CHOSEN}/cancel", principal=ALICE).status == 202

    @pytest.mark.parametrize("asker", [BOB, NOBODY, STAFF])
    def test_nobody_else_does(self, asker: Principal) -> None:
        assert self.world().get(f"/{CHOSEN}", principal=asker).status == 404
        assert self.world(owner=None).get(f"/{CHOSEN}", principal=asker).status == 404

    def test_only_where_they_are_resolved(self) -> None:
        assert self.world(accepting=False).get(f"/{CHOSEN}", principal=ALICE).status == 404

    def test_an_operation_of_that_very_id_comes_first_if_it_may_be_seen(self) -> None:
        world = self.world()
        world.pending("mine", operation_id=CHOSEN, owner="alice")
        assert world.get(f"/{CHOSEN}", principal=ALICE).json["name"] == "mine"

    def test_somebody_elses_operation_of_that_very_id_does_not_hide_ones_own(self) -> None:
        world = self.world()
        foreign = world.pending("foreign", operation_id=CHOSEN, owner="bob")
        assert world.get(f"/{CHOSEN}", principal=ALICE).json["name"] == "GET /search"
        assert world.post(f"/{CHOSEN}/cancel", principal=ALICE).status == 202
        assert not foreign.token.is_cancelled
