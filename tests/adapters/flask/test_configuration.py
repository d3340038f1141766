"""How an application gets the extension: factories, several applications, settings, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from flask import Blueprint, Flask
from flask_login import LoginManager

from cancelable_core import CancelableError, ThreadSafeRegistry
from cancelable_core.errors import ConfigurationError
from cancelable_core.http_api import AllowAll
from cancelable_core.servers import WebApplication
from cancelable_core.store import OperationStore
from cancelable_flask import CancelableExtension, CancelableFlask

from .helpers import ReadingClient, make_app


def reading(app: Flask) -> Flask:
    app.test_client_class = ReadingClient
    return app


# --- set-up


def test_plain_flask_takes_it_in_the_constructor() -> None:
    app = reading(Flask("plain"))
    cancelable = CancelableExtension(app, policy=AllowAll(), registry=OperationStore())
    assert app.test_client().get("/jobs").json == {"operations": [], "next": None}
    assert cancelable.settings.url_prefix == "/jobs"


def test_factory_sets_it_up_with_init_app() -> None:
    cancelable = CancelableExtension(policy=AllowAll())

    def create_app() -> Flask:
        app = reading(Flask("made"))
        cancelable.init_app(app)
        return app

    assert create_app().test_client().get("/jobs/").status_code == 200


def test_register_extension_takes_any_extension_and_returns_it() -> None:
    class Anything:
        app: Flask | None = None

        def init_app(self, app: Flask) -> str:
            self.app = app
            return "whatever it returns"

    app, extension = CancelableFlask("app"), Anything()
    assert app.register_extension(extension) is extension
    assert extension.app is app


def test_register_extension_hands_options_on() -> None:
    class Theme:
        colour = "none"

        def init_app(self, app: Flask, *, colour: str) -> None:
            self.colour = colour

    app = CancelableFlask(__name__)
    assert app.register_extension(Theme(), colour="blue").colour == "blue"
    with pytest.raises(TypeError, match="colour"):
        app.register_extension(Theme())


def test_register_extension_takes_flask_login() -> None:
    app = CancelableFlask(__name__)
    manager = app.register_extension(LoginManager(), add_context_processor=False)
    assert vars(app)["login_manager"] is manager


def test_flask_itself_is_left_alone() -> None:
    make_app()
    assert not hasattr(Flask, "register_extension")
    plain = Flask("plain")
    assert "cancelable" not in plain.extensions
    assert vars(plain).keys().isdisjoint({"async_to_sync", "handle_user_exception", "process_response"})


def test_application_holds_its_parts_under_its_extensions() -> None:
    app, cancelable = make_app()
    application = app.extensions["cancelable"]
    assert isinstance(application, WebApplication)
    with app.app_context():
        assert cancelable.jobs is application.jobs
        assert cancelable.registry is application.registry
        assert cancelable.settings is application.settings


def test_second_extension_on_one_application_is_refused() -> None:
    app, _ = make_app()
    with pytest.raises(RuntimeError, match="already"):
        CancelableExtension(app)


def test_after_the_first_request_it_is_too_late_and_nothing_is_half_done() -> None:
    app = reading(Flask("late"))
    app.test_client().get("/")
    with pytest.raises(AssertionError, match="can no longer be called"):
        CancelableExtension(app)
    assert "cancelable" not in app.extensions
    assert app.test_client().get("/jobs").status_code == 404


# --- which application


def test_outside_any_context_it_means_its_only_application() -> None:
    app, cancelable = make_app()
    assert cancelable.jobs is app.extensions["cancelable"].jobs
    assert cancelable.jobs.submit(lambda: "ran").result(10) == "ran"


def test_several_applications_have_settings_registry_and_jobs_of_their_own() -> None:
    cancelable = CancelableExtension(policy=AllowAll())
    apps = [reading(Flask(name)) for name in ("one", "two")]
    for number, app in enumerate(apps):
        app.config["CANCELABLE_REGISTRY"] = OperationStore()
        app.config["CANCELABLE_URL_PREFIX"] = f"/work{number}"
        cancelable.init_app(app)
    for number, app in enumerate(apps):
        with app.app_context():
            cancelable.jobs.submit(int, name=f"job of {number}").result(10)
    for number, app in enumerate(apps):
        with app.app_context():
            assert [found.name for found in cancelable.registry.get_history()] == [f"job of {number}"]
        assert [found["name"] for found in app.test_client().get(f"/work{number}").json["operations"]] == [f"job of {number}"]
        assert app.test_client().get(f"/work{1 - number}").status_code == 404
        assert app.extensions["cancelable"].registry.get_statistics(kind="request").total_operations == 1


def test_with_several_applications_it_asks_which_one_is_meant() -> None:
    _, cancelable = make_app()
    cancelable.init_app(Flask("second"))
    with pytest.raises(RuntimeError, match="app_context"):
        _ = cancelable.jobs


def test_never_set_up_it_says_what_to_do() -> None:
    with pytest.raises(RuntimeError, match="init_app"):
        _ = CancelableExtension().registry


def test_in_the_context_of_an_application_without_it_it_says_so() -> None:
    _, cancelable = make_app()
    with Flask("another").app_context(), pytest.raises(RuntimeError, match="init_app"):
        _ = cancelable.jobs


def test_without_a_registry_of_its_own_it_shows_the_default_store() -> None:
    _, cancelable = make_app()
    assert cancelable.registry.store is ThreadSafeRegistry().store


# --- settings


def test_config_goes_before_keywords() -> None:
    app = Flask("app")
    app.config.update(CANCELABLE_MAX_WAIT_SECONDS=7, CANCELABLE_URL_PREFIX="from-config/", UNRELATED=1)
    cancelable = CancelableExtension(app, url_prefix="/from-keywords", max_waiting=2)
    settings = cancelable.settings
    assert (settings.url_prefix, settings.max_wait_seconds, settings.max_waiting) == ("/from-config", 7, 2)


def test_config_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLASK_CANCELABLE_JOB_WORKERS", "3")
    app = Flask("app")
    app.config.from_prefixed_env()
    assert CancelableExtension(app).settings.job_workers == 3


@pytest.mark.parametrize(
    ("config", "keywords", "text"),
    [
        ({"CANCELABLE_URL_PREFIXX": "/x"}, {}, "no setting CANCELABLE_URL_PREFIXX; the nearest is CANCELABLE_URL_PREFIX$"),
        ({}, {"url_prefixx": "/x"}, "no setting url_prefixx; the nearest is url_prefix$"),
        ({"CANCELABLE_HISTORY_LIMIT": 5}, {"registry": OperationStore()}, "CANCELABLE_HISTORY_LIMIT has no effect on registry"),
        ({"CANCELABLE_JOB_WORKERS": 0}, {}, "CANCELABLE_JOB_WORKERS must be a whole number, at least 1, not 0"),
        ({}, {"job_workers": 0}, "^job_workers must be a whole number"),
        ({"CANCELABLE_POLICY": AllowAll}, {}, "CANCELABLE_POLICY must be an object"),
        ({"CANCELABLE_REGISTRY_URL": "redis://"}, {}, "CANCELABLE_REGISTRY_URL is not available"),
        ({"CANCELABLE_URL_PREFIX": "/"}, {}, "CANCELABLE_URL_PREFIX must be a path of its own"),
    ],
)
def test_impossible_setting_is_named_as_it_was_written(config: dict[str, Any], keywords: dict[str, Any], text: str) -> None:
    app = Flask("app")
    app.config.update(config)
    with pytest.raises(ConfigurationError, match=text) as caught:
        CancelableExtension(app, **keywords)
    assert isinstance(caught.value, CancelableError)
    assert "cancelable" not in app.extensions


# --- the routes


@pytest.mark.parametrize("prefix", ["/jobs", "work", "/api/v1/operations/", "/arbeit-ü"])
def test_routes_lie_under_the_prefix_and_are_no_operations(prefix: str) -> None:
    app, _ = make_app(url_prefix=prefix, policy=AllowAll(), registry=OperationStore(), response_header="all")
    path = f"/{prefix.strip('/')}"
    client = app.test_client()
    for route in ("", "/", "/stats", "/unknown"):
        answer = client.get(path + route)
        assert answer.status_code == (404 if route == "/unknown" else 200)
        assert "X-Operation-ID" not in answer.headers
    assert client.get(f"{path}/stats").json["total"] == 0


def test_path_that_only_begins_like_the_prefix_is_the_application_s() -> None:
    app, _ = make_app(response_header="all")
    app.add_url_rule("/jobsearch", view_func=lambda: "found", endpoint="search")
    answer = app.test_client().get("/jobsearch")
    assert (answer.text, "X-Operation-ID" in answer.headers) == ("found", True)


def test_routes_are_a_blueprint_that_urls_are_built_for() -> None:
    app, _ = make_app(url_prefix="/work")
    assert isinstance(app.blueprints["cancelable"], Blueprint)
    with app.test_request_context():
        assert app.url_for("cancelable.endpoint", path="x/cancel") == "/work/x/cancel"


def test_application_s_own_hooks_apply_to_the_routes() -> None:
    app, _ = make_app(policy=AllowAll())
    app.after_request(lambda response: response.headers.add("X-Hook", "ran") or response)
    assert app.test_client().get("/jobs").headers["X-Hook"] == "ran"


def test_setting_up_starts_no_thread() -> None:
    script = """
import threading
from cancelable_flask import CancelableExtension, CancelableFlask
app = CancelableFlask("app")
app.register_extension(CancelableExtension())
app.test_client().get("/", buffered=True)
assert threading.enumerate() == [threading.main_thread()], threading.enumerate()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
