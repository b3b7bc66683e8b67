"""Cards that are posted while Slack limits, drops, loses answers and is down for ten minutes: each once, in order.

Engine, approvals and slack_sdk are real, Slack is the playground's fake; time is the test's.
`SLACK_APPROVALS=1000` runs it at its full size.
"""

from __future__ import annotations

import os
import sys
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from approvals_bot.approvals.policy import Definition, pinned
from approvals_bot.approvals.port import Channels, Dispatch, Receipt, Result, place_name
from approvals_bot.approvals.request import Opening
from approvals_bot.approvals.workflow import approval
from approvals_bot.channels.slack.blocks import delivery_of
from approvals_bot.channels.slack.client import slack_client
from approvals_bot.channels.slack.manifest import SCOPES
from approvals_bot.channels.slack.members import SlackPeople
from approvals_bot.channels.slack.post import SlackOut
from approvals_bot.durable.engine import Engine
from approvals_bot.people import People, Person
from approvals_bot.playground import SeedApp, SeedChannel
from approvals_bot.playground.faults import Fault
from approvals_bot.testing import FakeClock
from tests.support.fake_slack import BOT_TOKEN, SIGNING_SECRET, FakeSlack, run_fake_slack

APPROVALS = int(os.environ.get("SLACK_APPROVALS", "60"))
CHANNELS = max(3, APPROVALS // 100)
FAULTS = max(10, APPROVALS // 10)  # struck one after the other, while cards go out
ANN = Person("ann@acme.eu", "Ann Ode", "U0ANN")


@dataclass
class Noted:
    """Our Slack channel; it notes in which order the cards of each conversation came to it for the first time."""

    out: SlackOut
    came: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    known: set[str] = field(default_factory=set)
    attempts: int = 0

    async def send(self, dispatch: Dispatch) -> Result:
        self.attempts += 1
        if dispatch.delivery_id not in self.known:
            self.known.add(dispatch.delivery_id)
            self.came[place_name(dispatch.to)].append(dispatch.delivery_id)
        return await self.out.send(dispatch)

    async def update(self, receipt: Receipt, dispatch: Dispatch) -> Result:
        return await self.out.update(receipt, dispatch)


class Forgetful(SlackOut):
    """One that never looks whether a lost post has arrived: the negative control."""

    async def _find(self, dispatch: Dispatch, conversation: str, tried: datetime) -> Receipt | bool:
        return True


@dataclass
class World:
    slack: FakeSlack
    channel: Noted
    engine: Engine
    clock: FakeClock

    async def ask(self, number: int) -> None:
        definition = Definition.model_validate(
            {
                "workflow": {"id": "deploy", "title": "Deploy {{ version }}", "request": ["*"]},
                "fields": {"version": "string"},
                "stage": [{"id": "go", "from": [ANN.address]}],
                "deliver": {"slack": f"#team-{number % CHANNELS}"},
                "clock": {"deadline": "3 days"},
            }
        )
        opening = Opening({"version": str(number)}, "bo@acme.eu")
        await self.engine.start(approval.under("deploy", pinned(definition)), opening)

    def arrived(self) -> dict[str, list[str]]:
        """Return the deliveries of each conversation, from top to bottom."""
        space, found = self.slack.playground.workspace, defaultdict[str, list[str]](list)
        for message in sorted(space.messages.values(), key=lambda one: float(one.ts)):
            name = space.channels[message.channel].label
            found[name].append(str(delivery_of(message.as_json(space.app.team_id, with_metadata=True))))
        return found

    async def until_all_arrived(self, count: int) -> None:
        for _ in range(240):
            if len({one for many in self.arrived().values() for one in many}) >= count:
                break
            await self.clock.advance("15s")
        await self.clock.advance("5m")  # what may be posted twice would be posted again by now


@asynccontextmanager
async def world(folder: Path, kind: type[SlackOut] = SlackOut) -> AsyncIterator[World]:
    clock = FakeClock()
    app = SeedApp(BOT_TOKEN, SIGNING_SECRET, "", scopes=SCOPES)
    channels = tuple(SeedChannel(f"team-{number}") for number in range(CHANNELS))

    def seconds() -> float:
        return clock.now().timestamp()

    async with (
        run_fake_slack(app=app, channels=channels, now=clock.now) as slack,
        slack_client(token=BOT_TOKEN, api_url=slack.playground.api_url, monotonic=seconds) as client,
    ):
        people = SlackPeople(client, monotonic=seconds)
        channel = Noted(kind(client, people, now=clock.now, patience=0.0))
        async with Engine.open(
            f"sqlite:///{folder / 'runs.db'}",
            signing_keys=["a-key-of-the-tests-that-has-32-bytes!"],
            base_url="https://approve.acme.eu",
            clock=clock,
            resources=[People([ANN], {}), Channels({"slack": channel})],
        ) as engine:
            yield World(slack, channel, engine, clock)


LIMIT: dict[str, Any] = {"kind": "rate_limited", "retry_after": 30}
BROKEN = ("drop_before", "drop_after", "server_error", "truncated")


def script(slack: FakeSlack, faults: int) -> None:
    """One fault in every four posts or so, of every kind."""
    for number in range(faults):
        fault = LIMIT if number % 5 == 4 else {"kind": BROKEN[number % 5]}
        slack.fault(**({"method": "chat.postMessage", "nth": number * 4 + 1} | fault))


def counted(slack: FakeSlack) -> Counter[str]:
    """How often each kind of fault strikes from now on."""
    struck, faults = Counter[str](), slack.playground.slack_faults
    plain = faults.next

    def strike(method: str, *channels: str | None) -> Fault | None:
        fault = plain(method, *channels)
        struck.update([fault.kind] if fault else [])
        return fault

    faults.next = strike  # type: ignore[method-assign]
    return struck


@pytest.mark.promise(11)
async def test_every_card_arrives_once_and_in_order(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        script(it.slack, FAULTS)
        struck = counted(it.slack)
        for number in range(APPROVALS // 2):
            await it.ask(number)
        await it.clock.advance("20s")
        before = sum(map(len, it.arrived().values()))
        faults = it.slack.playground.slack_faults
        still_to_come, faults.script = faults.script, []
        it.slack.fault("drop_before", "*", times=None)  # Slack is down
        for number in range(APPROVALS // 2, APPROVALS):
            await it.ask(number)
        await it.clock.advance("10m")
        assert sum(map(len, it.arrived().values())) == before
        faults.script = still_to_come  # it is back
        await it.until_all_arrived(APPROVALS)

        arrived = it.arrived()
        assert sum(map(len, arrived.values())) == APPROVALS  # nothing twice …
        assert arrived == dict(it.channel.came)  # … nothing lost, and in order
        assert 0 < before < APPROVALS
        assert faults.pending() == []
        assert min(struck[kind] for kind in ("rate_limited", *BROKEN)) >= FAULTS // 5
        assert struck["drop_before"] > FAULTS // 5 + CHANNELS  # the outage was felt, too
        assert it.channel.attempts < APPROVALS * 40  # and no storm
        sys.stdout.write(f"{APPROVALS} cards, {CHANNELS} channels, {it.channel.attempts} attempts: {dict(struck)}\n")


@pytest.mark.promise(11)
async def test_without_looking_for_lost_posts_they_are_posted_twice(tmp_path: Path) -> None:
    async with world(tmp_path, Forgetful) as it:
        script(it.slack, 6)
        for number in range(12):
            await it.ask(number)
        await it.until_all_arrived(12)
        assert sum(map(len, it.arrived().values())) > 12
