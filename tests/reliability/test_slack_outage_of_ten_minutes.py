"""A Slack outage of ten minutes in the middle of many requests, some of which are decided meanwhile.

Each card is posted once, each person notified once, and nobody asked after the decision. Engine, approvals and our
Slack channel are real, Slack is the playground's fake; time is the test's.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

from approvals_bot.approvals.acts import Vote
from approvals_bot.approvals.policy import Definition, pinned
from approvals_bot.approvals.request import Opening, Request
from approvals_bot.approvals.workflow import approval
from approvals_bot.channels.slack.blocks import delivery_of
from approvals_bot.service.act import perform
from tests.reliability.test_slack_posts_arrive import ANN, CHANNELS, World, world


async def ask(it: World, number: int) -> str:
    definition = Definition.model_validate(
        {
            "workflow": {"id": "deploy", "title": "Deploy {{ version }}", "request": ["*"]},
            "fields": {"version": "string"},
            "stage": [{"id": "go", "from": [ANN.address]}],
            "deliver": {"slack": f"#team-{number % CHANNELS}"},
            "clock": {"deadline": "3 days"},
        }
    )
    opening = Opening({"version": str(number)}, "app:ci")
    return (await it.engine.start(approval.under("deploy", pinned(definition)), opening)).id


async def decide(it: World, run_id: str) -> None:
    record = await it.engine.record(run_id)
    assert record is not None
    reply = await perform(it.engine, Request.model_validate(record.parts[0]), Vote(ANN.address, "approve", via="api"))
    assert reply.verdict == "decided", reply


@pytest.mark.promise(11)
@pytest.mark.parametrize("requests", [30, pytest.param(1_000, marks=[pytest.mark.long, pytest.mark.timeout(1_800)])])
async def test_each_card_comes_once_and_none_after_its_decision(tmp_path: Path, requests: int) -> None:
    async with world(tmp_path) as it:
        space, faults = it.slack.playground.workspace, it.slack.playground.slack_faults
        before = [await ask(it, number) for number in range(requests // 2)]
        await it.clock.advance("20s")
        faults.script.clear()
        it.slack.fault("drop_before", "*", times=None)  # Slack is down
        during = [await ask(it, number) for number in range(requests // 2, requests)]
        await it.clock.advance("5m")
        decided = [*before[::3], *during[::3]]
        for run_id in decided:
            await decide(it, run_id)
        had_a_card = {delivery(message, it).partition("-")[0] for message in space.messages.values()}
        await it.clock.advance("5m")
        faults.clear()  # it is back
        expected = {run_id for run_id in (*before, *during) if run_id not in decided or run_id in had_a_card}
        await it.until_all_arrived(len(expected))

        cards = Counter(delivery(message, it).partition("-")[0] for message in space.messages.values())
        assert set(cards) == expected
        assert set(cards.values()) == {1}  # each card once, and no reply
        assert {message.notified for message in space.messages.values()} == {(ANN.slack,)}  # each person once
        for message in space.messages.values():
            is_decided = delivery(message, it).partition("-")[0] in decided
            assert ('"vote:approve"' in str(message.blocks).replace("'", '"')) is not is_decided
            assert message.text.startswith("✅ Approved") is is_decided
        assert 0 < len(had_a_card) < requests
        assert len(expected) < requests
        sys.stdout.write(f"{requests} requests, {len(expected)} cards, {it.channel.attempts} attempts\n")


def delivery(message: object, it: World) -> str:
    found = delivery_of(message.as_json(it.slack.playground.workspace.app.team_id, with_metadata=True))  # type: ignore[attr-defined]
    assert found is not None
    return found
