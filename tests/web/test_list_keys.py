"""Keys in lists, in a real browser: they move, open, mark and search, and decide nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx2
import pytest

from approvals_bot.app.service import open_service
from approvals_bot.service.sessions import Sessions
from approvals_bot.testing import FakeClock
from tests.support.browsing import a_port, chromium, needs_chromium, serving
from tests.support.screens import faint_texts, is_too_wide
from tests.web.test_roles_on_pages import BASE, CONFIG, House, configured, write

ANN = "ann@acme.eu"


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[tuple[House, str, str]]:
    """A service that a browser can reach: its URL, and what its cookie of Ann's session holds."""
    async with AsyncExitStack() as stack:
        bound = stack.enter_context(a_port())
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        roles = CONFIG.replace(BASE, url).replace('operator = ["', f'operator = ["{ANN}", "')
        write(tmp_path, config=roles)
        service = await stack.enter_async_context(open_service(configured(tmp_path), clock=FakeClock()))
        http = await stack.enter_async_context(
            httpx2.AsyncClient(transport=httpx2.ASGITransport(service.app), base_url=url)
        )
        await stack.enter_async_context(serving(service.app, bound))
        token = await Sessions(service.engine).begin(ANN, method="code", browser="Chromium", proved=True)
        yield House(tmp_path, service, http, FakeClock()), url, token


@needs_chromium
async def test_lists_are_worked_by_keys_and_nothing_is_decided(site: tuple[House, str, str]) -> None:
    house, url, token = site
    runs = [await house.open() for _ in range(3)]
    async with chromium(viewport={"width": 320, "height": 700}, color_scheme="dark") as page:
        await page.context.add_cookies([{"name": "approvals", "value": token, "url": url}])
        await page.goto(f"{url}/inbox")
        assert await page.title() == "(3) Inbox · Approvals Bot"

        async def focused() -> str:
            found: str = await page.evaluate("document.activeElement.closest('tr')?.sectionRowIndex + ''")
            return found

        seen = []
        for key in "jjjjkx":
            await page.keyboard.press(key)
            seen.append(await focused())
        assert seen == ["0", "1", "2", "2", "1", "1"]
        assert await page.locator("tbody :checked").count() == 1
        assert await page.locator("tr:nth-child(2) :checked").count() == 1
        await page.keyboard.press("?")
        assert await page.locator("dialog[open] dt").all_inner_texts() == ["j", "k", "o", "x", "/", "?"]
        assert await faint_texts(page) == []
        await page.keyboard.press("Escape")
        assert await page.locator("dialog[open]").count() == 0
        await page.keyboard.press("/")
        await page.keyboard.type("jkox?")  # in a field, keys are text
        assert await page.locator("[data-search]").input_value() == "jkox?"
        await page.locator("[data-search]").fill("")
        await page.locator("h1").click()
        for key in "arye\n":  # no key decides
            await page.keyboard.press("Enter" if key == "\n" else key)
        assert [(await house.request(run)).votes for run in runs] == [(), (), ()]
        await page.keyboard.press("k")
        async with page.expect_navigation():
            await page.keyboard.press("o")
        assert "/decisions/" in page.url
        for path in ("/inbox", "/inbox?box=asked", "/inbox?box=decided", "/runs", "/runs?q=none", "/me"):
            await page.goto(url + path)
            assert not await is_too_wide(page), path
            assert await faint_texts(page) == [], path
        await page.get_by_role("button", name="Turn keys off").click()
        await page.goto(f"{url}/runs")
        await page.keyboard.press("j")
        assert await focused() == "undefined"
