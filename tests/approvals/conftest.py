"""Fixtures for approvals: people, groups, workflow files, a real engine, and channels that record."""

from __future__ import annotations

import asyncio
import json
import tomllib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import JsonValue

from approvals_bot.approvals.acts import MailReturned, TryNow, answer_of, read_message
from approvals_bot.approvals.apply import late_reply
from approvals_bot.approvals.business_time import Calendar, Calendars
from approvals_bot.approvals.conditions import Condition
from approvals_bot.approvals.grant_life import GrantLines
from approvals_bot.approvals.policy import Definition
from approvals_bot.approvals.port import (
    Called,
    CallResult,
    Channels,
    Delivered,
    Dispatch,
    Place,
    Receipt,
    Result,
    Targets,
    ToPerson,
)
from approvals_bot.approvals.request import Opening, Request
from approvals_bot.approvals.workflow import approval
from approvals_bot.durable.core.api import WebhookRequest
from approvals_bot.durable.engine import Engine, Run, RunRecord
from approvals_bot.errors import HookNotFoundError
from approvals_bot.people import Directory, People, Person, SourceUnavailable
from approvals_bot.testing import FakeClock

Condition("true", {})  # the first one takes a second; like the service, compile it before any test

START = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)

ANN, BO, CY, DI, CFO = (f"{address}@acme.eu" for address in ("ann", "bo", "cy", "di", "cfo"))

DEPLOY = """
[workflow]
id = "deploy"
title = "Deploy {{ service }} {{ version }} to {{ env }}"
request = ["*", "app:ci"]
[fields]
service = "string"
version = { type = "string", pinned = true }
env = { type = "enum", values = ["staging", "prod"] }
risk = { type = "enum", values = ["low", "normal", "high"], default = "normal" }
[[auto]]
when = 'env == "staging" and risk != "high"'
decision = "approve"
[[stage]]
id = "go"
  [[stage.seat]]
  from = ["@release-managers"]
  [[stage.seat]]
  when = 'risk == "high"'
  need = 2
  from = ["@sre"]
[deliver]
slack = "#deploys"
email = true
[clock]
deadline = "4h"
remind = ["30m", "2h"]
on_deadline = "reject"
[[escalate]]
after = "1h"
to = ["oncall:sre"]
"""

API: dict[str, JsonValue] = {"service": "api", "version": "2.1", "env": "prod"}
RISKY: dict[str, JsonValue] = {**API, "risk": "high"}


class LiveGroup:
    """A group that can change, with a source that can be down."""

    name = "slack:@live"

    def __init__(self, *people: str) -> None:
        self.people = list(people)
        self.is_down = False

    async def read(self) -> Any:
        if self.is_down:
            raise SourceUnavailable(self.name, "no answer")
        return {"people": self.people}


@dataclass
class Outbox:
    """A channel that delivers at once and records; or returns what `answer` says."""

    kind: str
    sent: list[Dispatch] = field(default_factory=list)
    updated: list[tuple[Receipt, Dispatch]] = field(default_factory=list)
    answer: Callable[[Dispatch], Result | None] = lambda dispatch: None
    answer_update: Callable[[Dispatch], Result | None] = lambda dispatch: None

    async def send(self, dispatch: Dispatch) -> Result:
        other = self.answer(dispatch)
        if other is not None:
            return other
        self.sent.append(dispatch)
        return Delivered(Receipt(place_of(dispatch), f"{self.kind}-{len(self.sent)}", dispatch.card.version))

    async def update(self, receipt: Receipt, dispatch: Dispatch) -> Result:
        other = self.answer_update(dispatch)
        if other is not None:
            return other
        self.updated.append((receipt, dispatch))
        return Delivered(receipt)

    def to(self, place: str) -> list[Dispatch]:
        return [dispatch for dispatch in self.sent if place_of(dispatch) == place]

    def newest(self, place: str) -> Dispatch:
        return next(dispatch for receipt, dispatch in reversed(self.updated) if receipt.place == place)


def place_of(dispatch: Dispatch) -> str:
    match dispatch.to:
        case Place(_, place):
            return place
        case ToPerson(_, person):
            return person.address


@dataclass
class RecordingTargets:
    """HTTP targets that record."""

    calls: list[tuple[str, str, dict[str, JsonValue]]] = field(default_factory=list)
    answers: list[CallResult] = field(default_factory=list)

    async def post(self, target: str, event_id: str, body: dict[str, JsonValue]) -> CallResult:
        self.calls.append((target, event_id, body))
        return self.answers.pop(0) if self.answers else Called(200)


@dataclass
class Office:
    """Everything around a request."""

    url: str
    clock: FakeClock
    people: People
    live: LiveGroup
    slack: Outbox
    email: Outbox
    targets: RecordingTargets
    channels: Channels
    calendars: dict[str, Calendar] = field(default_factory=dict)
    engine: Engine = field(init=False)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Office]:
        """Run the service inside the block. Open it again to simulate a restart."""
        async with Engine.open(
            self.url,
            signing_keys=["k" * 40],
            base_url="http://127.0.0.1",
            clock=self.clock,
            resources={
                Channels: self.channels,
                People: self.people,
                Targets: self.targets,
                Calendars: Calendars(self.calendars),
                GrantLines: GrantLines(),
            },
        ) as engine:
            self.engine = engine
            yield self

    async def ask(
        self, text: str = DEPLOY, fields: dict[str, JsonValue] | None = None, by: str = DI, behalf: str | None = None
    ) -> OpenedRequest:
        definition = Definition.model_validate(tomllib.loads(text))
        listed = approval.under(definition.id, definition.model_dump(mode="json"))
        run = await self.engine.start(listed, Opening(API if fields is None else fields, by, behalf))
        await self.settle()
        return OpenedRequest(self, run)

    async def settle(self) -> None:
        await self.clock.advance(0)


@dataclass
class OpenedRequest:
    """A request in the office."""

    office: Office
    run: Run[Any]

    async def record(self) -> RunRecord:
        record = await self.office.engine.record(self.run.id)
        assert record is not None
        return record

    async def view(self) -> Request:
        return Request.model_validate((await self.record()).parts[0])

    async def act(self, **message: Any) -> dict[str, Any]:
        """Send a message to the request. Returns its reply."""
        hook = await self.office.engine.find_hook((await self.view()).hook_id)
        assert hook is not None
        request = WebhookRequest.of_json(message)
        try:
            answer = await self.office.engine.resume_webhook(hook.token, request, timeout=20)
        except HookNotFoundError:  # it was decided in between; every channel replies so
            act = read_message(message)
            assert act is not None
            assert not isinstance(act, MailReturned | TryNow)
            return answer_of(late_reply(await self.view(), act, self.office.clock.now()))
        assert answer.status_code == 200, answer.body
        await self.office.settle()
        said: dict[str, Any] = json.loads(bytes(answer.body))
        return {key: said[key] for key in ("verdict", "text", "changed")}

    async def vote(self, by: str, choice: str = "approve", **more: Any) -> str:
        more.setdefault("comment", "so" if choice in ("reject", "changes", "answer") else "")
        said = await self.act(kind="vote", by=by, choice=choice, **more)
        verdict: str = said["verdict"]
        return verdict

    async def votes(self, *votes: tuple[str, str]) -> list[str]:
        """Cast votes at the same moment. Returns their verdicts."""
        return list(await asyncio.gather(*(self.vote(by, choice) for by, choice in votes)))


@pytest.fixture
def office(store_url: str) -> Office:
    return make_office(store_url)


def make_office(store_url: str) -> Office:
    live = LiveGroup(BO, CY)
    people = People(
        persons=[
            Person(ANN, "Ann Ode", "U0ANN", "Europe/Berlin"),
            Person(BO, "Bo Lund", "U0BO"),
            Person(CY, "Cy Rus"),
            Person(DI, "Di Ops"),
            Person(CFO, "Fay Cash", "U0CFO"),
        ],
        groups={
            "release-managers": [ANN, BO, CY],
            "sre": [BO, CY, DI],
            "finance": [CFO, "fin@acme.eu"],
            "others": ["gil@acme.eu", "hal@acme.eu", "eve@elsewhere.example"],
            "live": live,
        },
        directory=Directory({"sre": [DI]}, {"account": {"aws-prod": [CY]}}),
        managers={ANN: CFO, BO: ANN, CY: ANN, DI: BO},
    )
    slack, email = Outbox("slack"), Outbox("mail")
    return Office(
        url=store_url,
        clock=FakeClock(START),
        people=people,
        live=live,
        slack=slack,
        email=email,
        targets=RecordingTargets(),
        channels=Channels({"slack": slack, "email": email}, "http://127.0.0.1"),
    )
