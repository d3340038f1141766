"""From what an application says about who is asking to a principal."""

from __future__ import annotations

import uuid
from types import SimpleNamespace
from typing import Any

import pytest

from cancelable_core.http_api import Principal, as_principal

KNOWN = uuid.UUID(int=7)


class LoginUser:
    """A user whose id comes from a method and whose flags are methods too, as some are written."""

    def __init__(self, identity: Any, *, known: bool = True, staff: bool = False) -> None:
        self.identity, self.known, self.staff = identity, known, staff

    def get_id(self) -> Any:
        return self.identity

    def is_authenticated(self) -> bool:
        return self.known

    def is_staff(self) -> bool:
        return self.staff


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, Principal()),
        ("", Principal()),
        ("None", Principal()),
        ("alice", Principal("alice")),
        (Principal("alice", is_staff=True), Principal("alice", is_staff=True)),
        (SimpleNamespace(pk=7), Principal("7")),
        (SimpleNamespace(id=KNOWN), Principal(str(KNOWN))),
        (SimpleNamespace(pk=7, id=8), Principal("7")),
        (SimpleNamespace(pk=None), Principal()),
        (SimpleNamespace(pk=0), Principal("0")),
        (SimpleNamespace(pk=7, is_staff=True), Principal("7", is_staff=True)),
        (SimpleNamespace(pk=7, is_authenticated=True, is_anonymous=False), Principal("7")),
        (SimpleNamespace(pk=7, is_authenticated=False, is_staff=True), Principal()),
        (SimpleNamespace(pk=7, is_anonymous=True, is_staff=True), Principal()),
        (SimpleNamespace(pk=None, is_staff=True), Principal()),
        (LoginUser("alice"), Principal("alice")),
        (LoginUser(7), Principal("7")),
        (LoginUser(None), Principal()),
        (LoginUser("alice", known=False), Principal()),
        (LoginUser("alice", staff=True), Principal("alice", is_staff=True)),
    ],
)
def test_what_applications_have(value: object, expected: Principal) -> None:
    assert as_principal(value) == expected


def test_the_staff_callable_decides_instead_of_the_flag() -> None:
    admins = {"alice"}
    user = SimpleNamespace(pk="alice", is_staff=False)
    assert as_principal(user, lambda user: user.pk in admins).is_staff
    assert as_principal("alice", admins.__contains__).is_staff
    assert not as_principal(SimpleNamespace(pk="bob", is_staff=True), lambda user: user.pk in admins).is_staff


@pytest.mark.parametrize("value", [None, "", "None", SimpleNamespace(pk=1, is_authenticated=False), SimpleNamespace(pk=None)])
def test_nobody_is_never_staff(value: object) -> None:
    assert as_principal(value, lambda _: True) == Principal()


def test_a_principal_is_taken_as_it_is() -> None:
    assert not as_principal(Principal("alice"), lambda _: True).is_staff


@pytest.mark.parametrize("value", [7, 7.0, True, b"alice", {"id": "alice"}, ["alice"], object()])
def test_anything_else_is_an_error_that_says_what_to_return(value: object) -> None:
    with pytest.raises(TypeError, match="must return a Principal"):
        as_principal(value)


@pytest.mark.parametrize("identity", [7, b"alice", KNOWN])
def test_an_id_is_text(identity: Any) -> None:
    with pytest.raises(TypeError, match="must be text"):
        Principal(identity)


@pytest.mark.parametrize("identity", [None, "", "None"])
def test_nobody_has_no_id(identity: str | None) -> None:
    assert Principal(identity).id is None
    assert not Principal(identity).is_authenticated
