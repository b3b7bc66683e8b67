"""A process that dies at a call of the store, while a target is down for an hour: given once, and removed once."""

from __future__ import annotations

import tomllib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import JsonValue

from approvals_bot.approvals.acts import Vote
from approvals_bot.approvals.policy import Definition, pinned
from approvals_bot.approvals.port import CallResult, Dispatch, Place, Receipt, Result, TryAgain
from approvals_bot.approvals.request import Opening, Request
from approvals_bot.approvals.workflow import approval
from approvals_bot.durable.engine import Engine, RunRecord
from approvals_bot.service.act import perform
from approvals_bot.testing import FakeClock
from tests.reliability.test_main_job_dies_at_every_store_call import PATIENCE, Process, World
from tests.support.dying_store import When
from tests.support.thorough import THOROUGH

ACCESS = """
[workflow]
id = "access"
title = "Admin"
request = ["*"]
owners = ["cy@acme.eu"]
[[stage]]
id = "go"
from = ["ann@acme.eu"]
[deliver]
slack = "#access"
[clock]
deadline = "4h"
[grant]
lasts = "10m"
give = { http = "aws-grant" }
take = { http = "aws-revoke" }
"""
START = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
BACK = START + timedelta(minutes=70)  # the target of removals is down until then
EVERY = 1 if THOROUGH else 7  # calls at which the process dies


@dataclass
class Clouds(World):
    """A world whose target is down for an hour, and that notes what the place's card says of the grant."""

    clock: FakeClock = field(default_factory=lambda: FakeClock(START))
    states: list[str] = field(default_factory=list)
    notified: set[str] = field(default_factory=set)

    async def post(self, target: str, event_id: str, body: dict[str, JsonValue]) -> CallResult:
        if target == "aws-revoke" and self.clock.now() < BACK:
            return TryAgain("no answer")
        return await super().post(target, event_id, body)

    async def send(self, dispatch: Dispatch) -> Result:
        if not isinstance(dispatch.to, Place) and dispatch.card.grant is not None:
            self.notified.add(f"{dispatch.to.person.address} {dispatch.card.grant.state}")
        return await super().send(dispatch)

    async def update(self, receipt: Receipt, dispatch: Dispatch) -> Result:
        self.states.append(dispatch.card.grant.state if dispatch.card.grant is not None else dispatch.card.state)
        return await super().update(receipt, dispatch)


def script(clock: FakeClock) -> list[Callable[[Engine], Awaitable[Any]]]:
    listed = approval.under("access", pinned(Definition.model_validate(tomllib.loads(ACCESS))))

    async def ask(engine: Engine) -> None:
        await engine.start(listed, Opening({}, "bo@acme.eu"), idempotency_key="the request")
        await engine.settle()

    async def vote(engine: Engine) -> None:
        record = (await engine.records()).records[0]
        reply = await perform(engine, record.parts[0]["hook_id"], Vote("ann@acme.eu"), timeout=PATIENCE)
        assert reply.verdict in ("decided", "already_voted", "received"), reply

    async def ended(engine: Engine) -> RunRecord:
        await engine.settle()
        while not (record := (await engine.records()).records[0]).has_ended:
            assert clock.now() < BACK + timedelta(hours=2), "the grant isn't removed"
            await clock.advance("5m")
        return record

    return [ask, vote, ended]


async def play(path: Path, at: int | None, when: When) -> tuple[Clouds, Process, RunRecord]:
    world = Clouds()
    process = Process(path, world, at, when, world.clock)
    record: RunRecord = await process.through(script(world.clock))
    return world, process, record


@pytest.mark.long
@pytest.mark.timeout(1_800)
async def test_a_grant_is_given_and_removed_once_over_deaths(tmp_path: Path) -> None:
    calm, undisturbed, _ = await play(tmp_path / "calm.db", None, "before")
    assert [calm.states.index(state) for state in ("active", "ending", "overdue", "ended")] == sorted(
        calm.states.index(state) for state in ("active", "ending", "overdue", "ended")
    )
    assert {"cy@acme.eu overdue", "bo@acme.eu overdue"} <= calm.notified
    died = 0
    for k in range(1, undisturbed.calls + 3, EVERY):
        for when in ("before", "after"):
            world, process, record = await play(tmp_path / f"{k}-{when}.db", k, when)
            died += process.deaths
            place = f"died {when} store call {k}"
            assert record.status == "completed", place
            grant = Request.model_validate(record.parts[0]).grant
            assert grant is not None, place
            assert grant.state == "ended", place
            assert len(world.called) == 2, place
            assert max(world.called.values()) <= 1 + process.deaths, place
            assert {"overdue", "ended"} <= set(world.states), place
            assert {"cy@acme.eu overdue", "bo@acme.eu overdue"} <= world.notified, place
    assert died >= undisturbed.calls // EVERY, "nearly every round must have had its death"
