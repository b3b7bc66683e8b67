"""A process that dies before or after any call of the store ends the main job as one that lives."""

from __future__ import annotations

import asyncio
import tomllib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import JsonValue

from approvals_bot.approvals.acts import Vote
from approvals_bot.approvals.grant_life import GrantLines
from approvals_bot.approvals.policy import Definition, pinned
from approvals_bot.approvals.port import Called, CallResult, Channels, Delivered, Dispatch, Receipt, Result, Targets
from approvals_bot.approvals.request import Opening, Request
from approvals_bot.approvals.workflow import approval
from approvals_bot.durable.engine import Engine, Run, RunRecord
from approvals_bot.durable.store import connect
from approvals_bot.durable.tokens import Tokens
from approvals_bot.people import People, Person
from approvals_bot.service.act import perform
from approvals_bot.service.grants import StoredGrantLines
from approvals_bot.testing import FakeClock
from tests.support.dying_store import Died, DyingStore, When
from tests.support.thorough import places

DEPLOY = """
[workflow]
id = "deploy"
title = "Deploy {{ service }}"
request = ["*"]
[fields]
service = { type = "string", pinned = true }
[[stage]]
id = "go"
from = ["ann@acme.eu", "cy@acme.eu"]
need = 2
[deliver]
slack = "#deploys"
email = true
[clock]
deadline = "4h"
remind = ["30m"]
[[on.approved]]
http = "deploy-api"
json = { service = "{{ service }}" }
[[on.ended]]
dm = "requester"
text = "{{ decision.outcome }}"
"""
PATIENCE = 20.0  # seconds in which a step of the script must succeed on a live process


@dataclass
class World:
    """Everything outside the process: it lives on when the process dies, and counts what reaches it."""

    sent: Counter[str] = field(default_factory=Counter)
    updated: Counter[str] = field(default_factory=Counter)
    called: Counter[str] = field(default_factory=Counter)
    last_shown: dict[str, str] = field(default_factory=dict)

    async def send(self, dispatch: Dispatch) -> Result:
        self.sent[dispatch.delivery_id] += 1
        receipt = Receipt("place", dispatch.delivery_id, dispatch.card.version)
        if not dispatch.text:
            self.last_shown[receipt.id] = dispatch.card.state
        return Delivered(receipt)

    async def update(self, receipt: Receipt, dispatch: Dispatch) -> Result:
        self.updated[receipt.id] += 1
        self.last_shown[receipt.id] = dispatch.card.state
        return Delivered(receipt)

    async def post(self, target: str, event_id: str, body: dict[str, JsonValue]) -> CallResult:
        self.called[event_id] += 1
        return Called(200)


class Process:
    """One service process after another on one database; the next one starts when the one before has died."""

    def __init__(self, path: Path, world: World, at: int | None, when: When, clock: FakeClock | None = None) -> None:
        """`clock`: one that all of them share; without it, each begins at the same time."""
        self._clock = clock
        self._url = f"sqlite:///{path}"
        self._world = world
        self._death: tuple[int | None, When] = (at, when)
        self.deaths = 0
        self.calls = 0

    @asynccontextmanager
    async def live(self) -> AsyncIterator[tuple[Engine, DyingStore]]:
        store = DyingStore(await connect(self._url), *self._death)
        people = People([Person("ann@acme.eu", "Ann"), Person("cy@acme.eu", "Cy"), Person("bo@acme.eu", "Bo", "U0BO")])
        engine = Engine(
            store,  # it has every method of the store it wraps
            tokens=Tokens(["k" * 40], installation=store.installation),
            base_url="http://127.0.0.1",
            clock=self._clock or FakeClock(datetime(2026, 3, 2, 9, 0, tzinfo=UTC)),
            resources={
                Channels: Channels({"slack": self._world, "email": self._world}, "http://127.0.0.1"),
                People: people,
                Targets: self._world,
            },
        )
        try:
            engine.resources[GrantLines] = StoredGrantLines(engine)
            async with engine.running():
                yield engine, store
        except Died:
            pass
        finally:
            self.calls = store.calls
            if store.is_dead:
                self.deaths += 1
                self._death = (None, "before")  # the next process lives

    async def through(self, script: list[Callable[[Engine], Awaitable[Any]]]) -> Any:
        """Do one thing after another; what a death interrupted is done again, as a person does who got no answer."""
        done, result = 0, None
        while done < len(script):
            async with self.live() as (engine, store):
                while done < len(script):
                    result = await _unless_dead(script[done](engine), store)
                    done += 1
        return result


async def _unless_dead(doing: Awaitable[Any], store: DyingStore) -> Any:
    """Return the result. Raises Died as soon as the process is dead, whichever task noticed it first."""
    task = asyncio.ensure_future(doing)
    until = asyncio.get_running_loop().time() + PATIENCE
    while not task.done():
        await asyncio.wait([task], timeout=0.02)
        if store.is_dead or asyncio.get_running_loop().time() > until:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert store.is_dead, "stuck on a live process"
            raise Died
    return task.result()


def script() -> list[Callable[[Engine], Awaitable[Any]]]:
    definition = Definition.model_validate(tomllib.loads(DEPLOY))
    listed = approval.under("deploy", pinned(definition))

    async def ask(engine: Engine) -> Run[Any]:
        return await engine.start(listed, Opening({"service": "api"}, "bo@acme.eu"), idempotency_key="the request")

    async def delivered(engine: Engine) -> None:
        await _once(engine, lambda record: bool(record.parts) and _all_delivered(record.parts[0]))

    def votes(by: str) -> Callable[[Engine], Awaitable[Any]]:
        async def vote(engine: Engine) -> None:
            record = (await engine.records()).records[0]
            reply = await perform(engine, record.parts[0]["hook_id"], Vote(by, "approve"), timeout=PATIENCE)
            assert reply.verdict in ("counted", "decided", "already_voted", "already_decided"), reply

        return vote

    async def ended(engine: Engine) -> RunRecord:
        return await _once(engine, lambda record: record.has_ended)

    return [ask, delivered, votes("ann@acme.eu"), votes("cy@acme.eu"), ended]


def _all_delivered(view: dict[str, Any]) -> bool:
    deliveries = view.get("deliveries", [])
    return bool(deliveries) and all(delivery["state"] == "delivered" for delivery in deliveries)


async def _once(engine: Engine, holds: Callable[[RunRecord], bool]) -> RunRecord:
    while True:
        records = (await engine.records()).records
        if records and holds(records[0]):
            return records[0]
        await asyncio.sleep(0.01)


async def play(path: Path, at: int | None, when: When) -> tuple[World, Process, RunRecord]:
    world = World()
    process = Process(path, world, at, when)
    record: RunRecord = await process.through(script())
    return world, process, record


async def test_the_main_job_survives_dying_at_any_store_call(tmp_path: Path) -> None:
    calm, undisturbed, expected = await play(tmp_path / "calm.db", None, "before")
    assert expected.status == "completed"
    assert undisturbed.deaths == 0
    assert undisturbed.calls >= 15, "the script must really use the store"
    died = 0
    # A process asks its store about as often each time; a few calls more cover the ones that come by the clock.
    whens: tuple[When, ...] = ("before", "after")
    for when in whens:
        for k in places(undisturbed.calls + 2, when):
            world, process, record = await play(tmp_path / f"{k}-{when}.db", k, when)
            died += process.deaths
            place = f"died {when} store call {k}"
            assert record.status == "completed", place
            assert record.result["approved"] is True, place
            assert record.result["fields"] == expected.result["fields"], place
            assert [v.by for v in Request.model_validate(record.parts[0]).votes] == ["ann@acme.eu", "cy@acme.eu"], place
            assert set(world.sent) == set(_own(calm.sent, expected, record)), place
            assert set(world.called) == set(_own(calm.called, expected, record)), place
            assert max(world.sent.values()) <= 1 + process.deaths, place
            assert max(world.called.values()) <= 1 + process.deaths, place
            assert all(world.last_shown[card] == "approved" for card in world.updated), place
    assert died >= len(places(undisturbed.calls, "before")), "nearly every round must have had its death"


def _own(ids: Counter[str], theirs: RunRecord, mine: RunRecord) -> list[str]:
    """Delivery ids of the undisturbed run, as this run's would be called."""
    return [each.replace(theirs.id, mine.id) for each in ids]


@pytest.mark.parametrize("when", ["before", "after"])
async def test_the_harness_notices_a_death(tmp_path: Path, when: When) -> None:
    _, process, _ = await play(tmp_path / "one.db", 5, when)
    assert process.deaths == 1
