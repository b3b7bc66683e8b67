"""The pages of the office, beside Slack: opened and pressed as a browser does."""

from __future__ import annotations

import re
import time
from typing import Any
from urllib.parse import urljoin

from starlette.routing import Mount

from approvals_bot.channels.slack.blocks import delivery_of
from approvals_bot.durable.tokens import Tokens
from approvals_bot.people import People
from approvals_bot.web.links import DECISION
from approvals_bot.web.routes import build
from tests.support.slack_office import KEY, Office

OURS = {"Sec-Fetch-Site": "same-origin", "Origin": "null"}

Form = tuple[str, dict[str, str]]


def with_pages(office: Office) -> None:
    engine, url = office.engine, office.fake_slack.url
    pages = build(
        engine=engine,
        tokens=Tokens([KEY], installation=engine.installation),
        people=engine.resources[People],
        workflows=office.slack.opening.workflows,  # type: ignore[arg-type]
        api_keys=[],
        base_url=url,
    )
    office.fake_slack.web.router.routes.append(Mount("/", pages))


def card_of(office: Office, run_id: str) -> Any:
    """Return the newest card of this run in a channel, where everybody can press it. None if there is none."""
    app = office.playground.workspace.app
    shared = [card for card in office.cards if card.channel.startswith("C")]  # a direct message is one person's
    known = ((card, delivery_of(card.as_json(app.team_id, with_metadata=True))) for card in reversed(shared))
    return next((card for card, delivery in known if delivery and delivery.startswith(run_id)), None)


async def form_of(office: Office, run_id: str, address: str) -> Form:
    """Return the URL of this person's page and the hidden fields of its form."""
    record = await office.engine.record(run_id)
    assert record is not None
    assert record.parts
    hook = await office.engine.find_hook(record.parts[0]["hook_id"])
    assert hook is not None
    recipient = next(id for id, known in record.parts[0]["recipients"].items() if known == address)
    token = Tokens([KEY], installation=office.engine.installation).sign(
        DECISION, {"h": hook.hook_id, "r": recipient, "g": hook.generation}
    )
    page = f"{office.fake_slack.url}/decisions/{token}"
    async with office.http.get(page) as answer:
        assert answer.status == 200
        return page, dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', await answer.text()))


async def send(office: Office, form: Form, choice: str, seconds: list[float] | None = None) -> tuple[int, str]:
    """Send the form and return the final status and page. `seconds` collects how long each response took."""
    page, hidden = form
    given, seconds, began = hidden | {"choice": choice.lower()}, [] if seconds is None else seconds, time.monotonic()
    async with office.http.post(page, data=given, headers=OURS, allow_redirects=False) as answer:
        status, text, following = answer.status, await answer.text(), answer.headers.get("Location")
        seconds.append(time.monotonic() - began)
    if following is None:
        return status, text
    async with office.http.get(urljoin(page, following)) as shown:
        text = await shown.text()
        seconds.append(time.monotonic() - began - sum(seconds))
        return shown.status, text
