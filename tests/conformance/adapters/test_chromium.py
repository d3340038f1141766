"""Pages of other origins, in Debian's Chromium itself: none of them cancels anything, while the application's own page may."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import pytest
from a2wsgi import ASGIMiddleware
from werkzeug.serving import WSGIRequestHandler, make_server

from .apps.work import DEADLINE_SECONDS
from .clients import AdapterClient
from .conftest import Connect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]

ATTACK = """<!doctype html><title>attack</title><iframe name="frame"></iframe><script>
const form = {method: "POST", credentials: "include", body: new URLSearchParams({all: "true"})};
const json = {method: "POST", credentials: "include", body: "{}", headers: {"Content-Type": "application/json"}};
const quietly = promise => promise.catch(() => 0);
function post(path) {
  return new Promise(done => {
    const element = document.createElement("form");
    Object.assign(element, {method: "POST", action: "VICTIM" + path, target: "frame"});
    document.body.append(element);
    document.querySelector("iframe").onload = done;
    element.submit();
  });
}
(async () => {
  await quietly(fetch("VICTIM/login", {mode: "no-cors", credentials: "include"}));
  for (const path of ["/jobs/cancel-all", "/jobs/hers/cancel", "/jobs/SECRET/cancel"]) {
    await quietly(fetch("VICTIM" + path, {...form, mode: "no-cors"}));
    await quietly(fetch("VICTIM" + path, {...form, mode: "cors"}));
    await quietly(fetch("VICTIM" + path, json));  // asks first (CORS), and is told nothing
    navigator.sendBeacon("VICTIM" + path, form.body);
    await post(path);
  }
  location = "NEXT";
})();
</script>"""

OWN = """<!doctype html><title>own</title><script>
(async () => {
  const options = {method: "POST", headers: {"Content-Type": "application/json"}};
  await fetch("/jobs/hers/cancel", {...options, body: JSON.stringify({message: "by its own page"})});
  await fetch("/over", options);
})();
</script>"""


@dataclass
class Site:
    """An application behind a login by cookie, or another site's page; and every request that came."""

    application: Any = None
    pages: dict[str, str] = field(default_factory=dict)
    seen: list[tuple[str, str, str | None, int]] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/over":
            self.over.set()
        if path in self.pages or path in ("/login", "/over", "/favicon.ico"):
            start_response("200 OK", [("Content-Type", "text/html"), ("Set-Cookie", "user=alice")])
            return [self.pages.get(path, "").encode()]
        cookie = SimpleCookie(environ.get("HTTP_COOKIE", ""))
        if "user" in cookie:
            environ["HTTP_X_TEST_USER"] = cookie["user"].value

        def start(status: str, *rest: Any) -> Any:
            site = environ.get("HTTP_SEC_FETCH_SITE")
            self.seen.append((environ["REQUEST_METHOD"], path, site, int(status[:3])))
            return start_response(status, *rest)

        answer: Iterable[bytes] = self.application(environ, start)
        return answer


class _Quiet(WSGIRequestHandler):
    def log(self, *args: Any) -> None:
        """Nothing on the terminal."""


@contextmanager
def serving(site: Site) -> Iterator[int]:
    server = make_server("127.0.0.1", 0, site, threaded=True, request_handler=_Quiet)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def browsing(url: str, profile: Path) -> Iterator[None]:
    assert CHROMIUM is not None
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", url]
    output = subprocess.DEVNULL
    browser = subprocess.Popen(command, stdin=output, stdout=output, stderr=output, start_new_session=True)
    try:
        yield
    finally:
        os.killpg(browser.pid, signal.SIGKILL)  # its own session: the browser and what it started
        browser.wait()


def _wsgi(client: AdapterClient) -> Any:
    application: Any = client.application  # type: ignore[attr-defined]
    return ASGIMiddleware(application) if client.is_asgi else application


def test_pages_of_other_origins_cancel_nothing(connect: Connect, tmp_path: Path) -> None:
    if CHROMIUM is None:
        assert not os.environ.get("CI"), "CI needs Chromium: apt-get install chromium"
        pytest.skip("there is no Chromium here")
    client = connect()
    hers, secret = client.seed("hers", owner="alice"), client.submit("stubborn", "any")
    victim, other = Site(_wsgi(client), {"/page": OWN}), Site()
    with serving(victim) as port, serving(other) as other_port:
        attack = ATTACK.replace("VICTIM", f"http://127.0.0.1:{port}").replace("SECRET", secret)
        # another site; then another origin of the same site, to which browsers send the cookies of this one
        other.pages["/another-site"] = attack.replace("NEXT", f"http://127.0.0.1:{other_port}/same-site")
        other.pages["/same-site"] = attack.replace("NEXT", f"http://127.0.0.1:{other_port}/attacked")
        other.pages["/attacked"] = "<script>fetch('/over')</script>"
        with browsing(f"http://localhost:{other_port}/another-site", tmp_path / "attacked"):
            assert other.over.wait(2 * DEADLINE_SECONDS), victim.seen
        attempts = [entry for entry in victim.seen if entry[0] == "POST"]
        for site in ("cross-site", "same-site"):
            for path in ("/jobs/cancel-all", "/jobs/hers/cancel", f"/jobs/{secret}/cancel"):
                # two fetches, a beacon and a form; what asked first was not sent
                assert len([entry for entry in attempts if entry[1:3] == (path, site)]) >= 3, victim.seen
        assert {status for *_, status in attempts} == {403}
        assert not hers.token.is_cancelled
        assert client.registry.get_operation(secret).cancel_requested_at is None  # type: ignore[union-attr]
        with browsing(f"http://127.0.0.1:{port}/page", tmp_path / "own"):
            assert victim.over.wait(2 * DEADLINE_SECONDS), victim.seen
        assert hers.token.message == "by its own page"
