"""A request's page, for people who have signed in: they decide and talk there, and see why it waits."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

import httpx2
import pytest

from approvals_bot.app.service import open_service
from approvals_bot.service.history import failure_of
from approvals_bot.testing import FakeClock
from tests.support.browsing import a_port, chromium, needs_chromium, serving
from tests.support.screens import is_too_wide
from tests.web.test_browser import HIDDEN_FOCUS
from tests.web.test_pages import log, sound
from tests.web.test_roles_on_pages import (  # noqa: F401  # the fixture
    BASE,
    CONFIG,
    OURS,
    House,
    configured,
    house,
    write,
)


def shown(page: httpx2.Response) -> str:
    """Return the text of a sound page's <main>."""
    main = sound(page).partition("<main")[2].partition("</main>")[0]
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", main.partition(">")[2])).split())


async def send(house: House, run: str, person: str, action: str, **form: str) -> httpx2.Response:  # noqa: F811
    """Send the form with this action from the request's page, as a person's browser does."""
    cookie = await house.cookie(person)
    page = await house.http.get(f"/requests/{run}", headers=cookie)
    part = page.text.partition(f'action="{action}')[2]
    rest, token = part.partition('"')[0], part.partition('name="form_token" value="')[2].partition('"')[0]
    answer = await house.http.post(f"{action}{rest}", data={"form_token": token} | form, headers=OURS | cookie)
    await house.service.engine.settle()
    return answer


async def test_people_decide_on_the_page_they_signed_in_to(house: House) -> None:  # noqa: F811
    run = await house.open()
    done = await send(house, run, "ann@acme.eu", "/decisions/", choice="approve")
    assert (done.status_code, done.headers["location"]) == (303, f"/requests/{run}?done=decided")
    text = shown(await house.get(done.headers["location"], "ann@acme.eu"))
    assert text.startswith("Everyone involved has been notified. Next request ✅ Approved by Ann Ode via the inbox")
    assert text.count("Approved") == 1, "once, apart from the votes"
    assert "✅ Ann Ode approved" in text
    other = await house.open()
    refused = await send(house, other, "ann@acme.eu", "/decisions/", choice="reject")
    assert (refused.status_code, "Please say why in a comment" in refused.text) == (422, True)
    assert "Please say why, then choose again." in refused.text.partition('id="comment"')[2].partition("</div>")[0]
    assert '<nav aria-label="Pages">' in refused.text, "it is still a page for people who have signed in"
    assert re.search(r'action="/decisions/[^"]+\?page=request"', refused.text), "what comes next is shown there, too"
    assert "This link is personal" not in refused.text
    await send(house, other, "ann@acme.eu", "/decisions/", choice="reject", comment="Not today")
    page = await house.get(f"/requests/{other}", "bo@acme.eu")
    stages = page.text.partition('<ol class="stages">')[2].partition("</ol>")[0]
    assert ('class="rejected"' in stages, "done" in stages) == (True, False)
    assert shown(page).startswith("⛔ Rejected by Ann Ode via the inbox")


async def test_people_talk_on_the_page(house: House) -> None:  # noqa: F811
    run = await house.open()
    path = f"/requests/{run}/talk"
    for person, form, done in (
        ("bo@acme.eu", {"talk": "comment", "remark": "It's urgent"}, "commented"),
        ("ann@acme.eu", {"talk": "claim"}, "claimed"),
        ("ann@acme.eu", {"talk": "snooze-1h"}, "snoozed"),
        ("bo@acme.eu", {"talk": "remind"}, "reminded"),
    ):
        answer = await send(house, run, person, path, **form)
        assert answer.headers["location"] == f"/requests/{run}?done={done}", answer.text
        assert 'role="status"' in (await house.get(answer.headers["location"], person)).text
    view = await house.request(run)
    assert ([made.act.text for made in view.comments], view.claimed_by) == (["It's urgent"], "ann@acme.eu")
    assert [made.act.actor and made.act.actor.kind for made in view.comments] == ["person"]
    empty = await send(house, run, "bo@acme.eu", path, talk="comment", remark=" ")
    assert (empty.status_code, "There's no text in this comment" in shown(empty)) == (422, True)
    assert "live.js" not in empty.text, "there is nothing to read again where a form led to"
    cookie, elsewhere = await house.cookie("bo@acme.eu"), {"Origin": "https://evil.example"}
    foreign = await house.http.post(path, data={"talk": "claim"}, headers=elsewhere | cookie)
    assert foreign.status_code == 403
    assert (await house.http.post(path, data={"talk": "claim"}, headers=OURS)).status_code == 401
    eve = await send(house, run, "eve@acme.eu", path, talk="comment", remark="Me too")
    assert eve.status_code == 403, "a viewer has nothing to do with it"


async def test_the_page_says_why_it_waits_and_what_was_sent(house: House) -> None:  # noqa: F811
    run = await house.open()
    await house.clock.advance("61m")
    await house.service.engine.settle()
    text = shown(await house.get(f"/requests/{run}", "bo@acme.eu"))
    for words in (
        "Ann Ode · named in the workflow",
        "stage go: 1 of Ann Ode or cy",
        "Waiting for one more from Ann Ode or cy.",
        "Messages (2)",
        "⏳ ann@acme.eu by email, will be tried again: the relay can't be reached",
        "Not sent to Ann Ode by email: the relay can't be reached",
        "Open for votes, ",
    ):
        assert words in text, words


async def test_what_only_the_clock_changes_is_marked(house: House) -> None:  # noqa: F811
    """An open page leaves it out when it looks whether something has changed."""
    run, cookie = await house.open(), await house.cookie("ann@acme.eu")
    moving = re.compile(r'<(\w+)[^>]* data-now>.*?</\1>|name="form_token" value="[^"]*"', re.DOTALL)
    for path in ("/inbox", f"/requests/{run}", f"/runs/{run}"):
        pages = set()
        for _ in range(2):
            pages.add(moving.sub("", (await house.http.get(path, headers=cookie)).text))
            await house.clock.advance("7m")
        assert len(pages) == 1, path


def test_a_failure_names_file_line_step_and_attempt() -> None:
    cause = {"type": "ValueError", "message": "no funds", "where": "pay.py:6"}
    error = {
        "type": "StepFailedError",
        "message": "…",
        "where": "pay.py:9",
        "attributes": {"step": "pay", "attempts": 2},
    }
    started: tuple[Any, float, dict[str, Any]] = ("step_created", 0, {"id": 1, "name": "pay"})
    failed: tuple[Any, float, dict[str, Any]] = ("step_failed", 1, {"id": 1, "attempts": 2, "error": cause})
    found = failure_of(log(("run_created", 0, {}), started, failed, ("run_failed", 1, {"error": error})))
    assert str(found) == "ValueError: no funds (pay.py:6, step pay, attempt 2)"
    assert str(failure_of(log(("run_failed", 1, {"error": cause})))) == "ValueError: no funds (pay.py:6)"
    assert failure_of(log(("run_completed", 1, {}))) is None


@needs_chromium
@pytest.mark.parametrize("scripts", [True, False], ids=["scripts on", "scripts off"])
async def test_a_phone_keeps_the_choices_of_the_page_in_reach(tmp_path: Path, scripts: bool) -> None:
    with a_port() as bound:
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        write(tmp_path, config=CONFIG.replace(BASE, url))
        async with (
            open_service(configured(tmp_path), clock=FakeClock()) as service,
            httpx2.AsyncClient(transport=httpx2.ASGITransport(service.app), base_url=url) as http,
            serving(service.app, bound),
            chromium(viewport={"width": 320, "height": 600}, java_script_enabled=scripts) as page,
        ):
            house = House(tmp_path, service, http, FakeClock())
            run = await house.open()
            name, _, value = (await house.cookie("ann@acme.eu"))["cookie"].partition("=")
            await page.context.add_cookies([{"name": name.removeprefix("__Host-"), "value": value, "url": url}])
            await page.goto(f"{url}/requests/{run}")
            bar = await page.locator(".docked").bounding_box()
            assert bar is not None
            assert (bar["y"] + bar["height"], bar["height"] < 80) == (600, True)
            for _ in range(25):
                await page.keyboard.press("Tab")
                assert await page.evaluate(HIDDEN_FOCUS) == ""
            await page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
            assert not await is_too_wide(page)
            assert not await page.is_visible(".timeline")
            assert "Open for votes" in await page.inner_text(".on-phones")
            await page.fill("#remark", "Looking at it")
            await page.click("text=Add comment")
            await page.wait_for_url("**?done=commented")
            await page.locator(".docked summary").first.click()
            await page.locator(".docked button[value=approve]").click()
            await page.wait_for_url("**?done=decided")
            assert "Approved by Ann Ode" in await page.inner_text("main")
