"""Take the pictures of docs/email.md: `make pictures`.

The product as a user starts it, a workflow that goes by mail, the playground's mailbox, and a real
browser, which shows the mails and the pages, and makes the pictures small.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from playwright.async_api import Browser, Page, async_playwright

from tests.support.browsing import CHROMIUM
from tests.support.journey import Json, Service, with_samples
from tests.support.slack_pictures import AS_WEBP, IMAGES, PICTURED

DESKTOP, PHONE = {"width": 720, "height": 400}, {"width": 390, "height": 400}
WIDE = {"width": 1_200, "height": 700}
SHARPNESS = 1.25  # device pixels per pixel
QUALITY = "0.6"  # of WebP, of 1: text stays crisp, and all pictures together below 1 MB
TALLEST = 1_500  # pixels of a picture; below that nothing new comes

WORKFLOW = """
[workflow]
id = "{id}"
title = "Deploy {{{{ service }}}} {{{{ version }}}} to prod"
request = ["*"]
[fields]
service = {{ type = "string", pinned = true }}
version = {{ type = "string", pinned = true }}
why = {{ type = "text", required = false }}
plan = {{ type = "text", view = "diff", required = false }}
[policy]
outcomes = ["approve", "reject", "changes"]
[[stage]]
id = "go"
from = ["@release-managers"]
need = 2
comment = "on-reject"
[deliver]
email = true
link_auth = "{link_auth}"
[clock]
deadline = "{deadline}"
"""

PLAN = "--- a/deploy.yaml\n+++ b/deploy.yaml\n-  replicas: 3\n+  replicas: 6\n   image: api:2.1"


@dataclass
class Studio:
    service: Service
    browser: Browser
    also: Path | None = None  # where the pictures are put as PNG, too

    async def open(self, *, phone: bool = False, dark: bool = False) -> Page:
        context = await self.browser.new_context(
            viewport=PHONE if phone else DESKTOP,  # type: ignore[arg-type]
            device_scale_factor=SHARPNESS,
            color_scheme="dark" if dark else "light",
        )
        return await context.new_page()

    async def keep(self, name: str, page: Page, *, close: bool = True) -> None:
        """The page as it is now, as a picture. `close`: the person leaves, too."""
        width = page.viewport_size["width"] if page.viewport_size else DESKTOP["width"]
        height = min(TALLEST, await page.evaluate("document.documentElement.scrollHeight"))
        await page.set_viewport_size({"width": width, "height": height})  # what is docked is at the page's end
        clip = {"x": 0, "y": 0, "width": width, "height": height}
        taken = await page.screenshot(full_page=True, clip=clip)  # type: ignore[arg-type]
        await page.goto("about:blank")
        small = await page.evaluate(AS_WEBP.replace("0.9", QUALITY), base64.b64encode(taken).decode())
        (IMAGES / f"email-{name}.webp").write_bytes(base64.b64decode(small.partition(",")[2]))
        if self.also:
            (self.also / f"email-{name}.png").write_bytes(taken)
        if close:
            await page.context.close()

    async def page(self, name: str, link: str, *, phone: bool = False, dark: bool = False) -> None:
        page = await self.open(phone=phone, dark=dark)
        await page.goto(link)
        await self.keep(f"page-{name}", page)

    async def mail(self, name: str, mail: Json, *, phone: bool = False, dark: bool = False) -> None:
        page = await self.open(phone=phone, dark=dark)
        await page.set_content(mail["html"])
        await self.keep(f"mail-{name}", page)

    # ── the people ──

    def ask(self, version: str, workflow: str = "golive") -> str:
        fields = {"service": "api", "version": version, "why": "Ann's customers wait for the export.", "plan": PLAN}
        run = self.service.open(workflow, "di@acme.eu", **fields)
        self.service.settled(run)
        return run

    def link(self, version: str, to: str = "ann@acme.eu") -> str:
        """This person's page of the request of this version."""

        def look() -> list[str]:
            mails = [mail for mail in self.service.mails(to) if f"api {version} " in mail["subject"]]
            return [link for mail in mails for link in re.findall(r"http://\S+/decisions/[^\s?]+", mail["text"])]

        found: str = self.service.eventually(look)[0]
        return found

    def sent_to_ann(self, run: str) -> list[Json]:
        sent: list[Json] = self.service.run(run)["request"]["deliveries"]
        return [one for one in sent if one["to"] == "ann@acme.eu"] or [{"state": "sending"}]

    def mail_with(self, words: str, to: str = "ann@acme.eu") -> Json:
        """Return the newest mail to this person that contains these words."""
        found: Json = self.service.eventually(lambda: [m for m in self.service.mails(to) if words in m["text"]])[-1]
        return found


async def mails(it: Studio) -> None:
    it.ask("2.1")
    first = it.mail_with("api 2.1 ")
    await it.mail("light", first)
    await it.mail("dark", first, dark=True)
    await it.mail("phone", first, phone=True)
    it.service.press(it.link("2.1"), "approve")
    await it.mail("vote", it.mail_with("Not you?"))
    it.service.press(it.link("2.1", "bo@acme.eu"), "reject", comment="The migration locks the table for an hour.")
    await it.mail("outcome", it.mail_with("Rejected by"))


async def open_pages(it: Studio) -> None:
    """While it can be decided."""
    run = it.ask("2.2")
    link = it.link("2.2")
    await it.page("waiting", link)
    await it.page("waiting-dark", link, dark=True)
    await it.page("waiting-phone", f"{link}?choice=reject", phone=True)
    it.service.press(it.link("2.2", "bo@acme.eu"), "approve", comment="Tests are green.")
    await it.page("partly", link)
    page = await it.open()
    await page.goto(f"{link}?choice=approve")
    await page.click("button.chosen")
    await page.wait_for_url("**?done=*")
    await it.keep("page-result", page)
    it.service.eventually(lambda: it.service.run(run)["status"] == "completed")
    await it.page("decided-by-me", link)
    await it.page("decided-by-another", it.link("2.2", "cy@acme.eu"))


async def second_thoughts(it: Studio) -> None:
    run = it.ask("2.3")
    link = it.link("2.3")
    it.service.press(link, "approve")
    await it.page("undo", f"{link}?choice=take_back")
    page = await it.open()
    await page.goto(it.link("2.3", "bo@acme.eu") + "?choice=approve")
    edit = {"by": "di@acme.eu", "fields": {"version": "2.3.1"}}
    assert it.service.api("PATCH", f"/runs/{run}/fields", json=edit).status_code < 300
    await page.click("button.chosen")
    await page.wait_for_selector(".notice")
    await it.keep("page-changed", page)


async def ended_pages(it: Studio) -> None:
    run = it.ask("2.4")
    it.service.api(
        "POST", f"/runs/{run}/cancellation", json={"by": "di@acme.eu", "reason": "The release is postponed."}
    )
    it.service.eventually(lambda: it.service.run(run)["status"] == "cancelled")
    await it.page("withdrawn", it.link("2.4"))
    await it.page("not-found", f"{it.link('2.4')}x", phone=True)
    it.ask("2.5", "golive-fast")
    it.service.play("POST", "/clock", json={"advance": "90m"})
    run = it.service.api("GET", "/runs", params={"workflow": "golive-fast"}).json()["runs"][0]["id"]
    it.service.eventually(lambda: it.service.run(run)["status"] == "completed")
    await it.page("expired", it.link("2.5"))


async def codes(it: Studio) -> None:
    it.ask("2.6", "golive-safe")
    page = await it.open(phone=True)
    await page.goto(it.link("2.6"))
    await page.click("button[name=send_code]")
    await page.wait_for_selector("#code")
    await it.keep("page-code", page)


async def inbox(it: Studio) -> None:
    for version in ("3.1", "3.2", "3.3"):
        it.ask(version)
    it.service.press(it.link("3.3", "cy@acme.eu"), "approve")
    page = await it.open(phone=True)
    base = str(it.service.http.base_url).rstrip("/")
    await page.goto(f"{base}/login")
    await page.fill("#address", "cy@acme.eu")
    await page.get_by_role("button", name="Email me a code").click()
    digits = re.search(r"code is (\d{6})", it.mail_with("Your code is", "cy@acme.eu")["text"])
    assert digits
    await page.fill("#code", digits[1])
    await page.click("button.primary")
    await page.wait_for_url("**/inbox")
    wide = await page.context.new_page()
    await wide.set_viewport_size(WIDE)  # type: ignore[arg-type]
    await wide.goto(f"{base}/inbox")
    await it.keep("page-inbox-wide", wide, close=False)
    await wide.close()
    await it.keep("page-inbox", page)
    sign_in = await it.open()
    await sign_in.goto(f"{base}/login")
    await sign_in.locator(".trying").evaluate("it => it.remove()")  # only `dev` has it
    await sign_in.get_by_role("button", name="Email me a code").evaluate("it => it.classList.add('primary')")
    await it.keep("page-login", sign_in)


async def digest(it: Studio) -> None:
    """The only one whose service holds mails."""
    for number in range(8):
        fields = {"service": ("api", "web", "billing")[number % 3], "version": f"4.{number}"}
        run = it.service.open("golive", ("di@acme.eu", "bo@acme.eu")[number % 2], **fields)
        it.service.eventually(lambda: all(sent["state"] != "sending" for sent in it.sent_to_ann(run)))  # noqa: B023
    it.service.play("POST", "/clock", json={"advance": "11m"})
    together = it.mail_with("come in one mail")
    await it.mail("digest", together)
    await it.mail("digest-phone-dark", together, phone=True, dark=True)


SCENES = {
    "mails": mails,
    "open": open_pages,
    "second-thoughts": second_thoughts,
    "ended": ended_pages,
    "codes": codes,
    "inbox": inbox,
    "digest": digest,
}


async def take(scenes: list[str], also: Path | None) -> None:
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for together in ([scene for scene in scenes if scene != "digest"], [s for s in scenes if s == "digest"]):
            if together:
                await take_together(together, browser, also)
        await browser.close()


async def take_together(scenes: list[str], browser: Browser, also: Path | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = with_samples(Path(folder))
        for id, link_auth, deadline in (
            ("golive", "link", "4h"),
            ("golive-fast", "link", "1h"),
            ("golive-safe", "code", "4h"),
        ):
            text = WORKFLOW.format(id=id, link_auth=link_auth, deadline=deadline)
            (place / "workflows" / f"{id}.toml").write_text(text)
        config = (place / "config.example.toml").read_text()
        if scenes == ["digest"]:
            config = config.replace('# digest = "15m"', 'digest = "10m"')
        (place / "config.toml").write_text(config)
        service = Service(place, PICTURED).start("--fresh", "--config", "config.toml")
        try:
            for scene in scenes:
                await SCENES[scene](Studio(service, browser, also))
        finally:
            service.stop()


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("scenes", nargs="*", default=list(SCENES), help=", ".join(SCENES))
    options.add_argument("--png", type=Path, help="a folder for the pictures as PNG, to look at")
    given = options.parse_args()
    asyncio.run(take(given.scenes, given.png))
