"""Our routes in a Django project: where they lie, who is asking, and what a browser must bring."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import CsrfViewMiddleware, get_token
from django.test import AsyncClient, Client
from django.urls import include, path, re_path
from django.utils.decorators import async_only_middleware

from cancelable_core import Job
from cancelable_core.http_api import Principal
from cancelable_django import current_operation, jobs
from cancelable_django.conf import registry
from tests.django_project import MIDDLEWARE, close_connections

from .helpers import site, urlconf

LOGIN_REQUIRED = "django.contrib.auth.middleware.LoginRequiredMiddleware"
FORM = "application/x-www-form-urlencoded"


class Browser:
    """A test client, sync or async, called as if it were sync; it keeps its cookies."""

    def __init__(self, client: Client | AsyncClient) -> None:
        self._client = client

    def get(self, path: str, **headers: str) -> Any:
        return self._call("get", path, headers=headers)

    def post(self, path: str, data: Any = "", content_type: str = "application/json", **headers: str) -> Any:
        return self._call("post", path, data=data, content_type=content_type, headers=headers)

    def log_in(self, user: Any) -> None:
        self._client.force_login(user)

    def accept_csrf_token(self) -> str:
        """Have the cookie of Django's check; the token that goes with it."""
        self._client.cookies["csrftoken"] = "t" * 32
        return "t" * 32

    def _call(self, method: str, path: str, **arguments: Any) -> Any:
        arguments["headers"] = {name.replace("_", "-"): value for name, value in arguments["headers"].items()}
        send = getattr(self._client, method)
        try:
            return asyncio.run(send(path, **arguments)) if isinstance(self._client, AsyncClient) else send(path, **arguments)
        finally:
            close_connections()


@pytest.fixture(params=[Client, AsyncClient], ids=["client", "async client"])
def new_browser(request: pytest.FixtureRequest) -> Callable[..., Browser]:
    return lambda **options: Browser(request.param(**options))


@pytest.fixture
def browser(new_browser: Callable[..., Browser]) -> Browser:
    return new_browser()


@pytest.fixture
def release() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def start(release: threading.Event) -> Callable[..., Job[None]]:
    """Start a job that runs until it is cancelled, or the test over."""

    def work() -> None:
        operation = current_operation()
        assert operation is not None
        while not release.is_set():
            operation.sleep(0.001)

    return lambda **options: jobs.submit(work, **options)


# --- where the routes lie


def _counted(browser: Browser, path: str) -> int:
    before = registry().get_statistics().total_operations
    assert browser.get(path).status_code in (200, 403, 404)
    return registry().get_statistics().total_operations - before


def _urls(*patterns: Any) -> ModuleType:
    """A URLconf of these patterns and nothing else."""
    module = urlconf()
    vars(module)["urlpatterns"] = list(patterns)
    return module


def _page(request: HttpRequest, **arguments: Any) -> HttpResponse:
    return HttpResponse("a page")


def test_routes_may_lie_at_the_root_below_other_pages(browser: Browser) -> None:
    patterns = _urls(path("page", _page), path("", include("cancelable_django.urls")))
    with site(ROOT_URLCONF=patterns):
        assert browser.get("/page").content == b"a page"
        assert _counted(browser, "/page") == 1
        assert _counted(browser, "/stats") == 0
        assert _counted(browser, "/ab12") == 0


def test_pages_that_come_before_the_routes_are_operations(browser: Browser) -> None:
    patterns = _urls(path("jobs/page", _page), path("jobs/", include("cancelable_django.urls")))
    with site(ROOT_URLCONF=patterns):
        assert _counted(browser, "/jobs/page") == 1
        assert _counted(browser, "/jobs/other") == 0


@pytest.mark.parametrize(
    "mount", [partial(path, "<slug:tenant>/jobs/"), partial(re_path, r"^\w+/jobs/")], ids=["path", "re_path"]
)
def test_routes_under_a_prefix_that_varies_are_no_operations(browser: Browser, mount: Any) -> None:
    mount = mount(include("cancelable_django.urls"))
    with site(ROOT_URLCONF=_urls(path("<slug:tenant>/page", _page), mount)):
        assert _counted(browser, "/acme/page") == 1
        assert _counted(browser, "/acme/jobs/ab12") == 0


def test_routes_may_be_mounted_twice_and_deeper(browser: Browser) -> None:
    inner = [path("work/", include("cancelable_django.urls", namespace="inner"))]
    with site(path("api/", include((inner, "api")))):
        assert _counted(browser, "/jobs/ab12") == 0
        assert _counted(browser, "/api/work/ab12") == 0
        assert browser.get("/api/work/ab12").json()["type"] == "urn:cancelable:not-found"


def test_request_s_own_urlconf_counts(browser: Browser) -> None:
    with site(path("page", _page), MIDDLEWARE=[f"{__name__}.{other_urlconf.__name__}", MIDDLEWARE[-1]]):
        assert _counted(browser, "/elsewhere/ab12") == 0
        assert _counted(browser, "/jobs/ab12") == 1


def other_urlconf(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """As in projects that serve several hosts."""
    patterns = _urls(path("elsewhere/", include("cancelable_django.urls")))

    def middleware(request: HttpRequest) -> HttpResponse:
        vars(request)["urlconf"] = patterns
        return get_response(request)

    return middleware


# --- who is asking


def test_jobs_belong_to_who_is_logged_in(browser: Browser, start: Callable[..., Job[None]], alice: Any) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        return HttpResponse(start(name="export").id)

    with site(path("start", view)):
        browser.log_in(alice)
        job_id = browser.get("/start").content.decode()
        assert registry().get_operation(job_id).owner == str(alice.pk)  # type: ignore[union-attr]
        assert browser.get("/jobs/").json()["operations"][0]["id"] == job_id


def test_jobs_of_an_async_view_too(browser: Browser, release: threading.Event, alice: Any) -> None:
    async def work() -> None:
        await asyncio.sleep(0)

    async def view(request: HttpRequest) -> HttpResponse:
        job = await jobs.asubmit(work)
        await job.wait()
        return HttpResponse(job.context.owner)

    with site(path("start", view)):
        browser.log_in(alice)
        assert browser.get("/start").content.decode() == str(alice.pk)


def test_submit_in_an_async_view_names_asubmit(browser: Browser) -> None:
    async def view(request: HttpRequest) -> HttpResponse:
        with pytest.raises(RuntimeError, match="asubmit"):
            jobs.submit(print)
        return HttpResponse(jobs.submit(int, owner="told").context.owner)

    with site(path("start", view)):
        assert browser.get("/start").content == b"told"


def test_nobody_owns_what_an_anonymous_visitor_starts(browser: Browser, start: Callable[..., Job[None]]) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        job = start()
        return HttpResponse(f"{job.id} {job.context.owner}")

    with site(path("start", view)):
        job_id, owner = browser.get("/start").content.decode().split()
        assert owner == "None"
        assert browser.get(f"/jobs/{job_id}").json()["status"] in ("pending", "running")  # who knows a secret id may look
        assert browser.get("/jobs/").status_code == 403


def test_others_see_nothing_and_staff_sees_all(
    new_browser: Callable[..., Browser], start: Callable[..., Job[None]], alice: Any, bob: Any, admin: Any
) -> None:
    job = start(owner=str(alice.pk), name="export")
    seen = {}
    for user in (alice, bob, admin):
        browser = new_browser()
        browser.log_in(user)
        listed = [operation["id"] for operation in browser.get("/jobs/").json()["operations"]]
        statuses = [browser.get(path).status_code for path in (f"/jobs/{job.id}", "/jobs/stats")]
        seen[user.username] = (job.id in listed, *statuses)
    assert seen == {"alice": (True, 200, 403), "bob": (False, 404, 403), "admin": (True, 200, 200)}


def test_owner_cancels_his_job_once(browser: Browser, start: Callable[..., Job[None]], alice: Any) -> None:
    job = start(owner=str(alice.pk))
    browser.log_in(alice)
    answer = browser.post(f"/jobs/{job.id}/cancel", {"message": "enough", "wait_seconds": 10})
    assert (answer.status_code, answer.json()["operation"]["status"]) == (200, "cancelled")
    assert answer.json()["operation"]["message"] == "enough"
    assert browser.post(f"/jobs/{job.id}/cancel").status_code == 409


def test_user_that_a_middleware_found_by_itself_counts(browser: Browser, alice: Any, bob: Any) -> None:
    """It replaces ``request.user``; ``request.auser`` goes on to say whose session it is."""
    seen: list[str | None] = []

    async def view(request: HttpRequest) -> HttpResponse:
        seen.append((await jobs.asubmit(int)).context.owner)
        return HttpResponse()

    layers = [*MIDDLEWARE[:-1], f"{__name__}.{user_by_header.__name__}", MIDDLEWARE[-1]]
    with site(path("start", view), MIDDLEWARE=layers):
        browser.log_in(alice)
        assert browser.get("/jobs/stats", X_User=bob.username).status_code == 403
        browser.get("/start", X_User=bob.username)
        browser.get("/start")
    assert seen == [str(bob.pk), str(alice.pk)]


def user_by_header(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    def middleware(request: HttpRequest) -> HttpResponse:
        name = request.headers.get("X-User")
        if name is not None:
            request.user = get_user_model().objects.get(username=name)
        return get_response(request)

    return middleware


@pytest.mark.anyio
async def test_user_that_only_async_code_knows_counts() -> None:
    with site(MIDDLEWARE=[f"{__name__}.{auser_only.__name__}", MIDDLEWARE[-1]]):
        answer: Any = await AsyncClient().get("/jobs/stats")
    assert answer.status_code == 200


@async_only_middleware
def auser_only(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    async def auser() -> Principal:
        return Principal("root", is_staff=True)

    async def middleware(request: HttpRequest) -> HttpResponse:
        vars(request)["auser"] = auser
        response: HttpResponse = await get_response(request)
        return response

    return middleware


def _plain(request: HttpRequest) -> str | None:
    return request.headers.get("X-Key")


async def _awaited(request: HttpRequest) -> str | None:
    await asyncio.sleep(0)
    return _plain(request)


def _reads_the_database(request: HttpRequest) -> Any:
    return get_user_model().objects.filter(username=_plain(request)).first()


@pytest.mark.parametrize("ask", [_plain, _awaited, _reads_the_database])
@pytest.mark.parametrize("view_is_async", [True, False], ids=["async view", "sync view"])
def test_principal_setting_may_be_plain_or_async(browser: Browser, alice: Any, ask: Any, view_is_async: bool) -> None:
    owners: list[str | None] = []

    def view(request: HttpRequest) -> HttpResponse:
        owners.append(jobs.submit(int).context.owner)
        return HttpResponse()

    async def aview(request: HttpRequest) -> HttpResponse:
        owners.append((await jobs.asubmit(int)).context.owner)
        return HttpResponse()

    with site(path("start", aview if view_is_async else view), CANCELABLE={"PRINCIPAL": ask}):
        assert browser.get("/jobs/", X_Key="alice").status_code == 200
        assert browser.get("/jobs/").status_code == 403
        browser.get("/start", X_Key="alice")
        browser.get("/start")
    assert owners == [str(alice.pk) if ask is _reads_the_database else "alice", None]


def test_staff_setting_may_read_the_database(browser: Browser, alice: Any, admin: Any) -> None:
    def is_staff(name: str) -> bool:
        return get_user_model().objects.filter(username=name, is_staff=True).exists()

    with site(CANCELABLE={"PRINCIPAL": _awaited, "STAFF": is_staff}):
        assert browser.get("/jobs/stats", X_Key="alice").status_code == 403
        assert browser.get("/jobs/stats", X_Key="admin").status_code == 200


def test_nobody_is_logged_in_where_there_are_no_users(browser: Browser) -> None:
    with site(MIDDLEWARE=MIDDLEWARE[-1:]):
        assert browser.get("/jobs/").status_code == 403
        assert browser.get("/jobs/ab12").status_code == 404


def test_routes_answer_for_themselves_where_login_is_required(browser: Browser, alice: Any) -> None:
    with site(path("page", _page), MIDDLEWARE=[*MIDDLEWARE[:-1], LOGIN_REQUIRED, MIDDLEWARE[-1]]):
        assert browser.get("/page").status_code == 302
        answer = browser.get("/jobs/")
        assert (answer.status_code, answer.headers["Content-Type"]) == (403, "application/problem+json")
        browser.log_in(alice)
        assert browser.get("/jobs/").status_code == 200


# --- Django's own check against forged requests


@pytest.fixture
def strict(new_browser: Callable[..., Browser], alice: Any) -> Browser:
    """A browser of somebody who is logged in, held to Django's check."""
    browser = new_browser(enforce_csrf_checks=True)
    browser.log_in(alice)
    return browser


def _cancel_of(job: Job[None]) -> str:
    return f"/jobs/{job.id}/cancel"


@pytest.fixture
def job(start: Callable[..., Job[None]], alice: Any) -> Job[None]:
    return start(owner=str(alice.pk))


def _is_refused(answer: Any) -> bool:
    refused = answer.status_code == 403
    if refused:
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.json()["type"] == "urn:cancelable:csrf"
    return bool(refused)


def _is_accepted(answer: Any) -> bool:
    """Let in: what comes of it, the first time and the second, is another matter."""
    return answer.status_code in (202, 409)


def test_cancel_without_the_token_is_refused_with_a_problem(strict: Browser, job: Job[None]) -> None:
    assert _is_refused(strict.post(_cancel_of(job)))
    strict.accept_csrf_token()
    assert _is_refused(strict.post(_cancel_of(job)))
    assert _is_refused(strict.post(_cancel_of(job), X_CSRFToken="f" * 32))
    assert not job.operation.token.is_cancelled


def test_token_may_come_in_the_header(strict: Browser, job: Job[None]) -> None:
    answer = strict.post(_cancel_of(job), {"message": "enough"}, X_CSRFToken=strict.accept_csrf_token())
    assert answer.status_code == 202
    assert job.context.message == "enough"


def test_token_may_come_in_a_form_and_is_no_field_of_ours(strict: Browser, job: Job[None]) -> None:
    token = strict.accept_csrf_token()
    answer = strict.post(_cancel_of(job), f"csrfmiddlewaretoken={token}&message=enough+of+%C3%A4", FORM)
    assert answer.status_code == 202
    assert job.context.message == "enough of ä"


def test_form_s_token_counts_before_the_header_s(strict: Browser, job: Job[None]) -> None:
    token = strict.accept_csrf_token()
    wrong = "f" * 32
    assert _is_refused(strict.post(_cancel_of(job), f"csrfmiddlewaretoken={wrong}", FORM, X_CSRFToken=token))
    assert _is_accepted(strict.post(_cancel_of(job), f"csrfmiddlewaretoken={token}", FORM, X_CSRFToken=wrong))


def test_empty_token_in_a_form_leaves_it_to_the_header(strict: Browser, job: Job[None]) -> None:
    token = strict.accept_csrf_token()
    assert _is_accepted(strict.post(_cancel_of(job), "csrfmiddlewaretoken=&message=x", FORM, X_CSRFToken=token))


def test_header_may_have_another_name(strict: Browser, job: Job[None]) -> None:
    token = strict.accept_csrf_token()
    with site(CSRF_HEADER_NAME="HTTP_X_XSRF_TOKEN"):
        assert _is_refused(strict.post(_cancel_of(job), X_CSRFToken=token))
        assert _is_accepted(strict.post(_cancel_of(job), f"csrfmiddlewaretoken={token}", FORM))
        assert _is_accepted(strict.post(_cancel_of(job), X_XSRF_TOKEN=token))


def test_token_may_be_kept_in_the_session(strict: Browser, job: Job[None]) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        return HttpResponse(get_token(request))

    with site(path("token", view), CSRF_USE_SESSIONS=True):
        assert _is_refused(strict.post(_cancel_of(job), X_CSRFToken="f" * 32))
        token = strict.get("/token").content.decode()
        assert _is_accepted(strict.post(_cancel_of(job), X_CSRFToken=token))


def test_body_that_a_middleware_has_read_is_still_there(strict: Browser, job: Job[None]) -> None:
    token = strict.accept_csrf_token()
    layers = [f"{__name__}.{reads_post.__name__}", *MIDDLEWARE]
    with site(MIDDLEWARE=layers):
        answer = strict.post(_cancel_of(job), f"csrfmiddlewaretoken={token}&message=read", FORM)
        assert answer.status_code == 202
        assert job.context.message == "read"
        assert _is_refused(strict.post(_cancel_of(job), "message=read", FORM))


def reads_post(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    def middleware(request: HttpRequest) -> HttpResponse:
        _ = request.POST
        return get_response(request)

    return middleware


def test_looking_needs_no_token(strict: Browser, job: Job[None]) -> None:
    assert strict.get(f"/jobs/{job.id}").status_code == 200


def test_what_no_browser_sends_by_itself_needs_no_token(new_browser: Callable[..., Browser], job: Job[None]) -> None:
    script = new_browser(enforce_csrf_checks=True)
    with site(CANCELABLE={"PRINCIPAL": lambda request: job.context.owner}):
        assert _is_accepted(script.post(_cancel_of(job)))
        assert _is_accepted(script.post(_cancel_of(job), Authorization="Bearer key"))
        assert _is_refused(script.post(_cancel_of(job), Authorization="Basic a2V5"))


def test_project_s_own_subclass_of_the_check_counts(strict: Browser, job: Job[None]) -> None:
    layers = [OWN_CHECK if name.endswith("CsrfViewMiddleware") else name for name in MIDDLEWARE]
    with site(MIDDLEWARE=layers):
        assert _is_refused(strict.post(_cancel_of(job)))


class OwnCheck(CsrfViewMiddleware):
    """A project's own."""


OWN_CHECK = f"{__name__}.{OwnCheck.__name__}"


def test_project_without_the_check_needs_no_token(strict: Browser, job: Job[None]) -> None:
    with site(MIDDLEWARE=[name for name in MIDDLEWARE if not name.endswith("CsrfViewMiddleware")]):
        assert _is_accepted(strict.post(_cancel_of(job)))


def test_other_sites_are_refused_with_a_token_too(strict: Browser, job: Job[None]) -> None:
    answer = strict.post(_cancel_of(job), X_CSRFToken=strict.accept_csrf_token(), Sec_Fetch_Site="cross-site")
    assert answer.status_code == 403
    assert not job.operation.token.is_cancelled


def test_answers_of_the_routes_are_nobody_else_s(strict: Browser) -> None:
    answer = strict.get("/jobs/")
    assert answer.headers["Cache-Control"] == "no-store"
    assert "Cookie" in answer.headers["Vary"]
