"""The record of a vote has the text that Slack showed, not that of another channel."""

from __future__ import annotations

import asyncio
from typing import Any

from approvals_bot.channels.slack.desk import shown_text
from approvals_bot.durable.store.audit import AuditFilter
from tests.support.slack_office import DEPLOY, Office


async def test_a_vote_names_the_text_of_its_slack_message(office: Office) -> None:
    fields = DEPLOY["fields"] | {"plan": {"type": "text", "label": "Plan"}}
    run_id = await office.ask(given={"plan": "step\n" * 2_000}, fields=fields)
    assert (await office.press("U0ANN", "Approve"))["status"] == 200
    async with asyncio.timeout(60):
        while not (lines := await office.engine.audit_lines(AuditFilter(run_id=run_id, what="acted"))):
            await asyncio.sleep(0.01)
    (text,) = await office.engine.audit_lines(AuditFilter(run_id=run_id, what="text_shown"))
    assert text.entry.data["sha256"] == lines[0].entry.data["shown"]
    shown = text.entry.data["text"]
    assert "Approve" in shown
    assert 0 < shown.count("step") < 2_000  # as Slack shows it: cut


def test_text_of_blocks_has_what_people_read() -> None:
    parts = [
        {"type": "text", "text": "for "},
        {"type": "emoji", "name": "rocket"},
        {"type": "date", "timestamp": 1, "format": "{date}", "fallback": "1 January"},
        {"type": "link", "url": "https://acme.eu"},
    ]
    section = {"type": "rich_text", "elements": [{"type": "rich_text_section", "elements": parts}]}
    button = {
        "type": "button",
        "action_id": "vote:approve",
        "value": "hook",
        "text": {"type": "plain_text", "text": "Yes"},
    }
    blocks = [{"type": "header", "block_id": "x", "text": {"type": "plain_text", "text": "Deploy"}}, section, button]
    text = "Deploy\nfor :rocket:1 Januaryhttps://acme.eu\nYes"
    assert shown_text({"message": {"blocks": blocks}}) == text
    assert shown_text({"view": {"type": "modal", "blocks": blocks}, "message": {}}) == text
    assert shown_text({"view": {"type": "home", "blocks": blocks}}) is None
    odds: list[dict[str, Any]] = [
        {},
        {"message": "x"},
        {"message": {"blocks": 1}},
        {"message": {"blocks": [None, {"text": {}}]}},
    ]
    for odd in odds:
        assert shown_text(odd) is None
