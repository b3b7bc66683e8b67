"""From the page to sign in to a decided request without a mouse, on a small phone, with script and without."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from approvals_bot.app.service import open_service
from approvals_bot.playground.mailbox import MailServer
from approvals_bot.service.catalog import read_configuration
from tests.support.browsing import a_port, chromium, needs_chromium, serving
from tests.support.posting import until
from tests.support.screens import is_too_wide

ENVIRONMENT = {
    "KEY": "a signing key of the tests: 0123456789abcdef",
    "DESK": "a key of the desk, in the tests: 0123456789",
}
CONFIG = """
[server]
base_url = "{url}"
database = "sqlite:///runs.db"
signing_keys = ["env:KEY"]
[api_keys]
desk = {{ key = "env:DESK", may_vote = true }}
[email]
host = "127.0.0.1"
port = {port}
security = "none"
sender = "Approvals <approvals@acme.eu>"
[people."ann@acme.eu"]
name = "Ann Ode"
[people."bo@acme.eu"]
name = "Bo Lund"
"""
SHIP = """
[workflow]
id = "ship"
title = "Ship {{ version }}"
request = ["*"]
[fields]
version = { type = "string", pinned = true }
pods = { type = "integer", required = false }
[[stage]]
id = "go"
from = ["ann@acme.eu"]
[clock]
deadline = "4h"
"""
FOCUSED = """() => {
  const it = document.activeElement, bar = document.querySelector('.docked'), box = it.getBoundingClientRect();
  const name = it.getAttribute('aria-label') || it.labels?.[0]?.textContent || it.textContent;
  const edge = bar && !bar.contains(it) && getComputedStyle(bar).position === 'fixed'
    ? bar.getBoundingClientRect().top : innerHeight;
  const isHidden = box.top < -1 || Math.min(box.bottom, box.top + 60) > edge + 1;
  const hasRing = it.matches(':focus-visible') && getComputedStyle(it).outlineStyle !== 'none';
  return [name.trim(), it === document.body || !isHidden, it === document.body || hasRing];
}"""


async def tab_to(page: Any, name: str) -> None:
    """Press Tab until something of this name has the focus. All on the way is in sight, and shows its focus."""
    for _ in range(40):
        await page.keyboard.press("Tab")
        focused, is_in_sight, has_ring = await page.evaluate(FOCUSED)
        assert is_in_sight, focused
        assert has_ring, focused
        if focused.startswith(name):
            return
    raise AssertionError(f"Tab never came to {name!r}")


@needs_chromium
@pytest.mark.parametrize("javascript", [True, False], ids=["scripts on", "scripts off"])
async def test_from_signing_in_to_a_decision_by_keyboard(tmp_path: Path, javascript: bool) -> None:
    (tmp_path / "workflows").mkdir()
    (tmp_path / "workflows" / "ship.toml").write_text(SHIP)
    with a_port() as bound:
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        async with (
            MailServer() as mailbox,
            _service(tmp_path, CONFIG.format(url=url, port=mailbox.port)) as service,
            serving(service.app, bound),
            chromium(viewport={"width": 320, "height": 600}, java_script_enabled=javascript) as page,
        ):
            body = {"workflow": "ship", "input": {"version": "2.1"}, "requester": "bo@acme.eu"}
            key = {"Authorization": f"Bearer {ENVIRONMENT['DESK']}"}
            opened = await page.request.post(f"{url}/api/runs", data=body, headers=key)
            assert opened.status == 202
            await service.engine.settle()
            await page.goto(f"{url}/inbox")
            await tab_to(page, "Your email address")
            await page.keyboard.type("ann@acme.eu")
            await page.keyboard.press("Enter")
            await until(lambda: bool(mailbox.mails))
            (digits,) = re.findall(r"\b\d{6}\b", mailbox.mails[0].text)
            await page.wait_for_selector("#code:focus")
            await page.keyboard.type(digits)
            await page.keyboard.press("Enter")
            await page.wait_for_selector("text=1 request is waiting for you")
            assert not await is_too_wide(page)
            await tab_to(page, "Ship 2.1")
            await page.keyboard.press("Enter")
            await page.wait_for_selector(".docked")
            await tab_to(page, "Approve")
            await page.keyboard.press("Enter")
            assert "This decides it." in await page.inner_text("main"), "it asks once"
            await tab_to(page, "Approve: Ship 2.1")
            await page.keyboard.press("Enter")
            await page.wait_for_url("**?done=decided")
            assert (await page.inner_text("main")).strip().startswith("Everyone involved has been notified.")
            await page.keyboard.press("Tab")  # the focus begins at what came of it
            assert (await page.evaluate(FOCUSED))[0] == "Next request"
            await page.keyboard.press("Enter")
            await page.wait_for_selector("text=You're all caught up.")
            await page.goto(f"{url}/requests/new/ship")
            await tab_to(page, "Version")
            await page.keyboard.type("2.2")
            await tab_to(page, "Pods")
            await page.keyboard.type("many")
            await tab_to(page, "Send request")
            await page.keyboard.press("Enter")
            await page.wait_for_selector(".notice:focus")
            await page.keyboard.press("Tab")
            await page.keyboard.press("Enter")  # the summary leads to the field
            await page.wait_for_selector("[id='field.pods']:focus")
            assert await page.evaluate("document.activeElement.labels[0].getBoundingClientRect().top") >= 0


def _service(folder: Path, config: str) -> Any:
    (folder / "config.toml").write_text(config)
    return open_service(read_configuration(folder / "config.toml", ENVIRONMENT))
