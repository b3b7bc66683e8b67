"""A card as the deploy workflow makes it, and the other side: a fake Slack and a mail server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from approvals_bot.approvals.card_model import (
    Card,
    CardChoice,
    CardField,
    CardOutcome,
    CardSeat,
    CardStage,
    CardVote,
    Name,
)
from approvals_bot.channels.slack.client import SlackClient, slack_client
from approvals_bot.channels.slack.manifest import SCOPES
from approvals_bot.channels.slack.members import SlackPeople
from approvals_bot.channels.slack.post import SlackOut
from approvals_bot.playground import Playground, SeedApp
from tests.support.fake_slack import BOT_TOKEN, SIGNING_SECRET, FakeSlack, Ticks, run_fake_slack

NOW = datetime(2026, 11, 4, 10, 5, tzinfo=UTC)
ANN, BO, CY = (
    Name("ann@acme.eu", "Ann Ode", "U0ANN"),
    Name("bo@acme.eu", "Bo Lund", "U0BO"),
    Name("cy@acme.eu", "Cy Rus"),
)


@pytest.fixture
def now() -> datetime:
    return NOW


@pytest.fixture
def card() -> Card:
    return Card(
        run_id="run_1",
        hook_id="hook_1",
        workflow="deploy",
        version=3,
        state="waiting",
        title="Deploy api 2.1.0 to prod",
        requester=BO,
        asked_at=NOW - timedelta(minutes=4),
        digest="sha256:5f1c3a9e",
        fields=(
            CardField("version", "Version", "2.1.0", pinned=True, was="2.0.9"),
            CardField("env", "Env", "prod"),
            CardField("plan", "Plan", "--- a\n+++ b\n-replicas: 3\n+replicas: 6", "diff", True),
        ),
        stages=(CardStage("go", "Go", "open", (CardSeat("Release managers", 1, (CY,)), CardSeat("SRE", 1))),),
        have=1,
        need=2,
        waiting_for=(ANN,),
        votes=(CardVote(CY, "approve", at=NOW - timedelta(minutes=2), via="slack", comment="Watch the migration."),),
        deadline=NOW + timedelta(hours=3, minutes=30),
        on_deadline="then it is rejected",
        choices=(
            CardChoice("approve", "Approve: Deploy api 2.1.0 to prod", "Approve", "primary", confirm="Sure?"),
            CardChoice("reject", "Reject: Deploy api 2.1.0 to prod", "Reject", "danger", comment="required"),
            CardChoice("changes", "Request changes", "Request changes", comment="required"),
        ),
        why_me="You're an approver because you're in release-managers.",
        url="https://approve.acme.eu/requests/run_1",
    )


@pytest.fixture
def outcome() -> CardOutcome:
    return CardOutcome("approved", ANN, at=NOW, via="email", comment="Go.")


@dataclass
class Stage:
    """Our Slack channel in front of a running fake Slack."""

    slack: FakeSlack
    client: SlackClient
    people: SlackPeople
    out: SlackOut
    monotonic: Ticks = field(repr=False)

    @property
    def playground(self) -> Playground:
        return self.slack.playground

    def fault(self, kind: str, method: str, **more: object) -> None:
        self.slack.fault(kind, method, **more)

    @property
    def messages(self) -> list[dict[str, object]]:
        return self.slack.posted()


Start = Callable[..., Awaitable[Stage]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    async with AsyncExitStack() as stack:

        async def starter(**more: Any) -> Stage:
            app = SeedApp(BOT_TOKEN, SIGNING_SECRET, "", scopes=SCOPES)
            slack = await stack.enter_async_context(run_fake_slack(app=app, **more))
            ticks, api_url = Ticks(), slack.playground.api_url
            client = await stack.enter_async_context(slack_client(token=BOT_TOKEN, api_url=api_url, monotonic=ticks))
            people = SlackPeople(client, monotonic=ticks)
            out = SlackOut(client, people, now=lambda: datetime.now(UTC))
            return Stage(slack, client, people, out, ticks)

        yield starter


@pytest.fixture
async def stage(start: Start) -> Stage:
    return await start()
