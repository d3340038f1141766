"""Every Python block of README and docs runs: scripts as they stand, files of an application as an application."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE_NAME = re.compile(r"# (\w+\.py)( \(continued\))?\n")

FLASK = """
from app import app
client = app.test_client()
started = client.post("/reports", json={body}, headers={{"X-User": "alice"}})
assert started.status_code == 202, started.text
path = "/jobs/" + started.json["id"]
assert client.get(path, headers={{"X-User": "bob"}}).status_code == 404
ended = client.post(path + "/cancel", json={{"wait_seconds": 10}}, headers={{"X-User": "alice"}})
assert ended.json["operation"]["status"] == "cancelled", ended.text
"""

FASTAPI = """
import anyio, httpx
from main import app
async def drive():
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test", headers={"X-User": "alice"}) as client:
        found = await client.get("/search", params={"q": "x"})
        assert found.status_code == 200 and found.headers["X-Operation-ID"], found.text
        started = await client.post("/crawls", params={"site": "example"})
        assert started.status_code == 202, started.text
        path = "/jobs/" + started.json()["id"]
        assert (await client.get(path, headers={"X-User": "bob"})).status_code == 404
        ended = await client.post(path + "/cancel", json={"wait_seconds": 10})
        assert ended.json()["operation"]["status"] in {"cancelled", "completed"}, ended.text
anyio.run(drive)
"""

DJANGO = """
import os
os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
import django
django.setup()
from django.core.management import call_command
call_command("check", fail_level="WARNING")
from django.conf import settings
settings.ALLOWED_HOSTS = ["*"]
settings.DATABASES["default"].setdefault("NAME", "db.sqlite3")
from django.test import Client
client = Client()
if settings.DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    call_command("migrate", verbosity=0)
    from django.contrib.auth.models import User
    client.force_login(User.objects.create_user("alice"))
started = client.get("/exports")
assert started.status_code == 202, started.content
ended = client.post("/jobs/" + started.json()["id"] + "/cancel", {"wait_seconds": 10}, content_type="application/json")
assert ended.status_code in {200, 409}, ended.content
"""

DRIVERS = {
    "README.md": [
        FLASK.format(body={"year": 2026}),
        FASTAPI,
        DJANGO.replace("django.setup()", 'settings = __import__("settings")\nsettings.USE_TZ = True\ndjango.setup()'),
    ],
    "flask.md": [FLASK.format(body={"words": ["a"] * 1_000})],
    "fastapi.md": [FASTAPI],
    "django.md": [DJANGO],
}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_its_python_blocks_run(document: Path, tmp_path: Path) -> None:
    scripts: list[str] = []
    for block in BLOCK.findall(document.read_text(encoding="utf-8")):
        named = FILE_NAME.match(block)
        if named is None:
            scripts.append(block)
            continue
        with (tmp_path / named[1]).open("a", encoding="utf-8") as file:
            file.write(block)
    has_files = any(tmp_path.iterdir())
    drivers = DRIVERS.get(document.name, []) if has_files else []
    assert bool(drivers) == has_files, "an application in a document needs a driver here"
    for script in [*drivers, "\n".join(scripts)]:
        run(script, tmp_path)


def run(script: str, folder: Path) -> None:
    (folder / "script.py").write_text(script, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}", "PYTHONWARNINGS": "error"}
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"


def test_the_generated_reference_is_current() -> None:
    done = subprocess.run(
        [sys.executable, "docs/generate_reference.py", "--check"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_its_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (document.parent / target).exists(), target
