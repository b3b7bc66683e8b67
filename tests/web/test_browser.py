"""The pages in real browsers: Chromium and w3m."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from approvals_bot.approvals.policy import Definition, pinned
from approvals_bot.approvals.standing_grants import StandingGrants
from approvals_bot.approvals.workflow import approval
from approvals_bot.service.catalog import Listed
from approvals_bot.service.standing import StoredGrants
from tests.support.browsing import CHROMIUM, a_port, chromium, needs_chromium, serving
from tests.support.judges import faults_in_html, judge
from tests.support.keyboard import faults_by_keyboard
from tests.support.screens import bottom_of, faint_texts, is_too_wide
from tests.web.test_allowances import CEILINGS
from tests.web.test_tool_calls import ask, offer

playwright = pytest.importorskip("playwright.async_api", reason="playwright is not installed: pages go untried")

W3M = shutil.which("w3m")

DEFINITIONS: dict[str, dict[str, Any]] = {
    "pair": {
        "fields": {"version": {"type": "string", "pinned": True}, "plan": {"type": "text", "view": "diff"}},
        "stage": [{"id": "go", "from": ["@release-managers"], "need": 2}],
    },
    "single": {
        "fields": {"version": {"type": "string", "pinned": True}, "plan": {"type": "text", "view": "diff"}},
        "stage": [
            {
                "id": "go",
                "from": ["@release-managers"],
                "ask": {"code": "string", "sure": "boolean", "when": {"type": "enum", "values": ["now", "later"]}},
                "outcomes": ["approve", "changes", "reject", "edit"],
            }
        ],
    },
}
FIELDS = {"version": "2.1", "plan": "@@ -1 +1 @@\n-replicas: 2\n+replicas: 3 " + "x" * 200}


@pytest.fixture
async def site(open_service: Any) -> AsyncIterator[Any]:
    """A service that a browser can reach: `site.url` is where."""
    with a_port() as bound:
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        async with open_service(open_pages=True, base_url=url) as service:
            for name, tables in DEFINITIONS.items():
                about = {"id": name, "title": "Deploy api {{ version }}", "request": ["*"]}
                definition = Definition.model_validate(tables | {"workflow": about, "clock": {"deadline": "4h"}})
                if name == "single":
                    definition = Definition.model_validate(
                        tables
                        | {"workflow": about}
                        | {"fields": {**tables["fields"], "version": {"type": "string", "editable": True}}}
                    )
                service.workflows[name] = Listed(approval.under(name, pinned(definition)), definition)
            async with serving(service.app, bound):
                yield service, url


async def open_link(service: Any, workflow: str, person: str = "ann@acme.eu") -> tuple[str, str]:
    run_id = await service.start(workflow, FIELDS, requester="di@acme.eu")
    return run_id, await service.link(run_id, person)


async def tab_to(page: Any, name: str) -> None:
    """Press Tab until something of this name has the focus."""
    for _ in range(40):
        await page.keyboard.press("Tab")
        focused = await page.evaluate(
            "document.activeElement.getAttribute('aria-label') || document.activeElement.textContent.trim()"
        )
        if focused.startswith(name):
            return
    raise AssertionError(f"Tab never came to {name!r}")


@needs_chromium
async def test_check_46_a_request_is_decided_by_keyboard_on_a_small_phone(site: Any) -> None:
    service, url = site
    run_id, path = await open_link(service, "pair")
    async with chromium(viewport={"width": 320, "height": 600}, java_script_enabled=False) as page:
        await page.goto(url + path)
        assert not await is_too_wide(page)
        await tab_to(page, "Plan")
        await page.keyboard.press("Enter")
        assert not await is_too_wide(page)
        await tab_to(page, "Approve")
        await page.keyboard.press("Enter")
        await page.wait_for_url("**?done=counted")
        assert "Counted: 1 of 2" in await page.inner_text("main")
        await page.reload()
        assert "Counted: 1 of 2" in await page.inner_text("main")
    assert (await service.run(run_id))["request"]["votes"][0]["by"] == "ann@acme.eu"


@needs_chromium
async def test_a_phones_first_screen_shows_what_and_the_choices(site: Any) -> None:
    service, url = site
    run_id, path = await open_link(service, "pair")
    async with chromium(viewport={"width": 320, "height": 640}) as page:
        for open_one in (f"{url}{path}", f"{url}{path}?choice=reject"):
            await page.goto(open_one)
            for part in ("h1", ".byline", ".state-line time", "button[value=approve]", "button[value=reject]"):
                assert await bottom_of(page, part) <= 640, part
            direction = await page.evaluate("getComputedStyle(document.querySelector('h1')).unicodeBidi")
            assert direction == "plaintext", "a title runs in its own direction"
            assert "⏳ Waiting · 0 of 2 · due " in " ".join((await page.inner_text(".state-line")).split())
        await service.api.post(f"/api/runs/{run_id}/votes", json={"by": "bo@acme.eu", "choice": "approve"})
        await service.api.post(
            f"/api/runs/{run_id}/votes", json={"by": "ann@acme.eu", "choice": "reject", "comment": "No."}
        )
        _, other = await open_link(service, "single")
        for scheme in ("light", "dark"):
            await page.emulate_media(color_scheme=scheme)
            for each in (path, other, f"{other}x", "/login"):
                await page.goto(url + each)
                for width in (320, 1280):
                    await page.set_viewport_size({"width": width, "height": 640})
                    assert not await is_too_wide(page), f"{each}, {width}"
                assert await faint_texts(page) == [], f"{each}, {scheme}"


@needs_chromium
async def test_a_choice_that_cannot_be_taken_back_asks_once_in_place(site: Any) -> None:
    service, url = site
    run_id, path = await open_link(service, "pair", "bo@acme.eu")
    await service.api.post(f"/api/runs/{run_id}/votes", json={"by": "ann@acme.eu", "choice": "approve"})
    async with chromium(viewport={"width": 320, "height": 600}) as page:
        await page.goto(url + path)
        await tab_to(page, "Approve")
        await page.keyboard.press("Enter")
        assert "This decides it." in await page.inner_text("main")
        assert (await service.run(run_id))["request"]["state"] == "waiting"
        await tab_to(page, "Approve: Deploy api 2.1")
        await page.keyboard.press("Enter")
        await page.wait_for_url("**?done=decided")
        assert "Everyone involved has been notified." in await page.inner_text("main")
    assert (await service.run(run_id))["request"]["state"] == "approved"


@needs_chromium
async def test_check_43_a_scanner_that_runs_scripts_decides_nothing(site: Any) -> None:
    service, url = site
    run_id, path = await open_link(service, "pair")
    before = service.content()
    async with chromium() as page:
        await page.goto(url + path)
        await page.wait_for_load_state("networkidle")
    assert service.content() == before
    assert (await service.run(run_id))["request"]["votes"] == []


@needs_chromium
async def test_check_44_no_other_site_frames_the_page_or_posts_its_form(site: Any) -> None:
    service, url = site
    _, path = await open_link(service, "pair")
    form = (await service.web.get(path)).text.partition('name="form_token" value="')[2].partition('"')[0]
    before = service.content()["events"]
    elsewhere = url.replace("127.0.0.1", "localhost")
    async with playwright.async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = await browser.new_page()

        async def evil(route: Any) -> None:
            html = f"""<iframe src="{url}{path}"></iframe><form method="post" action="{url}{path}">
            <input name="form_token" value="{form}"><button name="choice" value="approve">Win</button></form>"""
            await route.fulfill(body=html, content_type="text/html")

        await page.route(f"{elsewhere}/evil", evil)
        await page.goto(f"{elsewhere}/evil")
        assert "Deploy" not in await page.frames[1].content()
        async with page.expect_navigation():
            await page.click("button")
        assert "nothing was changed" in await page.inner_text("main")
        await browser.close()
    assert service.content()["events"] == before


# Enter in an input or on a box presses the form's first button: that of a decision may not be one.
DECIDES_BY_ENTER = """() => [...document.forms].filter(form => {
  const first = [...form.elements].find(e => e.matches('button:not([type=button], [type=reset])'))
  const typed = [...form.elements].some(e => e.matches('input:not([type=hidden])'))
  return typed && first && !first.disabled && ['choice', 'own', 'reassign'].includes(first.name)
}).map(form => form.action)"""
IS_AS_SERVED = """served => {
  const words = page => page.querySelector('main').textContent.replace(/\\s+/g, ' ')
  return words(document) === words(new DOMParser().parseFromString(served, 'text/html'))
}"""


@needs_chromium
async def test_check_46_every_page_is_accessible_and_fits_a_phone(site: Any) -> None:
    axe = (judge("axe-core") / "axe.min.js").read_text()
    service, url = site
    run_id, path = await open_link(service, "single")
    open_run, _ = await open_link(service, "pair")
    await service.api.post(f"/api/runs/{open_run}/votes", json={"by": "ann@acme.eu", "choice": "approve"})
    counted = await service.link(open_run, "ann@acme.eu")
    ended = await service.start("pair", FIELDS, requester="di@acme.eu")
    late = await service.link(ended, "bo@acme.eu")
    await service.api.post(
        f"/api/runs/{ended}/votes", json={"by": "ann@acme.eu", "choice": "reject", "comment": "Not today"}
    )
    await service.engine.settle()
    offer(service, allowance=CEILINGS)
    service.engine.resources[StandingGrants] = StoredGrants(service.engine)
    call = await service.link(await ask(service), "cy@acme.eu")
    paths = [path, f"{counted}?done=counted", late, call, "/nowhere", "/login"]
    paths += ["/runs", "/runs?state=odd", f"/runs/{run_id}", f"/runs/{ended}?to=2"]
    paths += [f"/requests/{run_id}", f"/requests/{ended}", "/inbox", "/inbox?person=ann@acme.eu"]
    paths += ["/workflows", "/workflows/single", "/deliveries", "/deliveries?of=follow-ups", "/operations", "/audit"]
    own = ["/inbox", "/inbox?box=decided", f"/requests/{run_id}", "/requests/new", "/requests/new/single", "/me"]
    async with chromium(viewport={"width": 320, "height": 600}) as page:
        for each in [*paths, *own]:
            if each == own[0]:
                await page.request.post(f"{url}/playground/session", data={"person": "ann@acme.eu"})
            await page.goto(url + each)
            served = await (await page.request.get(url + each)).text()
            assert await page.evaluate(IS_AS_SERVED, served), f"a script has completed {each}"
            assert await page.evaluate(DECIDES_BY_ENTER) == [], each
            await page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
            assert not await is_too_wide(page), each
            await page.evaluate(axe)
            for scheme, rules in (("light", "{}"), ("dark", "{runOnly: ['color-contrast']}")):
                await page.emulate_media(color_scheme=scheme)
                found = await page.evaluate(
                    f"axe.run({rules}).then(f => f.violations.map(v => [v.id, v.nodes[0].html]))"
                )
                assert found == [], f"{each}, {scheme}"
            assert await faults_by_keyboard(page) == [], each
            for width in (640, 320):  # the first is what a zoom of 200 % leaves of a usual window
                await page.set_viewport_size({"width": width, "height": 600})
                assert not await is_too_wide(page), f"{each}, {width}"


async def test_the_html_of_every_page_is_valid(site: Any, tmp_path: Path) -> None:
    service, _ = site
    run_id, path = await open_link(service, "single")
    open_run, counted = await open_link(service, "pair")
    await service.api.post(f"/api/runs/{open_run}/votes", json={"by": "ann@acme.eu", "choice": "approve"})
    ended_run, ended = await open_link(service, "pair")
    for voter in ("ann@acme.eu", "bo@acme.eu"):
        await service.api.post(f"/api/runs/{ended_run}/votes", json={"by": voter, "choice": "approve"})
    await service.engine.settle()
    paths = {
        "decide": f"{path}?choice=reject",
        "voted": counted,
        "counted": f"{counted}?done=counted",
        "ended": ended,
        "runs": "/runs",
        "run": f"/runs/{ended_run}",
        "request": f"/requests/{run_id}",
        "inbox": "/inbox",
        "waiting": "/inbox?person=ann@acme.eu",
        "login": "/login",
        "nowhere": "/nowhere",
        "forged": "/decisions/forged",
    }
    pages = {name: (await service.web.get(each)).text for name, each in paths.items()}
    found = faults_in_html(pages, tmp_path)
    assert found == []


@needs_chromium
async def test_touch_targets_are_large_enough(site: Any) -> None:
    service, url = site
    _, path = await open_link(service, "single")
    async with chromium(viewport={"width": 320, "height": 600}) as page:
        await page.goto(url + path)
        await page.click("summary:text-is('Approve with changes')")
        for button in ("Approve", "Reject"):
            box = await page.locator(f".docked button:has-text('{button}')").first.bounding_box()
            assert (box["height"] < 60, box["width"] > 100) == (True, True), "their words stay whole beside an edit"
        boxes = await page.evaluate(
            "[...document.querySelectorAll('button, summary, select, textarea, input:not([type=hidden], "
            "[type=checkbox])')]"
            ".map(e => [e.outerHTML.slice(0, 60), e.getBoundingClientRect().height]).filter(([_, h]) => h && h < 44)"
        )
        assert boxes == []


HIDDEN_FOCUS = """() => {
  const bar = document.querySelector('.docked'), focused = document.activeElement;
  const edge = bar.getBoundingClientRect().top;
  if (focused === document.body || bar.contains(focused)) return '';
  const box = focused.getBoundingClientRect();
  return box.top >= -1 && Math.min(box.bottom, box.top + 60) <= edge ? '' : focused.outerHTML;
}"""


@needs_chromium
@pytest.mark.parametrize("deciding", [False, True], ids=["first vote", "deciding vote"])
async def test_a_phone_keeps_the_choices_in_reach(site: Any, deciding: bool) -> None:
    service, url = site
    run_id, path = await open_link(service, "pair", "bo@acme.eu")
    if deciding:  # then Approve asks once, in the bar
        await service.api.post(f"/api/runs/{run_id}/votes", json={"by": "ann@acme.eu", "choice": "approve"})
    async with chromium(viewport={"width": 320, "height": 600}) as page:
        await page.goto(url + path)
        bar = await page.locator(".docked").bounding_box()
        assert (bar["y"] + bar["height"], bar["height"] < 80) == (600, True)
        assert await page.locator(".docked > *").count() == 2
        for opened in (False, True) if deciding else (False,):
            if opened:
                await page.click(".docked summary")
                await page.evaluate("scrollTo(0, 0); document.activeElement.blur()")
            for _ in range(20):
                await page.keyboard.press("Tab")
                assert await page.evaluate(HIDDEN_FOCUS) == ""


@needs_chromium
async def test_lists_fill_a_wide_screen_and_stack_on_a_phone(site: Any) -> None:
    service, url = site
    run_id, _ = await open_link(service, "pair")
    lefts = "[...document.querySelectorAll('tbody tr:first-child > *')].map(e => e.getBoundingClientRect().left)"
    async with chromium(viewport={"width": 320, "height": 600}) as page:
        for path in ("/runs", "/inbox?person=ann@acme.eu"):
            await page.goto(url + path)
            assert len(set(await page.evaluate(lefts))) == 1
        await page.goto(f"{url}/runs")
        assert await bottom_of(page, "tbody tr") < 600, "the first row is in the first screen"
        await page.click("text=More filters")
        assert await page.is_visible("[name=state]")
        menu = page.locator("header nav")
        assert (await page.locator("header").bounding_box())["height"] < 60, "the mark and the menu take one line"
        assert await menu.locator("a:visible").all_inner_texts() == ["Inbox", "New request"]
        await page.click("header summary")
        everything = await menu.locator("a:visible").all_inner_texts()
        assert not await is_too_wide(page)
        await page.goto(f"{url}/runs/{run_id}")
        assert not await page.is_visible(".timeline")
        assert "Open for votes" in await page.inner_text("main .spans >> nth=0")
        await page.set_viewport_size({"width": 640, "height": 600})  # what a zoom of 200 % leaves: no word is broken
        await page.goto(f"{url}/runs")
        assert len(set(await page.evaluate(lefts))) == 1
        await page.goto(f"{url}/runs/{run_id}")
        await page.set_viewport_size({"width": 1280, "height": 800})
        assert await page.is_visible(".timeline")
        assert await page.is_visible(".spans")
        assert await menu.locator("a:visible").all_inner_texts() == everything
        assert not await page.is_visible("header summary")
        await page.goto(f"{url}/runs")
        assert len(set(await page.evaluate(lefts))) == 5
        assert await page.is_visible("[name=state]"), "nothing is folded where there is room"
        assert (await page.locator("table").bounding_box())["width"] > 1_000


@pytest.mark.skipif(W3M is None, reason="w3m is not installed: pages go untried in a text browser")
async def test_check_46_a_text_browser_shows_all_that_is_needed(site: Any) -> None:
    service, url = site
    _, path = await open_link(service, "single")
    assert W3M is not None
    reader = await asyncio.create_subprocess_exec(
        W3M, "-dump", "-cols", "80", "-T", "text/html", url + path, stdout=asyncio.subprocess.PIPE
    )
    text = (await reader.communicate())[0].decode()
    for words in ("Waiting", "Deploy api 2.1", "Requested by Di Oz", "replicas: 3", "Comment", "Approve", "Reject"):
        assert words in text
