"""Stray copies: an ambiguous post that settles late, and cards from before a reset, end with the request."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from approvals_bot.approvals.acts import Vote
from approvals_bot.approvals.request import Request
from approvals_bot.service.act import perform
from tests.support.slack_office import DEPLOY, Office


def buttons(message: Any) -> list[str]:
    return [
        element["text"]["text"]
        for block in message.blocks
        if block["type"] == "actions"
        for element in block["elements"]
        if element["action_id"].startswith("vote:")
    ]


def settle_late(office: Office) -> Any:
    """Show a second copy of the first card, as Slack does after a time-out: our run doesn't know it."""
    space, first = office.playground.workspace, office.card
    return space.keep(replace(first, ts=space.next_ts(first.channel)))


def newest(office: Office, message: Any) -> Any:
    return office.playground.workspace.messages[message.channel, message.ts]


async def test_a_press_after_the_decision_closes_a_stray_copy(office: Office) -> None:
    run_id = await office.ask()
    stray = settle_late(office)
    await office.press("U0ANN", "Approve")
    await office.ended(run_id)
    assert buttons(newest(office, stray)) == ["Approve", "Reject"]
    answer = await office.press("U0CY", "Reject", channel=stray.channel, ts=stray.ts)
    assert answer["status"] == 200
    await office.until(lambda: buttons(newest(office, stray)) == [])
    assert "Approved by Ann Ode" in newest(office, stray).text


async def test_the_press_on_a_stray_copy_that_decides_closes_it(office: Office) -> None:
    run_id = await office.ask()
    stray = settle_late(office)
    await office.press("U0ANN", "Approve", channel=stray.channel, ts=stray.ts)
    await office.ended(run_id)
    await office.until(lambda: buttons(newest(office, stray)) == [])


async def test_the_press_that_decides_reads_no_log_again(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id, read, begun = await office.ask(), office.engine.store.read, list[int]()

    async def counted(run_id: str, after: int = 0, **more: Any) -> Any:
        begun.append(after)
        return await read(run_id, after, **more)

    monkeypatch.setattr(office.engine.store, "read", counted)
    await office.press("U0ANN", "Approve")
    await office.ended(run_id)
    await office.until(lambda: not office.slack.desk.afterwards.is_busy)
    assert 0 not in begun


async def test_a_press_closes_a_card_that_slack_let_nobody_edit(office: Office) -> None:
    """Its run has tried in vain, and has ended."""
    run_id = await office.ask()
    office.fault("error", "chat.update", error="edit_window_closed")
    office.fault("error", "chat.postMessage", error="restricted_action", times=None)
    record = await office.engine.record(run_id)
    assert record is not None
    await perform(office.engine, Request.model_validate(record.parts[0]), Vote("ann@acme.eu"))
    assert (await office.engine.wait(run_id, 10.0)).status == "completed"
    assert buttons(newest(office, office.card)) == ["Approve", "Reject"]
    answer = await office.press("U0CY", "Reject")
    assert "Already decided by Ann Ode" in answer["ephemeral"]
    await office.until(lambda: buttons(newest(office, office.card)) == [])
    assert "A newer message" not in json.dumps(newest(office, office.card).blocks)


@pytest.mark.parametrize("error", ["token_revoked", "missing_scope"])
async def test_cards_are_edited_once_the_app_is_installed_again(office: Office, error: str) -> None:
    run_id = await office.ask()
    office.fault("error", "chat.update", error=error, times=3)
    await office.press("U0ANN", "Approve")
    for _ in range(3):
        await office.clock.advance("1m")
    assert (await office.engine.wait(run_id, 10.0)).status == "completed"
    assert "Approved by Ann Ode" in newest(office, office.card).text
    assert [len(office.cards), buttons(newest(office, office.card))] == [2, []]  # the other is its requester's


async def test_cards_from_before_a_reset_are_closed_by_a_press(office: Office) -> None:
    run_id = await office.ask(stage=[DEPLOY["stage"][0] | {"need": 2}])
    old = office.card
    _, log = await office.engine.store.read(run_id) or (None, [])
    to = next(event.seq for event in log if event.type == "hook_created")
    new = await office.engine.reset(run_id, to=to)
    await office.until(lambda: len(office.cards) == 2)
    assert (buttons(old), buttons(office.cards[1])) == (["Approve", "Reject"], ["Approve", "Reject"])
    await office.press("U0ANN", "Approve", channel=old.channel, ts=old.ts)
    await office.until(lambda: buttons(newest(office, old)) == [])
    assert "A newer message shows this request" in json.dumps(newest(office, old).blocks)
    assert len(await office.votes(new.id)) == 1
    await office.until(lambda: "1 of 2" in json.dumps(office.cards[1].blocks))
    assert buttons(office.cards[1]) == ["Approve", "Reject"]


@pytest.mark.parametrize("fault", ["drop_before", "drop_after"])
async def test_nothing_is_asked_after_the_decision(office: Office, fault: str) -> None:
    await office.slack.desk.identities.workspace()
    office.fault(fault, "chat.postMessage")
    way = {"slack": "#deploys", "dm": True}
    run_id = await office.ask(stage=[DEPLOY["stage"][0] | {"from": ["ann@acme.eu"]}], deliver=way)
    await office.until(lambda: len(office.cards) == (1 if fault == "drop_before" else 2))
    arrived = office.cards[-1]
    await office.press("U0ANN", "Approve", channel=arrived.channel, ts=arrived.ts)
    await office.until(lambda: buttons(newest(office, arrived)) == [])
    for _ in range(4):
        await office.clock.advance("2m")
    assert (await office.engine.wait(run_id, 10.0)).status == "completed"
    asked = [message for message in office.cards if office.playground.workspace.channels[message.channel].name != "bo"]
    assert len(asked) == (1 if fault == "drop_before" else 2)
    assert [buttons(message) for message in asked] == [[] for _ in asked]
    assert all("Approved by Ann Ode" in message.text for message in asked)
