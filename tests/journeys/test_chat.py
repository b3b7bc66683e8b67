"""The booking chat as people and their pages use it: in Chromium, by the AI SDK's own clients, and over kill -9."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.browsing import chromium, needs_chromium
from tests.support.journey import Service, with_samples
from tests.support.judges import node_packages

ASK = "Book LH 441 for Ann Ode and LH 442 for Bo Lund"
GONE = """
import sys

class Gone:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "pydantic_ai":
            raise ModuleNotFoundError("not installed", name="pydantic_ai")

sys.meta_path.insert(0, Gone())
"""
AI_SDK = Path(__file__).parent.parent / "support" / "ai_sdk"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service for all of these tests."""
    service = Service(with_samples(tmp_path_factory.mktemp("chat")))
    service.start()
    yield service
    if service.process is not None:
        service.stop()
    service.http.close()


def norm(html: str) -> str:
    """The page's turns without what only says where they are in a file, and which of them has the focus."""
    return re.sub(r"\s+", " ", html.replace(' tabindex="-1"', "")).replace("> <", "><").strip()


def events(stream: str) -> list[str]:
    """The events of a stream, in an order of their own: two calls are asked about at the same time."""
    return sorted(line for line in stream.splitlines() if line.startswith("data: "))


async def turns(page: Any) -> str:
    return norm(await page.locator("#turns").inner_html())


async def reloaded(page: Any) -> None:
    """Reload, and see the same."""
    before = await turns(page)
    await page.reload()
    assert await turns(page) == before


@needs_chromium
@pytest.mark.agents(3, 24)
@pytest.mark.parametrize("width", [320, 1280])
async def test_booking_two_flights_in_a_browser(service: Service, width: int) -> None:
    async with chromium(viewport={"width": width, "height": 640}) as page:
        page.set_default_timeout(10_000)
        await page.goto(f"{service.http.base_url}/chat")
        await page.get_by_role("button", name=ASK).click()
        approve = page.get_by_role("button", name=re.compile("^Approve"))
        await approve.nth(1).wait_for()
        assert "/chat/" in page.url
        await reloaded(page)
        assert await page.evaluate("document.documentElement.scrollWidth") <= width
        await page.get_by_label("Comment").nth(1).fill("still thinking")
        await page.get_by_label("Comment").nth(0).fill("window")
        await approve.nth(0).dblclick()
        await page.get_by_text("Booking approved for Ann Ode on flight LH 441 - Note: window").wait_for()
        assert await page.get_by_label("Comment").input_value() == "still thinking"
        await page.get_by_label("Comment").fill("")
        await reloaded(page)
        await page.get_by_label("Comment").fill("too dear")
        await page.get_by_label("Comment").press("Tab")
        await page.keyboard.press("Tab")
        await page.keyboard.press("Enter")  # on Reject
        await page.get_by_text("Booking rejected: too dear").first.wait_for()
        await page.locator(".part.text").wait_for()
        await page.locator("[data-open]").wait_for(state="detached")
        assert await page.locator(".part.tool.done").count() == 1
        await reloaded(page)
        assert await page.evaluate("document.documentElement.scrollWidth") <= width
        await page.get_by_label("Message").fill("And the")
        await page.get_by_label("Message").press("End")
        await page.get_by_label("Message").press("Shift+Enter")
        await page.get_by_label("Message").press_sequentially("baggage?")
        await page.get_by_label("Message").press("Enter")
        await page.get_by_text("one bag of 23 kg").first.wait_for()
        await page.locator(".turn").nth(1).locator(".part.text").wait_for()
        await page.locator("[data-open]").wait_for(state="detached")
        await reloaded(page)


@needs_chromium
@pytest.mark.agents(24)
async def test_an_answer_in_slack_shows_up_in_the_open_page(service: Service) -> None:
    async with chromium() as page:
        page.set_default_timeout(10_000)
        await page.goto(f"{service.http.base_url}/chat")
        await page.get_by_label("Message").fill("Book LH 2031 for Zoe Slack")
        await page.get_by_role("button", name="Send").click()
        call = await page.locator(".part.booking.waiting").first.get_attribute("data-part")
        cards = service.eventually(
            lambda: [m for m in service.play("GET", "/slack/messages") if "Zoe Slack" in json.dumps(m["blocks"])]
        )
        service.click("U0ANN", cards[-1], "Approve")
        shown = page.locator(f'[data-part="{call}"]')
        await shown.get_by_text("Approved by Ann Ode via Slack").wait_for()
        await shown.get_by_text("Booking approved for Zoe Slack").wait_for()
        await page.locator(".part.text").wait_for()
        await page.locator("[data-open]").wait_for(state="detached")
        await reloaded(page)


@needs_chromium
@pytest.mark.agents(12)
async def test_a_booking_is_changed_before_it_is_approved(service: Service) -> None:
    async with chromium(viewport={"width": 320, "height": 640}) as page:
        page.set_default_timeout(10_000)
        await page.goto(f"{service.http.base_url}/chat")
        await page.get_by_label("Message").fill("Book LH 2031 for Eve Edit and LH 441 for Moe Same")
        await page.get_by_label("Message").press("Enter")
        await page.locator(".part.booking.waiting").nth(1).wait_for()
        booking = page.locator(".part.booking", has_text="Eve Edit")
        await booking.get_by_text("Change it before you approve").click()
        await booking.get_by_label("Price").fill("cheap")
        await booking.get_by_role("button", name="Approve with changes").click()
        await page.get_by_text("Please correct what is marked").wait_for()
        assert await booking.get_by_label("Price").input_value() == "cheap"
        await booking.get_by_label("Price").fill("199")
        await booking.get_by_role("button", name=re.compile("^Approve the booking")).click()
        await page.get_by_text("would approve the old ones").wait_for()
        assert await page.evaluate("document.documentElement.scrollWidth") <= 320
        await booking.get_by_role("button", name="Approve with changes").click()
        await booking.get_by_text("Booking approved for Eve Edit").wait_for()
        assert "$199" in await booking.inner_text()
        await page.locator("main > .notice").wait_for(state="detached")
        assert await page.locator(".part.booking.waiting").count() == 1


@needs_chromium
@pytest.mark.agents(5)
async def test_an_open_chat_carries_on_over_a_kill(service: Service) -> None:
    async with chromium(over_outage=True) as page:
        page.set_default_timeout(20_000)
        await page.goto(f"{service.http.base_url}/chat")
        await page.get_by_label("Message").fill("Book LH 2031 for Kim Kill")
        await page.get_by_label("Message").press("Enter")
        await page.locator(".part.booking.waiting").wait_for()
        await page.get_by_label("Comment").fill("typed before")
        service.kill()
        away = page.get_by_role("alert")
        await away.get_by_text("carries on as soon as it's back").wait_for()
        await page.get_by_role("button", name=re.compile("^Approve")).click()
        await away.get_by_text("That wasn't sent").wait_for()
        service.start()
        await away.wait_for(state="detached")
        assert await page.get_by_label("Comment").input_value() == "typed before"
        await page.get_by_role("button", name=re.compile("^Approve")).click()
        await page.get_by_text("Booking approved for Kim Kill on flight LH 2031 - Note: typed before").wait_for()
        await page.locator(".part.tool.done").wait_for()


@pytest.mark.agents(4)
@pytest.mark.parametrize("version", ["7", pytest.param("6", marks=pytest.mark.long)])
def test_the_ai_sdks_own_client_talks_to_it(service: Service, version: str) -> None:
    folder = node_packages(AI_SDK / version)
    shutil.copy(AI_SDK / "talk.mjs", folder)  # Node looks for packages beside the file
    command = ["node", "talk.mjs", str(service.http.base_url), f"ai-{version}"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["errors"] == []
    assert seen["messages"] == 2
    for begun in (seen["asked"], seen["resumed"]):
        tools = [each for each in begun if each[1].startswith("tool-")]
        assert [each[1:3] for each in tools] == [["tool-bookingApproval", "approval-requested"]] * 2
    decided = [each[1:] for each in seen["decided"] if each[1].startswith("tool-")]
    assert decided == [
        ["tool-bookingApproval", "output-available", "Booking approved for Ann Ode on flight LH 441 - Note: window"],
        ["tool-bookingApproval", "output-denied", "Booking rejected: too dear"],
        ["tool-bookFlight", "output-available", "Booked LH 441 for Ann Ode: $640."],
    ]
    assert len(seen["ids"]) == len(set(seen["ids"])) == 3
    assert ["data-approval", "approved", "ann@acme.eu", "chat"] in seen["data"]
    assert ["data-approval", "rejected", "ann@acme.eu", "chat"] in seen["data"]
    assert len(seen["after"]) == 1  # 204: nothing goes on any more


def test_without_its_framework_the_chat_says_how_to_install_it(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    (gone / "sitecustomize.py").write_text(GONE)
    service = Service(with_samples(tmp_path / "site"))
    before = os.environ.get("PYTHONPATH", "")
    service.environment["PYTHONPATH"] = os.pathsep.join(path for path in (str(gone), before) if path)
    try:
        service.start()
        shown = service.http.get("/chat")
        assert "pip install &#39;approvals-bot[pydantic-ai]&#39;" in shown.text
        assert "/playground" in shown.text
        body = {"id": "c", "messages": [{"id": "m", "role": "user", "parts": [{"type": "text", "text": ASK}]}]}
        refused = service.http.post("/api/chat", json=body)
        assert (refused.status_code, "pydantic-ai" in refused.json()["detail"]) == (503, True)
        service.open()
        service.card()
    finally:
        if service.process is not None:
            service.kill()
        service.http.close()


@pytest.mark.agents(6)
def test_a_killed_service_goes_on_where_it_was(tmp_path: Path) -> None:
    service = Service(with_samples(tmp_path))
    try:
        service.start()
        body = {"id": "c", "messages": [{"id": "m", "role": "user", "parts": [{"type": "text", "text": ASK}]}]}
        begun = service.http.post("/api/chat", json=body).text
        one, two = dict.fromkeys(re.findall(r"call_[0-9a-f]+", begun))
        service.kill()
        service.start()
        assert events(service.http.post("/api/chat", json=body).text) == events(begun)
        assert service.http.post(f"/api/chat/c/approvals/{one}", json={"approved": True}).status_code == 200
        service.kill()
        service.start()
        assert service.http.post(f"/api/chat/c/approvals/{one}", json={"approved": True}).status_code == 200
        assert service.http.post(f"/api/chat/c/approvals/{two}", json={"approved": False}).status_code == 200
        shown = service.eventually(lambda: 'class="part text' in (page := service.http.get("/chat/c").text) and page)
        assert shown.count('class="part tool done"') == 1
        assert "Booked LH 441 for Ann Ode: $640." in shown
    finally:
        if service.process is not None:
            service.kill()
        service.http.close()
