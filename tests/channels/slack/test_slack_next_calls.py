"""A yes that covers the next calls of a tool, given and revoked in Slack."""

from __future__ import annotations

import json
from typing import Any

from approvals_bot.approvals.policy import Definition, pinned
from approvals_bot.approvals.standing_grants import StandingGrants
from approvals_bot.approvals.workflow import approval
from approvals_bot.client.decision import Decision
from approvals_bot.people import People
from approvals_bot.service.catalog import Listed
from approvals_bot.service.standing import StoredGrants
from approvals_bot.service.tool_calls import OpenedBy, RunOpening, open_call
from tests.support.slack_office import Office

FILE: dict[str, Any] = {
    "workflow": {"id": "tool-call", "title": "{{ agent }}: {{ tool }}"},
    "stage": [{"id": "go", "from": ["ann@acme.eu", "cy@acme.eu"]}],
    "allowance": {"tools": ["pay"], "same": ["iban"], "count": 5, "sum": {"price": 2000}, "until": "2h"},
    "deliver": {"slack": "#deploys"},
}
BUTTON = "Approve, and the next calls…"


async def call(office: Office, key: str, price: int = 600) -> str:
    office.engine.resources[StandingGrants] = StoredGrants(office.engine)
    file = Definition.model_validate(FILE, context={})
    listed = Listed(approval.under("tool-call", pinned(file)), file)
    input: dict[str, Any] = {"tool": "pay", "arguments": {"price": price, "iban": "NO93"}}
    by = OpenedBy({"kind": "app", "id": "app:bot"}, {})
    asked = RunOpening(listed, input, "app:bot", "app:bot", None, key, by)
    run = await open_call(office.engine, office.engine.resources[People], file, asked)
    await office.engine.settle()
    return run.id


async def decision(office: Office, run: str) -> Decision | None:
    record = await office.engine.record(run)
    assert record is not None
    return Decision.model_validate(record.result) if record.result else None


def limits(**given: str) -> dict[str, Any]:
    shown = {"count": "5", "sum.price": "2000", "until": "2h"} | given
    return {f"ask:allowance.{name}": {"value": text} for name, text in shown.items()}


async def test_the_next_calls_are_approved_and_revoked_in_slack(office: Office) -> None:
    run = await call(office, "s:1")
    await office.until(lambda: bool(office.cards))
    opened = await office.press("U0ANN", BUTTON)
    view = opened["view"]
    text = json.dumps(view["blocks"], ensure_ascii=False)
    assert "Later calls of pay by the same requester" in text
    assert '"initial_value": "2000"' in text, "the file's ceilings"
    wrong = await office.submit("U0ANN", view, limits(count="6"))
    assert "Goes further than the file" in json.dumps(wrong), wrong
    wrong = await office.submit("U0ANN", view, limits(until="soon"))
    assert "Must be a duration" in json.dumps(wrong), wrong
    assert await decision(office, run) is None
    await office.submit("U0ANN", view, limits(count="3"))
    await office.until(lambda: "Revoke allowance" in json.dumps(office.card.blocks))
    assert "at most 3 of them" in json.dumps(office.card.blocks)
    await office.clock.advance("1s")
    covered = await decision(office, await call(office, "s:2"))
    assert covered is not None
    assert (covered.state, covered.allowance) == ("approved", run)
    await office.press("U0BO", "Revoke allowance")
    await office.until(lambda: bool(office.ephemerals("U0BO")))
    assert await decision(office, await call(office, "s:3")) is not None, "Bo is no approver"
    await office.press("U0ANN", "Revoke allowance")
    await office.until(lambda: "covers no further requests" in office.ephemerals("U0ANN")[-1].text)
    assert await decision(office, await call(office, "s:4")) is None, "the next call asks"
