"""`keys new`, what `doctor` says about keys, and a secret's file that changes under a running service."""

from __future__ import annotations

import asyncio
import os
import stat
import tomllib
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2

from approvals_bot.app.service import open_service
from approvals_bot.cli import serving
from approvals_bot.cli.serving import ConfigSource, _state, _watch
from approvals_bot.cli.systemd import Systemd
from approvals_bot.config.api_keys import ApiKeyEntry
from approvals_bot.service.catalog import read_configuration
from tests.support.small_site import Site


def test_a_new_key_is_printed_once_with_its_line(site: Site) -> None:
    made = site.json("keys", "new", "ci", "--may", "start", "--requester", "@managers", "--expires", "2031-01-01")
    assert len(made["key"]) >= 32
    assert made["file"] is None
    entry = tomllib.loads(made["line"])["ci"]
    assert entry == {"key": "env:CI_KEY", "may": ["start"], "requesters": ["@managers"], "expires": "2031-01-01"}
    assert site.json("keys", "new", "ci")["key"] != made["key"]
    assert site.json("keys", "new", "travel-agent")["line"] == 'travel-agent = "env:TRAVEL_AGENT_KEY"'


def test_a_written_key_works_as_its_line_says(site: Site) -> None:
    made = site.json("keys", "new", "ci", "--write")
    file = site.folder / "secrets" / "ci.key"
    assert stat.S_IMODE(os.stat(file).st_mode) == 0o600
    site.write("config.toml", f"{site.config.read_text()}\n[api_keys]\n{made['line']}\n")
    entry: ApiKeyEntry = read_configuration(site.config).service.api_keys["ci"]
    assert entry.key[0].get_secret_value() == made["key"]
    site.type("keys", "new", "ci", "--write", fails=True)  # nothing is overwritten
    assert file.read_text().strip() == made["key"]


def test_a_key_that_no_file_could_have_is_refused(site: Site) -> None:
    site.type("keys", "new", "two words", fails=2)
    site.type("keys", "new", "ci", "--may", "everything", fails=2)
    site.type("keys", "new", "ci", "--expires", "soon", fails=2)
    site.type("keys", "new", "ci", "--requester", "somebody", fails=2)


def test_doctor_says_when_keys_expire_and_were_used(site: Site) -> None:
    today = datetime.now(UTC).date()
    for name, days in (("old", 0), ("soon", 30), ("later", 31)):
        site.write(f"{name}.key", f"a key of the tests that is called {name}")
        line = f'{name} = {{ key = "file:{name}.key", expires = "{today + timedelta(days=days)}" }}\n'
        header = "" if "[api_keys]" in site.config.read_text() else "\n[api_keys]\n"
        site.write("config.toml", site.config.read_text() + header + line)
    found = {each["about"]: each for each in site.json("doctor", fails=True)["findings"]}
    states = {name: found[f"API key {name}"]["state"] for name in ("old", "soon", "later")}
    assert states == {"old": "FAIL", "soon": "WARN", "later": "OK"}
    assert found["API key later"]["what"] == "not used yet"


def test_a_secret_file_that_changes_takes_effect_by_itself(site: Site, monkeypatch: Any) -> None:
    monkeypatch.setattr(serving, "POLL_EVERY", 0.05)
    site.write("ci.key", "the first value of this key, of the tests")
    site.write("config.toml", site.config.read_text() + '\n[api_keys]\nci = "file:ci.key"\n')
    source = ConfigSource(lambda: read_configuration(site.config), [site.config])

    async def play() -> list[int]:
        async with open_service(read_configuration(site.config)) as service:
            watching = asyncio.create_task(_watch(service, source, _state(service, source), Systemd({})))

            async def status(key: str) -> int:
                transport = httpx2.ASGITransport(service.app)
                async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
                    return (await client.get("/api/runs", headers={"Authorization": f"Bearer {key}"})).status_code

            found = [await status("the first value of this key, of the tests")]
            site.write("ci.key", "another value of this key, of the tests")
            for _ in range(100):
                await asyncio.sleep(0.05)
                if await status("another value of this key, of the tests") == 200:
                    break
            found.append(await status("another value of this key, of the tests"))
            found.append(await status("the first value of this key, of the tests"))
            watching.cancel()
            return found

    assert asyncio.run(play()) == [200, 200, 401]
