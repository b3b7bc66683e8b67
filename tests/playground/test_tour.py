"""The tour of `dev`: samples of one's own workflows, steps that tick off, and webhooks that are answered in place."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from html import unescape
from pathlib import Path

import httpx2
import pytest

from approvals_bot.app.service import Service
from approvals_bot.cli.dev import Origin, open_dev
from approvals_bot.cli.dev_samples import SHIPPED
from approvals_bot.config.load import python_files, workflow_files
from approvals_bot.playground import Playground
from tests.support.browsing import a_port, chromium, needs_chromium, serving
from tests.support.judges import judge
from tests.support.screens import bottom_of

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
REFUND = next(code for code in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "async def refund" in code)
VENDOR = """
[workflow]
id = "vendor"
title = "New vendor {{ name }}"
request = ["bo@acme.eu"]
[fields]
name = "string"
contact = "email"
yearly = { type = "money", currency = "EUR", example = "12000.00" }
why = { type = "text", required = false }
[[stage]]
id = "finance"
from = ["cfo@acme.eu"]
[deliver]
slack = "#vendors"
email = true
"""
CONTRACT = """
[workflow]
id = "contract"
title = "Contract"
request = ["*"]
[fields]
paper = "file"
[[stage]]
id = "go"
from = ["ann@acme.eu"]
"""
SOON = 10.0  # seconds


@dataclass
class Dev:
    """`dev` in a folder with workflows of its own, and a browser without script."""

    url: str
    service: Service
    playground: Playground
    web: httpx2.AsyncClient

    async def page(self, path: str = "/playground") -> str:
        answer = await self.web.get(path)
        assert answer.status_code == 200, answer.text
        return unescape(answer.text)

    async def press(self, page: str, action: str, button: str) -> httpx2.Response:
        """Send the page's form that goes to this address and has this button."""
        for inside in re.findall(rf'<form method="post" action="{action}"[^>]*>(.*?)</form>', page, re.DOTALL):
            chosen = [tag for tag, words in re.findall(r"<button([^>]*)>([^<]*)", inside) if button in words]
            if chosen:
                named = dict(re.findall(r'name="(\w+)" value="([^"]*)"', chosen[0]))
                fields = dict(re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)">', inside))
                texts = dict(re.findall(r'<textarea[^>]*name="([^"]*)"[^>]*>([^<]*)', inside))
                data = fields | texts | named
                return await self.web.post(action, data=data, follow_redirects=True)
        raise AssertionError(f"no form of {action} has the button {button}")

    async def until(self, words: str, path: str = "/playground") -> str:
        async with asyncio.timeout(SOON):
            while words not in (page := await self.page(path)):
                await asyncio.sleep(0.05)
        return page


@pytest.fixture
async def dev(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Dev]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "workflows").mkdir()
    for name, text in (("refund.py", REFUND), ("vendor.toml", VENDOR), ("contract.toml", CONTRACT)):
        (tmp_path / "workflows" / name).write_text(text)
    with a_port() as bound:
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        async with (
            open_dev(Origin(None, url)) as (service, playground),
            serving(service.app, bound),
            httpx2.AsyncClient(base_url=url, timeout=30) as web,
        ):
            yield Dev(url, service, playground, web)


def ticked(page: str) -> int:
    return page.count('<li class="done">')


async def test_a_request_of_ones_own_workflow_is_decided_in_the_tour(dev: Dev) -> None:
    page = await dev.page()
    assert ticked(page) == 0
    assert '"yearly": "12000.00"' in page
    assert "requests Contract" not in " ".join(re.findall(r"<button[^>]*>([^<]*)", page))  # it needs a file
    started = await dev.press(page, "/playground/samples", "Bo Lund requests Vendor")
    assert "Started." in started.text
    page = await dev.until("Sent to #vendors, cfo@acme.eu by email.")
    assert ticked(page) == 2
    assert "#vendors, as Ann Ode sees it" in page  # the newest card is there itself
    opened = await dev.press(page, "/playground/session", "Open it as Fay Cash")
    assert (opened.status_code, opened.url.path.startswith("/requests/run_")) == (200, True)
    assert "New vendor Name 1" in opened.text
    page = await dev.page()
    assert "Signed in: inbox, chat and forms are Fay's." in page  # and Fay is who reads the playground
    confirmed = await dev.press(page, "/playground/clicks", "Approve")
    assert "Acknowledged in" in confirmed.text
    page = await dev.until(": <b>approved</b>")
    assert ticked(page) == 4
    assert "The timeline" in page
    signed_out = await dev.press(page, "/playground/session", "Sign out")
    assert "Sign in as Ann Ode" in signed_out.text


async def test_a_python_webhook_is_answered_in_the_tour(dev: Dev) -> None:
    page = await dev.page()
    assert page.index("Start refund") < page.index("Bo Lund requests Vendor")  # one's own, by name
    await dev.press(page, "/playground/samples", "Start refund")
    page = await dev.until("Send a test answer")
    [url] = re.findall(rf'value="({dev.url}/webhooks/[^"]*)"', page)[:1]
    assert f"curl '{url}' -H 'Content-Type: application/json' -d" in page
    answered = await dev.press(page, "/playground/answers", "Send a test answer")
    assert "The webhook took your answer" in answered.text
    assert 'The result is <code>"yes"</code>' in await dev.until("<b>completed</b>")
    late = await dev.web.post(
        "/playground/answers", data={"url": url, "body": "{}", "as": "U0ANN"}, follow_redirects=True
    )
    assert "doesn't wait for this any more" in unescape(late.text)


def test_the_files_of_our_own_workflows_are_known() -> None:
    files = [*workflow_files(ROOT / "workflows"), *python_files(ROOT / "workflows")]
    assert {file.stem for file in files} == SHIPPED


async def test_a_result_stays_until_another_page_is_opened(dev: Dev) -> None:
    await dev.press(await dev.page(), "/playground/samples", "Start refund")
    answer = await dev.web.post("/playground/answers", data={"url": "?", "as": "U0ANN", "back": "/playground"})
    assert answer.status_code == 303
    by_script = {"Sec-Fetch-Dest": "empty"}
    for headers, is_there in (({}, True), (by_script, True), (by_script, True), ({}, False)):
        page = await dev.web.get("/playground", headers=headers)
        assert ("nothing was sent" in page.text) is is_there


async def test_open_pages_hear_of_runs_cards_and_mails(dev: Dev) -> None:
    async with dev.web.stream("GET", "/playground/live") as answer:
        lines = answer.aiter_lines()

        async def next_event() -> str:
            async with asyncio.timeout(SOON):
                return await anext(line async for line in lines if line.startswith("event: "))

        assert "connect-src 'self'" in (await dev.web.get("/playground")).headers["content-security-policy"]
        await dev.web.post("/playground/slack/limits", json={"on": False})
        assert await next_event() == "event: changed"
        body = {"workflow": "refund", "input": {"order": "A-17"}}
        await dev.web.post("/api/runs", json=body, headers={"Authorization": "Bearer dev"})
        assert await next_event() == "event: changed"


@needs_chromium
async def test_the_first_minutes_in_a_browser(dev: Dev) -> None:
    async with chromium(viewport={"width": 320, "height": 700}) as page:
        page.set_default_timeout(10_000)
        await page.goto(f"{dev.url}/playground")
        assert await bottom_of(page, "h1") < 350, "the menu leaves a phone's first screen to the tour"
        await page.get_by_role("button", name="Bo Lund requests Vendor", exact=True).click()
        await page.get_by_text("which waits for Fay Cash").wait_for()
        await page.get_by_role("link", name="Be Fay Cash here").click()
        await page.locator(".message details", has_text="Approve").locator("summary").click()
        await page.locator(".message details[open]").get_by_role("button", name="Approve").click()
        await page.get_by_text("New vendor Name 1: approved").wait_for()  # it changes in place
        body = {"workflow": "refund", "input": {"order": "A-17"}}
        await dev.web.post("/api/runs", json=body, headers={"Authorization": "Bearer dev"})
        await page.get_by_role("button", name="Copy").first.click()
        await page.get_by_label("Test answer").fill('{"answer": "refunded"}')
        await page.get_by_role("button", name="Send a test answer").click()
        await page.get_by_text('The result is "refunded".').wait_for()
        assert await page.locator(".tour > li.done").count() == 4
        assert await page.evaluate("document.documentElement.scrollWidth") <= 320
        axe = (judge("axe-core") / "axe.min.js").read_text()
        for path in ("", "/channels/C0VENDORS", "/home", "/mailbox", "/mailbox/m1", "/wire"):
            await page.goto(f"{dev.url}/playground{path}?as=U0CFO")
            await page.evaluate(axe)
            found = await page.evaluate("axe.run().then(found => found.violations.map(v => [v.id, v.nodes[0].html]))")
            assert found == [], path
