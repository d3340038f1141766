"""One table of settings for all adapters."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import math
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from cancelable_core.errors import ConfigurationError
from cancelable_core.http_api import AllowAll, OwnerOrStaff, Settings, SettingsOptions, registry_of
from cancelable_core.jobs import default_workers
from cancelable_core.registry import OperationRegistry, ThreadSafeRegistry
from cancelable_core.store import OperationStore, default_store, replace_default_store

DEFAULTS: dict[str, Any] = {
    "policy": OwnerOrStaff(),
    "principal": None,
    "staff": None,
    "url_prefix": "/jobs",
    "registry": None,
    "history_limit": 1000,
    "request_timeout_seconds": None,
    "cancel_on_disconnect": "scoped",
    "response_header": "scoped",
    "accept_operation_ids": False,
    "trusted_origins": (),
    "cancelled_status": 499,
    "max_wait_seconds": 30,
    "max_waiting": None,
    "job_workers": default_workers(),
    "job_queue_limit": 1000,
    "drain_seconds": 0,
    "shutdown_hook": True,
    "expose_metadata": False,
}

NOT_YET = [
    "registry_url",
    "registry_namespace",
    "lease_seconds",
]


def spelled(key: str) -> str:
    return f"CANCELABLE_{key.upper()}"


def test_defaults() -> None:
    values = {field.name: getattr(Settings(), field.name) for field in dataclasses.fields(Settings)}
    assert values == DEFAULTS
    assert Settings.from_mapping({}) == Settings()


def test_every_setting_is_described_in_words() -> None:
    (body,) = ast.parse(inspect.getsource(Settings)).body
    assert isinstance(body, ast.ClassDef)
    described = [
        before.target.id
        for before, after in pairwise(body.body)
        if isinstance(before, ast.AnnAssign) and isinstance(before.target, ast.Name)
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str)
    ]
    assert described == [field.name for field in dataclasses.fields(Settings)]


def test_the_keywords_are_the_same_settings() -> None:
    assert list(SettingsOptions.__annotations__) == [field.name for field in dataclasses.fields(Settings)]


@pytest.mark.parametrize("key", ["max_wait_seconds", "MAX_WAIT_SECONDS", "Max_Wait_Seconds"])
def test_names_in_any_case(key: str) -> None:
    assert Settings.from_mapping({key: 5}).max_wait_seconds == 5


def test_all_of_them_at_once() -> None:
    given: dict[str, Any] = {
        "policy": AllowAll(),
        "principal": lambda request: None,
        "staff": lambda user: True,
        "url_prefix": "/operations",
        "history_limit": 5,
        "request_timeout_seconds": 2.5,
        "cancel_on_disconnect": "never",
        "response_header": "all",
        "trusted_origins": ("https://app.example.com",),
        "cancelled_status": 408,
        "max_wait_seconds": 0,
        "max_waiting": 0,
        "job_workers": 1,
        "job_queue_limit": 1,
        "drain_seconds": 2.5,
        "shutdown_hook": False,
        "expose_metadata": True,
    }
    settings = Settings.from_mapping({key.upper(): value for key, value in given.items()})
    assert {key: getattr(settings, key) for key in given} == given


@pytest.mark.parametrize(
    ("key", "nearest"),
    [("max_wait_second", "max_wait_seconds"), ("polcy", "policy"), ("prefix", "url_prefix"), ("job_worker", "job_workers")],
)
def test_an_unknown_name_is_an_error_that_names_the_nearest(key: str, nearest: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"{spelled(key)}.*{spelled(nearest)}$") as caught:
        Settings.from_mapping({key: 1}, spelled=spelled)
    assert caught.value.setting == key


@pytest.mark.parametrize("key", ["", "zzz", "x" * 5000, "max wait seconds", "ÄÖÜ", 7, None])
def test_any_unknown_name_is_an_error(key: Any) -> None:
    with pytest.raises(ConfigurationError, match="nearest"):
        Settings.from_mapping({key: 1})


@pytest.mark.parametrize("key", NOT_YET)
@pytest.mark.parametrize("value", [None, 1, "x"])
def test_what_has_no_effect_yet_is_refused(key: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=f"{spelled(key)} is not available in this version"):
        Settings.from_mapping({key.upper(): value}, spelled=spelled)


def test_twice_in_different_cases() -> None:
    with pytest.raises(ConfigurationError, match="twice"):
        Settings.from_mapping({"staff": None, "STAFF": None})


def test_a_history_limit_needs_a_store_to_act_on() -> None:
    store = OperationStore()
    with pytest.raises(ConfigurationError, match=r"CANCELABLE_HISTORY_LIMIT.*CANCELABLE_REGISTRY") as caught:
        Settings.from_mapping({"HISTORY_LIMIT": 5, "REGISTRY": store}, spelled=spelled)
    assert caught.value.setting == "history_limit"
    assert Settings.from_mapping({"history_limit": 5, "registry": None}).history_limit == 5


BAD: list[tuple[str, list[object]]] = [
    ("policy", [None, OwnerOrStaff, "OwnerOrStaff", object(), lambda *_: True]),
    ("principal", ["current_user", 1]),
    ("staff", [True, ["alice"]]),
    (
        "url_prefix",
        [
            None,
            1,
            "/a b",
            "/jobs?x",
            "/jobs#x",
            "/jobs%20",
            "/<name>/jobs",
            "/{name}/jobs",
            "/a//b",
            "/a/../b",
            "./jobs",
            "/a/..",
            "\\jobs",
        ],
    ),
    ("registry", ["redis://", 1, object, OperationStore]),
    ("history_limit", [-1, 1.0, "5", True, None, math.inf]),
    ("request_timeout_seconds", [0, -1, math.nan, math.inf, "5", True, timedelta(0)]),
    ("cancel_on_disconnect", ["", "ALL", None, True, ["all"]]),
    ("response_header", ["", "ALL", None, True, ["all"]]),
    ("accept_operation_ids", [None, 1, "yes", ["alice"]]),
    (
        "trusted_origins",
        [
            "https://app.example.com",
            b"x",
            None,
            1,
            ["app.example.com"],
            ["https://app.example.com/"],
            ["https://app.example.com/path"],
            ["https://*.example.com"],
            ["*"],
            ["null"],
            ["https://user@app.example.com"],
            ["https://"],
            ["https://a b"],
            [1],
            [["https://app.example.com"]],
        ],
    ),
    ("cancelled_status", [200, 399, 600, "499", None, True, 499.0]),
    ("max_wait_seconds", [-1, -0.001, math.nan, math.inf, "30", None, True]),
    ("max_waiting", [-1, 1.0, "4", True]),
    ("job_workers", [0, -1, None, "4", True]),
    ("job_queue_limit", [-1, None]),
    ("drain_seconds", [-1, math.nan, math.inf, "5", None, True]),
    ("shutdown_hook", [1, "true", None]),
    ("expose_metadata", [1, "true", None]),
]


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in BAD for value in values])
def test_a_bad_value_is_an_error_that_names_the_setting_as_it_is_spelled(key: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=rf"^{spelled(key)} must ") as caught:
        Settings.from_mapping({key.upper(): value}, spelled=spelled)
    assert caught.value.setting == key
    with pytest.raises(ConfigurationError, match=rf"^{key} must "):
        Settings(**{key: value})  # type: ignore[arg-type]


def test_every_checked_setting_has_bad_values() -> None:
    assert {key for key, _ in BAD} == {field.name for field in dataclasses.fields(Settings)}


def test_a_long_value_is_not_repeated_in_full() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings(url_prefix="? " * 5000)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("given", "kept"), [("/jobs", "/jobs"), ("jobs/", "/jobs"), ("/api/jobs/", "/api/jobs"), ("/v1.2/.jobs", "/v1.2/.jobs")]
)
def test_prefixes_are_kept_in_one_form(given: str, kept: str) -> None:
    assert Settings(url_prefix=given).url_prefix == kept


@pytest.mark.parametrize("prefix", ["", "/", "//"])
def test_the_routes_do_not_swallow_the_application(prefix: str) -> None:
    with pytest.raises(ConfigurationError, match="must be a path of its own such as '/jobs'"):
        Settings(url_prefix=prefix)


def test_lengths_of_time_may_be_timedeltas() -> None:
    settings = Settings.from_mapping(
        {"request_timeout_seconds": timedelta(minutes=1), "max_wait_seconds": timedelta(seconds=1)}
    )
    assert (settings.request_timeout_seconds, settings.max_wait_seconds) == (60.0, 1.0)


@pytest.mark.parametrize(
    "origin", ["https://app.example.com", "http://localhost:3000", "https://[::1]:8443", "HTTPS://App.example.com", "app://x"]
)
def test_origins_are_kept_as_browsers_send_them(origin: str) -> None:
    assert Settings(trusted_origins=[origin]).trusted_origins == (origin.lower(),)  # type: ignore[arg-type]


def test_settings_do_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().max_wait_seconds = 5  # type: ignore[misc]


class TestRegistry:
    def test_the_default_store_unless_told_otherwise(self) -> None:
        assert registry_of(Settings()).transport.store is default_store()

    def test_a_store_or_a_face_of_it(self) -> None:
        store = OperationStore()
        face = ThreadSafeRegistry(store)
        assert registry_of(Settings(registry=face)) is face
        for chosen in (store, OperationRegistry(store), face.transport):
            assert registry_of(Settings(registry=chosen)).transport.store is store

    def test_a_history_limit_reaches_the_default_store_only_where_it_was_set(self) -> None:
        before = replace_default_store(OperationStore(history_limit=7))
        try:
            registry_of(Settings())
            assert default_store().history_limit == 7
            registry_of(Settings(history_limit=5))
            assert default_store().history_limit == 5
        finally:
            replace_default_store(before)
