"""Live pages: what an open page hears, at every replica, and when it stops hearing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from approvals_bot.app.service import Service, open_service
from approvals_bot.service import live as live_pages
from approvals_bot.service.catalog import read_configuration
from approvals_bot.service.sessions import Sessions
from approvals_bot.web import live
from tests.support.browsing import a_port, chromium, needs_chromium, serving
from tests.support.event_streams import EventStream, stream_of

BASE = "https://approve.acme.eu"
OURS = {"Sec-Fetch-Site": "same-origin", "Origin": BASE}
ENVIRONMENT = {"KEY": "a signing key of the tests: 0123456789abcdef", "CI": "ci-key-of-the-tests-with-32-bytes"}
CONFIG = """
[server]
base_url = "{base}"
database = "{database}"
signing_keys = ["env:KEY"]
[api_keys]
ci = {{ key = "env:CI", may_vote = true }}
[people."ann@acme.eu"]
name = "Ann Ode"
[people."bo@acme.eu"]
name = "Bo Lund"
[people."cy@acme.eu"]
name = "Cy Rus"
[people."di@acme.eu"]
name = "Di Oz"
"""
DEPLOY = """
[workflow]
id = "live-deploy"
title = "Deploy {{ service }}"
request = ["*"]
[fields]
service = { type = "string", editable = true }
[[stage]]
id = "go"
from = ["ann@acme.eu", "bo@acme.eu"]
"""


@dataclass
class Site:
    """Replicas on one database, and what is done at them."""

    services: list[Service]
    base: str = BASE

    async def api(self, at: int, path: str, body: Any, method: str = "POST") -> Any:
        transport = httpx2.ASGITransport(self.services[at].app)
        async with httpx2.AsyncClient(transport=transport, base_url=self.base) as http:
            headers = {"Authorization": f"Bearer {ENVIRONMENT['CI']}"}
            answer = await http.request(method, path, json=body, headers=headers)
        assert answer.is_success, answer.text
        return answer.json()

    async def ask(self, at: int = 0) -> str:
        body = {"workflow": "live-deploy", "input": {"service": "the-secret-one"}, "requester": "di@acme.eu"}
        run_id: str = (await self.api(at, "/api/runs", body))["run_id"]
        return run_id

    async def sign_in(self, person: str, at: int = 0) -> dict[str, str]:
        token = await Sessions(self.services[at].engine).begin(person, method="code", browser="Firefox on Linux")
        return {"cookie": f"{'__Host-approvals' if self.base == BASE else 'approvals'}={token}"}

    def open(self, path: str, cookie: dict[str, str], at: int = 0) -> Any:
        return stream_of(self.services[at].app, self.base + path, cookie)


@asynccontextmanager
async def replicas(folder: Path, database: str, count: int = 1, base: str = BASE) -> AsyncIterator[Site]:
    (folder / "workflows").mkdir()
    (folder / "workflows" / "live-deploy.toml").write_text(DEPLOY)
    (folder / "config.toml").write_text(CONFIG.format(database=database, base=base))
    async with AsyncExitStack() as stack:
        configured = [read_configuration(folder / "config.toml", ENVIRONMENT) for _ in range(count)]
        yield Site([await stack.enter_async_context(open_service(each)) for each in configured], base)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with replicas(tmp_path, f"sqlite:///{tmp_path}/runs.db") as one:
        yield one


async def topics(stream: EventStream, *wanted: str) -> dict[str, int]:
    """Read until each of these topics has changed. Returns their newest versions."""
    found: dict[str, int] = {}
    while not found.keys() >= set(wanted):
        for line in (await stream.next()).splitlines():
            if line.startswith("data: "):
                data = json.loads(line.removeprefix("data: "))
                found[data["topic"]] = data["version"]
    return found


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
async def test_a_vote_is_heard_at_another_replica(
    database: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = f"sqlite:///{tmp_path}/runs.db" if database == "sqlite" else request.getfixturevalue("postgres_url")
    async with replicas(tmp_path, url, 2) as site:
        run_id = await site.ask()
        await site.services[0].engine.settle()
        bo, ann = await site.sign_in("bo@acme.eu"), await site.sign_in("ann@acme.eu")
        async with site.open(f"/live?inbox&run={run_id}", bo, 1) as stream, site.open("/live?inbox", ann, 1) as other:
            assert (stream.status, stream.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
            assert (await stream.next()).startswith("retry: 3000")
            await other.next()
            await site.api(0, f"/api/runs/{run_id}/votes", {"by": "ann@acme.eu", "choice": "approve"})
            first = await topics(stream, "inbox", f"run:{run_id}")
            assert (await topics(other, "inbox"))["inbox"] > 0
            run_2 = await site.ask()
            assert (await topics(stream, "inbox"))["inbox"] > first["inbox"]
            for private in ("the-secret-one", "acme.eu", "Deploy", run_2):
                assert private not in stream.text


async def test_what_concerns_others_is_not_heard(site: Site) -> None:
    cy, di = await site.sign_in("cy@acme.eu"), await site.sign_in("di@acme.eu")
    await site.services[0].engine.store.changed()  # the first time, anything may have been written before
    async with site.open("/live?inbox", cy) as of_cy, site.open("/live?inbox", di) as of_di:
        await of_cy.next()
        await site.ask()
        await topics(of_di, "inbox")
        assert "data:" not in of_cy.text


async def test_only_what_a_person_may_open_can_be_followed(site: Site) -> None:
    run_id = await site.ask()
    await site.services[0].engine.settle()
    cy, bo = await site.sign_in("cy@acme.eu"), await site.sign_in("bo@acme.eu")
    for path, cookie, status in (
        ("/live?inbox", {}, 401),
        (f"/live?run={run_id}", cy, 404),
        (f"/live?run={run_id}", bo, 200),
        ("/live?run=run_nobody", bo, 404),
        ("/live", bo, 422),
    ):
        async with site.open(path, cookie) as stream:
            assert stream.status == status, path


@pytest.mark.parametrize("elsewhere", [False, True], ids=["at once here", "by a look elsewhere"])
async def test_a_stream_ends_with_its_session(site: Site, elsewhere: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "HEARTBEAT", 1_000.0)
    monkeypatch.setattr(live_pages, "SESSIONS_READ_EVERY", 0.1 if elsewhere else 1_000.0)
    bo, ann = await site.sign_in("bo@acme.eu"), await site.sign_in("ann@acme.eu")
    async with site.open("/live?inbox", bo) as stream, site.open("/live?inbox", ann) as other:
        await stream.next()
        if elsewhere:  # another replica's own Sessions
            await Sessions(site.services[0].engine).end_all("bo@acme.eu")
        else:
            transport = httpx2.ASGITransport(site.services[0].app)
            async with httpx2.AsyncClient(transport=transport, base_url=BASE) as http:
                assert (await http.post("/logout", headers=OURS | bo)).status_code == 303
        async with asyncio.timeout(20):
            await stream.has_ended.wait()
        assert ("data:" in stream.text, other.has_ended.is_set()) == (False, False)


async def test_a_sixth_page_of_a_session_ends_its_first(site: Site) -> None:
    bo, ann = await site.sign_in("bo@acme.eu"), await site.sign_in("ann@acme.eu")
    async with AsyncExitStack() as stack:
        of_ann = await stack.enter_async_context(site.open("/live?inbox", ann))
        pages = [await stack.enter_async_context(site.open("/live?inbox", bo)) for _ in range(6)]
        async with asyncio.timeout(20):
            await pages[0].has_ended.wait()
        await site.ask()
        for page in (of_ann, *pages[1:]):
            await topics(page, "inbox")


async def test_a_replica_has_room_for_so_many_pages(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "MOST", 2)
    bo, ann = await site.sign_in("bo@acme.eu"), await site.sign_in("ann@acme.eu")
    async with site.open("/live?inbox", bo), site.open("/live?inbox", ann), site.open("/live?inbox", ann) as third:
        assert (third.status, third.headers["retry-after"]) == (503, "60")
    async with site.open("/live?inbox", ann) as later:
        assert later.status == 200


async def test_streams_end_at_once_when_the_service_stops(site: Site) -> None:
    bo = await site.sign_in("bo@acme.eu")
    async with AsyncExitStack() as stack:
        pages = [await stack.enter_async_context(site.open("/live?inbox", bo)) for _ in range(5)]
        site.services[0].engine.end_waiting()
        async with asyncio.timeout(30):
            for page in pages:
                await page.has_ended.wait()


async def test_only_pages_behind_a_sign_in_run_our_script(site: Site) -> None:
    run_id = await site.ask()
    await site.services[0].engine.settle()
    bo = await site.sign_in("bo@acme.eu")
    transport = httpx2.ASGITransport(site.services[0].app)
    async with httpx2.AsyncClient(transport=transport, base_url=BASE) as http:
        for path, cookie, has_script in (
            ("/inbox", bo, True),
            (f"/requests/{run_id}", bo, True),
            ("/inbox", {}, False),
            (f"/requests/{run_id}", {}, False),
            ("/login", {}, False),
        ):
            page = await http.get(path, headers=cookie)
            assert ("/static/live.js" in page.text) is has_script, path
            assert ("script-src 'self'" in page.headers["content-security-policy"]) is has_script, path


@needs_chromium
async def test_an_open_page_changes_in_place_unless_somebody_types(tmp_path: Path) -> None:
    with a_port() as bound:
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        async with replicas(tmp_path, f"sqlite:///{tmp_path}/runs.db", base=url) as site:
            name, _, value = (await site.sign_in("bo@acme.eu"))["cookie"].partition("=")
            async with serving(site.services[0].app, bound), chromium() as page:
                said = list[str]()
                page.on("console", lambda message: said.append(message.text))
                await page.context.add_cookies([{"name": name, "value": value, "url": url}])
                await page.goto(f"{url}/inbox")
                await page.evaluate("window.isSame = true")
                first = await site.ask()
                await page.wait_for_selector("text=1 request is waiting for you")
                await page.goto(f"{url}/requests/{first}")
                await page.evaluate("window.isSame = true; document.querySelector('nav a').focus()")
                await site.api(0, f"/api/runs/{first}/votes", {"by": "ann@acme.eu", "choice": "approve"})
                await page.wait_for_selector("main >> text=Approved")
                assert await page.evaluate("window.isSame"), "it was loaded again"
                second = await site.ask()
                await page.goto(f"{url}/requests/{second}")
                await page.evaluate("main.append(document.createElement('textarea')); main.lastChild.focus()")
                await page.keyboard.type("Wait, I")
                await site.api(0, f"/api/runs/{second}/votes", {"by": "ann@acme.eu", "choice": "approve"})
                await page.wait_for_selector("text=This has changed.")
                assert await page.input_value("main > textarea") == "Wait, I"
                assert "Approved" not in await page.inner_text("main")
                await page.click("text=Show it")
                await page.wait_for_selector("main >> text=Approved")
                await page.context.clear_cookies()
                name, _, value = (await site.sign_in("ann@acme.eu"))["cookie"].partition("=")
                await page.context.add_cookies([{"name": name, "value": value, "url": url}])
                third = await site.ask()
                await page.goto(f"{url}/requests/{third}")
                edit = {"by": "di@acme.eu", "fields": {"service": "something else"}}
                await site.api(0, f"/api/runs/{third}/fields", edit, "PATCH")
                await page.wait_for_selector("text=This has changed.")
                assert "something else" not in await page.inner_text("main"), "it changed under a finger"
                assert said == []
