"""Take the pictures of docs/slack.md: `make pictures`.

The product as a user starts it, its sample workflows, the playground's fake Slack, and a real browser, which also
makes the pictures small.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, FloatRect, Page, async_playwright

from tests.support.browsing import CHROMIUM
from tests.support.journey import Json, Service, comment_input, with_samples

IMAGES = Path(__file__).parent.parent.parent / "docs" / "images"
PICTURED = (str(Path(__file__).with_name("pictured_service.py")),)  # the product, always at the same time
DESKTOP, PHONE = {"width": 1_080, "height": 820}, {"width": 390, "height": 844}
MARGIN = 14  # pixels around a part
SHARPNESS = 1.5  # device pixels per pixel
AS_WEBP = """async png => {
  const image = new Image()
  image.src = "data:image/png;base64," + png
  await image.decode()
  const canvas = document.createElement("canvas")
  Object.assign(canvas, {width: image.width, height: image.height})
  canvas.getContext("2d").drawImage(image, 0, 0)
  return canvas.toDataURL("image/webp", 0.75)
}"""

ALONE = "part => document.querySelectorAll('.message').forEach(it => it.closest(part) || it.remove())"
"""What is above a card may still be changing, and would move it by parts of a pixel."""

CARD_WORKFLOW = """
[workflow]
id = "vendor"
title = "Let {{ vendor }} see customer data"
request = ["*"]
[fields]
vendor = { type = "string", pinned = true }
until = { type = "date", pinned = true }
[policy]
outcomes = ["approve", "reject", "changes"]
[[stage]]
id = "privacy"
from = ["ann@acme.eu", "cy@acme.eu"]
[deliver]
slack = "#deploys"
[clock]
deadline = "2h"
"""


@dataclass
class Studio:
    service: Service
    browser: Browser
    also: Path | None = None  # where the pictures are put as PNG, too

    async def shoot(
        self, name: str, path: str, reader: str, *, part: str = "", phone: bool = False, dark: bool = False
    ) -> None:
        """`part`: the one element to show; the whole screen without it."""
        context = await self.browser.new_context(
            viewport=PHONE if phone else DESKTOP,  # type: ignore[arg-type]
            device_scale_factor=SHARPNESS,
            color_scheme="dark" if dark else "light",
        )
        page: Page = await context.new_page()
        await page.goto(f"{str(self.service.http.base_url).rstrip('/')}/playground{path}?as={reader}")
        if part.startswith("#m"):
            await page.evaluate(ALONE, part)
        box = await page.locator(part).first.bounding_box() if part else None
        clip = around(box, above=0.0 if part.startswith("#") else MARGIN) if box else None
        taken = await page.screenshot(full_page=bool(part), clip=clip)
        await page.goto("about:blank")
        small = await page.evaluate(AS_WEBP, base64.b64encode(taken).decode())
        (IMAGES / f"slack-{name}.webp").write_bytes(base64.b64decode(small.partition(",")[2]))
        if self.also:
            (self.also / f"{name}.png").write_bytes(taken)
        await context.close()

    async def card(self, name: str, card: Json, reader: str, **more: Any) -> None:
        part = f"#m{str(card['ts']).replace('.', '')}"
        await self.shoot(f"card-{name}", f"/channels/{card['channel']}", reader, part=part, **more)

    # ── the people ──

    def ask(
        self, title: str, workflow: str = "deploy", requester: str = "bo@acme.eu", **fields: str
    ) -> tuple[str, Json]:
        """A request, and its newest card wherever that is."""
        run = self.service.open(workflow, requester, **fields)
        self.service.settled(run)  # all copies are there, and counted in the menu
        return run, self.find(title)

    def find(self, title: str, channel: str = "", word: str = "") -> Json:
        def look() -> Json | None:
            found = [
                message
                for message in self.service.play("GET", "/slack/messages")
                if title in message["text"]
                and word in message["text"]
                and channel in (message["channel"], "")
                and not message["ephemeral_to"]
                and not message.get("thread_ts")
            ]
            return found[-1] if found else None

        card: Json = self.service.eventually(look)
        return card

    def shown(self, card: Json, word: str) -> Json:
        """The card once it says so."""

        def look() -> Json | None:
            now = [m for m in self.service.play("GET", "/slack/messages") if m["ts"] == card["ts"]]
            return now[0] if now and word in str(now[0]) else None

        found: Json = self.service.eventually(look)
        return found

    def reject(self, user: str, card: Json, reason: str) -> None:
        view = self.service.click(user, card, "Reject")["view"]
        block, action = comment_input(view)
        body = {"user": user, "view_id": view["id"], "values": {block: {action: reason}}}
        self.service.play("POST", "/slack/submit", json=body)

    def close(self, user: str, view: Json) -> None:
        self.service.play("POST", "/slack/close", json={"user": user, "view_id": view["id"]})


def around(box: FloatRect, above: float) -> FloatRect:
    """With a margin, as far as the screen goes. `above`: the same above and below, where other messages may stand."""
    left, top = max(0.0, box["x"] - MARGIN), max(0.0, box["y"] - above)
    return {
        "x": left,
        "y": top,
        "width": box["x"] + box["width"] + MARGIN - left,
        "height": box["y"] + box["height"] + above - top,
    }


PLAN = "- replicas: 2\n+ replicas: 4"


async def cards(it: Studio) -> None:
    _, waiting = it.ask("Deploy api 2.1", service="api", version="2.1", env="prod", plan=PLAN)
    await it.card("waiting", waiting, "U0ANN")
    await it.card("waiting-phone-dark", waiting, "U0ANN", phone=True, dark=True)

    _, partly = it.ask("billing 7.0", service="billing", version="7.0", env="prod", risk="high")
    it.service.click("U0ANN", partly, "Approve")
    await it.shoot("channel", "/channels/" + waiting["channel"], "U0ANN")
    await it.shoot("channel-phone-dark", "/channels/" + waiting["channel"], "U0ANN", phone=True, dark=True)
    await it.card("partly", it.shown(partly, "1 of 3"), "U0BO")

    _, approved = it.ask("web 3.4", service="web", version="3.4", env="prod")
    it.service.click("U0ANN", approved, "Approve")
    await it.card("approved", it.shown(approved, "Approved by"), "U0ANN")
    await it.card("approved-phone", it.shown(approved, "Approved by"), "U0ANN", phone=True)

    _, rejected = it.ask("search 9.0", service="search", version="9.0", env="prod")
    it.reject("U0ANN", rejected, "Not before the migration is through.")
    await it.card("rejected", it.shown(rejected, "Rejected by"), "U0ANN")

    run, withdrawn = it.ask("mail 1.8", service="mail", version="1.8", env="prod")
    it.service.api("POST", f"/runs/{run}/cancellation", json={"by": "bo@acme.eu", "reason": "Found a bug in it."})
    await it.card("withdrawn", it.shown(withdrawn, "Withdrawn"), "U0ANN")

    run, changed = it.ask("queue 5.0", service="queue", version="5.0", env="prod")
    it.service.api("PATCH", f"/runs/{run}/fields", json={"by": "bo@acme.eu", "fields": {"version": "5.1"}})
    await it.card("changed", it.shown(changed, "5.1"), "U0ANN")

    _, asked = it.ask("Let Nimbus", "vendor", vendor="Nimbus", until="2027-03-31")
    view = it.service.click("U0ANN", asked, "Request changes")["view"]
    block, action = comment_input(view)
    values = {block: {action: "Until the end of the year is enough."}}
    it.service.play("POST", "/slack/submit", json={"user": "U0ANN", "view_id": view["id"], "values": values})
    await it.card("changes-asked", it.shown(asked, "Changes requested"), "U0ANN", dark=True)

    archived = {"kind": "error", "method": "chat.postMessage", "channel": "#deploys", "error": "is_archived"}
    it.service.play("POST", "/slack/faults", json=archived | {"times": 2})  # by its id, then by its name
    it.service.open("vendor", vendor="Stratus", until="2027-06-30")
    await it.card("not-delivered", it.shown(it.find("Let Stratus"), "Not delivered"), "U0ANN")

    _, expired = it.ask("Let Cumulus", "vendor", vendor="Cumulus", until="2027-01-31")
    it.service.play("POST", "/clock", json={"advance": "2h"})
    await it.card("expired", it.shown(expired, "Expired"), "U0ANN")


async def modals(it: Studio) -> None:
    _, card = it.ask("Deploy api 2.2", service="api", version="2.2", env="prod", plan=PLAN)
    place = f"/channels/{card['channel']}"
    view = it.service.click("U0ANN", card, "Reject")["view"]
    await it.shoot("modal-reject", place, "U0ANN", part="dialog")
    await it.shoot("modal-reject-phone-dark", place, "U0ANN", part="dialog", phone=True, dark=True)
    it.close("U0ANN", view)

    command = {"user": "U0BO", "channel": card["channel"], "command": "/approve", "text": "deploy"}
    view = it.service.play("POST", "/slack/command", json=command)["view"]
    await it.shoot("form", place, "U0BO", part="dialog")
    await it.shoot("form-phone", place, "U0BO", part="dialog", phone=True)
    it.close("U0BO", view)

    spent = {"amount": "640.00", "purpose": "Two tickets for PyCon", "team": "sales"}
    it.service.open("expense", "ann@acme.eu", **spent)
    manager = it.find("640.00")
    it.service.click("U0CFO", manager, "Approve")
    finance = it.service.eventually(lambda: asked_of_finance(it, manager))
    it.service.click("U0CFO", finance, "Approve")
    await it.shoot("modal-ask", f"/channels/{finance['channel']}", "U0CFO", part="dialog")


def asked_of_finance(it: Studio, manager: Json) -> Json | None:
    now = [
        m for m in it.service.play("GET", "/slack/messages") if "640.00" in m["text"] and "vote:" in str(m["blocks"])
    ]
    return now[-1] if now else None


async def home(it: Studio) -> None:
    it.service.eventually(lambda: it.service.play("GET", "/slack/home?user=U0ANN").get("view"))
    await it.shoot("home", "/home", "U0ANN", part="main")
    await it.shoot("home-phone-dark", "/home", "U0ANN", phone=True, dark=True, part="main")


SCENES = {"cards": cards, "modals": modals, "home": home}


async def take(scenes: list[str], also: Path | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = with_samples(Path(folder))
        (place / "workflows" / "vendor.toml").write_text(CARD_WORKFLOW)
        service = Service(place, PICTURED).start("--fresh", "--config", "config.example.toml")
        try:
            async with async_playwright() as driver:
                browser = await driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
                for scene in scenes:
                    await SCENES[scene](Studio(service, browser, also))
                await browser.close()
        finally:
            service.stop()


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("scenes", nargs="*", default=list(SCENES), help=", ".join(SCENES))
    options.add_argument("--png", type=Path, help="a folder for the pictures as PNG, to look at")
    given = options.parse_args()
    asyncio.run(take(given.scenes, given.png))
