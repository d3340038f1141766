"""Settings, URLs and system checks: what a project writes, and what it is told when that is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.checks import Error, Warning
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.test import Client, override_settings
from django.urls import NoReverseMatch, include, path, reverse

from cancelable_core import ConfigurationError
from cancelable_django.checks import check_configuration
from cancelable_django.conf import get_application, read_settings, registry
from cancelable_django.middleware import CancelableMiddleware
from tests.django_project import MIDDLEWARE

from .helpers import site, urlconf

ROOT = Path(__file__).parents[3]


def test_all_routes_can_be_reversed() -> None:
    assert reverse("cancelable:operations") == "/jobs/"
    assert reverse("cancelable:stats") == "/jobs/stats"
    assert reverse("cancelable:cancel-all") == "/jobs/cancel-all"
    assert reverse("cancelable:operation", args=["ab12"]) == "/jobs/ab12"
    assert reverse("cancelable:cancel", kwargs={"operation_id": "ab12"}) == "/jobs/ab12/cancel"


def test_the_project_says_where_the_routes_lie() -> None:
    with override_settings(ROOT_URLCONF=_mounted(path("api/work/", include("cancelable_django.urls")))):
        assert reverse("cancelable:cancel", args=["ab12"]) == "/api/work/ab12/cancel"
        assert Client().get("/api/work/ab12").json()["type"] == "urn:cancelable:not-found"


def test_the_namespace_may_be_another() -> None:
    with override_settings(ROOT_URLCONF=_mounted(path("work/", include("cancelable_django.urls", namespace="work")))):
        assert reverse("work:stats") == "/work/stats"
        before = registry().get_statistics().total_operations
        assert Client().get("/work/ab12").status_code == 404
        assert registry().get_statistics().total_operations == before


def test_without_the_routes_requests_are_still_operations() -> None:
    with override_settings(ROOT_URLCONF=_mounted()):
        with pytest.raises(NoReverseMatch):
            reverse("cancelable:stats")
        before = registry().get_statistics().total_operations
        assert Client().get("/nowhere").status_code == 404
        assert registry().get_statistics().total_operations == before + 1


def _mounted(*patterns: Any) -> Any:
    module = urlconf()
    module.urlpatterns = list(patterns)  # type: ignore[attr-defined]
    return module


def test_unknown_setting_names_the_nearest() -> None:
    with override_settings(CANCELABLE={"MAX_WAIT_SECOND": 3}):
        with pytest.raises(ConfigurationError, match="MAX_WAIT_SECONDS"):
            read_settings()
        with pytest.raises(ConfigurationError, match="MAX_WAIT_SECOND"):
            get_application()
        (message,) = check_configuration(None)
        assert isinstance(message, Error)
        assert message.id == "cancelable.E001"
        assert "MAX_WAIT_SECONDS" in message.msg


def test_url_prefix_is_refused_in_favour_of_urls_py() -> None:
    with override_settings(CANCELABLE={"URL_PREFIX": "/jobs"}):
        (message,) = check_configuration(None)
    assert message.id == "cancelable.E001"
    assert "urls.py" in message.msg


@pytest.mark.parametrize("written", [["MAX_WAIT_SECONDS"], "MAX_WAIT_SECONDS", None])
def test_settings_must_be_a_dictionary(written: object) -> None:
    with override_settings(CANCELABLE=written), pytest.raises(ConfigurationError, match="CANCELABLE must be a dictionary"):
        read_settings()


def test_impossible_value_is_refused() -> None:
    with override_settings(CANCELABLE={"JOB_WORKERS": 0}):
        (message,) = check_configuration(None)
    assert "CANCELABLE['JOB_WORKERS']" in message.msg


def test_setting_is_optional(settings_without_ours: None) -> None:
    assert read_settings().max_wait_seconds == 30


@pytest.fixture
def settings_without_ours() -> Any:
    from django.conf import settings

    with override_settings():
        del settings.CANCELABLE
        yield


def test_manage_py_check_fails_on_wrong_settings_and_passes_otherwise(capsys: pytest.CaptureFixture[str]) -> None:
    call_command("check")
    assert "no issues" in capsys.readouterr().out
    with override_settings(CANCELABLE={"NONSENSE": 1}), pytest.raises(SystemCheckError, match=r"cancelable\.E001"):
        call_command("check")


def test_missing_middleware_is_warned_of() -> None:
    assert check_configuration(None) == []
    with override_settings(MIDDLEWARE=[name for name in MIDDLEWARE if "cancelable" not in name]):
        (message,) = check_configuration(None)
    assert isinstance(message, Warning)
    assert message.id == "cancelable.W001"
    assert "cancelable_django.middleware.CancelableMiddleware" in message.hint


class OwnMiddleware(CancelableMiddleware):
    """A project's own."""


def test_subclass_of_the_middleware_is_no_missing_one() -> None:
    with override_settings(MIDDLEWARE=[f"{__name__}.{OwnMiddleware.__name__}"]):
        assert check_configuration(None) == []


def test_layer_that_cannot_be_imported_is_django_s_to_tell_of() -> None:
    with override_settings(MIDDLEWARE=["nowhere.Middleware", MIDDLEWARE[-1]]):
        assert check_configuration(None) == []


def sync_only_layer(get_response: Any) -> Any:
    return get_response


def test_layers_between_ours_and_the_views_are_warned_of() -> None:
    others = MIDDLEWARE[:-1]
    with override_settings(MIDDLEWARE=[MIDDLEWARE[-1], *others, f"{__name__}.{sync_only_layer.__name__}"]):
        messages = check_configuration(None)
    assert [message.id for message in messages] == ["cancelable.W002", "cancelable.W003"]
    assert "AuthenticationMiddleware" in messages[0].msg
    assert "sync_only_layer" in messages[1].msg
    assert all("best to its end" in (message.hint or "") for message in messages)


def test_layers_for_sync_only_above_ours_and_others_below_are_fine() -> None:
    layers = [f"{__name__}.{sync_only_layer.__name__}", *MIDDLEWARE, "django.middleware.gzip.GZipMiddleware"]
    with override_settings(MIDDLEWARE=layers):
        assert check_configuration(None) == []


def test_overridden_settings_hold_as_long_as_they_are_overridden() -> None:
    before = get_application()
    assert get_application() is before
    with override_settings(CANCELABLE={"MAX_WAIT_SECONDS": 3}):
        during = get_application()
        assert during.settings.max_wait_seconds == 3
    after = get_application()
    assert after.settings.max_wait_seconds == before.settings.max_wait_seconds == 30
    for replaced in (before, during):
        with pytest.raises(RuntimeError, match="closed"):
            replaced.jobs.submit(print)


def test_other_settings_leave_it_alone() -> None:
    before = get_application()
    with site(DEBUG=True):
        assert get_application() is before
    assert get_application() is before


def test_setting_up_django_starts_nothing() -> None:
    """``ready`` runs in every management command, and in the process of runserver that only reloads."""
    code = (
        "import signal, threading\n"
        "before = [signal.getsignal(number) for number in signal.valid_signals()]\n"
        "from tests.django_project import configure\n"
        "configure()\n"
        "import cancelable_django.middleware, cancelable_django.views\n"
        "assert threading.active_count() == 1, threading.enumerate()\n"
        "assert before == [signal.getsignal(number) for number in signal.valid_signals()]\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, check=True, timeout=60)
