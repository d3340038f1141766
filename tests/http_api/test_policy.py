"""Who may do what."""

from __future__ import annotations

from typing import Any

import pytest

from cancelable_core.http_api import Action, AllowAll, Decision, OwnerOrStaff, Principal, StaffOnly
from cancelable_core.models import OperationContext, OperationStatus

from .world import ALICE, BOB, NOBODY, STAFF, World

ONE = [("GET", "/{id}", Action.VIEW), ("POST", "/{id}/cancel", Action.CANCEL)]
SECRET_OWNERS: list[str | None] = [None, "", "None"]


class TestOwnOperations:
    @pytest.mark.parametrize(("method", "path"), [(method, path) for method, path, _ in ONE])
    @pytest.mark.parametrize("asker", [ALICE, STAFF])
    def test_owner_and_staff_reach_it(self, world: World, method: str, path: str, asker: Principal) -> None:
        operation = world.pending(owner="alice")
        assert world.ask(method, path.format(id=operation.id), principal=asker).status in (200, 202)

    @pytest.mark.parametrize(("method", "path"), [(method, path) for method, path, _ in ONE])
    @pytest.mark.parametrize("asker", [BOB, NOBODY, Principal("Alice"), Principal("alice ")])
    @pytest.mark.parametrize("status", [OperationStatus.PENDING, OperationStatus.COMPLETED])
    def test_for_others_it_is_not_there(
        self, world: World, method: str, path: str, asker: Principal, status: OperationStatus
    ) -> None:
        operation = world.pending(owner="alice") if status is OperationStatus.PENDING else world.finished(status, owner="alice")
        foreign = world.ask(method, path.format(id=operation.id), principal=asker)
        unknown = world.ask(method, path.format(id="0" * 32), principal=asker)
        assert foreign.status == 404
        assert foreign.response == unknown.response
        assert not operation.token.is_cancelled

    @pytest.mark.parametrize("body", [b"{", b"[]", b'{"wait_seconds":-1}', b'{"x":1}'])
    def test_a_bad_body_does_not_tell_foreign_from_unknown(self, world: World, body: bytes) -> None:
        operation = world.pending(owner="alice")
        headers = {"content-type": "application/json"}
        foreign = world.post(f"/{operation.id}/cancel", body, headers=headers, principal=BOB)
        unknown = world.post(f"/{'0' * 32}/cancel", body, headers=headers, principal=BOB)
        assert foreign.response == unknown.response


class TestOperationsWithoutOwner:
    @pytest.mark.parametrize("owner", SECRET_OWNERS)
    @pytest.mark.parametrize("asker", [NOBODY, ALICE, STAFF])
    def test_a_secret_id_is_enough(self, world: World, owner: str | None, asker: Principal) -> None:
        operation = world.pending(owner=owner)
        assert world.get(f"/{operation.id}", principal=asker).status == 200
        assert world.post(f"/{operation.id}/cancel", principal=asker).status == 202

    @pytest.mark.parametrize("owner", SECRET_OWNERS)
    @pytest.mark.parametrize(("asker", "status"), [(NOBODY, 404), (ALICE, 404), (STAFF, 200), (Principal("None"), 404)])
    def test_a_guessable_id_is_for_staff(self, world: World, owner: str | None, asker: Principal, status: int) -> None:
        world.pending(owner=owner, operation_id="nightly-report")
        assert world.get("/nightly-report", principal=asker).status == status


class TestManyOperations:
    def test_a_list_has_ones_own_operations_only(self, world: World) -> None:
        mine = world.pending(owner="alice")
        world.pending(owner="bob")
        world.pending()
        assert world.get("/", principal=ALICE).ids == [mine.id]

    def test_staff_lists_all(self, world: World) -> None:
        ids = {world.pending(owner=owner).id for owner in ("alice", "bob", None)}
        assert set(world.get("/", principal=STAFF).ids) == ids

    def test_staff_may_ask_for_one_owner(self, world: World) -> None:
        mine = world.pending(owner="alice")
        world.pending(owner="bob")
        assert world.get("/", query="owner=alice", principal=STAFF).ids == [mine.id]

    def test_naming_oneself_changes_nothing(self, world: World) -> None:
        mine = world.pending(owner="alice")
        assert world.get("/", query="owner=alice", principal=ALICE).ids == [mine.id]

    def test_somebody_elses_list_is_empty(self, world: World) -> None:
        world.pending(owner="alice")
        world.pending(owner="bob")
        assert world.get("/", query="owner=bob", principal=ALICE).json == {"operations": [], "next": None}

    def test_cancel_all_reaches_ones_own_operations_only(self, world: World) -> None:
        mine, foreign, ownerless = world.pending(owner="alice"), world.pending(owner="bob"), world.pending()
        assert world.post("/cancel-all", {"all": True}, principal=ALICE).json == {"requested": 1}
        assert mine.token.is_cancelled
        assert not foreign.token.is_cancelled
        assert not ownerless.token.is_cancelled

    def test_cancel_all_of_somebody_else_reaches_nobody(self, world: World) -> None:
        operations = [world.pending(owner="alice"), world.pending(owner="bob")]
        assert world.post("/cancel-all", {"owner": "bob"}, principal=ALICE).json == {"requested": 0}
        assert not any(operation.token.is_cancelled for operation in operations)

    @pytest.mark.parametrize(
        ("method", "path", "asker"),
        [("GET", "/", NOBODY), ("POST", "/cancel-all", NOBODY), ("GET", "/stats", NOBODY), ("GET", "/stats", ALICE)],
    )
    def test_a_refusal_says_what_to_set(self, world: World, method: str, path: str, asker: Principal) -> None:
        answer = world.ask(method, path, principal=asker, query="" if method == "GET" else "x=1")
        assert answer.status == 403
        assert answer.json["type"] == "urn:cancelable:forbidden"
        assert ("`principal`" if asker is NOBODY else "`staff`") in answer.json["detail"]
        assert "`policy`" in answer.json["detail"]

    def test_statistics_are_for_staff(self, world: World) -> None:
        assert world.get("/stats", principal=STAFF).status == 200


class TestOtherPolicies:
    @pytest.mark.parametrize(("asker", "one", "many"), [(STAFF, 200, 200), (ALICE, 404, 403), (NOBODY, 404, 403)])
    def test_staff_only(self, asker: Principal, one: int, many: int) -> None:
        world = World(policy=StaffOnly())
        operation = world.pending(owner="alice")
        assert world.get(f"/{operation.id}", principal=asker).status == one
        assert [world.get(path, principal=asker).status for path in ("/", "/stats")] == [many, many]

    @pytest.mark.parametrize("asker", [NOBODY, ALICE, STAFF])
    def test_allow_all(self, asker: Principal) -> None:
        world = World(policy=AllowAll())
        foreign = world.pending("export", owner="bob", operation_id="nightly")
        assert world.get("/", principal=asker).ids == ["nightly"]
        assert world.get("/stats", principal=asker).status == 200
        assert world.post("/cancel-all", {"name": "exp*"}, principal=asker).json == {"requested": 1}
        assert foreign.token.is_cancelled

    def test_what_may_be_seen_but_not_cancelled_is_forbidden_not_hidden(self) -> None:
        world = World(policy=ReadOnly())
        operation = world.pending(owner="alice")
        assert world.get(f"/{operation.id}", principal=ALICE).status == 200
        answer = world.post(f"/{operation.id}/cancel", principal=ALICE)
        assert (answer.status, answer.json["type"]) == (403, "urn:cancelable:forbidden")
        assert not operation.token.is_cancelled

    def test_a_policy_sees_the_operation_where_there_is_one(self) -> None:
        policy = Recording()
        world = World(policy=policy)
        operation = world.pending()
        for method, path, _ in ONE:
            world.ask(method, path.format(id=operation.id))
        world.get("/")
        world.get("/stats")
        world.post("/cancel-all", {"all": True})
        expected = [(action, operation.id) for *_, action in ONE]
        assert policy.asked == [*expected, (Action.LIST, None), (Action.STATISTICS, None), (Action.CANCEL_ALL, None)]

    @pytest.mark.parametrize("action", list(Action))
    def test_a_missing_operation_is_never_a_way_in(self, action: Action) -> None:
        decision = OwnerOrStaff().decide(NOBODY, action, None)
        assert not decision.allowed


class ReadOnly:
    def decide(self, principal: Principal, action: Action, context: OperationContext | None) -> Decision:
        return Decision(allowed=action is Action.VIEW)


class Recording:
    def __init__(self) -> None:
        self.asked: list[Any] = []

    def decide(self, principal: Principal, action: Action, context: OperationContext | None) -> Decision:
        self.asked.append((action, context and context.id))
        return Decision(allowed=True)
